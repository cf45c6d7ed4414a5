#include "recipes/commands/verbs.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>

#include "src/base/errors.h"

namespace coppice {

CLI::App* add_verb(CLI::App& parent, const char* name, const char* about, const std::string& example) {
  CLI::App* added = parent.add_subcommand(name, about);
  added->footer("Example:\n  " + example);
  return added;
}

void RecipeFlags::add(CLI::App& verb) {
  verb.add_option("recipe", request.recipe_file, "recipe file (.toml)")->required();
  verb.add_option(
          "--set", set,
          "override: <stage or table>.<key>=<TOML value>, or data.step.<its name>.<key>=<TOML value>; may be repeated")
      ->take_all()
      ->allow_extra_args(false);
  verb.add_option("--unset", request.unset, "remove a key: <stage or table>.<key>")
      ->take_all()
      ->allow_extra_args(false);
}

void RecipeFlags::add_out(CLI::App& verb, const std::string& about) { verb.add_option("--out", request.out, about); }

RunRequest RecipeFlags::parsed() const {
  RunRequest parsed = request;
  for (const std::string& text : set) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0)
      throw UserError::recipe(
          "--set", fmt::format("got '{}', expected <path>=<value>, for instance core.tokens=2e5", printable(text)));
    parsed.overrides.push_back({text.substr(0, equals), text.substr(equals + 1)});
  }
  return parsed;
}

void flush_result() {
  if (std::fflush(stdout) != 0) throw IoError("stdout", "the result cannot be written", errno);
}

}  // namespace coppice
