// One step of a decoder: rows of tokens in, logits out. Threads take panels and tiles as they come;
// who computes one does not change it.
#include "model.h"

namespace ah {
namespace {
// Rows of a product that stay in a core's cache while one panel after another meets them.
constexpr int kBlockRows = 64;

class Run {
 public:
  Run(Model& model, const Step& step, int id)
      : m_(model), s_(step), h_(model.shape), id_(id), scratch_(model.scratch[size_t(id)].data()),
        x_{model.bytes.data(), model.scale.data(), model.stride} {}
  void all() {
    const int mixed = h_.heads * h_.head_dim;
    each(s_.rows, [this](int r) { embed(r); });
    for (int l = 0; l < h_.layers; ++l) {
      const Layer& w = m_.layers[size_t(l)];
      each(s_.rows, [&](int r) {
        norm(r, r, w.attention_norm, w.qkv.form);
        enter(r, l, 0, scratch_, h_.hidden);
      });
      multiply(s_.rows, w.qkv, Write{m_.qkv.data(), w.qkv.n, false});
      each(s_.rows, [&](int r) {
        leave(r, l, 0, m_.qkv, w.qkv.n);
        rotate_row(r, l);
      });
      attention(l);
      each(s_.rows, [&](int r) {
        give(&m_.mixed[size_t(r) * mixed], mixed, w.out.form, x_, r);
        enter(r, l, 1, &m_.mixed[size_t(r) * mixed], mixed);
      });
      multiply(s_.rows, w.out, Write{m_.residual.data(), h_.hidden, true});
      each(s_.rows, [&](int r) {
        leave(r, l, 1, m_.residual, h_.hidden);
        norm(r, r, w.mlp_norm, w.gate_up.form);
        enter(r, l, 2, scratch_, h_.hidden);
      });
      multiply(s_.rows, w.gate_up, Write{m_.gate_up.data(), w.gate_up.n, false});
      each(s_.rows, [&](int r) {
        leave(r, l, 2, m_.gate_up, w.gate_up.n);
        silu_mul(&m_.gate_up[size_t(r) * w.gate_up.n], h_.intermediate, scratch_);
        give(scratch_, h_.intermediate, w.down.form, x_, r);
        enter(r, l, 3, scratch_, h_.intermediate);
      });
      multiply(s_.rows, w.down, Write{m_.residual.data(), h_.hidden, true});
      each(s_.rows, [&](int r) { leave(r, l, 3, m_.residual, h_.hidden); });
    }
    if (s_.adapter_count > 0) m_.team.meet();  // whoever reads a wanted row is not who wrote it
    outcome(s_.wanted_count);
  }
 private:
  // Each thread does its part of the rows.
  template <class Do> void each(int rows, const Do& work) {
    const Part part = part_of(rows, id_, m_.team.size());
    for (int r = part.first; r < part.last; ++r) work(r);
  }
  // When all rows are ready: hand out tasks one by one, wait until they are done. The counter is
  // zero again before anybody passes the barrier at the next tasks' beginning.
  template <class Do> void share(int tasks, const Do& work) {
    m_.team.meet();
    for (int task; (task = m_.next.fetch_add(1, std::memory_order_relaxed)) < tasks;) work(task);
    m_.team.meet();
    if (id_ == 0) m_.next.store(0, std::memory_order_relaxed);
  }
  template <class Sink> void multiply(int rows, const Linear& w, const Sink& sink) {
    const int blocks = (rows + kBlockRows - 1) / kBlockRows;
    share(int(panels_of(w.n)) * blocks, [&](int task) {
      const Part part = part_of(rows, task % blocks, blocks);
      multiply_panel(x_, part.first, part.last, w, task / blocks, sink);
    });
  }
  // What a row's adapter adds to a product of a layer; rank 0 where it has none.
  LowRank adapted(int r, int l, int product) const {
    const int64_t adapter = s_.chunks[m_.chunk_of[size_t(r)]].adapter;
    return adapter < 0 ? LowRank{} : s_.adapters[(adapter * h_.layers + l) * kProducts + product];
  }
  // Before a product: the row, as it was before rounding. After it, by the same thread.
  void enter(int r, int l, int product, const float* x, int k) {
    const LowRank low = adapted(r, l, product);
    if (low.rank > 0) lower(low, x, k, &m_.low[size_t(r) * kMaxRank]);
  }
  void leave(int r, int l, int product, std::vector<float>& y, int n) {
    const LowRank low = adapted(r, l, product);
    if (low.rank > 0) lift(low, &m_.low[size_t(r) * kMaxRank], n, &y[size_t(r) * size_t(n)]);
  }
  void embed(int r) {
    const int32_t token = s_.tokens[r];
    float* to = &m_.residual[size_t(r) * h_.hidden];
    const bf16* from = m_.weights.embedding + int64_t(token) * h_.hidden;
    int64_t pair = 2;  // values from one pair to the next
    if (m_.weights.embedding == nullptr) {
      const uint8_t* panel = panel_of(m_.weights.head, token / kPanel) + sizeof(PanelHead);
      from = reinterpret_cast<const bf16*>(panel) + token % kPanel * 2;
      pair = 2 * kPanel;
    }
    for (int i = 0; i < h_.hidden; ++i) to[i] = widen(from[i / 2 * pair + i % 2]);
  }
  void norm(int from, int to, const float* weight, Form form) {
    rms_norm(&m_.residual[size_t(from) * h_.hidden], weight, h_.eps, h_.hidden, scratch_);
    give(scratch_, h_.hidden, form, x_, to);
  }
  // Turn one row's queries and keys by its position; keys and values go into its page.
  void rotate_row(int r, int l) {
    const Layer& w = m_.layers[size_t(l)];
    const Chunk& chunk = s_.chunks[m_.chunk_of[size_t(r)]];
    const int d = h_.head_dim, position = chunk.start + r - chunk.first;
    const int64_t angle = int64_t(position) * (d / 2);
    const float* x = &m_.qkv[size_t(r) * w.qkv.n];
    float normed[kMaxDim], turned[kMaxDim];
    const auto turn = [&](const float* head, const float* weight) {
      if (weight != nullptr) rms_norm(head, weight, h_.eps, d, normed), head = normed;
      rotate(head, m_.weights.cos + angle, m_.weights.sin + angle, d, turned);
    };
    bf16* query = &m_.query[size_t(r) * h_.heads * d];
    for (int i = 0; i < h_.heads; ++i, x += d, query += d) {
      turn(x, w.query_norm);
      narrow_row(turned, 1.0f / std::sqrt(float(d)), d, query);
    }
    const int64_t page = s_.table[chunk.pages + position / kPage];
    bf16* to = m_.weights.store + page * m_.page_stride + l * m_.layer_stride;
    for (int i = 0; i < h_.kv_heads; ++i, x += d, to += 2 * d * kPage) {
      turn(x, w.key_norm);
      store_token(turned, x + h_.kv_heads * d, d, position % kPage, to);
    }
  }
  // A prompt's last tiles see the most keys: the longest come first.
  void attention(int l) {
    const size_t width = size_t(h_.heads) * size_t(h_.head_dim);
    const int count = int(m_.tiles.size());
    share(count * h_.kv_heads, [&](int task) {
      const Tile& tile = m_.tiles[size_t(count - 1 - task / h_.kv_heads)];
      const Chunk& chunk = s_.chunks[tile.chunk];
      const int head = task % h_.kv_heads;
      const bf16* store = m_.weights.store + l * m_.layer_stride + head * 2 * h_.head_dim * kPage;
      const Pages pages{store, s_.table + chunk.pages, m_.page_stride, h_.head_dim};
      attend(&m_.query[tile.first * width], &m_.mixed[tile.first * width], tile.rows,
             chunk.start + tile.first - chunk.first, m_.heads, head, pages, m_.rooms[size_t(id_)]);
    });
  }
  void outcome(int count) {
    const Linear& head = m_.weights.head;
    std::vector<Best>& best = m_.best[size_t(id_)];
    std::fill_n(best.begin(), count, Best{});
    each(count, [&](int i) {
      norm(s_.wanted[i], i, m_.weights.norm, head.form);
      if (s_.hidden) std::copy_n(scratch_, h_.hidden, s_.hidden + int64_t(i) * h_.hidden);
    });
    if (!s_.best && !s_.finite && !s_.logits) return;
    const Write write{s_.logits, h_.vocab, false};
    multiply(count, head, Rank{best.data(), s_.logits ? &write : nullptr});
    each(count, [&](int i) {
      uint8_t finite;
      const int32_t token = settle(m_.best, size_t(i), &finite);
      if (s_.best) s_.best[i] = token;
      if (s_.finite) s_.finite[i] = finite;
    });
  }
  Model& m_;
  const Step& s_;
  const Shape& h_;
  const int id_;
  float* const scratch_;
  const Activations x_;
};
}  // namespace

void compute(Model& model, const Step& step) {
  model.team.run([&](int id) { Run(model, step, id).all(); });
}
}  // namespace ah
