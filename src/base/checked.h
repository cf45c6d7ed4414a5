// Arithmetic on numbers that came from a file: every operation reports overflow as a bad file.
#pragma once

#include <cstdint>
#include <string_view>

namespace coppice {

/// Throws UserError::bad_file(path, ...) when the result does not fit in 64 bits.
uint64_t checked_add(uint64_t a, uint64_t b, std::string_view path);
uint64_t checked_multiply(uint64_t a, uint64_t b, std::string_view path);
uint64_t checked_round_up(uint64_t value, uint64_t multiple, std::string_view path);

}  // namespace coppice
