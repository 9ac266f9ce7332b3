// Causal attention over pages, the same arithmetic for a single new token and for a prompt's chunk.
//
// A page holds 16 tokens of one key head: keys as [dim / 2][token][2], then values as
// [token / 2][dim][2], both bf16, so that scores and outputs are plain chains of dot products of
// pairs. Queries take their keys in blocks of 16 pages at fixed places of the sequence, with a
// running maximum from block to block (Milakov and Gimelshein, 2018). Queries of one tile end
// in the same last page. So a query's result depends on itself and on the pages' contents only:
// not on the chunk that it came in, nor on its neighbours.
#pragma once
#include <algorithm>
#include <array>
#include "lanes.h"

namespace ah {
constexpr int kQueries = 16;                   // of a tile
constexpr int kBlock = 16;                     // pages
constexpr int kBlockTokens = kBlock * kPage;
constexpr int kScoreRows = AH_AVX512 ? 8 : 2;  // queries whose scores are added up at once
constexpr int kValueRows = AH_AVX512 ? 6 : 2;  // by 4 vectors of values

struct Heads {
  int all, of_keys, dim;
  int group() const { return all / of_keys; }
};

// Where the pages of one sequence, layer and key head are.
struct Pages {
  const bf16* store;     // of page 0
  const int32_t* table;  // the sequence's page numbers
  int64_t stride;        // values from page to page
  int dim;
  const int32_t* keys(int index) const {  // in pairs
    return reinterpret_cast<const int32_t*>(store + table[index] * stride);
  }
  const int32_t* values(int index) const { return keys(index) + dim / 2 * kPage; }
};

// One thread's room for a tile.
struct AttentionRoom {
  Lanes score[kQueries][kBlock];
  Lanes sum[kQueries][kMaxDim / kLanes];
  Lanes mass[kQueries];  // sums of weights, by lane
  float peak[kQueries];  // the running maximum
  bf16 weight[kQueries][kBlockTokens];
  uint32_t query[kMaxDim / 2 * kQueries];  // [dim / 2][queries] pairs
};

// Scores of R queries, `stride` of them side by side, with some pages, P at a time.
template <int R>
inline void score(const uint32_t* query, int stride, const Pages& pages, int first, int count,
                  Lanes (*out)[kBlock]) {
  constexpr int P = R <= 4 ? 4 : 2;
  for (int at = 0; at < count; at += P) {
    std::array<const void*, P> key;  // the last page again, where there are no more
    for (int p = 0; p < P; ++p) key[size_t(p)] = pages.keys(first + std::min(at + p, count - 1));
    chains<R, P, 0>(query, 4, 4 * stride, key, 64, pages.dim / 2, *out + at, kBlock, true);
  }
}

// Add R queries' weighted values to their sums: V vectors of the head from column `from` on.
template <int R, int V> inline void add_values(const Pages& pages, int first, int count, int from,
                       const bf16 (*weight)[kBlockTokens], Lanes (*out)[kMaxDim / kLanes]) {
  for (int p = 0; p < count; ++p) {
    const Beside value{pages.values(first + p) + from};
    chains<R, V, 0>(*weight + p * kPage, sizeof *weight, 4, value, 4 * pages.dim, kPage / 2,
                    *out + from / kLanes, kMaxDim / kLanes, false, pages.dim - from);
  }
}

// Turn query r's scores with some pages, of which it may see the first `seen` tokens, into weights
// relative to its running maximum.
inline void soften(AttentionRoom& room, int r, int seen, int pages, int vectors) {
  Lanes tops = all(-INFINITY);
  for (int p = 0; p < pages; ++p) {
    Lanes& s = room.score[r][p];
    s = kLane + p * kPage < seen ? s : all(-INFINITY);
    tops = s > tops ? s : tops;
  }
  const float top = largest(tops);
  if (!(top <= room.peak[r])) {
    const Lanes shrink = exp_of(all(room.peak[r] - top));
    room.mass[r] *= shrink;
    for (int v = 0; v < vectors; ++v) room.sum[r][v] *= shrink;
    room.peak[r] = top;
  }
  for (int p = 0; p < pages; ++p) {
    const Lanes s = room.score[r][p], e = s == -INFINITY ? Lanes{} : exp_of(s - room.peak[r]);
    room.mass[r] += e;
    store(room.weight[r] + p * kPage, narrow(e));
  }
}

// Rows of a tile: they begin at a multiple of this in their sequence, and so share a last page.
inline int tile_rows(const Heads& heads) {
  int rows = kPage;
  while (rows > 1 && rows * heads.group() > kQueries) rows /= 2;
  return rows;
}

// One tile of rows [rows][heads][dim] of one sequence, from position `start` on, for one key head.
inline void attend(const bf16* query, float* out, int rows, int start, const Heads& heads,
                   int key_head, const Pages& pages, AttentionRoom& room) {
  const int dim = heads.dim, group = heads.group(), vectors = (dim + kLanes - 1) / kLanes;
  const int last = (start + rows + kPage - 1) / kPage;
  const auto place = [&](int i) {
    return (int64_t(i / group) * heads.all + key_head * group + i % group) * dim;
  };
  for (int from = 0, n; from < rows * group; from += n) {
    n = std::min(kQueries, rows * group - from);
    for (int r = 0; r < n; ++r) {
      const bf16* q = query + place(from + r);
      for (int d = 0; d < dim; d += 2) std::memcpy(&room.query[d / 2 * n + r], q + d, 4);
      std::fill_n(room.sum[r], vectors, Lanes{});
      room.mass[r] = Lanes{};
      room.peak[r] = -3e38f;  // finite: a difference with it is a number
    }
    for (int first = 0; first < last; first += kBlock) {
      const int count = std::min(kBlock, last - first);
      for (int r = 0; r < n;)
        r += by_rows<kScoreRows>(n - r, [&](auto some) {
          score<some>(room.query + r, n, pages, first, count, room.score + r);
        });
      for (int r = 0; r < n; ++r) {
        const int seen = start + (from + r) / group + 1 - first * kPage;
        soften(room, r, seen, count, vectors);
      }
      for (int r = 0; r < n;)
        r += by_rows<kValueRows>(n - r, [&](auto some) {
          int d = 0;
          for (; d + 4 * kLanes <= dim; d += 4 * kLanes)
            add_values<some, 4>(pages, first, count, d, room.weight + r, room.sum + r);
          for (; d < dim; d += kLanes)
            add_values<some, 1>(pages, first, count, d, room.weight + r, room.sum + r);
        });
    }
    for (int r = 0; r < n; ++r)
      for (int d = 0; d < dim; d += kLanes)
        store(out + place(from + r) + d, room.sum[r][d / kLanes] / total(room.mass[r]), dim - d);
  }
}
}  // namespace ah
