// Long contexts out of documents: windows of long ones, or several joined under headings until they are long enough.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "src/corpus/long_qa/outline.h"
#include "src/text/documents.h"
#include "src/tokens/tokenizer.h"

namespace coppice {

/// A document with the places where it may be cut: behind sentences and lines.
struct CutDocument {
  Document document;
  struct Piece {
    uint32_t end;     // byte
    uint32_t tokens;  // of the piece alone: all together a few more than the text has
  };
  std::vector<Piece> pieces;  // empty: a word of more than 4 kB, no text that one could ask about
  uint64_t tokens = 0;
};
CutDocument cut_document(Document&& document, const Tokenizer& tokenizer);

struct QaContext {
  std::string id;  // long-qa/<target>/<id of its first document>/<number of the window>
  std::string text;
  std::vector<std::string> documents, licenses;  // licenses: sorted, each once
  std::vector<ByteSpan>
      headings;         // one for each of several documents: lines "Document 3 of 12", which stand nowhere else
  uint64_t target = 0;  // tokens
  double tokens = 0;    // about; more than the target
  bool held_out = false;

  /// Bytes that are left, as a rule, when the end is cut off so that question and answer fit in; and at least.
  size_t expected_bytes() const;
  size_t usable_bytes() const;
};

/// Takes documents in their order and gives contexts for one target.
class ContextMaker {
 public:
  ContextMaker(uint64_t target, bool held_out, std::function<void(QaContext&&)> take);
  /// A document of the target's length and more gives windows, each a context of its own, without what is left at its
  /// end; shorter ones are joined.
  void add(const CutDocument& document);

 private:
  struct Part {
    std::string id, license, text;
    double tokens;
  };

  void add_windows(const CutDocument& document);
  void join_parts();

  uint64_t target_;
  bool held_out_;
  double wanted_;  // tokens of a context, by the sum over its pieces
  std::function<void(QaContext&&)> take_;
  std::vector<Part> parts_;
  double part_tokens_ = 0;
};

}  // namespace coppice
