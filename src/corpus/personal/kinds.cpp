#include "src/corpus/personal/kinds.h"

#include <fmt/format.h>

#include <array>

#include "src/corpus/personal/check_digits.h"
#include "src/corpus/personal/secrets.h"

namespace coppice {
namespace {

std::string fake_email(std::string_view, uint64_t number) {
  return fmt::format("user{:010x}@example.com", number & 0xFFFFFFFFFF);
}

/// Out of 192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/24 (RFC 5737) or 2001:db8::/32 (RFC 3849).
std::string fake_ip(std::string_view original, uint64_t number) {
  if (original.find(':') != std::string_view::npos)
    return fmt::format("2001:db8::{:x}:{:x}", number >> 16 & 0xFFFF, number & 0xFFFF);
  constexpr std::array kNets = {"192.0.2", "198.51.100", "203.0.113"};
  return fmt::format("{}.{}", kNets[number / 254 % kNets.size()], 1 + number % 254);
}

/// 555-0100 to 555-0199 are kept for works of fiction, in every area.
std::string fake_phone(std::string_view original, uint64_t number) {
  const uint64_t area = 201 + number / 100 % 789;
  return original.front() == '+' ? fmt::format("+1 {} 555 01{:02}", area, number % 100)
                                 : fmt::format("({}) 555-01{:02}", area, number % 100);
}

/// Of the range 4000 00, which shops test with.
std::string fake_card(std::string_view, uint64_t number) {
  std::string card = fmt::format("400000{:09}", number % 1'000'000'000);
  for (char digit = '0'; digit <= '9'; ++digit)
    if (luhn_holds(card + digit)) return card + digit;
  return card;
}

/// XX is no country.
std::string fake_iban(std::string_view, uint64_t number) {
  return fmt::format("XX00{:018}", number % 1'000'000'000'000'000'000);
}

/// Areas from 900 are given to nobody.
std::string fake_ssn(std::string_view, uint64_t number) {
  return fmt::format("9{:02}-{:02}-{:04}", number / 1'000'000 % 100, number / 10'000 % 100, number % 10'000);
}

constexpr PersonalKind kKinds[] = {
    {"SECRET", kSecretAnchors, match_secret, fake_of_same_form},
    {"EMAIL", "@", match_email, fake_email},
    {"IP", "0123456789:", match_ip, fake_ip},
    {"SSN", "0123456789", match_ssn, fake_ssn},
    {"IBAN", "0123456789", match_iban, fake_iban},
    {"CARD", "0123456789", match_card, fake_card},
    {"PHONE", "0123456789+(", match_phone, fake_phone},
};

}  // namespace

std::span<const PersonalKind> personal_kinds() { return kKinds; }

std::string fake_of_same_form(std::string_view original, uint64_t number) {
  std::string fake(original);
  for (char& c : fake) {
    number = number * 6364136223846793005 + 1442695040888963407;  // Knuth's MMIX
    const auto draw = static_cast<uint32_t>(number >> 33);
    if (is_digit(c)) c = static_cast<char>('0' + draw % 10);
    if (is_letter(c)) c = static_cast<char>((is_upper(c) ? 'A' : 'a') + draw % 26);
  }
  return fake;
}

}  // namespace coppice
