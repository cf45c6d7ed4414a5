#include "src/corpus/long_qa/contexts.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace coppice {
namespace {

constexpr size_t kMaxWordBytes = 4096, kMaxPieceBytes = 1024;
constexpr double kSurplus = 1.04;       // tokens of a context, over the target: pieces alone have more than the whole
constexpr double kUsable = 0.96;        // of the target
constexpr double kQuestionTokens = 90;  // of a question and its answer, as a rule
constexpr double kHeadingTokens = 8;    // of "Document 3 of 12" and the empty lines around it

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\f'; }

/// Where the piece that begins at `begin` ends: behind a sentence or a line, or the first white space after
/// kMaxPieceBytes. White space opens the next piece, as tokenizers have it. 0: a word is too long.
size_t piece_end(std::string_view text, size_t begin) {
  size_t word = begin;
  for (size_t at = begin + 1; at < text.size(); ++at) {
    const char c = text[at], before = text[at - 1];
    const bool full_stop = at >= 3 && (text.substr(at - 3, 3) == "\u3002" || text.substr(at - 3, 3) == "\uFF01");
    if (full_stop && at - begin >= 3) return at;
    if (at - word > kMaxWordBytes) return 0;
    if (!is_blank(c)) continue;
    if (c == '\n' || before == '.' || before == '!' || before == '?' || at - begin >= kMaxPieceBytes) return at;
    word = at;
  }
  return text.size() - word > kMaxWordBytes ? 0 : text.size();
}

void add_license(QaContext& context, const std::string& license) {
  const auto place = std::ranges::lower_bound(context.licenses, license);
  if (place == context.licenses.end() || *place != license) context.licenses.insert(place, license);
}

size_t bytes_of(const QaContext& context, double tokens) {
  const double share = std::min(1.0, tokens / context.tokens);
  return static_cast<size_t>(share * static_cast<double>(context.text.size()));
}

}  // namespace

CutDocument cut_document(Document&& document, const Tokenizer& tokenizer) {
  CutDocument cut{.document = std::move(document)};
  const std::string_view text = cut.document.text;
  for (size_t at = 0; at < text.size();) {  // before the first is encoded: a word of megabytes takes long
    const size_t end = piece_end(text, at);
    if (end == 0) return cut.pieces.clear(), cut;
    cut.pieces.push_back({.end = static_cast<uint32_t>(end), .tokens = 0});
    at = end;
  }
  size_t begin = 0;
  for (CutDocument::Piece& piece : cut.pieces) {
    piece.tokens = static_cast<uint32_t>(tokenizer.encode(text.substr(begin, piece.end - begin)).size());
    cut.tokens += piece.tokens;
    begin = piece.end;
  }
  return cut;
}

size_t QaContext::expected_bytes() const { return bytes_of(*this, static_cast<double>(target) - kQuestionTokens); }
size_t QaContext::usable_bytes() const { return bytes_of(*this, kUsable * static_cast<double>(target)); }

ContextMaker::ContextMaker(uint64_t target, bool held_out, std::function<void(QaContext&&)> take)
    : target_(target), held_out_(held_out), wanted_(kSurplus * static_cast<double>(target)), take_(std::move(take)) {}

void ContextMaker::add(const CutDocument& document) {
  if (document.pieces.empty()) return;
  if (static_cast<double>(document.tokens) >= wanted_) return add_windows(document);
  Part part{.id = document.document.id, .license = document.document.license, .text = {}, .tokens = kHeadingTokens};
  size_t end = 0;
  for (const CutDocument::Piece& piece : document.pieces) {
    if (part_tokens_ + part.tokens >= wanted_) break;
    part.tokens += piece.tokens;
    end = piece.end;
  }
  part.text = document.document.text.substr(0, end);
  part_tokens_ += part.tokens;
  parts_.push_back(std::move(part));
  if (part_tokens_ >= wanted_) join_parts();
}

void ContextMaker::add_windows(const CutDocument& document) {
  size_t begin = 0, number = 0;
  double tokens = 0;
  for (const CutDocument::Piece& piece : document.pieces) {
    tokens += piece.tokens;
    if (tokens < wanted_) continue;
    QaContext context{.id = fmt::format("long-qa/{}/{}/{}", target_, document.document.id, number++),
                      .text = document.document.text.substr(begin, piece.end - begin),
                      .documents = {document.document.id},
                      .licenses = {document.document.license},
                      .target = target_,
                      .tokens = tokens,
                      .held_out = held_out_};
    context.text.erase(0, std::min(context.text.find_first_not_of(" \t\r\n\f"), context.text.size()));
    take_(std::move(context));
    begin = piece.end;
    tokens = 0;
  }
}

void ContextMaker::join_parts() {
  QaContext context{.id = fmt::format("long-qa/{}/{}/0", target_, parts_.front().id),
                    .target = target_,
                    .tokens = part_tokens_,
                    .held_out = held_out_};
  for (size_t i = 0; i < parts_.size(); ++i) {
    const size_t begin = context.text.size();
    context.text += fmt::format("Document {} of {}", i + 1, parts_.size());
    context.headings.push_back({begin, context.text.size()});
    context.text += "\n\n";
    context.text += parts_[i].text;
    context.text += "\n\n";
    context.documents.push_back(parts_[i].id);
    add_license(context, parts_[i].license);
  }
  take_(std::move(context));
  parts_.clear();
  part_tokens_ = 0;
}

}  // namespace coppice
