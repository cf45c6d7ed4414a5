#include "recipes/language/recipe_reading.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "src/base/errors.h"
#include "src/base/nearest.h"
#include "src/data/loader.h"

namespace coppice {

void refuse(const std::string& where, const std::string& message) { throw UserError::recipe(where, message); }

void check(bool holds, const std::string& where, const std::string& message) {
  if (!holds) refuse(where, message);
}

void check_choice(const std::string& value, const std::vector<std::string>& choices, const std::string& where,
                  const std::string& key) {
  if (std::ranges::find(choices, value) != choices.end()) return;
  refuse(where, fmt::format("{}: got '{}', expected one of: {}; did you mean '{}'?", key, printable(value),
                            fmt::join(choices, ", "), nearest(value, choices)));
}

void check_name(const std::string& name, const std::string& where, const std::string& what) {
  const auto plain = [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_' || c == '.'; };
  check(!name.empty() && name.size() <= 64 && std::ranges::all_of(name, plain) && name[0] != '.', where,
        fmt::format("{}: got '{}', expected 1 to 64 letters, digits, '-', '_' or '.', not starting with '.'", what,
                    printable(name)));
}

void check_input(const std::vector<Stage>& earlier, const std::string& name, const std::vector<std::string>& kinds,
                 const std::string& where, const std::string& key) {
  std::vector<std::string> names;
  for (const Stage& stage : earlier) {
    if (stage.name == name) {
      if (std::ranges::find(kinds, stage.kind) != kinds.end()) return;
      refuse(where,
             fmt::format("{}: stage '{}' is of kind {}, expected {}", key, name, stage.kind, fmt::join(kinds, " or ")));
    }
    names.push_back(stage.name);
  }
  if (name.empty())
    refuse(where,
           fmt::format("{}: missing; expected the name of an earlier stage ({})", key, fmt::join(kinds, " or ")));
  refuse(where, fmt::format("{}: no earlier stage is named '{}'{}", key, printable(name),
                            names.empty() ? "" : fmt::format("; did you mean '{}'?", nearest(name, names))));
}

void check_open(const Recipe& recipe, const Stage& stage, const std::vector<MixtureEntry>& mixture, const char* what) {
  for (const MixtureEntry& entry : mixture) {
    const auto domain = std::ranges::find(recipe.data.domains, entry.domain, &DomainOptions::name);
    const SourceRights* closed = entry.weight > 0 ? closed_to(domain->rights, stage.name) : nullptr;
    if (closed != nullptr)
      refuse(stage.where,
             fmt::format("{}: stage '{}' draws from domain '{}', which holds {}; leave the domain out of it "
                         "(weight = 0 here, or a [[stage.mixture]] without it), or allow the stage",
                         what, stage.name, entry.domain, closed_text(*closed)));
  }
}

void check_model(const Recipe& recipe, const std::string& name, const std::string& where, const std::string& key) {
  std::vector<std::string> names;
  for (const auto& [known, config] : recipe.models) names.push_back(known);
  check_choice(name, names, where, key);
}

}  // namespace coppice
