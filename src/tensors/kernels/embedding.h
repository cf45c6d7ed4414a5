// Rows of a table by token, and the table's gradient:
//   out[n] = table[token[n]];  d table[v] += sum over n with token[n] = v of d out[n]
// On the CPU the sum runs in the order of the text. For the kernels the host sorts rows by token: blocks add up pieces
// of at most kEmbeddingPiece occurrences, and those of a token that has more are joined, in order, by a second launch.
// N = tokens, V = vocabulary, D = hidden size, T = element type of activations and of the table; its gradient is
// float32. Torch-free.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

struct CUstream_st;  // cudaStream_t points to one

namespace coppice {

/// The most occurrences that one block adds up.
inline constexpr int kEmbeddingPiece = 64;

/// Rows begin..end of the order (of the partial sums where it says so), whose sum goes to the gradient of `token`, or
/// into a partial sum. Empty: nothing to do, so that a list can be as long as the longest.
struct EmbeddingPiece {
  int32_t token = 0;
  int32_t begin = 0, end = 0;
  int32_t partial = -1;  // the partial sum that it makes; -1: none, it is added to the table's gradient
  bool operator==(const EmbeddingPiece&) const = default;
};

/// Who adds up which rows. At most N pieces and 2N / (kEmbeddingPiece + 1) partial sums.
struct EmbeddingOrder {
  std::vector<int32_t> row;                 // (N), sorted by token, equal ones in the order of the text
  std::vector<EmbeddingPiece> pieces;       // of `row`, in its order
  std::vector<EmbeddingPiece> long_tokens;  // of partial sums: tokens with more than kEmbeddingPiece occurrences
  int64_t num_partials = 0;
};
/// Fills `order`, whose memory is used again. Tokens lie in [0, 2^31), as N does.
void make_embedding_order(std::span<const int64_t> token_N, EmbeddingOrder& order);

template <class T>
struct EmbeddingParams {
  const int64_t* token = nullptr;  // (N), all in [0, V)
  const T* table = nullptr;        // (V, D), rows table_row_stride elements apart
  T* out = nullptr;                // (N, D) contiguous, overwritten
  int64_t num_tokens = 0;
  int64_t hidden_size = 0;
  int64_t table_row_stride = 0;
};

template <class T>
struct EmbeddingBackwardParams {
  const int64_t* token = nullptr;               // (N); the kernels read the order instead
  const int32_t* row = nullptr;                 // (N), EmbeddingOrder's; not for the CPU, as all up to `partial`
  const EmbeddingPiece* pieces = nullptr;       // (num_pieces)
  const EmbeddingPiece* long_tokens = nullptr;  // (num_long_tokens)
  float* partial = nullptr;                     // (num_partials, D), overwritten
  const T* out_grad = nullptr;                  // (N, D), rows out_grad_row_stride apart
  float* table_grad = nullptr;                  // (V, D) contiguous, added to
  int64_t num_tokens = 0;
  int64_t num_pieces = 0;
  int64_t num_long_tokens = 0;
  int64_t hidden_size = 0;
  int64_t out_grad_row_stride = 0;
};

void embedding_reference(const EmbeddingParams<float>& params);
void embedding_backward_reference(const EmbeddingBackwardParams<float>& params);  // in double
void embedding_cpu(const EmbeddingParams<float>& params);                         // all threads
/// The same bits at any number of threads.
void embedding_backward_cpu(const EmbeddingBackwardParams<float>& params);

// T = float or Bf16. Each enqueues and returns the launch's error, 0 for none. A D that is no multiple of 8, or rows
// that start elsewhere than at a multiple of 16 bytes, take the instance that moves one element at a time.
namespace device {
template <class T>
int embedding(const EmbeddingParams<T>& params, CUstream_st* stream);
template <class T>
int embedding_backward(const EmbeddingBackwardParams<T>& params, CUstream_st* stream);
}  // namespace device
namespace emulated {
template <class T>
int embedding(const EmbeddingParams<T>& params, CUstream_st* stream);
template <class T>
int embedding_backward(const EmbeddingBackwardParams<T>& params, CUstream_st* stream);
}  // namespace emulated

}  // namespace coppice
