// SPDX licence expressions: `MIT OR (Apache-2.0 WITH LLVM-exception AND BSD-3-Clause)`.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace coppice {

/// Whether an expression leaves a way in which `is_allowed` holds for every licence that applies: one side of OR (or of
/// `/`, as older package files have it), both of AND. It is asked for ids, `X WITH Y` whole. Operators in any case.
/// Nothing where it is no expression or more than 32 parentheses deep.
std::optional<bool> spdx_allows(std::string_view expression, const std::function<bool(std::string_view)>& is_allowed);

/// The same, where what is no expression ("MIT Licence, see file") is asked for as it stands.
bool is_licence_allowed(std::string_view expression, const std::function<bool(std::string_view)>& is_allowed);

/// `*` and `?` patterns over ids, ignoring case. `GPL-2.0-only` also matches `GPL-2.0-only WITH ...`,
/// `Apache-2.0` also `Apache-2.0+`.
bool matches_licence(const std::vector<std::string>& patterns, std::string_view id);

/// The SPDX id of a Creative Commons address, `https://creativecommons.org/licenses/by-sa/4.0/deed.de` -> CC-BY-SA-4.0,
/// zero and mark -> CC0-1.0 and CC-PDM-1.0; empty for every other.
std::string licence_of_address(std::string_view url);

}  // namespace coppice
