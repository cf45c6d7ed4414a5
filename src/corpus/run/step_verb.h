// `coppice data KIND INPUT... -o OUT`: one step as a pipeline of one.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "src/corpus/run/corpus_settings.h"

namespace coppice {

struct StepVerb {
  std::string kind;
  std::vector<std::string> inputs;                                 // a source each, named like the file or folder
  std::string source;                                              // its name instead, of a single input
  std::string source_kind, license, text;                          // of all sources; empty: the default
  std::vector<std::string> stages;                                 // the same
  std::vector<std::pair<std::string, std::string>> data, options;  // keys of [data] and of the step; TOML values, or
                                                                   // strings without quotes
};

/// The value of a flag for a list (StepOption::is_list), as TOML: what it was given with, once or several times. Given
/// once it may be a list, or a table, itself.
std::string list_value(const std::vector<std::string>& given);

/// The recipe that the flags stand for, and for each of its lines the input or flag that it was made of.
struct StepRecipe {
  std::string text;
  std::vector<std::string> places;
};
StepRecipe step_recipe(const StepVerb& verb);
/// UserError::recipe as read_corpus, at the flag or input.
CorpusSettings read_step_verb(const StepVerb& verb, std::span<const StepKind* const> kinds = step_kinds());

}  // namespace coppice
