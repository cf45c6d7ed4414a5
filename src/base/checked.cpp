// Overflow of a number from a file is a bad file, never a small allocation followed by a big read.
#include "src/base/checked.h"

#include <fmt/format.h>

#include "src/base/errors.h"

namespace coppice {

uint64_t checked_add(uint64_t a, uint64_t b, std::string_view path) {
  uint64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum))
    throw UserError::bad_file(path, fmt::format("the sum {} + {} does not fit in 64 bits", a, b));
  return sum;
}

uint64_t checked_multiply(uint64_t a, uint64_t b, std::string_view path) {
  uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product))
    throw UserError::bad_file(path, fmt::format("the product {} * {} does not fit in 64 bits", a, b));
  return product;
}

uint64_t checked_round_up(uint64_t value, uint64_t multiple, std::string_view path) {
  if (multiple == 0) throw UserError::bad_file(path, "cannot round up to a multiple of 0");
  const uint64_t rest = value % multiple;
  return rest == 0 ? value : checked_add(value, multiple - rest, path);
}

}  // namespace coppice
