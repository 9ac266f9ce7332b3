// What Python calls beside layout.cpp: models and their steps, and single operations for tests.
#include "model.h"

using namespace ah;

extern "C" {
// A model, or null where its parts do not fit together or there is no memory or thread for it.
AH_PUBLIC Model* ah_model(const Shape* shape, const Weights* weights) {
  if (!is_sound(*shape, *weights)) return nullptr;
  try { return new Model(*shape, *weights); } catch (...) { return nullptr; }
}
AH_PUBLIC void ah_free(Model* model) { delete model; }

// Compute one step, or say why not (Refusal).
AH_PUBLIC int32_t ah_step(Model* model, const Step* step) {
  const Refusal refusal = lay_out(*model, *step);
  if (refusal == kDone) compute(*model, *step);
  return refusal;
}

// Single operations, on rows that follow one another.
AH_PUBLIC void ah_linear(const Linear* w, const float* x, int32_t rows, float* out, int32_t* best,
                         uint8_t* finite) {
  const int64_t stride = padded(w->k) + 64;
  std::vector<uint8_t> bytes(size_t(rows * 2 * stride));
  std::vector<float> scale(static_cast<size_t>(rows));
  std::vector<std::vector<Best>> ranks(1, std::vector<Best>(static_cast<size_t>(rows)));
  const Activations a{bytes.data(), scale.data(), stride};
  const Write write{out, w->n, false};
  for (int r = 0; r < rows; ++r) give(x + int64_t(r) * w->k, w->k, w->form, a, r);
  for (int64_t p = 0; p < panels_of(w->n); ++p)
    multiply_panel(a, 0, rows, *w, p, Rank{ranks[0].data(), &write});
  for (int r = 0; r < rows; ++r) best[r] = settle(ranks, size_t(r), finite + r);
}
AH_PUBLIC void ah_rms_norm(const float* x, const float* weight, float eps, int32_t rows,
                           int32_t count, float* out) {
  for (int64_t r = 0; r < rows; ++r) rms_norm(x + r * count, weight, eps, count, out + r * count);
}
AH_PUBLIC void ah_silu_mul(const float* gate_up, int32_t rows, int32_t count, float* out) {
  for (int64_t r = 0; r < rows; ++r) silu_mul(gate_up + r * 2 * count, count, out + r * count);
}
AH_PUBLIC void ah_rotate(const float* x, const float* cos, const float* sin, int32_t heads,
                         int32_t dim, float* out) {
  for (int64_t h = 0; h < heads; ++h) rotate(x + h * dim, cos, sin, dim, out + h * dim);
}
AH_PUBLIC void ah_store(const float* key, const float* value, int32_t dim, int32_t slot,
                        uint16_t* page) {
  store_token(key, value, dim, slot, page);
}

// Queries bf16 [rows, heads, dim], scaled, of one sequence from position `start` on.
AH_PUBLIC void ah_attention(const uint16_t* query, int32_t rows, int32_t start, int32_t heads,
                            int32_t kv_heads, int32_t dim, const uint16_t* store,
                            const int32_t* table, float* out) {
  const Heads shape{heads, kv_heads, dim};
  const std::unique_ptr<AttentionRoom> room(new AttentionRoom);
  const int64_t size = int64_t(2) * dim * kPage, width = int64_t(heads) * dim;
  for (int from = 0, to; from < rows; from = to) {
    const int span = tile_rows(shape);
    to = std::min(rows, ((start + from) / span + 1) * span - start);
    for (int head = 0; head < kv_heads; ++head)
      attend(query + from * width, out + from * width, to - from, start + from, shape, head,
             {store + head * size, table, kv_heads * size, dim}, *room);
  }
}
}
