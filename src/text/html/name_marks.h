// What the words in an element's class and id say about it: "sidebar", "article-body", "share".
#pragma once

#include <cstdint>
#include <string_view>

namespace coppice {

enum NameMark : uint32_t {
  kUnlikely = 1u << 0,  // hardly the article ...
  kMaybe = 1u << 1,     // ... unless this is there as well
  kPositive = 1u << 2,  // adds to a node's score
  kNegative = 1u << 3,  // takes from it
  kShare = 1u << 4,     // buttons
  kByline = 1u << 5,    // who wrote it
  kComments = 1u << 6,  // what readers wrote
  kNoise = 1u << 7,     // never part of an article: newsletters, related pages, tags
  kLead = 1u << 8,      // a summary in front of the article
  kFormula = 1u << 9,   // what MathJax and KaTeX draw
};

/// The marks of all words found in a class or id, whatever their case; a word may stand inside another.
uint32_t name_marks(std::string_view name);

}  // namespace coppice
