// Training a SentencePiece BPE model with the AFM options (arXiv 2407.21075): digits split, byte fallback, no
// normalisation.
#include "src/tokens/tokenizer_training.h"

#include <fmt/format.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <unordered_map>

#include "src/base/errors.h"
#include "src/tokens/sentencepiece_walk.h"

namespace coppice {

namespace {

constexpr int kTrainingThreads = 16;  // recorded in the model file: a constant, so that equal text gives equal bytes
constexpr int64_t kNumFixedPieces = 260;  // <unk> <s> </s> <pad> and 256 bytes

constexpr double kMinCharacterCoverage = 0.98;               // the library's own limit
constexpr std::string_view kDroppedSymbol = "\xE2\x96\x85";  // U+2585

bool is_at(std::string_view text, size_t at, std::string_view symbol) {
  return text.compare(at, symbol.size(), symbol) == 0;
}

/// The line in parts of at most kMaxLineCharacters, cut in front of a run of spaces, which no piece crosses, or inside
/// a word where none is in reach. Returns how many words are cut.
int64_t cut_long_line(std::string_view line, const std::function<void(std::string_view line)>& take) {
  int64_t num_cut = 0;
  size_t begin = 0, characters = 0;  // of the part
  size_t spaces = 0,
         before_spaces = 0;  // where the last run of spaces begins, and the characters of the part in front of it
  bool after_space = true, is_cut = false;  // is_cut: the word at hand, already
  for (size_t i = 0; i < line.size() && line.size() > kMaxLineCharacters; i += character_bytes(line[i])) {
    const bool is_space = line[i] == ' ' || is_at(line, i, kSpaceSymbol);
    if (is_space && !after_space) {
      spaces = i;
      before_spaces = characters;
      is_cut = false;
    }
    after_space = is_space;
    if (++characters <= kMaxLineCharacters) continue;
    const bool inside = spaces <= begin;
    const size_t end = inside ? i : spaces;
    take(line.substr(begin, end - begin));
    characters -= inside ? kMaxLineCharacters : before_spaces;
    begin = end;
    if (!inside) continue;
    num_cut += !is_cut;
    is_cut = true;
  }
  if (begin < line.size()) take(line.substr(begin));
  return num_cut;
}

/// Paragraphs in memory: the trainer keeps them as well, and drops lines above max_sentence_length silently, so the
/// longest must be known first.
class Paragraphs : public sentencepiece::SentenceIterator {
 public:
  void add(std::string_view text) {
    for_each_training_line(text, [&](std::string_view line) {
      longest_ = std::max(longest_, line.size());
      lines_.emplace_back(line);
    });
  }
  size_t longest() const { return longest_; }
  bool empty() const { return lines_.empty(); }
  void rewind() { at_ = 0; }

  bool done() const override { return at_ == lines_.size(); }
  void Next() override { ++at_; }
  const std::string& value() const override { return lines_[at_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  std::vector<std::string> lines_;
  size_t longest_ = 0, at_ = 0;
};

/// The number behind `lead` in the library's text; empty when it is not there.
std::string number_behind(const std::string& status, std::string_view lead) {
  const size_t found = status.find(lead);
  if (found == std::string::npos) return "";
  const size_t begin = found + lead.size();
  return status.substr(begin, status.find_first_not_of("0123456789", begin) - begin);
}

/// The library's text names the largest vocabulary, or the smallest one.
UserError training_error(const TokenizerOptions& options, const std::string& status) {
  static constexpr const char* kKey = "tokenizer.vocab_size";
  const std::string largest = number_behind(status, "Please set it to a value <= ");
  if (!largest.empty())
    return UserError::recipe(kKey, fmt::format("got {}, but the training text yields at most {} pieces: set vocab_size "
                                               "= {}, or raise tokenizer.training_bytes",
                                               options.vocab_size, largest, largest));
  const std::string smallest =
      number_behind(status, fmt::format("Vocabulary size is smaller than required_chars. {} vs ", options.vocab_size));
  if (!smallest.empty())
    return UserError::recipe(
        kKey, fmt::format("got {}, but 4 control pieces, 256 bytes and the characters that make up {} of the training "
                          "text are {} pieces: set "
                          "vocab_size = {} or more, or lower tokenizer.character_coverage (0.98 at least)",
                          options.vocab_size, options.character_coverage, smallest, smallest));
  return UserError::recipe(kKey, fmt::format("got {}: SentencePiece says: {}", options.vocab_size, status));
}

std::string train(const TokenizerOptions& options, Paragraphs& paragraphs) {
  std::unordered_map<std::string, std::string> arguments = {
      {"model_type", "bpe"},
      {"vocab_size", std::to_string(options.vocab_size)},
      {"character_coverage", fmt::format("{}", options.character_coverage)},
      {"split_digits", "true"},
      {"byte_fallback", "true"},
      {"normalization_rule_name", "identity"},
      {"remove_extra_whitespaces", "false"},
      {"add_dummy_prefix", "false"},
      {"allow_whitespace_only_pieces", "true"},
      {"unk_id", "0"},
      {"bos_id", "1"},
      {"eos_id", "2"},
      {"pad_id", "3"},
      {"unk_piece", "<unk>"},
      {"bos_piece", "<s>"},
      {"eos_piece", "</s>"},
      {"pad_piece", "<pad>"},
      {"hard_vocab_limit", "true"},
      {"num_threads", std::to_string(kTrainingThreads)},
      {"shuffle_input_sentence", "false"},
      {"max_sentence_length", std::to_string(std::max<size_t>(paragraphs.longest(), 10))},
      {"minloglevel", "2"},
  };
  paragraphs.rewind();
  std::string model;
  const sentencepiece::util::Status status = sentencepiece::SentencePieceTrainer::Train(arguments, &paragraphs, &model);
  if (!status.ok()) throw training_error(options, status.ToString());
  return model;
}

}  // namespace

TrainingCuts for_each_training_line(std::string_view text, const std::function<void(std::string_view line)>& take) {
  TrainingCuts cuts;
  size_t begin = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool is_symbol = is_at(text, i, kDroppedSymbol), is_dropped = is_symbol || text[i] == '\0';
    if (text[i] != '\n' && !is_dropped) continue;
    cuts.symbols += is_dropped;
    cuts.words += cut_long_line(text.substr(begin, i - begin), take);
    if (is_symbol) i += kDroppedSymbol.size() - 1;
    begin = i + 1;
  }
  cuts.words += cut_long_line(text.substr(begin), take);
  return cuts;
}

std::string train_tokenizer(const TokenizerOptions& options, const std::function<bool(std::string&)>& next_paragraph) {
  if (options.kind != "sentencepiece")
    throw UserError::recipe("tokenizer.kind", fmt::format("got \"{}\", expected \"sentencepiece\"", options.kind));
  if (options.vocab_size <= kNumFixedPieces || options.vocab_size > (int64_t{1} << 20))
    throw UserError::recipe("tokenizer.vocab_size",
                            fmt::format("got {}, expected {} to {} (4 control pieces and 256 bytes are among them)",
                                        options.vocab_size, kNumFixedPieces + 1, int64_t{1} << 20));
  if (!(options.character_coverage >= kMinCharacterCoverage && options.character_coverage <= 1.0))
    throw UserError::recipe("tokenizer.character_coverage",
                            fmt::format("got {}, expected {} to 1", options.character_coverage, kMinCharacterCoverage));
  Paragraphs paragraphs;
  for (std::string paragraph; next_paragraph(paragraph);) paragraphs.add(paragraph);
  if (paragraphs.empty()) throw UserError::recipe("tokenizer", "no text to train on");
  return train(options, paragraphs);
}

}  // namespace coppice
