// Sixteen numbers side by side, and the number formats that the kernels share.
//
// Vectors are the compiler's own (GCC and Clang lower them to what the processor has), so every
// kernel is written once; only the two dot products and masked access name AVX-512. Reductions
// have one order, so a row's result depends on the row and on the build alone.
#pragma once
#include <cmath>
#include <cstring>
#include <type_traits>
#include "abi.h"
#if defined(__AVX512BF16__) && defined(__AVX512VNNI__) && defined(__AVX512BW__) && \
    defined(__AVX512VL__) && defined(__AVX512DQ__)
#define AH_AVX512 1
#include <immintrin.h>
#else
#define AH_AVX512 0
#endif

namespace ah {
constexpr int kLanes = 16;

using Lanes = float __attribute__((vector_size(64)));
using Words = int32_t __attribute__((vector_size(64)));
using Bits = uint32_t __attribute__((vector_size(64)));
using Doubles = double __attribute__((vector_size(128)));
using Bytes = uint8_t __attribute__((vector_size(16)));
using Halves = uint16_t __attribute__((vector_size(32)));

template <class To, class From> inline To cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
constexpr Words kLane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

inline Lanes all(float v) { return Lanes{} + v; }
// A vector wherever it lies: whole, or its first `left` values and zeros. No more is touched.
template <class V = Lanes, class T> inline V load(const T* from, int left = kLanes) {
#if AH_AVX512
  static_assert(sizeof(T) == 4 && sizeof(V) == 64);
  const __mmask16 mask = left >= kLanes ? 0xffff : __mmask16((1u << left) - 1);
  return cast<V>(_mm512_maskz_loadu_epi32(mask, from));
#else
  V v{};
  std::memcpy(&v, from, left >= kLanes ? sizeof v : sizeof(T) * size_t(left));
  return v;
#endif
}

template <class V, class T> inline void store(T* to, V v, int left = kLanes) {
  static_assert(sizeof(V) == sizeof(T) * kLanes);
#if AH_AVX512
  const __mmask16 mask = left >= kLanes ? 0xffff : __mmask16((1u << left) - 1);
  if constexpr (sizeof(T) == 4) _mm512_mask_storeu_epi32(to, mask, cast<__m512i>(v));
  if constexpr (sizeof(T) == 2) _mm256_mask_storeu_epi16(to, mask, cast<__m256i>(v));
  if constexpr (sizeof(T) == 1) _mm_mask_storeu_epi8(to, mask, cast<__m128i>(v));
#else
  std::memcpy(to, &v, left >= kLanes ? sizeof v : sizeof(T) * size_t(left));
#endif
}

// A pair of bf16, or four bytes, to all lanes.
inline Bits spread(const void* from) {
  uint32_t bits;
  std::memcpy(&bits, from, sizeof bits);
  return Bits{} + bits;
}

// All sixteen, joined in pairs.
template <class Join> inline float fold(Lanes v, const Join& join) {
  float lane[kLanes];
  std::memcpy(lane, &v, sizeof lane);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lane[i] = join(lane[i], lane[i + width]);
  return lane[0];
}
inline float total(Lanes v) { return fold(v, [](float a, float b) { return a + b; }); }
inline float largest(Lanes v) { return fold(v, [](float a, float b) { return a > b ? a : b; }); }
// bf16 is the upper half of a float.
inline float widen(bf16 v) { return cast<float>(uint32_t(v) << 16); }
// Round to nearest, ties to even. What is not a number stays one.
inline Halves narrow(Lanes v) {
#if AH_AVX512
  return cast<Halves>(_mm512_cvtneps_pbh(v));
#else
  const Bits bits = cast<Bits>(v), near = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Bits nan = (bits >> 16) | 0x40;
  return __builtin_convertvector((bits & 0x7fffffff) > 0x7f800000 ? nan : near, Halves);
#endif
}

// Whole numbers up to 2^22 by adding what leaves no bits for a fraction; ties to even.
constexpr float kWhole = 12582912.0f;
inline Words rounded(Lanes v) { return cast<Words>(v + kWhole) - 0x4b400000; }
// e^x within 2e-7, for x up to 88: the power of two is split off, a polynomial does the rest (the
// coefficients of Moshier's Cephes library). What is not a number stays one.
inline Lanes exp_of(Lanes x) {
  x = x < -87.0f ? all(-87.0f) : x;
  x = x > 88.0f ? all(88.0f) : x;
  const Lanes power = (x * 1.44269504f + kWhole) - kWhole;
  const Lanes f = x - power * 0.693359375f + power * 2.12194440e-4f;
  Lanes p = all(1.9875691500e-4f);
  for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 0.5f})
    p = p * f + c;
  p = p * (f * f) + f + 1.0f;
  return p * cast<Lanes>((__builtin_convertvector(power, Words) + 127) << 23);
}

// sum += a.even * b.even + a.odd * b.odd, each lane a pair of bf16. In place: copies of the sums
// between registers would halve the rate of this and of the next.
inline void dot(Lanes& sum, Bits a, Bits b) {
#if AH_AVX512
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
#else
  sum += cast<Lanes>(a & 0xffff0000u) * cast<Lanes>(b & 0xffff0000u);
  sum += cast<Lanes>(a << 16) * cast<Lanes>(b << 16);
#endif
}

// sum += the four products of unsigned bytes with signed bytes of each lane.
inline void dot(Words& sum, Bits u8, Bits s8) {
#if AH_AVX512
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u8), "v"(s8));
#else
  // 255 * 128 fits in 16 signed bits, which every processor can multiply.
  using Shorts = int16_t __attribute__((vector_size(64)));
  const Shorts even = cast<Shorts>(u8 & 0x00ff00ffu) * (cast<Shorts>(s8 << 8) >> 8);
  const Shorts odd = cast<Shorts>((u8 >> 8) & 0x00ff00ffu) * (cast<Shorts>(s8) >> 8);
  sum += (cast<Words>(cast<Bits>(even) << 16) >> 16) + (cast<Words>(even) >> 16);
  sum += (cast<Words>(cast<Bits>(odd) << 16) >> 16) + (cast<Words>(odd) >> 16);
#endif
}

// Vectors that lie side by side.
struct Beside {
  const void* first;
  const void* operator[](int v) const { return static_cast<const uint8_t*>(first) + 64 * v; }
};

// The kernel of every product: R rows by V vectors of sums, each a chain of dot products over
// `steps` in order. `a` are the rows, of which all lanes get the same 32 bits; `b` the vectors;
// strides are bytes. By itself, so that the registers are all its own.
#define AH_UNROLL _Pragma("GCC unroll 8")
template <int R, int V, int Ahead, class From, class Sum>
__attribute__((noinline)) void chains(const void* a, int64_t row, int64_t step, From b,
                                      int64_t b_step, int64_t steps, Sum* out, int64_t out_row,
                                      bool fresh, int left = kLanes) {
  const auto* x = static_cast<const uint8_t*>(a);
  Sum sum[R][V];
  AH_UNROLL for (int r = 0; r < R; ++r)
    AH_UNROLL for (int v = 0; v < V; ++v) sum[r][v] = fresh ? Sum{} : out[r * out_row + v];
  for (int64_t i = 0; i < steps * b_step; i += b_step, x += step) {
    Bits vector[V];
    AH_UNROLL for (int v = 0; v < V; ++v) {
      const auto* from = static_cast<const int8_t*>(b[v]) + i;
      vector[v] = load<Bits>(reinterpret_cast<const int32_t*>(from), V == 1 ? left : kLanes);
      if (Ahead > 0) __builtin_prefetch(from + Ahead);
    }
    AH_UNROLL for (int r = 0; r < R; ++r) {
      const Bits all = spread(x + r * row);
      AH_UNROLL for (int v = 0; v < V; ++v) dot(sum[r][v], all, vector[v]);
    }
  }
  AH_UNROLL for (int r = 0; r < R; ++r)
    AH_UNROLL for (int v = 0; v < V; ++v) out[r * out_row + v] = sum[r][v];
}

// The kernel is compiled for each number of rows: call work(rows) with the constant `left`, or
// `Most` where there are more, and return it.
template <int Most, class Do> inline int by_rows(int left, const Do& work) {
  if constexpr (Most > 1) {
    if (left < Most) return by_rows<Most - 1>(left, work);
  }
  work(std::integral_constant<int, Most>{});
  return Most;
}
}  // namespace ah
