#include "src/corpus/personal/check_digits.h"

#include <ranges>
#include <string>

#include "src/corpus/personal/matching.h"

namespace coppice {

bool luhn_holds(std::string_view number) {
  int sum = 0, count = 0;
  for (const char c : number | std::views::reverse) {
    if (!is_digit(c)) continue;
    const int doubled = (c - '0') << (count++ & 1);
    sum = (sum + doubled - (doubled > 9 ? 9 : 0)) % 10;
  }
  return count >= 2 && sum == 0;
}

bool mod97_holds(std::string_view number) {
  std::string signs;
  for (const char c : number)
    if (is_alnum(c)) signs += to_lower(c);
  if (signs.size() < 5) return false;
  int remainder = 0;
  for (const char c : signs.substr(4) + signs.substr(0, 4))
    remainder = (is_digit(c) ? remainder * 10 + (c - '0') : remainder * 100 + (c - 'a' + 10)) % 97;
  return remainder == 1;
}

}  // namespace coppice
