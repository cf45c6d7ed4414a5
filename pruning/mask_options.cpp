#include "pruning/mask_options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "pruning/mask_methods.h"
#include "pruning/scores.h"
#include "src/base/errors.h"
#include "src/base/nearest.h"

namespace coppice {
namespace {

constexpr double kTopFrom = 0.9;  // plain_then_top: share of the steps after which only the hard set counts

}  // namespace

void check_mask_options(const MaskOptions& options, const std::function<std::string(const char* key)>& where) {
  const auto require = [&](bool holds, const char* key, const auto& got, const char* expected) {
    if (!holds) throw UserError::recipe(where(key), fmt::format("{}: got {}, expected {}", key, got, expected));
  };
  const auto one_of = [&](const char* key, const std::string& got, const std::vector<std::string>& names) {
    if (std::ranges::find(names, got) != names.end()) return;
    throw UserError::recipe(where(key), fmt::format("{}: got '{}', expected {}; did you mean '{}'?", key,
                                                    printable(got), fmt::join(names, ", "), nearest(got, names)));
  };
  MaskOptions fields = options;
  auto is_number = [&](const char* key, const auto& value, Mark, const char*) {
    if constexpr (std::is_same_v<decltype(value), const double&>)
      require(std::isfinite(value), key, value, "a finite number");
  };
  fields.visit_fields(is_number);
  find_mask_method(options.mask_method, where("mask_method"));
  require(options.score_lr > 0, "score_lr", options.score_lr, "a number above 0");
  if (options.score_init != "noise") find_score(options.score_init, where("score_init"));
  require(options.score_init_std >= 0, "score_init_std", options.score_init_std, "a number of at least 0");
  require(options.calibration_tokens > 0, "calibration_tokens", options.calibration_tokens, "a number above 0");
  one_of("score_scale", options.score_scale, {"standardise", "raw"});
  require(options.k_ramp >= 0 && options.k_ramp <= 1, "k_ramp", options.k_ramp, "a share between 0 and 1");
  require(options.top_k_epsilon > 0, "top_k_epsilon", options.top_k_epsilon, "a number above 0");
  require(options.final_top_k_epsilon > 0, "final_top_k_epsilon", options.final_top_k_epsilon, "a number above 0");
  one_of("anneal", options.anneal, {"geometric", "linear", "constant"});
  require(options.anneal_end >= options.k_ramp && options.anneal_end <= 1, "anneal_end", options.anneal_end,
          "a share between k_ramp and 1");
  one_of("mask_form", options.mask_form, {"plain", "top", "plain_then_top"});
  one_of("budget", options.budget, {"layer", "global"});
  require(options.compact_after >= 0, "compact_after", options.compact_after, "a number of at least 0");
  if (options.compact_after > 0 && !find_mask_method(options.mask_method, where("mask_method")).compacts)
    throw UserError::recipe(
        where("compact_after"),
        fmt::format("compact_after: the gates of {} come back from 0, so no channel is dead while they are learned; "
                    "use soft_top_k or coordinate_descent",
                    options.mask_method));
  require(options.round_to >= 1, "round_to", options.round_to, "a number of at least 1");
  one_of("on_collapse", options.on_collapse, {"stop", "warn"});
  require(options.descent_rounds >= 1 && options.descent_rounds <= 10000, "descent_rounds", options.descent_rounds,
          "1 to 10000");
  one_of("descent_start", options.descent_start, {"zero", "minus_s"});
  one_of("hard_concrete", options.hard_concrete, {"llm_shearing", "l0", "flop"});
  require(options.gate_lr > 0, "gate_lr", options.gate_lr, "a number above 0");
  require(options.multiplier_lr >= 0, "multiplier_lr", options.multiplier_lr, "a number of at least 0");
}

MaskSchedule mask_schedule(const MaskOptions& options, double p, int64_t num_channels, int64_t num_kept) {
  COPPICE_CHECK(num_kept > 0 && num_kept <= num_channels, fmt::format("K {} of {} channels", num_kept, num_channels));
  const double ramp = p >= options.k_ramp ? 1.0 : p / options.k_ramp;
  double share = p >= options.anneal_end ? 1.0
                 : p <= options.k_ramp   ? 0.0
                                         : (p - options.k_ramp) / (options.anneal_end - options.k_ramp);
  if (options.anneal == "constant") share = 0;
  MaskSchedule schedule;
  schedule.k = static_cast<double>(num_channels) - static_cast<double>(num_channels - num_kept) * ramp;
  schedule.epsilon = options.anneal == "linear"
                         ? options.top_k_epsilon + (options.final_top_k_epsilon - options.top_k_epsilon) * share
                         : options.top_k_epsilon * std::pow(options.final_top_k_epsilon / options.top_k_epsilon, share);
  schedule.top = options.mask_form == "top" || (options.mask_form == "plain_then_top" && p >= kTopFrom);
  return schedule;
}

}  // namespace coppice
