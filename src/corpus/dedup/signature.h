// Signatures of sets of shingles, by which near duplicates are found (Broder 1997, "On the resemblance and containment
// of documents"): value i is the minimum over the shingles' hashes h of (a_i h + b_i) mod 2^32 with a_i odd. Two sets
// of similarity s (Jaccard: shared over all) agree in each value with probability s, so the share of values that agree
// estimates s. Values stand in bands of `rows`; two documents meet when they agree in a whole band, which they do with
// probability 1 - (1 - s^rows)^bands.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace coppice {

struct SignatureShape {
  int bands = 14, rows = 8;
  size_t width() const { return static_cast<size_t>(bands) * static_cast<size_t>(rows); }
};

/// Probability that two documents of this similarity meet.
double catch_probability(double similarity, const SignatureShape& shape);
/// The same at `.5 .6 .7 .8 .9 .95`, for people: "0.5: 0.053, 0.6: 0.211, ...".
std::string catch_curve(const SignatureShape& shape);

/// chars: code points, for scripts without blanks; code: identifiers, numbers and signs (src/corpus/code/code_words.h).
enum class ShingleUnit { words, chars, code };
struct ShingleOptions {
  ShingleUnit unit = ShingleUnit::words;
  size_t length = 5;
};
/// "words:5", "chars:24", "code:5"; nothing for any other text, and for lengths outside 1 to 1000.
bool parse_shingle(std::string_view text, ShingleOptions& options);
/// As in parse_shingle().
std::string shingle_name(const ShingleOptions& options);

/// What shingles are taken of, and what is equal in exact copies: the normal form (src/text/words/normal_form.h); of
/// code its words, one blank apart. `form` is overwritten.
void shingle_form(std::string_view text, const ShingleOptions& options, std::string& form);

/// XXH3-64 of every shingle of such a form: as many words with single blanks between them, or as many code points. A
/// shorter text is one shingle, a text without words has none. `hashes` is overwritten.
void shingle_hashes(std::string_view form, const ShingleOptions& options, std::vector<uint64_t>& hashes);

/// The functions of a seed. Equal bits on every machine: the vector code is chosen where the processor has it.
class SignatureMaker {
 public:
  enum class Code { portable, avx2, avx512 };  // at most
  SignatureMaker(const SignatureShape& shape, uint64_t seed, Code code = Code::avx512);
  /// Minima over the hashes, folded to 32 bits; all 2^32 - 1 where there are none. `values` has shape.width() places.
  void make(std::span<const uint64_t> hashes, std::span<uint32_t> values);

 private:
  size_t width_;
  void (*minima_of_)(std::span<const uint32_t>, const uint32_t*, const uint32_t*, uint32_t*, size_t);
  std::vector<uint32_t> multipliers_, offsets_, folded_, minima_;  // the first two are as long as whole vectors
};

/// One hash of each band; those of another seed (a scope) never meet these.
void band_hashes(std::span<const uint32_t> values, const SignatureShape& shape, uint64_t seed,
                 std::span<uint64_t> hashes);
/// In how many values two signatures agree.
uint32_t agreements(const uint32_t* a, const uint32_t* b, size_t width);
/// Of two sorted sets, of which one at least holds something: what both hold, over what either holds.
double jaccard(std::span<const uint64_t> a, std::span<const uint64_t> b);

}  // namespace coppice
