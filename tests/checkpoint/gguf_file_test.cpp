// GGUF headers: values of every type, golden bytes of the writer, and one broken file for each rule of the reader.
#include "src/checkpoint/gguf_file.h"

#include <doctest/doctest.h>

#include <functional>
#include <limits>

#include "src/base/errors.h"
#include "src/checkpoint/gguf_writer.h"
#include "tests/checkpoint/gguf_bytes.h"
#include "tests/scratch_folder.h"

using namespace coppice;
using namespace coppice::test;

namespace {

std::string refusal_of(const std::string& bytes) {
  try {
    const GgufFile file(std::as_bytes(std::span(bytes)), "a.gguf");
  } catch (const UserError& error) {
    CHECK(error.code() == ExitCode::bad_file);
    return error.what();
  }
  return "accepted";
}

/// Two tensors, F32 [2, 3] and Q8_0 [2, 32], and a few pairs: a good file.
GgufBytes good() {
  return {.pairs = {pair_text("general.architecture", "llama"), pair_u32("llama.block_count", 2)},
          .tensors = {tensor("a.weight", {3, 2}, 0, 0), tensor("b.weight", {32, 2}, 8, 32)},
          .data = std::string(32 + 68, '\0')};
}

struct Attack {
  const char* name;
  std::function<std::string()> bytes;
  const char* message;
};

std::string with(const std::function<void(GgufBytes&)>& change) {
  GgufBytes file = good();
  change(file);
  return file.bytes();
}

const std::vector<Attack> kAttacks = {
    {"nothing", [] { return std::string(); }, "the magic at byte 0"},
    {"cut magic", [] { return std::string("GG"); }, "the magic at byte 0: 4 bytes, 2 are left"},
    {"other magic", [] { return with([](GgufBytes& f) { f.magic = "GGML"; }); }, "starts with 'GGML'"},
    {"version 1", [] { return with([](GgufBytes& f) { f.version = 1; }); }, "version 1, 2 and 3 are read"},
    {"version 4", [] { return with([](GgufBytes& f) { f.version = 4; }); }, "version 4, 2 and 3 are read"},
    {"big-endian", [] { return with([](GgufBytes& f) { f.version = 3U << 24; }); }, "big-endian"},
    {"2^63 pairs", [] { return good().bytes(2, uint64_t{1} << 63); }, "9223372036854775808 metadata pairs"},
    {"more pairs than bytes", [] { return good().bytes(2, 1000); }, "1000 metadata pairs"},
    {"2^64-1 tensors", [] { return good().bytes(~uint64_t{0}, 2); }, "18446744073709551615 tensors"},
    {"more tensors than bytes", [] { return good().bytes(1000, 2); }, "1000 tensors"},
    {"empty key", [] { return with([](GgufBytes& f) { f.pairs.push_back(pair_u32("", 1)); }); },
     "key of pair 2 is empty"},
    {"key of 2^63",
     [] {
       return with([](GgufBytes& f) {
         f.pairs = {raw(uint64_t{1} << 63)};
         f.tensors = {};
         f.data = std::string(64, 'x');
       });
     },
     "a key at byte 24: length 9223372036854775808"},
    {"key beyond the file",
     [] {
       return with([](GgufBytes& f) {
         f.pairs = {raw(uint64_t{5000})};
         f.tensors = {};
         f.data = std::string(64, 'x');
       });
     },
     "a key at byte 32: 5000 bytes"},
    {"key twice", [] { return with([](GgufBytes& f) { f.pairs.push_back(f.pairs[1]); }); },
     "'llama.block_count' stands twice"},
    {"value type 13", [] { return with([](GgufBytes& f) { f.pairs.push_back(pair("k", 13, raw<uint64_t>(0))); }); },
     "value type 13"},
    {"string of 2^63",
     [] { return with([](GgufBytes& f) { f.pairs.push_back(pair("k", 8, raw(uint64_t{1} << 63))); }); },
     "length 9223372036854775808"},
    {"string beyond the file",
     [] { return with([](GgufBytes& f) { f.pairs.push_back(pair("k", 8, raw<uint64_t>(1 << 20))); }); },
     "1048576 bytes"},
    {"array of arrays",
     [] { return with([](GgufBytes& f) { f.pairs.push_back(pair("k", 9, array(9, 1, array(4, 0, "")))); }); },
     "an array of arrays"},
    {"array of 2^62",
     [] { return with([](GgufBytes& f) { f.pairs.push_back(pair("k", 9, array(10, uint64_t{1} << 62, ""))); }); },
     "an array of 4611686018427387904"},
    {"array beyond the file",
     [] { return with([](GgufBytes& f) { f.pairs.push_back(pair("k", 9, array(10, 1 << 20, ""))); }); },
     "a value at byte"},
    {"strings beyond the file",
     [] { return with([](GgufBytes& f) { f.pairs.push_back(pair("k", 9, array(8, 1 << 20, ""))); }); },
     "1048576 strings"},
    {"bool of 2", [] { return with([](GgufBytes& f) { f.pairs.push_back(pair("k", 7, "\2")); }); }, "neither 0 nor 1"},
    {"part of several",
     [] { return with([](GgufBytes& f) { f.pairs.push_back(pair("split.count", 2, raw<uint16_t>(3))); }); },
     "llama-gguf-split --merge"},
    {"alignment of another type",
     [] { return with([](GgufBytes& f) { f.pairs.push_back(pair_text("general.alignment", "32")); }); },
     "general.alignment: got string, expected u32"},
    {"alignment 0", [] { return with([](GgufBytes& f) { f.pairs.push_back(pair_u32("general.alignment", 0)); }); },
     "got 0, expected a power of two"},
    {"alignment 48", [] { return with([](GgufBytes& f) { f.pairs.push_back(pair_u32("general.alignment", 48)); }); },
     "got 48, expected a power of two"},
    {"name of 64 bytes",
     [] { return with([](GgufBytes& f) {
            f.tensors[0] = tensor(std::string(64, 'a'), {3, 2}, 0, 0);
          }); },
     "length 64, at most 63"},
    {"empty name", [] { return with([](GgufBytes& f) {
                          f.tensors[0] = tensor("", {3, 2}, 0, 0);
                        }); },
     "is empty or not printable"},
    {"name with an escape", [] { return with([](GgufBytes& f) {
                                   f.tensors[0] = tensor("a\x1b[2J", {3, 2}, 0, 0);
                                 }); },
     "is empty or not printable"},
    {"name twice", [] { return with([](GgufBytes& f) {
                          f.tensors[1] = tensor("a.weight", {32, 2}, 8, 32);
                        }); },
     "'a.weight' stands twice"},
    {"no dimensions", [] { return with([](GgufBytes& f) { f.tensors[0] = tensor("a.weight", {}, 0, 0); }); },
     "0 dimensions"},
    {"5 dimensions",
     [] { return with([](GgufBytes& f) {
            f.tensors[0] = tensor("a.weight", {1, 1, 1, 1, 1}, 0, 0);
          }); },
     "5 dimensions"},
    {"negative dimension",
     [] { return with([](GgufBytes& f) {
            f.tensors[0] = tensor("a.weight", {~uint64_t{0}, 1}, 0, 0);
          }); },
     "is absurd"},
    {"product of 2^63",
     [] { return with([](GgufBytes& f) {
            f.tensors[0] = tensor("a.weight", {1U << 31, uint64_t{1} << 32}, 0, 0);
          }); },
     "is absurd"},
    {"product of 2^64",
     [] {
       return with([](GgufBytes& f) {
         f.tensors[0] = tensor("a.weight", {uint64_t{1} << 32, uint64_t{1} << 32}, 0, 0);
       });
     },
     "does not fit in 64 bits"},
    {"bytes beyond 2^64",
     [] { return with([](GgufBytes& f) { f.tensors[0] = tensor("a.weight", {uint64_t{1} << 62}, 0, 0); }); },
     "does not fit in 64 bits"},
    {"exabytes over a small file",
     [] { return with([](GgufBytes& f) { f.tensors[0] = tensor("a.weight", {uint64_t{1} << 60}, 0, 0); }); },
     "'a.weight' ends at byte"},
    {"unknown type", [] { return with([](GgufBytes& f) {
                            f.tensors[0] = tensor("a.weight", {3, 2}, 99, 0);
                          }); },
     "type 99 is not known"},
    {"removed type", [] { return with([](GgufBytes& f) {
                            f.tensors[0] = tensor("a.weight", {3, 2}, 4, 0);
                          }); },
     "type 4 is not known"},
    {"half a block", [] { return with([](GgufBytes& f) {
                            f.tensors[1] = tensor("b.weight", {48, 2}, 8, 32);
                          }); },
     "rows of 48 elements, Q8_0 has blocks of 32"},
    {"overlap", [] { return with([](GgufBytes& f) {
                       f.tensors[1] = tensor("b.weight", {32, 2}, 8, 0);
                     }); },
     "offset 0, expected 32"},
    {"hole", [] { return with([](GgufBytes& f) {
                    f.tensors[1] = tensor("b.weight", {32, 2}, 8, 64);
                  }); },
     "offset 64, expected 32"},
    {"first tensor not at the beginning",
     [] { return with([](GgufBytes& f) {
            f.tensors[0] = tensor("a.weight", {3, 2}, 0, 32);
          }); },
     "offset 32, expected 0"},
    {"last byte missing", [] { return with([](GgufBytes& f) { f.data.pop_back(); }); }, "'b.weight' ends at byte"},
    {"all data missing", [] { return with([](GgufBytes& f) { f.data.clear(); }); }, "'a.weight' ends at byte"},
};

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("gguf_file: a good file, its values and its tensors") {
    GgufBytes file = good();
    file.alignment = 64;
    file.pairs.push_back(pair_u32("general.alignment", 64));
    file.pairs.push_back(pair("i8", 1, raw<int8_t>(7)));
    file.pairs.push_back(pair("i64", 11, raw<int64_t>(-1)));
    file.pairs.push_back(pair("u64", 10, raw(uint64_t{1} << 40)));
    file.pairs.push_back(pair_f32("eps", 1e-5F));
    file.pairs.push_back(pair("f64", 12, raw(0.1)));
    file.pairs.push_back(pair_f32("nan", std::numeric_limits<float>::quiet_NaN()));
    file.pairs.push_back(pair_bool("yes", true));
    file.pairs.push_back(pair_texts("words", {"a", "", "ccc"}));
    file.pairs.push_back(pair_list<float>("floats", 6, {1.5F, -2.0F}));
    file.pairs.push_back(pair_list<int32_t>("ints", 5, {3, 6}));
    file.pairs.push_back(pair_list<int32_t>("signed", 5, {3, -6}));
    file.tensors[1] = tensor("b.weight", {32, 2}, 8, 64);
    file.data = std::string(64, '\1') + std::string(68, '\2');
    const std::string bytes = file.bytes();
    const GgufFile read(std::as_bytes(std::span(bytes)), "a.gguf");
    CHECK(read.string_at("general.architecture") == "llama");
    CHECK(read.unsigned_at("llama.block_count", 2) == uint64_t{2});
    CHECK(read.unsigned_at("i8", 100) == uint64_t{7});
    CHECK(read.unsigned_at("u64", uint64_t{1} << 40) == uint64_t{1} << 40);
    CHECK(read.number_at("eps") == 1e-5);  // not 9.99999974737875163555e-06
    CHECK(read.number_at("f64") == 0.1);
    CHECK(read.boolean_at("yes") == true);
    CHECK(read.strings_at("words") == std::vector<std::string>{"a", "", "ccc"});
    CHECK(read.floats_at("floats") == std::vector<float>{1.5F, -2.0F});
    CHECK(read.unsigned_list_at("ints", 6) == std::vector<int64_t>{3, 6});
    CHECK_FALSE(read.unsigned_at("absent", 1).has_value());
    CHECK_THROWS_WITH_AS(read.unsigned_at("llama.block_count", 1), doctest::Contains("got 2, expected 0 to 1"),
                         UserError);
    CHECK_THROWS_WITH_AS(read.unsigned_at("i64", 1), doctest::Contains("got a negative number"), UserError);
    CHECK_THROWS_WITH_AS(read.unsigned_at("eps", 1), doctest::Contains("got f32, expected an integer"), UserError);
    CHECK_THROWS_WITH_AS(read.string_at("eps"), doctest::Contains("got f32, expected a string"), UserError);
    CHECK_THROWS_WITH_AS(read.number_at("nan"), doctest::Contains("is not finite"), UserError);
    CHECK_THROWS_WITH_AS(read.strings_at("floats"),
                         doctest::Contains("got array of 2 f32, expected an array of strings"), UserError);
    CHECK_THROWS_WITH_AS(read.floats_at("ints"), doctest::Contains("got array of 2 i32"), UserError);
    CHECK_THROWS_WITH_AS(read.unsigned_list_at("ints", 5), doctest::Contains("element 1 is 6, expected 0 to 5"),
                         UserError);
    CHECK_THROWS_WITH_AS(read.unsigned_list_at("signed", 5), doctest::Contains("element 1 is negative"), UserError);

    REQUIRE(read.tensors().size() == 2);
    CHECK(read.tensors()[0].shape == std::vector<int64_t>{2, 3});  // row-major
    const GgufTensor* second = read.find_tensor("b.weight");
    REQUIRE(second != nullptr);
    CHECK(second->bytes == 68);
    CHECK(read.bytes_of(*second)[0] == std::byte{2});
    CHECK(read.bytes_of(*second)[67] == std::byte{2});
    CHECK(read.find_tensor("c.weight") == nullptr);
  }

  TEST_CASE("gguf_file: each rule refuses its broken file") {
    CHECK(refusal_of(good().bytes()) == "accepted");
    CHECK(refusal_of(with([](GgufBytes& f) { f.version = 2; })) == "accepted");
    CHECK(refusal_of(with([](GgufBytes& f) { f.pairs.push_back(pair("split.count", 2, raw<uint16_t>(1))); })) ==
          "accepted");
    for (const Attack& attack : kAttacks) {
      CAPTURE(attack.name);
      const std::string refusal = refusal_of(attack.bytes());
      CHECK_MESSAGE(refusal.find(attack.message) != std::string::npos, refusal);
      CHECK(refusal.find("a.gguf") != std::string::npos);
    }
  }

  TEST_CASE("gguf_file: cut after any byte, the file is refused") {
    const std::string whole = good().bytes();
    for (size_t size = 0; size < whole.size(); ++size) {
      CAPTURE(size);
      CHECK(refusal_of(whole.substr(0, size)) != "accepted");
    }
  }

  TEST_CASE("gguf_file: from disk, a folder, a missing and an empty file are refused") {
    const ScratchFolder scratch;
    const GgufFile read(scratch.write("good.gguf", good().bytes()));
    CHECK(read.tensors().size() == 2);
    read.drop(read.tensors()[1]);  // the pages come back when they are read again
    CHECK(read.bytes_of(read.tensors()[1])[0] == std::byte{0});
    CHECK_THROWS_AS(GgufFile{scratch.path}, UserError);
    CHECK_THROWS_AS(GgufFile{scratch.path / "absent"}, UserError);
    CHECK_THROWS_WITH_AS(GgufFile{scratch.write("empty", "")}, doctest::Contains("is empty"), UserError);
  }

  TEST_CASE("gguf_writer: golden bytes of a small file") {
    const ScratchFolder scratch;
    GgufWriter writer;
    writer.add("general.architecture", std::string_view("llama"));
    writer.add("n", uint32_t{5});
    writer.add("f", 1.5F);
    writer.add("b", true);
    writer.add("s", std::span<const std::string>(std::vector<std::string>{"x", "yz"}));
    writer.add("i", std::span<const int32_t>(std::vector<int32_t>{1, -1}));
    writer.add_tensor("a.weight", {2, 3}, GgmlType::f32);
    writer.add_tensor("b.weight", {1, 32}, GgmlType::q8_0);
    writer.start(scratch.path / "a.gguf");
    const std::vector<float> values{1, 2, 3, 4, 5, 6};
    writer.write(std::as_bytes(std::span(values).first(4)));  // in two pieces
    writer.write(std::as_bytes(std::span(values).last(2)));
    const std::string sevens(34, '\7');
    writer.write(std::as_bytes(std::span(sevens)));
    const uint64_t size = writer.finish();

    std::string data;
    for (const float value : values) data += raw(value);
    data.resize(32, '\0');
    data += std::string(34, '\7');
    data.resize(96, '\0');
    const GgufBytes expected{
        .pairs = {pair_text("general.architecture", "llama"), pair_u32("n", 5), pair_f32("f", 1.5F),
                  pair_bool("b", true), pair_texts("s", {"x", "yz"}), pair_list<int32_t>("i", 5, {1, -1})},
        .tensors = {tensor("a.weight", {3, 2}, 0, 0), tensor("b.weight", {32, 1}, 8, 32)},
        .data = data};
    CHECK(slurp(scratch.path / "a.gguf") == expected.bytes());
    CHECK(size == expected.bytes().size());
  }

  TEST_CASE("gguf_writer: bytes too many or too few are a bug of the caller") {
    const ScratchFolder scratch;
    GgufWriter writer;
    writer.add("n", uint32_t{5});
    CHECK_THROWS_AS(writer.add("n", uint32_t{6}), InternalError);
    writer.add_tensor("a.weight", {2, 3}, GgmlType::f32);
    CHECK_THROWS_AS(writer.add_tensor("b.weight", {1, 33}, GgmlType::q8_0), InternalError);
    writer.start(scratch.path / "a.gguf");
    const std::string one_more(25, '\0');
    CHECK_THROWS_AS(writer.finish(), InternalError);
    CHECK_THROWS_AS(writer.write(std::as_bytes(std::span(one_more))), InternalError);
  }
}
