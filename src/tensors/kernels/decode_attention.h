// Attention of one new token over the keys and values of all tokens so far, its own among them, each read once for all
// query heads of its group. Softmax over pieces of the text: each keeps its largest score m, its sum of e^(score - m)
// and the values weighted so; they are joined at the end (Milakov and Gimelshein, arXiv 1805.02867). H query heads, G
// key/value heads, K head size, T tokens. Torch-free.
#pragma once

#include <cstdint>

namespace coppice {

struct DecodeAttentionParams {
  const float* query = nullptr;  // (H, K), after QK-norm and RoPE
  const float* key = nullptr;    // (G, capacity, K), of which T are filled
  const float* value = nullptr;  // (G, capacity, K)
  float* out = nullptr;          // (H, K), overwritten
  float* scratch = nullptr;      // decode_attention_scratch() floats
  int64_t num_tokens = 0;
  int64_t capacity = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_size = 0;
};

/// Floats that decode_attention_cpu() needs beside its output.
int64_t decode_attention_scratch(int64_t num_heads, int64_t head_size);
void decode_attention_cpu(const DecodeAttentionParams& params);  // vectorised, all threads

}  // namespace coppice
