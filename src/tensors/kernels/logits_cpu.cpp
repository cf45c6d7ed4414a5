// A product for few rows and many ids. What costs a library most there is bringing the head into the order its inner
// loop wants, once per call and for all rows; here a thread does that for the ids of one tile at a time, 48 with
// AVX-512, in a panel that stays in its second-level cache, and multiplies all rows by it before the next. Written with
// vector extensions, once per instruction set; the widest that the machine has is taken.
#include "src/tensors/kernels/logits.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>

#include "src/tensors/kernels/parallel_rows.h"
#include "src/tensors/kernels/vector_math.h"

namespace coppice {

namespace {

struct Free {
  void operator()(float* pointer) const { std::free(pointer); }
};
using Buffer = std::unique_ptr<float[], Free>;

Buffer allocate(int64_t floats) {
  constexpr size_t kCacheLine = 64;
  auto* pointer = static_cast<float*>(std::aligned_alloc(
      kCacheLine, (static_cast<size_t>(floats) * sizeof(float) + kCacheLine - 1) / kCacheLine * kCacheLine));
  if (pointer == nullptr) throw std::bad_alloc();
  return Buffer(pointer);
}

/// Sizes of a tile: kRows x kVectors accumulators, kVectors loads and one broadcast fill the registers of the
/// instruction set.
template <int Lanes, int Rows, int Vectors>
struct Tile {
  static constexpr int kLanes = Lanes, kRows = Rows, kVectors = Vectors, kIds = Lanes * Vectors;
  typedef float Vector __attribute__((vector_size(Lanes * sizeof(float)), may_alias));
  typedef float Unaligned __attribute__((vector_size(Lanes * sizeof(float)), aligned(sizeof(float)), may_alias));

  /// log2 Lanes perfect shuffles of its Lanes vectors transpose a square.
  static COPPICE_INLINE void transpose(Vector (&square)[Lanes]) {
    transpose(square, std::make_integer_sequence<int, Lanes>());
  }

  template <int... Lane>
  static COPPICE_INLINE void transpose(Vector (&square)[Lanes], std::integer_sequence<int, Lane...>) {
#pragma GCC unroll 4
    for (int round = 1; round < Lanes; round *= 2) {
      Vector shuffled[Lanes];
#pragma GCC unroll 8
      for (int i = 0; i < Lanes / 2; ++i) {
        shuffled[2 * i] = __builtin_shufflevector(square[i], square[i + Lanes / 2], (Lane / 2 + Lane % 2 * Lanes)...);
        shuffled[2 * i + 1] =
            __builtin_shufflevector(square[i], square[i + Lanes / 2], (Lanes / 2 + Lane / 2 + Lane % 2 * Lanes)...);
      }
#pragma GCC unroll 16
      for (int i = 0; i < Lanes; ++i) square[i] = shuffled[i];
    }
  }
};

/// Ids [first, first + kIds) of the head as [width][kIds], ids past the end zero.
template <class T>
COPPICE_INLINE void pack_ids(const LogitsParams<float>& params, int64_t first, float* panel) {
  using Vector = typename T::Vector;
  const int64_t whole = params.width / T::kLanes * T::kLanes;
  for (int64_t part = 0; part < T::kIds; part += T::kLanes) {
    const int64_t id = first + part;
    int64_t d = 0;
    if (id + T::kLanes <= params.num_vocab) {
      for (; d < whole; d += T::kLanes) {
        Vector square[T::kLanes];
#pragma GCC unroll 16
        for (int i = 0; i < T::kLanes; ++i)
          square[i] = *reinterpret_cast<const typename T::Unaligned*>(params.head + (id + i) * params.width + d);
        T::transpose(square);
#pragma GCC unroll 16
        for (int i = 0; i < T::kLanes; ++i) *reinterpret_cast<Vector*>(panel + (d + i) * T::kIds + part) = square[i];
      }
    }
    for (; d < params.width; ++d)
      for (int64_t i = 0; i < T::kLanes; ++i)
        panel[d * T::kIds + part + i] = id + i < params.num_vocab ? params.head[(id + i) * params.width + d] : 0.0f;
  }
}

/// Adds kRows x kIds sums over the whole width to `sum`. Rows past the end are the last one again.
template <class T>
COPPICE_INLINE void multiply_tile(const LogitsParams<float>& params, int64_t first_row, const float* panel,
                                  typename T::Vector (&sum)[T::kRows][T::kVectors]) {
  using Vector = typename T::Vector;
  const float* row[T::kRows];
#pragma GCC unroll 8
  for (int r = 0; r < T::kRows; ++r)
    row[r] = params.hidden + std::min(first_row + r, params.num_rows - 1) * params.width;
#pragma GCC unroll 4
  for (int64_t d = 0; d < params.width; ++d, panel += T::kIds) {
    Vector ids[T::kVectors];
#pragma GCC unroll 3
    for (int v = 0; v < T::kVectors; ++v) ids[v] = reinterpret_cast<const Vector*>(panel)[v];
#pragma GCC unroll 8
    for (int r = 0; r < T::kRows; ++r)
#pragma GCC unroll 3
      for (int v = 0; v < T::kVectors; ++v) sum[r][v] += row[r][d] * ids[v];
  }
}

/// Tiles of ids [begin, end), counted in tiles.
template <class T>
COPPICE_INLINE void multiply(const LogitsParams<float>& params, float* panel, int64_t begin, int64_t end) {
  using Vector = typename T::Vector;
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t first_id = tile * T::kIds, ids = std::min<int64_t>(T::kIds, params.num_vocab - first_id);
    pack_ids<T>(params, first_id, panel);
    for (int64_t first = 0; first < params.num_rows; first += T::kRows) {
      Vector sum[T::kRows][T::kVectors] = {};
      multiply_tile<T>(params, first, panel, sum);
      const int64_t end_row = std::min<int64_t>(T::kRows, params.num_rows - first);
      for (int64_t r = 0; r < end_row; ++r) {
        float* out = params.logits + (first + r) * params.num_vocab + first_id;
        if (ids == T::kIds) {
#pragma GCC unroll 3
          for (int v = 0; v < T::kVectors; ++v) reinterpret_cast<typename T::Unaligned*>(out)[v] = sum[r][v];
        } else {
          for (int64_t i = 0; i < ids; ++i) out[i] = sum[r][i / T::kLanes][i % T::kLanes];
        }
      }
    }
  }
}

using Tile4 = Tile<4, 4, 3>;    // 16 registers of 4 floats: what every x86-64 has
using Tile8 = Tile<8, 4, 3>;    // AVX2
using Tile16 = Tile<16, 8, 3>;  // AVX-512: 32 registers

struct Kernel {
  int ids;
  void (*multiply)(const LogitsParams<float>& params, float* panel, int64_t begin, int64_t end);
};

Kernel kernel_of([[maybe_unused]] int lanes) {
#ifdef COPPICE_X86_64_LEVELS
  if (lanes == Tile16::kLanes) return {Tile16::kIds, per_instruction_set<multiply<Tile16>>.on_16_lanes};
  if (lanes == Tile8::kLanes) return {Tile8::kIds, per_instruction_set<multiply<Tile8>>.on_8_lanes};
#endif
  return {Tile4::kIds, per_instruction_set<multiply<Tile4>>.on_4_lanes};
}

}  // namespace

void logits_cpu(const LogitsParams<float>& params, int lanes) {
  const Kernel kernel = kernel_of(lanes);
  const int64_t tiles = (params.num_vocab + kernel.ids - 1) / kernel.ids;
  const int threads = threads_for(params.num_rows * params.num_vocab);
  const int64_t panel_floats = kernel.ids * params.width;
  const Buffer panels = allocate(threads * panel_floats);
  const auto multiply = [&](const LogitsParams<float>& part, int64_t begin, int64_t end, int thread) {
    kernel.multiply(part, panels.get() + thread * panel_floats, begin, end);
  };
  if (params.num_rows < params.num_vocab) {
    parallel_rows(tiles, threads,
                  [&](int64_t begin, int64_t end, int thread) { multiply(params, begin, end, thread); });
  } else {  // few tiles would not share out evenly
    parallel_rows(params.num_rows, threads, [&](int64_t begin, int64_t end, int thread) {
      LogitsParams<float> part = params;
      part.hidden += begin * params.width;
      part.logits += begin * params.num_vocab;
      part.num_rows = end - begin;
      multiply(part, 0, tiles, thread);
    });
  }
}

}  // namespace coppice
