// What a training step computes again in its backward pass, so that it need not be kept from the forward pass.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace coppice {

/// Gradients have the same bits either way: what is made again is made by the same operations of the same numbers.
enum class Recompute {
  none,         // nothing
  elementwise,  // outputs of the layers' norms and the FFN's hidden values: no product
  gate_up,      // the same and the FFN's first product
  layer,        // all of a layer but its input
  count
};
/// As recipes spell it.
const char* recompute_name(Recompute recompute);
std::optional<Recompute> find_recompute(std::string_view name);
std::vector<std::string> recompute_names();

}  // namespace coppice
