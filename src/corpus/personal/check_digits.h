// Check digits of numbers that people carry.
#pragma once

#include <string_view>

namespace coppice {

/// ISO/IEC 7812: of cards and many national numbers. Anything but digits is passed over; false without two digits.
bool luhn_holds(std::string_view number);
/// ISO 7064 mod 97-10 as account numbers use it (ISO 13616): the first four signs go to the end, a letter is 10 to 35,
/// the remainder is 1. Anything but letters and digits is passed over.
bool mod97_holds(std::string_view number);

}  // namespace coppice
