// What happens to one row by itself: norms, rotation, the feed-forward gate, rounding to int8.
//
// One thread does a row from its first value to its last, in an order given by its length only.
#pragma once
#include "linear.h"

namespace ah {
// A row below this in every value is zero to a product in int8: its scale would not be normal.
constexpr float kFaint = 1e-30f;

// Round one row to a scale and whole numbers of at most `most`: put(column, 16 numbers, left).
// A row with a value that is not finite gets the scale NaN, so that all its products are NaN.
template <class Put> inline float quantise(const float* x, int count, float most, const Put& put) {
  Lanes peaks{}, odd{};
  for (int i = 0; i < count; i += kLanes) {
    const Lanes v = load(x + i, count - i), size = cast<Lanes>(cast<Bits>(v) & 0x7fffffff);
    peaks = size > peaks ? size : peaks;
    odd = v - v == 0.0f ? odd : all(1.0f);
  }
  const float peak = largest(peaks);
  const bool finite = largest(odd) == 0.0f;
  const float up = finite && peak >= kFaint ? most / peak : 0.0f;
  for (int i = 0; i < count; i += kLanes)
    put(i, up == 0.0f ? Words{} : rounded(load(x + i, count - i) * up), count - i);
  return !finite ? NAN : up == 0.0f ? 0.0f : peak / most;
}
inline void narrow_row(const float* x, float times, int count, bf16* to) {
  for (int i = 0; i < count; i += kLanes)
    store(to + i, narrow(load(x + i, count - i) * times), count - i);
}

// Write one row of floats the way a product of `form` reads it.
inline void give(const float* x, int count, Form form, const Activations& to, int64_t row) {
  uint8_t* at = to.row(form, row);
  if (form == Form::bf16) {
    auto* wide = reinterpret_cast<bf16*>(at);
    narrow_row(x, 1.0f, count, wide);
    // The weights there are zero, but zero times what another row left might not be.
    for (int i = count; i < padded(count); ++i) wide[i] = 0;
  } else if (form == Form::w8a8) {
    to.scale[row] = quantise(x, count, 127.0f, [at](int i, Words v, int left) {
      store(at + i, __builtin_convertvector(v + 128, Bytes), left);
    });
  } else {
    to.scale[row] = quantise(x, count, 32767.0f, [at, &to](int i, Words v, int left) {
      store(at + i, __builtin_convertvector(v, Bytes), left);
      store(at + to.stride + i, __builtin_convertvector((v >> 8) + 128, Bytes), left);
    });
  }
}

// Root-mean-square normalisation (Zhang and Sennrich, 2019): out = x / rms(x) * weight.
inline void rms_norm(const float* x, const float* weight, float eps, int count, float* out) {
  Lanes squares{};
  for (int i = 0; i < count; i += kLanes) {
    const Lanes v = load(x + i, count - i);
    squares += v * v;
  }
  const float up = 1.0f / std::sqrt(total(squares) / float(count) + eps);
  for (int i = 0; i < count; i += kLanes)
    store(out + i, load(x + i, count - i) * up * load(weight + i, count - i), count - i);
}

// A row through an adapter (Hu et al., 2021): u = a x, then y += b u. Four sums side by side, each
// in one order.
inline void lower(const LowRank& low, const float* x, int count, float* u) {
  for (int j = 0; j < low.rank; j += 4) {
    Lanes sum[4]{};
    const int some = low.rank - j < 4 ? low.rank - j : 4;
    const float* a = low.a + int64_t(j) * count;
    for (int i = 0; i < count; i += kLanes) {
      const Lanes v = load(x + i, count - i);
      for (int w = 0; w < some; ++w) sum[w] += v * load(a + int64_t(w) * count + i, count - i);
    }
    for (int w = 0; w < some; ++w) u[j + w] = total(sum[w]);
  }
}
inline void lift(const LowRank& low, const float* u, int count, float* y) {
  for (int i = 0; i < count; i += 4 * kLanes) {
    Lanes sum[4]{};
    const int left = count - i, some = left < 4 * kLanes ? (left + kLanes - 1) / kLanes : 4;
    for (int j = 0; j < low.rank; ++j) {
      const float* b = low.b + int64_t(j) * count + i;
      for (int w = 0; w < some; ++w) sum[w] += load(b + w * kLanes, left - w * kLanes) * u[j];
    }
    for (int w = 0; w < some; ++w) {
      float* at = y + i + w * kLanes;
      store(at, load(at, left - w * kLanes) + sum[w], left - w * kLanes);
    }
  }
}

// silu(gate) * up, where gate and up follow each other in one row of 2 * count.
inline void silu_mul(const float* gate_up, int count, float* out) {
  for (int i = 0; i < count; i += kLanes) {
    const Lanes gate = load(gate_up + i, count - i), up = load(gate_up + count + i, count - i);
    store(out + i, gate / (exp_of(-gate) + 1.0f) * up, count - i);
  }
}

// Rotate the two halves of one head by the angles of a position (Su et al., 2021).
inline void rotate(const float* x, const float* cos, const float* sin, int dim, float* out) {
  const int half = dim / 2;
  for (int i = 0; i < half; i += kLanes) {
    const int left = half - i;
    const Lanes a = load(x + i, left), b = load(x + half + i, left);
    const Lanes c = load(cos + i, left), s = load(sin + i, left);
    store(out + i, a * c - b * s, left);
    store(out + half + i, b * c + a * s, left);
  }
}

// Put one token's key and value heads into slot `slot` of a page, in the layout of attention.h.
inline void store_token(const float* key, const float* value, int dim, int slot, bf16* page) {
  bf16 row[kMaxDim];
  narrow_row(key, 1.0f, dim, row);
  for (int d = 0; d < dim; d += 2)
    std::memcpy(page + d * kPage + 2 * slot, row + d, 2 * sizeof(bf16));
  narrow_row(value, 1.0f, dim, row);
  bf16* at = page + dim * kPage + slot / 2 * 2 * dim + slot % 2;
  for (int d = 0; d < dim; ++d) at[2 * d] = row[d];
}
}  // namespace ah
