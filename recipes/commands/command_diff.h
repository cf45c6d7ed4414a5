// coppice diff A B: what two decisions or records differ in. Masks and prune plans: kept channels per layer and how
// much two choices have in common beside what chance would give; recipes and manifests: keys whose values differ.
#pragma once

#include <filesystem>
#include <string>

namespace coppice {

/// Text for people; its first line begins with "equal" or "different". Both must be of one kind: masks.h5,
/// prune_plan.json, a recipe (.toml) or JSON. UserError::bad_file (exit 3) when a file is damaged or of another kind.
std::string diff(const std::filesystem::path& a, const std::filesystem::path& b);

}  // namespace coppice
