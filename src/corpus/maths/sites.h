// Sites of questions and answers: which pages of them hold a question, and which elements hold its parts.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/corpus/maths/selectors.h"

namespace coppice {

/// A [[maths.site]] of a site file. Selectors that are not given stay empty.
struct QaSite {
  std::string name;                  // the first domain, or the file's name for a site that is told by its marker
  std::vector<std::string> domains;  // each with all below it; none = any
  std::vector<std::string> paths;    // one of these stands in an address behind the host, # for a digit; none = any
  Selector marker;                   // an element that its pages hold
  Selector title, question, question_votes;
  Selector answers, answer_text, answer_votes, accepted;
  int64_t best = 3;                 // answers that are taken at most; 0 = all
  std::optional<double> min_votes;  // of a question and of an answer, where votes are told
};

/// The sites of a file. UserError::recipe naming file and line for a key that is not known, a selector that is none, a
/// site without question or answers, or without both domain and marker; UserError::bad_file where it cannot be read.
std::vector<QaSite> read_sites(const std::filesystem::path& file);

/// Whether the site may have a page of this address, markers apart.
bool may_be_of(const QaSite& site, std::string_view url);

}  // namespace coppice
