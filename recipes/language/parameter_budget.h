// A model as small as a number of parameters asks, when what goes is shared among the axes of a cut.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "pruning/cut_axis.h"

namespace coppice {

struct ParameterBudget {
  bool is_share = true;  // of the parameters that are there
  double value = 0;

  double most(double all) const { return is_share ? value * all : value; }
  /// "0.8x, 108000 parameters".
  std::string in_words(double all) const;
};
/// "0.8x", or a number of parameters such as 108e6, 108M or 1.2B. UserError::recipe(where) otherwise.
ParameterBudget parse_parameter_budget(std::string_view text, const std::string& where);

struct AxisShare {
  CutAxis axis;
  double share;  // of the parameters that go
};

/// The source's shape cut to the budget by axes, in kCutOrder, whose shares add up to 1. Each gives, in steps of
/// step_of(), as near as it can to its share of what goes; the last of them what is then left to go, so that the result
/// is within the budget, and by less than one of its steps. UserError::recipe(where) with the numbers where nothing
/// goes or an axis cannot give its part.
ModelConfig fit_parameters(const ModelConfig& source, const ParameterBudget& budget,
                           const std::vector<AxisShare>& shares, const std::string& where);

}  // namespace coppice
