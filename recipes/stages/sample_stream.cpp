#include "recipes/stages/sample_stream.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/data/batch_device.h"
#include "src/optim/optimizer.h"

namespace coppice {

LoaderOptions loader_options(const StageContext& context, const Stage& reader, const TrainingOptions& training) {
  return {.seq_len = training.seq_len,
          .document_mask = training.document_mask,
          .seed = training.data_seed ? training.data_seed : context.recipe.seed,
          .stage = reader.name};
}

std::vector<Span> spans_of_rank(const std::vector<Span>& drawn, int rank, int size) {
  std::vector<Span> own;
  for (size_t i = static_cast<size_t>(rank); i < drawn.size(); i += static_cast<size_t>(size)) own.push_back(drawn[i]);
  return own;
}

SampleStream::SampleStream(const StageContext& context, const TrainingOptions& options, Comm& comm, at::Device device)
    : options_(options),
      comm_(comm),
      device_(device),
      loader_(context.data.shards_of(options.mixture), options.mixture,
              loader_options(context, context.stage, options)),
      step_{.batches = {}, .drawn = loader_.drawn()} {}

SampleStream::Step SampleStream::read() {
  const std::vector<Span> own = spans_of_rank(loader_.next_spans(options_.rows()), comm_.rank(), comm_.size());
  const auto micro_rows = static_cast<size_t>(options_.micro_rows());
  Step step;
  for (size_t begin = 0; begin < own.size(); begin += micro_rows)
    step.batches.push_back(
        on_device(loader_.read(std::span(own).subspan(begin, std::min(micro_rows, own.size() - begin))), device_));
  step.drawn = loader_.drawn();
  return step;
}

void SampleStream::read_ahead() {
  const double begin_s = monotonic_s();
  try {
    if (!ahead_) ahead_ = read();
  } catch (const std::exception&) {  // the step under way ends first, and the next may never be asked for
    ahead_.reset();
    loader_.restore(step_.drawn);
  }
  if (device_.is_cpu()) waited_s_ += monotonic_s() - begin_s;  // nothing computes meanwhile
}

const std::vector<Batch>& SampleStream::next() {
  const double begin_s = monotonic_s();
  step_ = {};  // its memory serves the next one
  step_ = ahead_ ? *std::exchange(ahead_, std::nullopt) : read();
  double live = 0;
  for (const Batch& batch : step_.batches) live += static_cast<double>(batch.num_live);
  sum_over(comm_, std::span(&live, 1), "live tokens");
  scale_ = gradient_scale(static_cast<int64_t>(live));
  waited_s_ += monotonic_s() - begin_s;
  return step_.batches;
}

Json SampleStream::drawn() const {
  Json drawn = Json::object();
  for (size_t d = 0; d < options_.mixture.size(); ++d) drawn[options_.mixture[d].domain] = step_.drawn[d];
  return drawn;
}

void SampleStream::restore(const Json& drawn, const std::string& path) {
  std::vector<uint64_t> counts;
  for (const MixtureEntry& entry : options_.mixture) counts.push_back(unsigned_at(drawn, entry.domain.c_str(), path));
  loader_.restore(counts);
  step_ = {.batches = {}, .drawn = loader_.drawn()};
  ahead_.reset();
}

}  // namespace coppice
