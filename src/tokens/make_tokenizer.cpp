#include "src/tokens/make_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/tokens/tokenizer_process.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

/// The text itself stays as it is: the cuts are made for the trainer alone.
void warn_of_cuts(const std::vector<std::string>& texts) {
  TrainingCuts sum;
  size_t documents = 0;
  for (const std::string& text : texts) {
    const TrainingCuts cuts = for_each_training_line(text, [](std::string_view) {});
    documents += cuts.symbols + cuts.words > 0;
    sum.symbols += cuts.symbols;
    sum.words += cuts.words;
  }
  if (documents > 0)
    log_warning(
        fmt::format("training the tokenizer: {} of {} documents are cut for the trainer, which takes no words above {} "
                    "characters ({}) and no NUL "
                    "or U+2585 ({})",
                    documents, texts.size(), kMaxLineCharacters, sum.words, sum.symbols));
}

/// Line by line: newline stays a byte piece.
class LinesOf {
 public:
  explicit LinesOf(const std::vector<std::string>& texts) : texts_(texts) {}
  bool next(std::string& line) {
    while (text_ < texts_.size()) {
      const std::string& text = texts_[text_];
      if (begin_ >= text.size()) {
        ++text_;
        begin_ = 0;
        continue;
      }
      const size_t end = std::min(text.find('\n', begin_), text.size());
      line.assign(text, begin_, end - begin_);
      begin_ = end + 1;
      if (!line.empty()) return true;
    }
    return false;
  }

 private:
  const std::vector<std::string>& texts_;
  size_t text_ = 0, begin_ = 0;
};

std::string train(const TokenizerOptions& options, const std::vector<std::string>& texts) {
  uint64_t total = 0;
  for (const std::string& text : texts) total += text.size();
  log_info(fmt::format("training the tokenizer: {} pieces on {} of text in {} documents", options.vocab_size,
                       format_bytes(static_cast<double>(total)), texts.size()));
  warn_of_cuts(texts);
  LinesOf lines(texts);
  return train_tokenizer_in_child(options, [&](std::string& line) { return lines.next(line); });
}

}  // namespace

Tokenizer make_tokenizer(const TokenizerOptions& options, const std::function<const Tokenizer&()>& given,
                         const fs::path& folder, const std::vector<std::string>& texts) {
  if (!tokenizer_in(folder)) {
    if (options.path.empty()) {
      make_folder(folder);
      write_file_atomically(folder / "tokenizer.model", train(options, texts));
    } else {
      given().save(folder);
    }
  }
  Tokenizer tokenizer = Tokenizer::load(tokenizer_in(folder).value());
  if (tokenizer.vocab_size() != options.vocab_size)
    throw UserError::recipe("tokenizer.vocab_size", fmt::format("got {}, but {} holds {} pieces", options.vocab_size,
                                                                options.path, tokenizer.vocab_size()));
  return tokenizer;
}

}  // namespace coppice
