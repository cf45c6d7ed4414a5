// What differs between two corpora in what they are made of, in words.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "src/base/json.h"

namespace coppice {

/// Options as corpus_identity() holds them, out of their TOML: `{"min_words": "50", "keep.en": "0.65"}`; keys of the
/// tables of an array carry their number: `pattern.2.regex`.
Json options_json(std::string_view toml);

/// The first difference between two identities: `step 3 'quality': min_words was 50, is 40`.
std::string identity_difference(const Json& before, const Json& now);
/// The same of the names of input files, both sorted: `a/1.jsonl was there, is gone`; empty: none.
std::string files_difference(const std::vector<std::string>& before, const std::vector<std::string>& now);

}  // namespace coppice
