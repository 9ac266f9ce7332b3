// The C interface's structures, shared with Python (see README.md).
//
// Nothing is owned but what ah_model makes itself: weights, tables and pages stay the caller's and
// must outlive the model. No function throws, keeps global state, or may be called by two threads
// on one model at once.
#pragma once
#include <cstddef>
#include <cstdint>
#define AH_PUBLIC __attribute__((visibility("default")))

namespace ah {
using bf16 = uint16_t;
constexpr int32_t kAbi = 2;
constexpr int kPage = 16;     // tokens of a key-value page: the lanes of a 512-bit register
constexpr int kMaxDim = 512;  // of one head
constexpr int kMaxRank = 192;  // of an adapter's product: three stacked ones of 64
// How a product takes its weights and its rows of activations.
// The last two have int8 weights and rows rounded to 8, or 16 bits (two bytes): integers, exact.
enum class Form : int32_t { bf16 = 0, w8a8 = 1, w8a16 = 2 };
// What ah_pack reads.
enum class Source : int32_t { float32 = 0, bf16 = 1, int8 = 2 };
// A weight matrix [n, k] as ah_pack left it, aligned to 64 bytes.
struct Linear {
  const void* packed;
  int32_t n, k;
  Form form;
  int32_t reserved;
};
struct Layer {
  Linear qkv, out, gate_up, down;  // rows of q, k, v and of gate, up follow one another
  const float *attention_norm, *mlp_norm;  // [hidden]
  const float *query_norm, *key_norm;      // [head_dim], or null where there is none
};
struct Shape {
  int32_t layers, hidden, heads, kv_heads, head_dim, intermediate, vocab;
  int32_t positions;                 // longest sequence, and rows of the rope tables
  int32_t pages, max_rows, threads;  // of the store; of one step
  float eps;
};
struct Weights {
  const Layer* layers;
  Linear head;
  const bf16* embedding;    // [vocab, hidden], or null: read from `head`, which must then be bf16
  const float* norm;        // [hidden]
  const float *cos, *sin;   // [positions, head_dim / 2]
  bf16* store;              // [pages][layers][kv_heads][keys, values][head_dim * 16], zeros
};

// Consecutive new tokens of one sequence. The chunks of a step cover its rows in order.
struct Chunk {
  int32_t first, count;  // rows
  int32_t start;         // position of the first row in its sequence
  int32_t pages;         // where in Step::table its page numbers begin
  int32_t adapter;       // its number in Step::adapters, or -1
};
// What an adapter adds to a product's rows: b (a x), in float32.
struct LowRank {
  const float *a, *b;      // [rank, k], and b lying across: [rank, n]
  int32_t rank, reserved;  // 0 where nothing is added
};
constexpr int kProducts = 4;  // of a layer, in the order of Layer
struct Step {
  const int32_t* tokens;  // [rows]
  const Chunk* chunks;
  const int32_t* table;   // page numbers
  const int32_t* wanted;  // rows whose outcome is wanted
  const LowRank* adapters;  // [adapter_count][layers][kProducts]
  int32_t rows, chunk_count, table_count, wanted_count, adapter_count, reserved;
  // The outcome, each [wanted_count, ...]; null where it is not asked for.
  int32_t* best;          // likeliest token, the lowest number among equals
  uint8_t* finite;        // 0 where a logit is not a finite number
  float* logits;          // [.., vocab]
  float* hidden;          // [.., hidden], after the last norm
};

// Why a step was refused; nothing was computed or stored.
enum Refusal : int32_t {
  kDone = 0, kRows = 1,          // more than max_rows, or fewer than 1
  kChunk = 2, kPosition = 3,     // chunks that do not cover the rows; beyond the longest sequence
  kPageTable = 4, kToken = 5,    // a page outside table or store; outside the vocabulary
  kWanted = 6, kAdapter = 7,     // not a row, or more than there are; not known
};
}  // namespace ah
