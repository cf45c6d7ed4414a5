// Training a SentencePiece BPE model with the AFM options (arXiv 2407.21075): digits split, byte fallback, no normalisation.
#include <fmt/format.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <unordered_map>

#include "src/base/errors.h"
#include "src/data/sentencepiece_walk.h"
#include "src/data/tokenizer.h"

namespace coppice {

namespace {

constexpr int kTrainingThreads = 16;      // recorded in the model file: a constant, so that equal text gives equal bytes
constexpr int64_t kNumFixedPieces = 260;  // <unk> <s> </s> <pad> and 256 bytes

/// Paragraphs in memory: the trainer keeps them as well, and drops lines above max_sentence_length silently, so the longest must be known first.
class Paragraphs : public sentencepiece::SentenceIterator {
 public:
  /// Splits where the trainer would drop the whole line (NUL, U+2585) or learn pieces across lines (newline).
  void add(std::string_view text) {
    static constexpr std::string_view kUnknownSymbol = "\xE2\x96\x85";
    size_t begin = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      const bool is_symbol = text.compare(i, kUnknownSymbol.size(), kUnknownSymbol) == 0;
      if (text[i] != '\n' && text[i] != '\0' && !is_symbol) continue;
      add_line(text.substr(begin, i - begin));
      if (is_symbol) i += kUnknownSymbol.size() - 1;
      begin = i + 1;
    }
    add_line(text.substr(begin));
  }
  size_t longest() const { return longest_; }
  bool empty() const { return lines_.empty(); }
  void rewind() { at_ = 0; }

  bool done() const override { return at_ == lines_.size(); }
  void Next() override { ++at_; }
  const std::string& value() const override { return lines_[at_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  void add_line(std::string_view line) {
    if (line.empty()) return;
    longest_ = std::max(longest_, line.size());
    lines_.emplace_back(line);
  }

  std::vector<std::string> lines_;
  size_t longest_ = 0, at_ = 0;
};

/// The library's text names the largest vocabulary after "<= " when the text is too small.
UserError training_error(int64_t vocab_size, const std::string& status) {
  static constexpr std::string_view kLead = "Please set it to a value <= ";
  const size_t found = status.find(kLead);
  if (found == std::string::npos) return UserError::recipe("tokenizer.vocab_size", fmt::format("got {}: SentencePiece says: {}", vocab_size, status));
  const std::string largest = status.substr(found + kLead.size(), status.find('.', found) - found - kLead.size());
  return UserError::recipe(
      "tokenizer.vocab_size",
      fmt::format("got {}, but the training text yields at most {} pieces: lower it, or raise tokenizer.training_bytes", vocab_size, largest));
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
  if (!status.ok()) throw training_error(options.vocab_size, status.ToString());
  return model;
}

}  // namespace

std::string train_tokenizer(const TokenizerOptions& options, const std::function<bool(std::string&)>& next_paragraph) {
  if (options.kind != "sentencepiece") throw UserError::recipe("tokenizer.kind", fmt::format("got \"{}\", expected \"sentencepiece\"", options.kind));
  if (options.vocab_size <= kNumFixedPieces || options.vocab_size > (int64_t{1} << 20))
    throw UserError::recipe("tokenizer.vocab_size", fmt::format("got {}, expected {} to {} (4 control pieces and 256 bytes are among them)", options.vocab_size,
                                                                kNumFixedPieces + 1, int64_t{1} << 20));
  if (!(options.character_coverage > 0.9 && options.character_coverage <= 1.0))
    throw UserError::recipe("tokenizer.character_coverage", fmt::format("got {}, expected above 0.9 and at most 1", options.character_coverage));
  Paragraphs paragraphs;
  for (std::string paragraph; next_paragraph(paragraph);) paragraphs.add(paragraph);
  if (paragraphs.empty()) throw UserError::recipe("tokenizer", "no text to train on");
  return train(options, paragraphs);
}

}  // namespace coppice
