// Rows of activations times a packed weight matrix.
//
// Weights lie in panels of 48 columns, read straight through: [panel][k / G][column][G], where the
// G values of k that share 32 bits are 2 (bf16) or 4 (int8). A tile is up to 8 rows by a panel: 24
// accumulators, each a chain over k in order, so a row's sums never depend on the rows beside it.
//
// The processor multiplies unsigned by signed bytes. Activations are stored with 128 added; what
// that adds to a sum, 128 times the column's weights, is the panel's offset. A row in 16 bits is
// two rows of bytes, the low one unsigned by nature, joined exactly at the end.
#pragma once
#include <vector>
#include "lanes.h"

namespace ah {
constexpr int kVectors = 3;
constexpr int kPanel = kVectors * kLanes;
constexpr int kTileRows = AH_AVX512 ? 8 : 2;  // what fits the registers
constexpr int kAhead = 4096;                  // bytes of weights to ask for in advance
// Comes before a panel's weights.
struct PanelHead {
  float scale[kPanel], bias[kPanel];
  int32_t offset[kPanel];  // -128 times the sum of a column's weights
};

constexpr int64_t padded(int64_t k) { return (k + 3) / 4 * 4; }
constexpr int64_t panels_of(int64_t n) { return (n + kPanel - 1) / kPanel; }
constexpr int64_t panel_bytes(Form form, int64_t k) {
  return int64_t(sizeof(PanelHead)) + kPanel * padded(k) * (form == Form::bf16 ? 2 : 1);
}
inline const uint8_t* panel_of(const Linear& w, int64_t panel) {
  return static_cast<const uint8_t*>(w.packed) + panel * panel_bytes(w.form, w.k);
}

// Rows in the form that a product wants: bf16, or bytes with a scale for each row. A row in 16 bits
// has its low bytes first and its high bytes `stride` behind them.
struct Activations {
  uint8_t* bytes;
  float* scale;    // [rows]
  int64_t stride;  // at least the padded width

  uint8_t* row(Form form, int64_t r) const {
    return bytes + r * stride * (form == Form::w8a8 ? 1 : 2);
  }
};

// Rows [from, to) of x by one panel. `sink(row, column, values, left)` takes 16 columns of a row,
// `left` of which exist. Tiles are of about equal height: 9 rows are 5 and 4.
template <class Sink>
inline void multiply_panel(const Activations& x, int from, int to, const Linear& w, int64_t panel,
                           const Sink& sink) {
  const auto* head = reinterpret_cast<const PanelHead*>(panel_of(w, panel));
  const Beside weights{head + 1};
  const int bytes = w.form == Form::w8a16 ? 2 : 1;  // rows of bytes to a row
  const int most = kTileRows / bytes, tiles = (to - from + most - 1) / most;
  for (int t = 0; t < tiles; ++t) {
    const int first = from + (to - from) * t / tiles;
    const int rows = from + (to - from) * (t + 1) / tiles - first;
    const uint8_t* a = x.row(w.form, first);
    Lanes value[kTileRows][kVectors];
    Words sum[kTileRows][kVectors];
    by_rows<kTileRows>(rows * bytes, [&](auto r) {
      if (w.form == Form::bf16)
        chains<r, kVectors, kAhead>(a, 2 * x.stride, 4, weights, 4 * kPanel,
                                    padded(w.k) / 2, value[0], kVectors, true);
      else
        chains<r, kVectors, kAhead>(a, x.stride, 4, weights, 4 * kPanel,
                                    padded(w.k) / 4, sum[0], kVectors, true);
    });
    for (int r = 0; r < rows; ++r)
      for (int v = 0; v < kVectors; ++v) {
        const int lane = v * kLanes, left = w.n - int(panel) * kPanel - lane;
        if (left <= 0) break;
        Lanes out = value[r][v];
        if (w.form != Form::bf16) {
          const Words top = sum[(r + 1) * bytes - 1][v] + load<Words>(head->offset + lane);
          out = __builtin_convertvector(top, Lanes);
          if (bytes == 2)  // rounded once
            out = __builtin_convertvector(__builtin_convertvector(top, Doubles) * 256.0 +
                                              __builtin_convertvector(sum[2 * r][v], Doubles),
                                          Lanes);
          out *= load(head->scale + lane) * x.scale[first + r];
        }
        sink(first + r, w.n - left, out + load(head->bias + lane), left);
      }
  }
}

// Where a product's values go: replacing what is there, or added to it (a residual),
struct Write {
  float* to;
  int64_t stride;
  bool add;
  void operator()(int row, int column, Lanes v, int left) const {
    float* at = to + row * stride + column;
    store(at, add ? load(at, left) + v : v, left);
  }
};
// or nowhere: of each lane the largest value is kept, with the first column that has it.
struct Best {
  Lanes value = all(-INFINITY);
  Words column{}, finite = ~Words{};  // no bits where a value was not a finite number
};
struct Rank {
  Best* best;         // [rows], one thread's
  const Write* also;  // where the values go, too, or null
  void operator()(int row, int column, Lanes v, int left) const {
    Best& b = best[row];
    const Words inside = kLane < left, better = (v > b.value) & inside;
    b.value = better ? v : b.value;
    b.column = better ? kLane + column : b.column;
    b.finite &= (v - v == 0.0f) | ~inside;
    if (also != nullptr) (*also)(row, column, v, left);
  }
};

// The first column with the largest value, and whether all values were finite, of all threads'.
inline int32_t settle(const std::vector<std::vector<Best>>& threads, size_t row, uint8_t* finite) {
  float top = -INFINITY;
  int32_t column = 0;
  *finite = 1;
  for (const auto& best : threads)
    for (int i = 0; i < kLanes; ++i) {
      const Best& b = best[row];
      if (b.finite[i] == 0) *finite = 0;
      if (b.value[i] > top || (b.value[i] == top && b.column[i] < column))
        top = b.value[i], column = b.column[i];
    }
  return column;
}
}  // namespace ah
