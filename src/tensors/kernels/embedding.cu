// Embedding. Forward: one block a token. Backward: one block a piece of the host's order, its threads the columns; the
// partial sums of tokens with more than one piece are added up in order by a second launch.
// Bytes in bf16: forward 4 D a token; backward 2 D a token and 8 D a distinct token; a piece of a token with more than
// one costs 8 D, written and read.
#include "src/tensors/kernels/embedding.h"

#include "src/tensors/kernels/float_packs.h"

namespace coppice::COPPICE_EXECUTION {
namespace {

constexpr int kMostThreads = 512;

/// Blocks of y and their threads that hold a row in packs of kVec.
template <int kVec>
struct Columns {
  int64_t blocks = 0, threads = 0;
  Columns(int64_t hidden_size, int most_threads) {
    const int64_t packs = (hidden_size + kVec - 1) / kVec;
    blocks = (packs + most_threads - 1) / most_threads;
    const int64_t a_block = (packs + blocks - 1) / blocks;
    threads = (a_block + kWarpThreads - 1) / kWarpThreads * kWarpThreads;
  }
  __device__ __forceinline__ static int64_t of_thread() {
    return (blockIdx.y * int64_t{blockDim.x} + threadIdx.x) * kVec;
  }
};

template <class T, int kVec>
__global__ void __launch_bounds__(kMostThreads) embedding_kernel(EmbeddingParams<T> params) {
  const int64_t column = Columns<kVec>::of_thread(), n = blockIdx.x;
  if (column >= params.hidden_size) return;
  copy_pack<kVec>(params.out + n * params.hidden_size + column,
                  params.table + params.token[n] * params.table_row_stride + column);
}

/// Rows to add up, those of `row` or, where it is null, the pieces' own.
template <class T>
struct Rows {
  const T* start;
  const int32_t* row;
  int64_t row_stride;
};

template <class T, int kVec>
__global__ void __launch_bounds__(kMostThreads)
    embedding_backward_kernel(Rows<T> rows, const EmbeddingPiece* pieces, float* table_grad, float* partial,
                              int64_t hidden_size) {
  constexpr int kAhead = 4;  // rows whose loads a thread issues before it needs the first of them
  const EmbeddingPiece piece = pieces[blockIdx.x];
  const int64_t column = Columns<kVec>::of_thread();
  if (column >= hidden_size || piece.begin == piece.end) return;
  Pack<float, kVec> sum{};
  for (int first = piece.begin; first < piece.end; first += kAhead) {
    Pack<T, kVec> ahead[kAhead]{};
    COPPICE_UNROLL
    for (int i = 0; i < kAhead; ++i) {
      if (first + i >= piece.end) continue;
      const int64_t row = rows.row == nullptr ? first + i : rows.row[first + i];
      ahead[i] = load_pack<kVec>(rows.start + row * rows.row_stride + column);
    }
    COPPICE_UNROLL
    for (int i = 0; i < kAhead; ++i) {
      const auto floats = floats_of(ahead[i]);
      COPPICE_UNROLL
      for (int j = 0; j < kVec; ++j) sum[j] += floats[j];
    }
  }
  if (piece.partial >= 0) {
    store_pack(partial + piece.partial * hidden_size + column, sum);
    return;
  }
  float* const to = table_grad + piece.token * hidden_size + column;
  auto grad = load_pack<kVec>(to);
  COPPICE_UNROLL
  for (int j = 0; j < kVec; ++j) grad[j] += sum[j];
  store_pack(to, grad);
}

template <class T, int kVec>
int add_up_pieces(const Rows<T>& rows, const EmbeddingPiece* pieces, int64_t num_pieces, int most_threads,
                  const auto& params, CUstream_st* stream) {
  if (num_pieces == 0) return 0;
  const Columns<kVec> columns(params.hidden_size, most_threads);
  return launch(embedding_backward_kernel<T, kVec>, {num_pieces, columns.blocks}, columns.threads, 0, stream, rows,
                pieces, params.table_grad, params.partial, params.hidden_size);
}

}  // namespace

template <class T>
int embedding(const EmbeddingParams<T>& params, CUstream_st* stream) {
  if (params.num_tokens == 0) return 0;
  const bool packs = params.hidden_size % 8 == 0 && starts_at_packs(params.table, params.table_row_stride) &&
                     starts_at_packs(params.out, 0);
  const auto launch_with = [&]<int kVec>() {
    const Columns<kVec> columns(params.hidden_size, kMostThreads);
    return launch(embedding_kernel<T, kVec>, {params.num_tokens, columns.blocks}, columns.threads, 0, stream, params);
  };
  return packs ? launch_with.template operator()<8>() : launch_with.template operator()<1>();
}

template <class T>
int embedding_backward(const EmbeddingBackwardParams<T>& params, CUstream_st* stream) {
  // Few blocks have much to do in the second launch: the columns of a row are spread over more of them.
  constexpr int kThreadsOfSums = 128;
  const bool packs = params.hidden_size % 8 == 0 && starts_at_packs(params.out_grad, params.out_grad_row_stride) &&
                     starts_at_packs(params.table_grad, 0) && starts_at_packs(params.partial, 0);
  const Rows<T> grads{.start = params.out_grad, .row = params.row, .row_stride = params.out_grad_row_stride};
  const Rows<float> sums{.start = params.partial, .row = nullptr, .row_stride = params.hidden_size};
  const auto launch_with = [&]<int kVec, int kVecOfSums>() {
    const int error = add_up_pieces<T, kVec>(grads, params.pieces, params.num_pieces, kMostThreads, params, stream);
    return error != 0 ? error
                      : add_up_pieces<float, kVecOfSums>(sums, params.long_tokens, params.num_long_tokens,
                                                         kThreadsOfSums, params, stream);
  };
  return packs ? launch_with.template operator()<8, 4>() : launch_with.template operator()<1, 1>();
}

template int embedding(const EmbeddingParams<float>&, CUstream_st*);
template int embedding(const EmbeddingParams<Bf16>&, CUstream_st*);
template int embedding_backward(const EmbeddingBackwardParams<float>&, CUstream_st*);
template int embedding_backward(const EmbeddingBackwardParams<Bf16>&, CUstream_st*);

}  // namespace coppice::COPPICE_EXECUTION
