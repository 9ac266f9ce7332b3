// Weights into the panels that a product reads; see linear.h.
#include "model.h"

using namespace ah;

namespace {
// One panel's rows as they are stored: every 32 bits of a row go where the panel has them.
void lay_panel(const uint8_t* from, int64_t bytes, int64_t rows, uint32_t* to) {
  constexpr int64_t kBlock = 64;  // bytes of a row at a time: whole lines both ways
  for (int64_t at = 0; at < bytes; at += kBlock)
    for (int64_t column = 0; column < rows; ++column) {
      uint32_t word[kBlock / 4] = {};
      const int64_t size = std::min(kBlock, bytes - at), words = (size + 3) / 4;
      std::memcpy(word, from + column * bytes + at, size_t(size));
      for (int64_t i = 0; i < words; ++i) to[(at / 4 + i) * kPanel + column] = word[i];
    }
}

// One panel's rows from floats: rounded to bf16, or to int8 with a scale for each row.
void round_panel(const void* from, Source source, int64_t k, int64_t rows, Form form,
                 PanelHead* head) {
  for (int64_t column = 0; column < rows; ++column) {
    const auto value = [&](int64_t i) {
      const int64_t at = column * k + i;
      return source == Source::bf16 ? widen(static_cast<const bf16*>(from)[at])
                                    : static_cast<const float*>(from)[at];
    };
    const int64_t group = form == Form::bf16 ? 2 : 4;
    float scale = 0.0f;
    if (form != Form::bf16)
      for (int64_t i = 0; i < k; ++i) scale = std::max(scale, std::fabs(value(i)) / 127.0f);
    head->scale[column] = scale;
    for (int64_t i = 0; i < k; ++i) {
      const int64_t at = (i / group * kPanel + column) * group + i % group;
      if (form == Form::bf16) {
        reinterpret_cast<bf16*>(head + 1)[at] = narrow(all(value(i)))[0];
        continue;
      }
      const float whole = std::nearbyint(value(i) / scale);  // not a number, where all are zero
      const int8_t byte = whole >= -128.0f && whole <= 127.0f ? int8_t(whole) : int8_t(0);
      reinterpret_cast<int8_t*>(head + 1)[at] = byte;
      head->offset[column] -= 128 * byte;
    }
  }
}
}  // namespace

extern "C" {
AH_PUBLIC int64_t ah_packed_bytes(int32_t form, int64_t n, int64_t k) {
  if (form < 0 || form > 2 || n < 1 || k < 1) return -1;
  return panels_of(n) * panel_bytes(Form(form), k);
}

// Lay out weights [n, k] with a bias [n] or null. `scales` [n] belong to int8 weights.
AH_PUBLIC int32_t ah_pack(int32_t form, int32_t source, const void* from, const float* scales,
                          const float* bias, int64_t n, int64_t k, void* to) {
  if (ah_packed_bytes(form, n, k) < 0 || source < 0 || source > 2 || !from || !to) return 1;
  const bool whole = Source(source) == Source::int8, wide = Form(form) == Form::bf16;
  if (whole != (scales != nullptr) || (whole && wide)) return 1;
  const int64_t size = whole ? 1 : Source(source) == Source::bf16 ? 2 : 4;
  for (int64_t first = 0; first < n; first += kPanel) {
    auto* head = reinterpret_cast<PanelHead*>(static_cast<uint8_t*>(to) +
                                              first / kPanel * panel_bytes(Form(form), k));
    const int64_t rows = std::min<int64_t>(kPanel, n - first);
    const auto* row = static_cast<const uint8_t*>(from) + first * k * size;
    std::memset(static_cast<void*>(head), 0, size_t(panel_bytes(Form(form), k)));
    if (bias) std::copy_n(bias + first, rows, head->bias);
    if (whole || (wide && size == 2))
      lay_panel(row, k * size, rows, reinterpret_cast<uint32_t*>(head + 1));
    else
      round_panel(row, Source(source), k, rows, Form(form), head);
    if (!whole) continue;
    std::copy_n(scales + first, rows, head->scale);
    for (int64_t column = 0; column < rows; ++column) {
      const auto* byte = reinterpret_cast<const int8_t*>(row + column * k);
      int32_t sum = 0;
      for (int64_t i = 0; i < k; ++i) sum += byte[i];
      head->offset[column] = -128 * sum;
    }
  }
  return 0;
}
}
