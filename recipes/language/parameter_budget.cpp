#include "recipes/language/parameter_budget.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>

#include "recipes/language/recipe_reading.h"
#include "src/base/amount.h"
#include "src/base/errors.h"
#include "src/model/parameters.h"

namespace coppice {
namespace {

double count(const ModelConfig& config) { return static_cast<double>(count_parameters(config)); }

/// What an axis is to give.
struct Part {
  const ModelConfig& left;  // by the axes before it
  CutAxis axis;
  double goes;  // parameters
  int64_t units = units_of(left, axis).front(), step = step_of(left, axis);

  double given_by(int64_t kept) const { return count(left) - count(with_units(left, axis, kept)); }
};

/// The units that stay: as many as give no less than their part, or as many as come nearest to it.
int64_t kept_units(const Part& part, bool no_less) {
  if (part.goes <= 0) return part.units;
  const double rest = count(part.left) - part.goes;
  const int64_t below =
      most_units(part.left, part.axis, part.step, [&](const ModelConfig& config) { return count(config) <= rest; });
  if (no_less || below == 0) return below;
  const int64_t above = std::min(below + part.step, part.units);
  return part.given_by(below) - part.goes <= part.goes - part.given_by(above) ? below : above;
}

/// A cut that is one, and leaves something.
void check_kept(const Part& part, int64_t kept, const std::string& asked, const std::string& where) {
  const CutAxisRow& row = row_of(part.axis);
  const int64_t least = least_units(part.units, part.step), most = (part.units - 1) / part.step * part.step;
  const std::string who = fmt::format("parameters: {}, and {:.0f} fewer are to come from {} ({} {})", asked,
                                      std::max(part.goes, 0.0), row.name, part.units, row.units_of_row);
  if (least >= part.units) refuse(where, who + ": there are too few to cut");
  if (kept >= part.units)
    refuse(where, fmt::format("{}: {} would give {:.0f} at once; give it a larger share, or none", who,
                              part.units - most, part.given_by(most)));
  if (kept < least)
    refuse(where, fmt::format("{}: they give {:.0f} at most, with {} left; give it a smaller share, or ask for more "
                              "parameters",
                              who, part.given_by(least), least));
}

}  // namespace

std::string ParameterBudget::in_words(double all) const {
  return is_share ? fmt::format("{}x, {:.0f} parameters", value, most(all)) : fmt::format("{:.0f} parameters", value);
}

ParameterBudget parse_parameter_budget(std::string_view text, const std::string& where) {
  const bool is_share = text.ends_with('x');
  const std::optional<double> value =
      is_share ? parse_amount(text.substr(0, text.size() - 1), kPlainUnits) : parse_amount(text, kCountUnits);
  if (!value || (!is_share && *value < 1))
    throw UserError::recipe(where, fmt::format("got '{}', expected a share such as 0.8x, or a number of parameters "
                                               "such as 108e6, 108M or 1.2B",
                                               printable(text)));
  return {.is_share = is_share, .value = is_share ? *value : std::floor(*value)};
}

ModelConfig fit_parameters(const ModelConfig& source, const ParameterBudget& budget,
                           const std::vector<AxisShare>& shares, const std::string& where) {
  const double all = count(source), most = budget.most(all);
  check(most < all, where,
        fmt::format("parameters: {} asked, and model.source has {:.0f}: there is nothing to cut", budget.in_words(all),
                    all));
  check(std::ranges::adjacent_find(source.intermediate_size, std::not_equal_to<>()) == source.intermediate_size.end(),
        where, "parameters: the layers of model.source differ in FFN width; expected one for all");
  ModelConfig left = source;
  for (size_t i = 0; i < shares.size(); ++i) {
    const bool is_last = i + 1 == shares.size();
    const Part part{
        .left = left, .axis = shares[i].axis, .goes = is_last ? count(left) - most : shares[i].share * (all - most)};
    const int64_t kept = kept_units(part, is_last);
    check_kept(part, kept, budget.in_words(all), where);
    left = with_units(left, part.axis, kept);
  }
  left.rms_norm_eps = source.rms_norm_eps;  // a cut moves it with the width; a target says what it moves from
  return left;
}

}  // namespace coppice
