// A model's buffers, what it needs, and what a step may ask of it: every number from outside is
// checked here, so that no kernel reads or writes beyond its arrays.
#pragma once
#include <atomic>
#include <memory>
#include <vector>
#include "attention.h"
#include "rows.h"
#include "team.h"

namespace ah {
// Some rows of a chunk that attend together.
struct Tile { int32_t chunk, first, rows; };

struct Model {
  Shape shape;
  Weights weights;
  std::vector<Layer> layers;
  Heads heads;
  int64_t layer_stride;  // values of one page's part in one layer
  int64_t page_stride;   // and in all
  int64_t stride;        // values of a row of activations
  // Of a step: [max_rows, ...].
  std::vector<int32_t> chunk_of;
  std::vector<Tile> tiles;
  std::vector<float> residual, qkv, mixed, gate_up, scale, low;
  std::vector<bf16> query;
  std::vector<uint8_t> bytes;
  // Of each thread.
  std::vector<std::vector<float>> scratch;
  std::vector<std::vector<Best>> best;
  std::vector<AttentionRoom> rooms;
  std::atomic<int> next{0};  // task
  Team team;
  Model(const Shape& shape, const Weights& weights);
};

// Whether a model of these parts can be computed.
inline bool is_sound(const Shape& s, const Weights& w) {
  for (int32_t size : {s.layers, s.hidden, s.heads, s.kv_heads, s.head_dim, s.intermediate, s.vocab,
                       s.positions, s.pages, s.max_rows, s.threads})
    if (size < 1 || size > 1 << 24) return false;
  if (s.heads % s.kv_heads != 0 || s.head_dim % 2 != 0 || s.head_dim > kMaxDim) return false;
  if (!w.layers || !w.norm || !w.cos || !w.sin || !w.store) return false;
  if (w.embedding == nullptr && w.head.form != Form::bf16) return false;
  const auto fits = [](const Linear& x, int64_t n, int64_t k) {
    return x.packed && x.n == n && x.k == k && x.form >= Form::bf16 && x.form <= Form::w8a16;
  };
  const int64_t mixed = int64_t(s.heads) * s.head_dim, keys = int64_t(s.kv_heads) * s.head_dim;
  return fits(w.head, s.vocab, s.hidden) &&
         std::all_of(w.layers, w.layers + s.layers, [&](const Layer& l) {
           return fits(l.qkv, mixed + 2 * keys, s.hidden) && fits(l.out, s.hidden, mixed) &&
                  fits(l.gate_up, 2 * int64_t(s.intermediate), s.hidden) &&
                  fits(l.down, s.hidden, s.intermediate) && l.attention_norm && l.mlp_norm;
         });
}

inline Model::Model(const Shape& s, const Weights& w)
    : shape(s), weights(w), layers(w.layers, w.layers + s.layers),
      heads{s.heads, s.kv_heads, s.head_dim}, team(s.threads) {
  const size_t rows = size_t(s.max_rows), threads = size_t(s.threads);
  const size_t wide = size_t(s.heads) * s.head_dim, keys = size_t(s.kv_heads) * s.head_dim;
  layer_stride = int64_t(2 * keys * kPage);
  page_stride = s.layers * layer_stride;
  const size_t widest = std::max({size_t(s.hidden), wide, size_t(s.intermediate)});
  // 64 more: rows a power of two apart would share one set of the cache.
  stride = int64_t((widest + 63) / 64 * 64 + 64);
  chunk_of.resize(rows), tiles.reserve(rows), scale.resize(rows);
  low.resize(rows * kMaxRank), residual.resize(rows * s.hidden), gate_up.resize(rows * 2 * s.intermediate);
  qkv.resize(rows * (wide + 2 * keys)), mixed.resize(rows * wide), query.resize(rows * wide);
  bytes.resize(rows * 2 * size_t(stride));
  scratch.assign(threads, std::vector<float>(size_t(stride)));
  best.assign(threads, std::vector<Best>(rows));
  rooms.resize(threads);
}

// What keeps a step from being computed, if anything; fills chunk_of and tiles.
inline Refusal lay_out(Model& m, const Step& s) {
  const Shape& shape = m.shape;
  if (s.rows < 1 || s.rows > shape.max_rows) return kRows;
  const int span = tile_rows(m.heads);
  m.tiles.clear();
  for (int64_t i = 0; i < int64_t(s.adapter_count) * shape.layers * kProducts; ++i) {
    const LowRank& low = s.adapters[i];
    if (low.rank < 0 || low.rank > kMaxRank || (low.rank && !(low.a && low.b))) return kAdapter;
  }
  int row = 0;
  for (int c = 0; c < s.chunk_count; ++c) {
    const Chunk& chunk = s.chunks[c];
    if (chunk.first != row || chunk.count < 1 || chunk.count > s.rows - row) return kChunk;
    if (chunk.start < 0 || chunk.start > shape.positions - chunk.count) return kPosition;
    const int end = chunk.start + chunk.count, pages = (end + kPage - 1) / kPage;
    if (chunk.pages < 0 || chunk.pages > s.table_count - pages) return kPageTable;
    for (int p = 0; p < pages; ++p) {
      const int32_t page = s.table[chunk.pages + p];
      if (page < 0 || page >= shape.pages) return kPageTable;
    }
    if (chunk.adapter < -1 || chunk.adapter >= s.adapter_count) return kAdapter;
    for (int from = chunk.start, to; from < end; from = to) {
      to = std::min(end, (from / span + 1) * span);
      m.tiles.push_back({c, row + from - chunk.start, to - from});
    }
    std::fill_n(m.chunk_of.begin() + row, chunk.count, c);
    row += chunk.count;
  }
  if (row != s.rows) return kChunk;
  for (int r = 0; r < s.rows; ++r)
    if (s.tokens[r] < 0 || s.tokens[r] >= shape.vocab) return kToken;
  if (s.wanted_count < 0 || s.wanted_count > s.rows) return kWanted;
  for (int i = 0; i < s.wanted_count; ++i)
    if (s.wanted[i] < 0 || s.wanted[i] >= s.rows) return kWanted;
  return kDone;
}

// Compute a step that lay_out accepted.
void compute(Model& model, const Step& step);
}  // namespace ah
