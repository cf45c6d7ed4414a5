#define XXH_INLINE_ALL  // shingles are short: a call would cost as much as the hash
#include "src/corpus/dedup/signature.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>

#include "src/base/errors.h"
#include "src/base/random.h"
#include "src/base/utf8_byte.h"
#include "src/corpus/code/code_words.h"
#include "src/text/words/normal_form.h"

namespace coppice {
namespace {

constexpr std::array<std::string_view, 3> kUnits = {"words", "chars", "code"};  // as ShingleUnit
constexpr size_t kWhole = 16;              // values of the widest vector: functions come in multiples of it
constexpr size_t kBlock = 2048;            // hashes that stay in the first cache while all functions see them
constexpr uint32_t kStream = 0x6d696e68;   // apart from other uses of a seed
constexpr uint32_t kNothing = 0xffffffff;  // the minimum of no value

using Minima = void (*)(std::span<const uint32_t> hashes, const uint32_t* a, const uint32_t* b, uint32_t* minima,
                        size_t width);

void minima_portable(std::span<const uint32_t> hashes, const uint32_t* a, const uint32_t* b, uint32_t* minima,
                     size_t width) {
  for (const uint32_t hash : hashes)
    for (size_t i = 0; i < width; ++i) minima[i] = std::min(minima[i], a[i] * hash + b[i]);
}

typedef uint32_t Vector8 [[gnu::vector_size(32)]];
typedef uint32_t Vector16 [[gnu::vector_size(64)]];

/// `Count` vectors of functions over all hashes; they and their minima stay in registers.
template <class Vector, size_t Count>
[[gnu::always_inline]] inline void minima_of(std::span<const uint32_t> hashes, const uint32_t* a, const uint32_t* b,
                                             uint32_t* minima) {
  Vector multiplier[Count], offset[Count], minimum[Count];
  std::memcpy(multiplier, a, sizeof(multiplier));
  std::memcpy(offset, b, sizeof(offset));
  std::memcpy(minimum, minima, sizeof(minimum));
  for (const uint32_t hash : hashes) {
#pragma GCC unroll 8
    for (size_t v = 0; v < Count; ++v) {
      const Vector value = multiplier[v] * hash + offset[v];
      minimum[v] = value < minimum[v] ? value : minimum[v];
    }
  }
  std::memcpy(minima, minimum, sizeof(minimum));
}

/// As many vectors at a time as the processor has registers for, three a vector.
template <class Vector, size_t Most>
[[gnu::always_inline]] inline void minima_by(std::span<const uint32_t> hashes, const uint32_t* a, const uint32_t* b,
                                             uint32_t* minima, size_t width) {
  constexpr size_t kLanes = sizeof(Vector) / sizeof(uint32_t);
  for (size_t done = 0; done < hashes.size(); done += kBlock) {
    const auto block = hashes.subspan(done, std::min(kBlock, hashes.size() - done));
    size_t i = 0;
    for (; i + Most * kLanes <= width; i += Most * kLanes) minima_of<Vector, Most>(block, a + i, b + i, minima + i);
    for (; i + 2 * kLanes <= width; i += 2 * kLanes) minima_of<Vector, 2>(block, a + i, b + i, minima + i);
    for (; i < width; i += kLanes) minima_of<Vector, 1>(block, a + i, b + i, minima + i);
  }
}

[[gnu::target("avx2")]] void minima_avx2(std::span<const uint32_t> hashes, const uint32_t* a, const uint32_t* b,
                                         uint32_t* minima, size_t width) {
  minima_by<Vector8, 4>(hashes, a, b, minima, width);
}

[[gnu::target("avx512f")]] void minima_avx512(std::span<const uint32_t> hashes, const uint32_t* a, const uint32_t* b,
                                              uint32_t* minima, size_t width) {
  minima_by<Vector16, 7>(hashes, a, b, minima, width);
}

Minima minima_for(SignatureMaker::Code code) {
  using Code = SignatureMaker::Code;
  if (code >= Code::avx512 && __builtin_cpu_supports("avx512f") != 0) return minima_avx512;
  if (code >= Code::avx2 && __builtin_cpu_supports("avx2") != 0) return minima_avx2;
  return minima_portable;
}

uint64_t hash_of(const char* begin, const char* end) { return XXH3_64bits(begin, static_cast<size_t>(end - begin)); }

}  // namespace

double catch_probability(double similarity, const SignatureShape& shape) {
  return -std::expm1(shape.bands * std::log1p(-std::pow(similarity, shape.rows)));
}

std::string catch_curve(const SignatureShape& shape) {
  std::string text;
  for (const double similarity : {0.5, 0.6, 0.7, 0.8, 0.9, 0.95})
    text += fmt::format("{}{}: {:.3f}", text.empty() ? "" : ", ", similarity, catch_probability(similarity, shape));
  return text;
}

bool parse_shingle(std::string_view text, ShingleOptions& options) {
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) return false;
  const auto unit = std::ranges::find(kUnits, text.substr(0, colon));
  if (unit == kUnits.end()) return false;
  const std::string_view number = text.substr(colon + 1);
  size_t length = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), length);
  if (error != std::errc() || end != number.data() + number.size() || length < 1 || length > 1000) return false;
  options = {.unit = static_cast<ShingleUnit>(unit - kUnits.begin()), .length = length};
  return true;
}

std::string shingle_name(const ShingleOptions& options) {
  return fmt::format("{}:{}", kUnits[static_cast<size_t>(options.unit)], options.length);
}

void shingle_form(std::string_view text, const ShingleOptions& options, std::string& form) {
  if (options.unit != ShingleUnit::code) return normal_form(text, form);
  thread_local std::vector<std::string_view> words;
  code_words(text, words);
  form.clear();
  for (const std::string_view word : words) {
    if (!form.empty()) form += ' ';
    form += word;
  }
}

void shingle_hashes(std::string_view form, const ShingleOptions& options, std::vector<uint64_t>& hashes) {
  hashes.clear();
  if (form.empty()) return;
  // Where the last `length` units begin: a ring, since a shingle reaches from the oldest of them to where we are.
  thread_local std::vector<const char*> begins;
  begins.assign(options.length, form.data());
  const char *const end = form.data() + form.size(), *at = form.data();
  const bool by_words = options.unit != ShingleUnit::chars;
  size_t units = 0, slot = 0;
  while (at < end) {
    begins[slot] = at;
    slot = slot + 1 == options.length ? 0 : slot + 1;
    if (by_words) {
      at = std::find(at, end, ' ');
    } else {
      do ++at;
      while (at < end && is_continuation_byte(*at));
    }
    if (++units >= options.length) hashes.push_back(hash_of(begins[slot], at));
    if (by_words && at < end) ++at;
  }
  if (hashes.empty()) hashes.push_back(hash_of(form.data(), end));
}

SignatureMaker::SignatureMaker(const SignatureShape& shape, uint64_t seed, Code code)
    : width_(shape.width()), minima_of_(minima_for(code)) {
  COPPICE_CHECK(shape.bands > 0 && shape.rows > 0, fmt::format("{} bands of {} rows", shape.bands, shape.rows));
  const size_t whole = (width_ + kWhole - 1) / kWhole * kWhole;
  for (size_t i = 0; i < whole; ++i) {
    const auto bits = philox4x32({static_cast<uint32_t>(i), 0, 0, kStream},
                                 {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
    multipliers_.push_back(bits[0] | 1);
    offsets_.push_back(bits[1]);
  }
}

void SignatureMaker::make(std::span<const uint64_t> hashes, std::span<uint32_t> values) {
  COPPICE_CHECK(values.size() == width_, fmt::format("{} places for {} values", values.size(), width_));
  folded_.resize(hashes.size());
  for (size_t i = 0; i < hashes.size(); ++i) folded_[i] = static_cast<uint32_t>(hashes[i] ^ hashes[i] >> 32);
  minima_.assign(multipliers_.size(), kNothing);
  minima_of_(folded_, multipliers_.data(), offsets_.data(), minima_.data(), minima_.size());
  std::copy_n(minima_.begin(), width_, values.begin());
}

void band_hashes(std::span<const uint32_t> values, const SignatureShape& shape, uint64_t seed,
                 std::span<uint64_t> hashes) {
  const auto rows = static_cast<size_t>(shape.rows);
  for (size_t band = 0; band < hashes.size(); ++band)
    hashes[band] = XXH3_64bits_withSeed(values.data() + band * rows, rows * sizeof(uint32_t), seed + band);
}

uint32_t agreements(const uint32_t* a, const uint32_t* b, size_t width) {
  uint32_t count = 0;
  for (size_t i = 0; i < width; ++i) count += a[i] == b[i] ? 1 : 0;
  return count;
}

double jaccard(std::span<const uint64_t> a, std::span<const uint64_t> b) {
  size_t common = 0;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    common += a[i] == b[j] ? 1 : 0;
    const bool first = a[i] <= b[j], second = b[j] <= a[i];
    i += first ? 1 : 0;
    j += second ? 1 : 0;
  }
  return static_cast<double>(common) / static_cast<double>(a.size() + b.size() - common);
}

}  // namespace coppice
