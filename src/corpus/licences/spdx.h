// SPDX licence expressions: `MIT OR (Apache-2.0 WITH LLVM-exception AND BSD-3-Clause)`.
#pragma once

#include <functional>
#include <optional>
#include <string_view>

namespace coppice {

/// Whether somebody who may use texts under the ids that `allowed` accepts may use a text under `expression`: one side
/// of OR is enough, AND needs both, WITH only adds permissions. Operators in any case, `/` as OR (older package
/// files); a `+` behind an id is passed over. Nothing where it is no expression or nested deeper than 32.
std::optional<bool> spdx_allows(std::string_view expression, const std::function<bool(std::string_view id)>& allowed);

/// Ids are the same in any case.
bool same_spdx_id(std::string_view left, std::string_view right);

}  // namespace coppice
