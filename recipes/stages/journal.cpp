#include "recipes/stages/journal.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "recipes/folder/machine.h"
#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/model/parameters.h"
#include "src/tensors/device.h"

namespace coppice {
namespace {

constexpr const char* kBadBatches = "bad_batches.jsonl";

double per_live(double sum, const LossSums& sums) {
  return sums.num_live == 0 ? 0.0 : sum / static_cast<double>(sums.num_live);
}

}  // namespace

ZeroGradientWatch::ZeroGradientWatch(std::string what, int64_t num_steps)
    : what_(std::move(what)), enough_(std::min<int64_t>(10, num_steps)) {}

std::string ZeroGradientWatch::look(double norm, int64_t step) {
  zeros_ = norm == 0 ? zeros_ + 1 : 0;
  if (said_ || zeros_ < enough_) return {};
  said_ = true;
  return fmt::format(
      "{} is exactly 0 in steps {} to {}: nothing is learned; look at its loss, its labels and what it starts from",
      what_, step - zeros_ + 1, step);
}

Journal::Journal(const StageContext& context, const TrainingOptions& options, std::vector<std::string> teachers)
    : context_(context),
      options_(options),
      teachers_(std::move(teachers)),
      progress_(context.stage.name, static_cast<uint64_t>(options.steps()), "step"),
      zero_gradient_(fmt::format("stage '{}': the gradient of the weights", context.stage.name), options.steps()) {}

void Journal::open(const TrainingState& state) {
  metrics_ = std::make_unique<MetricsWriter>(context_.folder() / "metrics.jsonl", state.step);
  if (const std::filesystem::path bad = context_.folder() / kBadBatches; std::filesystem::exists(bad))
    MetricsWriter(bad, state.step);  // cuts lost steps
  const Placement on = place(context_.stage);
  gemm_gflops_ = gemm_gflops(on);
  peak_gflops_ = peak_gflops(on);
  begin_s_ = step_begin_s_ = counted_s_ = monotonic_s();
}

void Journal::begin_step() { step_begin_s_ = monotonic_s(); }

void Journal::end_step(TrainingState& state, const StepRecord& record, const ModelConfig& model,
                       const std::vector<Batch>& batches, const std::function<int64_t()>& saved_step) {
  ++state.step;
  state.tokens += record.sums.num_live;
  state.consecutive_skips = record.outcome.applied ? 0 : state.consecutive_skips + 1;
  const double step_s = monotonic_s() - step_begin_s_;
  work_s_ += step_s;
  step_flops_ += training_flops_per_token(model, options_.seq_len) * static_cast<double>(options_.batch_tokens);
  state.flops += step_flops_;
  const double gflops = step_flops_ / step_s / 1e9;
  step_flops_ = 0;
  write_line(state, record, step_s, gflops / peak_gflops_);

  if (record.outcome.lr > 0)  // else skipped, or weights that the stage holds still
    if (const std::string zero = zero_gradient_.look(record.outcome.grad_norm, state.step); !zero.empty())
      log_warning(zero);
  if (!record.outcome.applied) write_skipped(state.step, record, batches);
  const double loss = record.sums.terms().loss, norm = record.outcome.grad_norm;
  progress_.update(static_cast<uint64_t>(state.step),
                   {{"loss", fmt::format("{:.4f}", loss)},
                    {"tok/s", format_count(static_cast<double>(options_.batch_tokens) / step_s)},
                    {"of GEMM", fmt::format("{:.0f}%", 100 * gflops / gemm_gflops_)}});
  if (state.consecutive_skips > options_.max_skipped_steps)
    throw DivergedError(
        fmt::format("stage '{}' step {}: {} steps in a row were skipped (last loss {:.4g}, gradient norm {:.4g}); last "
                    "checkpoint: step {}. Look at "
                    "bad_batches.jsonl, or go back to a checkpoint before step {} (coppice rewind) and on with a lower "
                    "{}.lr (--allow-change){}",
                    context_.stage.name, state.step, state.consecutive_skips, loss, norm,
                    std::max<int64_t>(saved_step(), 0), state.step - state.consecutive_skips + 1, context_.stage.name,
                    std::isfinite(norm) ? fmt::format("; a model that is far off at first, as after a hard cut, may "
                                                      "need a higher {}.drop_grad_norm than {}",
                                                      context_.stage.name, options_.optimizer.drop_grad_norm)
                                        : ""));
}

void Journal::write_line(const TrainingState& state, const StepRecord& record, double step_s, double mfu) {
  const LossSums& sums = record.sums;
  const LossTerms terms = sums.terms();
  MetricsLine line;
  line.add("step", state.step);
  line.add("tokens", state.tokens);
  line.add("loss", terms.loss);
  line.add("ce", terms.ce);
  if (sums.teacher_weight > 0) line.add("kd", terms.kd);
  for (size_t i = 0; i < sums.kd_of.size(); ++i) line.add("kd." + teachers_[i], per_live(sums.kd_of[i], sums));
  if (sums.hidden > 0) line.add("hidden_loss", sums.hidden / static_cast<double>(sums.num_live));
  if (options_.z_loss > 0) line.add("z_loss", per_live(sums.z, sums));
  line.add("lr", record.outcome.lr);
  line.add("grad_norm", record.outcome.grad_norm);
  if (!std::isnan(record.heldout)) line.add("heldout_loss", record.heldout);
  for (const auto& [key, value] : record.extra) line.add(key, value);
  line.add("tok_s", static_cast<double>(options_.batch_tokens) / step_s);
  line.add("mfu", mfu);
  line.add("t", step_begin_s_ + step_s - begin_s_);
  metrics_->append(line);
}

void Journal::write_skipped(int64_t step, const StepRecord& record, const std::vector<Batch>& batches) {
  const double loss = record.sums.terms().loss, norm = record.outcome.grad_norm;
  log_warning(
      fmt::format("stage '{}' step {}: update skipped (loss {:.4g}, gradient norm {:.4g}); weights and optimizer "
                  "state stay as they were",
                  context_.stage.name, step, loss, norm));
  Json bad = {{"step", step},
              {"loss", fmt::format("{}", loss)},
              {"grad_norm", fmt::format("{}", norm)},
              {"spans", Json::array()}};
  for (const Batch& batch : batches)
    for (const Span& span : batch.spans)
      bad["spans"].push_back({{"domain", options_.mixture[static_cast<size_t>(span.domain)].domain},
                              {"shard", span.shard},
                              {"offset", span.offset},
                              {"length", span.length}});
  OutputFile file(context_.folder() / kBadBatches, OutputFile::Mode::append);
  file.write(bad.dump() + "\n");
  file.sync();
  file.close();
}

void Journal::finish(const TrainingState& state, double waited_s, double stall_s) {
  metrics_->sync();
  progress_.finish(fmt::format(
      "{} steps, {} tokens; waiting for data took {:.2f}% of the time, checkpoints held it up for {:.2f} s", state.step,
      format_count(static_cast<double>(state.tokens)), work_s_ > 0 ? 100 * waited_s / work_s_ : 0.0, stall_s));
}

double Journal::take_seconds() {
  const double now_s = monotonic_s(), seconds = now_s - counted_s_;
  counted_s_ = now_s;
  return seconds;
}

}  // namespace coppice
