// The numbers that draws of a teacher's labels come from: each a pure function of (seed, token shard, offset, draw), so
// that labelling again draws the same ids whatever the batch, the processes and their order.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "src/data/windows.h"
#include "src/tokens/token_shards.h"

namespace coppice {

inline constexpr int64_t kMaxDraws = 256;

/// A shard's stream of numbers: 56 bits of its hash, so that shards of one number in different domains share none.
uint64_t draw_stream(const TokenShardInfo& shard);
/// The number in [0, 1) of one draw for the token at `offset`; the first draws of many are those of few.
double draw_number(uint64_t seed, uint64_t stream, uint64_t offset, int64_t draw);
/// Those of its first draws, as many as there is place for.
void fill_draw_numbers(uint64_t seed, uint64_t stream, uint64_t offset, std::span<double> numbers);
/// Those of every token of a batch, float64 [B T, draws]; domains[d] is domain d of its spans.
at::Tensor draw_numbers(const Batch& batch, const std::vector<const TokenShards*>& domains, int64_t draws,
                        uint64_t seed);

}  // namespace coppice
