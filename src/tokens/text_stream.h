// The text of tokens as they come, for readers that cannot wait for the end.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "src/tokens/tokenizer.h"

namespace coppice {

class TextStream {
 public:
  /// `stops`: texts that end the stream, not empty. `begins`: the first token is the first of its text, whose dummy
  /// prefix is none of it.
  TextStream(const Tokenizer& tokenizer, std::vector<std::string> stops, bool begins);

  /// What one more token makes certain: whole UTF-8 characters, and nothing that a stop may begin with. Often empty.
  std::string add(int32_t id);
  /// A stop was met: neither it nor what follows is text.
  bool stopped() const { return stopped_; }
  /// What was held back, once no token follows.
  std::string finish();

 private:
  std::string decode() const;
  std::string release(bool all);

  const Tokenizer* tokenizer_;
  std::vector<std::string> stops_;
  bool begins_, stopped_ = false;
  std::vector<int32_t> unread_;  // tokens whose text may not end where a character does
  std::string held_;             // text that is not certain yet
};

}  // namespace coppice
