#include "pruning/plan.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "pruning/mask_budget.h"
#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

constexpr const char* kFormat = "coppice.prune_plan";
constexpr int kVersion = 1, kAxisVersion = 2;  // of FFN channels; of an axis that the file names
constexpr const char* kRule = "higher score, then lower index";

/// One row's list; `what` names the row.
std::vector<int64_t> kept_at(const Json& entry, const std::string& what, const std::string& path) {
  std::vector<int64_t> kept;
  for (const Json& unit : array_at(entry, "kept", path)) {
    const bool fits = unit.is_number_unsigned() && unit.get<uint64_t>() <= uint64_t{INT32_MAX};
    if (!fits || (!kept.empty() && unit.get<int64_t>() <= kept.back()))
      throw UserError::bad_file(
          path, fmt::format("{}: kept[{}] is {}, expected ascending numbers", what, kept.size(), unit.dump()));
    kept.push_back(unit.get<int64_t>());
  }
  if (kept.empty()) throw UserError::bad_file(path, fmt::format("{}: nothing is kept", what));
  return kept;
}

}  // namespace

PrunePlan make_plan(const at::Tensor& scores_RU, const std::vector<int64_t>& num_kept, std::string scores_name,
                    std::string source_sha256, const std::vector<int64_t>& units, CutAxis axis) {
  check_shape(scores_RU, {static_cast<int64_t>(num_kept.size()), -1}, "scores_RU");
  COPPICE_CHECK(units.empty() || units.size() == num_kept.size(), "one number of units a row");
  PrunePlan plan{.source_sha256 = std::move(source_sha256), .scores = std::move(scores_name), .kept = {}, .axis = axis};
  for (size_t row = 0; row < num_kept.size(); ++row) {
    const int64_t num_units = units.empty() ? scores_RU.size(1) : units[row];
    const std::string where =
        fmt::format("prune by {}{}", plan.scores, row_of(axis).per_layer ? fmt::format(", layer {}", row) : "");
    if (num_kept[row] < 1 || num_kept[row] > num_units)
      throw UserError::recipe(where, fmt::format("{}: got {}, expected 1 to {} (the source's {})",
                                                 row_of(axis).size_key, num_kept[row], num_units, row_of(axis).units));
    const at::Tensor row_1U = scores_RU.detach().narrow(0, static_cast<int64_t>(row), 1).narrow(1, 0, num_units);
    const at::Tensor bad = row_1U.isfinite().logical_not().nonzero();
    if (bad.size(0) > 0) {
      const int64_t unit = bad[0][1].item<int64_t>();
      throw UserError::recipe(where, fmt::format("{} of {} scores are not finite, the first is {} {}: {}", bad.size(0),
                                                 num_units, row_of(axis).unit, unit, row_1U[0][unit].item<double>()));
    }
    const at::Tensor kept = hard_top_k(row_1U, num_kept[row]).squeeze(0).nonzero().squeeze(1).to(at::kCPU).contiguous();
    plan.kept.emplace_back(kept.const_data_ptr<int64_t>(), kept.const_data_ptr<int64_t>() + kept.numel());
  }
  return plan;
}

void save_plan(const std::filesystem::path& path, const PrunePlan& plan) {
  Json object = {{"format", kFormat},
                 {"version", plan.axis == CutAxis::ffn ? kVersion : kAxisVersion},
                 {"source", plan.source_sha256},
                 {"scores", plan.scores},
                 {"rule", kRule}};
  if (plan.axis != CutAxis::ffn) object["axis"] = row_of(plan.axis).name;
  if (row_of(plan.axis).per_layer) {
    Json& layers = object["layers"] = Json::array();
    for (size_t layer = 0; layer < plan.kept.size(); ++layer)
      layers.push_back({{"layer", layer}, {"kept", plan.kept[layer]}});
  } else {
    object["kept"] = plan.kept.front();
  }
  write_file_atomically(path, seal(object));
}

PrunePlan load_plan(const std::filesystem::path& path) {
  const Json object = read_sealed(path, kFormat, kAxisVersion);
  PrunePlan plan{.source_sha256 = string_at(object, "source", path.string()),
                 .scores = string_at(object, "scores", path.string()),
                 .kept = {}};
  const bool names_axis = unsigned_at(object, "version", path.string()) == uint64_t{kAxisVersion};
  if (names_axis || object.contains("axis")) {
    const std::string name = string_at(object, "axis", path.string());
    const std::optional<CutAxis> axis = find_axis(name);
    if (!names_axis || !axis || *axis == CutAxis::ffn)
      throw UserError::bad_file(path.string(),
                                fmt::format("axis: got '{}', expected {}", printable(name),
                                            names_axis ? "heads, layers or hidden" : "none in a file of version 1"));
    plan.axis = *axis;
  }
  if (const std::string rule = string_at(object, "rule", path.string()); rule != kRule)
    throw UserError::bad_file(path.string(), fmt::format("rule: got '{}', expected '{}'", printable(rule), kRule));
  if (!row_of(plan.axis).per_layer) {
    plan.kept.push_back(kept_at(object, row_of(plan.axis).units, path.string()));
    return plan;
  }
  for (const Json& entry : array_at(object, "layers", path.string())) {
    const size_t layer = plan.kept.size();
    if (!entry.is_object() || unsigned_at(entry, "layer", path.string()) != layer)
      throw UserError::bad_file(path.string(),
                                fmt::format("layers[{}]: expected an object whose layer is {}", layer, layer));
    plan.kept.push_back(kept_at(entry, fmt::format("layer {}", layer), path.string()));
  }
  return plan;
}

at::Tensor plan_mask(const PrunePlan& plan, int64_t num_units, const at::Tensor& soft_RU) {
  const int64_t num_rows = static_cast<int64_t>(plan.kept.size());
  at::Tensor mask_RU = at::zeros({num_rows, num_units}, at::kFloat);
  for (int64_t row = 0; row < num_rows; ++row) {
    const std::vector<int64_t>& kept = plan.kept[static_cast<size_t>(row)];
    COPPICE_CHECK(kept.empty() || kept.back() < num_units,
                  fmt::format("row {} keeps {} of {}", row, kept.back(), num_units));
    mask_RU[row].index_fill_(0, at::tensor(kept, at::kLong), 1.0);
  }
  if (!soft_RU.defined()) return mask_RU;
  check_shape(soft_RU, {num_rows, num_units}, "soft_RU");
  return mask_RU * soft_RU.detach();
}

}  // namespace coppice
