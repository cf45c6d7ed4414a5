#include "src/tokens/text_stream.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "src/base/errors.h"

namespace coppice {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD, which stands for bytes that are no character
constexpr size_t kMaxUnread = 8;  // a character has at most four bytes: what is none by then never will be

/// Whether more bytes could make another character of the end: a lead byte with too few bytes behind it, or U+FFFD.
bool ends_within_character(std::string_view text) {
  if (text.ends_with(kReplacement)) return true;
  for (size_t back = 1; back <= std::min<size_t>(3, text.size()); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if (byte < 0x80) return false;
    if (byte >= 0xc0) return back < (byte >= 0xf0 ? 4U : byte >= 0xe0 ? 3U : 2U);
  }
  return false;
}

/// Bytes at the end of `text` with which `stop` begins, without being all of it.
size_t begun_length(std::string_view text, std::string_view stop) {
  for (size_t length = std::min(text.size(), stop.size() - 1); length > 0; --length)
    if (text.ends_with(stop.substr(0, length))) return length;
  return 0;
}

}  // namespace

TextStream::TextStream(const Tokenizer& tokenizer, std::vector<std::string> stops, bool begins)
    : tokenizer_(&tokenizer), stops_(std::move(stops)), begins_(begins) {
  for (const std::string& stop : stops_) COPPICE_CHECK(!stop.empty(), "an empty text stops nothing");
}

std::string TextStream::decode() const {
  return begins_ ? tokenizer_->decode(unread_) : tokenizer_->decode_continuation(unread_);
}

std::string TextStream::add(int32_t id) {
  if (stopped_) return "";
  unread_.push_back(id);
  std::string text = decode();
  if (ends_within_character(text) && unread_.size() < kMaxUnread) return "";
  if (!text.empty()) begins_ = false;
  unread_.clear();
  held_ += text;
  return release(/*all=*/false);
}

std::string TextStream::finish() {
  if (stopped_) return "";
  held_ += decode();
  unread_.clear();
  return release(/*all=*/true);
}

std::string TextStream::release(bool all) {
  size_t end = std::string::npos;
  for (const std::string& stop : stops_) end = std::min(end, held_.find(stop));
  stopped_ = end != std::string::npos;
  if (!stopped_) {
    size_t uncertain = 0;
    if (!all)
      for (const std::string& stop : stops_) uncertain = std::max(uncertain, begun_length(held_, stop));
    end = held_.size() - uncertain;
  }
  std::string certain = held_.substr(0, end);
  held_.erase(0, end);
  return certain;
}

}  // namespace coppice
