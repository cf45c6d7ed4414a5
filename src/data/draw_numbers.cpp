#include "src/data/draw_numbers.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <string>

#include "src/base/errors.h"
#include "src/base/random.h"

namespace coppice {

uint64_t draw_stream(const TokenShardInfo& shard) {
  constexpr size_t kDigits = 14;  // of 4 bits: what a stream's step may have
  COPPICE_CHECK(shard.sha256.size() >= kDigits, "hash of " + shard.name);
  return std::stoull(shard.sha256.substr(0, kDigits), nullptr, 16);
}

double draw_number(uint64_t seed, uint64_t stream, uint64_t offset, int64_t draw) {
  COPPICE_CHECK(draw >= 0 && draw < kMaxDraws && offset >> 56 == 0, fmt::format("draw {} of token {}", draw, offset));
  return random_uniform(seed, Purpose::label_draws, stream, offset << 8 | static_cast<uint64_t>(draw));
}

void fill_draw_numbers(uint64_t seed, uint64_t stream, uint64_t offset, std::span<double> numbers) {
  int64_t draw = 0;
  for (double& number : numbers) number = draw_number(seed, stream, offset, draw++);
}

at::Tensor draw_numbers(const Batch& batch, const std::vector<const TokenShards*>& domains, int64_t draws,
                        uint64_t seed) {
  const at::Tensor number_NR = at::zeros({batch.token_BT.numel(), draws}, at::kDouble);
  double* const numbers = number_NR.mutable_data_ptr<double>();
  const int64_t seq_len = batch.token_BT.size(1);
  for (const Span& span : batch.spans) {
    const TokenShards& shards = *domains.at(static_cast<size_t>(span.domain));
    const uint64_t stream = draw_stream(shards.shards().at(static_cast<size_t>(span.shard)));
    double* const out = numbers + (span.row * seq_len + span.column) * draws;
    for (int32_t i = 0; i < span.length; ++i)
      fill_draw_numbers(seed, stream, span.offset + static_cast<uint64_t>(i),
                        {out + i * draws, static_cast<size_t>(draws)});
  }
  return number_NR;
}

}  // namespace coppice
