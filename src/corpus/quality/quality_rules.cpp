#include "src/corpus/quality/quality_rules.h"

namespace coppice {
namespace {

constexpr QualityRule most(const char* name, const char* about, double limit) {
  return {.name = name, .about = about, .most = limit, .most_option = name};
}
constexpr QualityRule least(const char* name, const char* about, double limit) {
  return {.name = name, .about = about, .least = limit, .least_option = name};
}
constexpr QualityRule never(const char* name, const char* about) { return {.name = name, .about = about, .most = 0}; }

constexpr QualityRule kGopherRepetition[] = {
    most("dup_paragraph_ratio", "share of paragraphs that stood before", 0.3),
    most("dup_paragraph_char_ratio", "characters of these, of all", 0.2),
    most("dup_line_ratio", "share of lines that stood before", 0.3),
    most("dup_line_char_ratio", "characters of these, of all", 0.2),
    most("top_2_gram", "characters of the commonest pair of words times its count, of all", 0.2),
    most("top_3_gram", "of the commonest three words", 0.18),
    most("top_4_gram", "of the commonest four words", 0.16),
    most("dup_5_gram", "characters in runs of five words that stood before, of all", 0.15),
    most("dup_6_gram", "in runs of six words", 0.14),
    most("dup_7_gram", "in runs of seven words", 0.13),
    most("dup_8_gram", "in runs of eight words", 0.12),
    most("dup_9_gram", "in runs of nine words", 0.11),
    most("dup_10_gram", "in runs of ten words", 0.1)};
constexpr QualityRule kGopherQuality[] = {
    {"words", "words that hold more than punctuation", 50, 100000, "min_words", "max_words"},
    {"mean_word_length", "their mean length in characters", 3, 10, "min_mean_word_length", "max_mean_word_length"},
    most("hash_ratio", "# a word", 0.1),
    most("ellipsis_ratio", "... and \u2026 a word", 0.1),
    most("bullet_line_ratio", "share of lines that begin with \u2022 or -", 0.9),
    most("ellipsis_line_ratio", "share of lines that end in an ellipsis", 0.3),
    least("alpha_word_ratio", "share of words with a letter", 0.8),
    least("stop_words", "how many different ones of the, be, to, of, and, that, have, with", 2)};
constexpr QualityRule kC4[] = {never("lorem_ipsum", "the words `lorem ipsum` in a line that stays"),
                               never("curly_bracket", "a { in a line that stays"),
                               least("sentences", "sentences in the lines that stay", 5)};
constexpr QualityRule kFineweb[] = {
    least("line_punct_ratio", "share of lines that end with a terminal mark", 0.12),
    most("short_line_ratio", "share of lines of at most short_line_length characters", 0.67),
    most("char_dup_ratio", "characters of lines that stood before, of all", 0.01),
    most("list_ratio", "line ends a word", 0.3)};
constexpr QualityRule kDclmLines[] = {
    most("removed_word_ratio", "share of the words that went with lines of capitals, digits, counters, shops", 0.05)};
constexpr QualityRule kRatios[] = {
    most("non_alphanumeric_ratio", "share of characters that are no letter, digit, line end or one of ? ! , .", 0.25),
    most("digit_ratio", "share of digits", 0.15),
    most("url_ratio", "share of characters in URLs", 0.2),
    most("white_space_ratio", "share of white space", 0.25),
    most("bracket_ratio", "share of ( ) [ ] { }", 0.1),
    most("open_sentence_ratio", "share of sentences without an end mark", 0.85)};
constexpr QualityRule kUrl[] = {never("url_domain", "the address is of a domain of url_domains"),
                                most("url_word_hits", "words of url_words in the address", 0)};

constexpr QualityRuleSet kSets[] = {{QualitySet::gopher_repetition, "gopher_repetition", true, kGopherRepetition},
                                    {QualitySet::gopher_quality, "gopher_quality", true, kGopherQuality},
                                    {QualitySet::c4, "c4", true, kC4},
                                    {QualitySet::fineweb, "fineweb", true, kFineweb},
                                    {QualitySet::dclm_lines, "dclm_lines", false, kDclmLines},
                                    {QualitySet::ratios, "ratios", false, kRatios},
                                    {QualitySet::url, "url", false, kUrl}};

}  // namespace

std::span<const QualityRuleSet> quality_rule_sets() { return kSets; }

size_t num_quality_limits() {
  size_t count = 0;
  for (const QualityRuleSet& set : kSets)
    for (const QualityRule& rule : set.rules) count += (rule.least_option != nullptr) + (rule.most_option != nullptr);
  return count;
}

}  // namespace coppice
