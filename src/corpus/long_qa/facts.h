// What can be cut out of a sentence and asked for: numbers, dates, names.
#pragma once

#include <string_view>
#include <vector>

#include "src/corpus/long_qa/outline.h"

namespace coppice {

enum class FactType { number, date, name };

struct Fact {
  FactType type;
  ByteSpan span;  // in the sentence
};

/// In their order, none over another. A number has two digits at least (1,024; 3.14; 12:30); a date is an English month
/// with the numbers beside it (12 March 1887; March 12, 1887; May 1901); a name is one to four words with a capital
/// each that are not the sentence's first.
std::vector<Fact> find_facts(std::string_view sentence);

/// A function word of English, in any case.
bool is_stop_word(std::string_view word);
/// Every word of the text is one.
bool is_stop_words(std::string_view text);

}  // namespace coppice
