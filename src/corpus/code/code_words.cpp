#include "src/corpus/code/code_words.h"

#include <array>
#include <cstdint>

namespace coppice {
namespace {

enum Kind : uint8_t { kBlank, kSign, kName };

constexpr std::array<uint8_t, 256> kKinds = [] {
  std::array<uint8_t, 256> kinds{};
  for (int c = 0; c < 256; ++c) {
    const bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    kinds[static_cast<size_t>(c)] = is_letter || c == '_' || c >= 0x80 ? kName : c > ' ' && c < 0x7F ? kSign : kBlank;
  }
  return kinds;
}();

}  // namespace

void code_words(std::string_view code, std::vector<std::string_view>& words) {
  words.clear();
  const auto kind = [&](size_t i) { return kKinds[static_cast<unsigned char>(code[i])]; };
  for (size_t i = 0; i < code.size();) {
    size_t end = i + 1;
    if (kind(i) == kName)
      while (end < code.size() && kind(end) == kName) ++end;
    if (kind(i) != kBlank) words.push_back(code.substr(i, end - i));
    i = end;
  }
}

}  // namespace coppice
