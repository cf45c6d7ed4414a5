// safetensors: golden bytes, and the attack vectors of the reference's own tests rebuilt one by one.
#include "src/checkpoint/safetensors.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <bit>
#include <cstring>
#include <filesystem>

#include "tests/checkpoint/tiny.h"

namespace fs = std::filesystem;
using namespace coppice;

namespace {

std::string size_word(uint64_t value) {
  std::string word(8, '\0');
  std::memcpy(word.data(), &value, 8);
  return word;
}

/// A file of that header and `data_bytes` zero bytes.
void write_raw(const fs::path& path, const std::string& header, uint64_t data_bytes) {
  spill(path, size_word(header.size()) + header + std::string(data_bytes, '\0'));
}

std::string refusal_of(const fs::path& path) {
  try {
    read_safetensors_header(path);
  } catch (const UserError& error) {
    CHECK(error.code() == ExitCode::bad_file);
    return error.what();
  }
  return "accepted";
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("safetensors: golden bytes of a small file") {
    const ScratchFolder scratch;
    const fs::path path = scratch.path / "a.safetensors";
    write_safetensors(path, {{"b", at::tensor({1.0F, -2.0F}).to(at::kBFloat16)},
                             {"z", at::tensor({0.5F})},
                             {"c", at::tensor({1.5F}).to(at::kHalf)}});
    // Wider types first, then by name.
    const std::string header =
        R"({"__metadata__":{"format":"pt"},"z":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
        R"("b":{"dtype":"BF16","shape":[2],"data_offsets":[4,8]},"c":{"dtype":"F16","shape":[1],"data_offsets":[8,10]}})";
    std::string padded = header;
    while (padded.size() % 8 != 0) padded += ' ';
    const char data[] = {0, 0, 0, 0x3f, static_cast<char>(0x80), 0x3f, 0, static_cast<char>(0xc0), 0, 0x3e};
    CHECK(slurp(path) == size_word(padded.size()) + padded + std::string(data, sizeof(data)));
  }

  TEST_CASE("safetensors: there and back, in all three types, empty tensors included") {
    const ScratchFolder scratch;
    const fs::path path = scratch.path / "a.safetensors";
    const at::Tensor values = at::arange(12, at::kFloat).view({3, 4}) / 7;
    write_safetensors(path, {{"f", values},
                             {"b", values.to(at::kBFloat16)},
                             {"h", values.to(at::kHalf)},
                             {"empty", at::zeros({0, 5})},
                             {"scalar", at::zeros({})}});
    size_t count = 0;
    for (const SafetensorsEntry& entry : read_safetensors_header(path)) {
      ++count;
      const at::Tensor read = read_safetensors_tensor(path, entry);
      CHECK((read.scalar_type() == at::kFloat));
      if (entry.name == "f") CHECK(at::equal(read, values));
      if (entry.name == "b") CHECK(at::equal(read, values.to(at::kBFloat16).to(at::kFloat)));
      if (entry.name == "h") CHECK(at::equal(read, values.to(at::kHalf).to(at::kFloat)));
      if (entry.name == "empty") CHECK((read.sizes() == at::IntArrayRef({0, 5})));
      if (entry.name == "scalar") CHECK(read.dim() == 0);
    }
    CHECK(count == 5);
  }

  TEST_CASE("safetensors: what the reference reader tolerates") {
    const ScratchFolder scratch;
    const fs::path path = scratch.path / "a.safetensors";
    write_raw(path, "{}", 0);
    CHECK(read_safetensors_header(path).empty());
    write_raw(path, R"(  {"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}   )", 8);
    CHECK(read_safetensors_header(path).size() == 1);
    write_raw(path, R"({"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})",
              8);  // sizes are known, values are not read
    const SafetensorsEntry entry = read_safetensors_header(path).at(0);
    CHECK_THROWS_WITH_AS(read_safetensors_tensor(path, entry), doctest::Contains("only F32, BF16 and F16"), UserError);
  }
}

TEST_SUITE("faults") {
  TEST_CASE("safetensors: absurd header sizes are refused before anything is read") {
    const ScratchFolder scratch;
    const fs::path path = scratch.path / "a.safetensors";
    for (const size_t size : {0, 1, 7}) {
      spill(path, std::string(size, 'x'));
      CHECK(refusal_of(path).find("at least 8") != std::string::npos);
    }
    constexpr uint64_t kFileBytes = 1000;
    for (const uint64_t claimed : {uint64_t{0}, uint64_t{1}, uint64_t{7}, kFileBytes, kFileBytes - 7, uint64_t{1} << 31,
                                   uint64_t{1} << 63, ~uint64_t{0}, uint64_t{100'000'001}}) {
      CAPTURE(claimed);
      spill(path, size_word(claimed) + std::string(kFileBytes - 8, ' '));
      CHECK(refusal_of(path) != "accepted");
    }
    CHECK(refusal_of(scratch.path / "absent") != "accepted");
    CHECK(refusal_of(scratch.path) != "accepted");
  }

  TEST_CASE("safetensors: every broken rule by its own message") {
    const ScratchFolder scratch;
    const fs::path path = scratch.path / "a.safetensors";
    std::string deep = R"({"a":)";
    for (int i = 0; i < 100; ++i) deep += "[";
    for (int i = 0; i < 100; ++i) deep += "]";
    deep += "}";
    const struct {
      const char* what;
      std::string header;
      uint64_t data_bytes;
      const char* message;
    } cases[] = {
        {"overlap",
         R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
         12, "overlap"},
        {"same place",
         R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
         8, "overlap"},
        {"hole",
         R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}})",
         20, "hole"},
        {"hole at the start", R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12, "hole"},
        {"trailing bytes", R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 9, "by its header"},
        {"data cut off", R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 7, "by its header"},
        {"bytes without a tensor", "{}", 4, "by its header"},
        {"backward offsets", R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8, "data_offsets"},
        {"negative offset", R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}})", 8, "non-negative"},
        {"offset beyond 64 bits", R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551616]}})", 8,
         "non-negative"},
        {"three offsets", R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}})", 8, "data_offsets"},
        {"wrong size", R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8, "expected 12 bytes"},
        {"negative shape", R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8, "shape"},
        {"float shape", R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", 8, "shape"},
        {"shape overflow", R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0,
         "64 bits"},
        {"bits overflow", R"({"a":{"dtype":"F32","shape":[1152921504606846976],"data_offsets":[0,0]}})", 0, "64 bits"},
        {"overflow hidden by a zero", R"({"a":{"dtype":"F32","shape":[9223372036854775808,0],"data_offsets":[0,0]}})",
         0, ""},
        {"half a byte", R"({"a":{"dtype":"F4","shape":[1],"data_offsets":[0,0]}})", 0, "whole bytes"},
        {"unknown dtype", R"({"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}})", 8, "unknown dtype"},
        {"unknown key", R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}})", 8, "unknown key"},
        {"missing key", R"({"a":{"dtype":"F32","shape":[2]}})", 0, "data_offsets"},
        {"duplicate tensor",
         R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
         8, "twice"},
        {"duplicate key", R"({"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8, "twice"},
        {"not UTF-8", "{\"\xff\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "JSON"},
        {"control character in a name", R"({"a\u001b[2J":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8,
         "not printable"},
        {"empty name", R"({"":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8, "empty"},
        {"long name", "{\"" + std::string(512, 'n') + R"(":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8,
         "512"},
        {"deep JSON", deep, 0, "deep"},
        {"a list", "[]", 0, "no JSON object"},
        {"no JSON", "hello123", 0, "JSON"},
        {"text after the object", "{}x", 0, "JSON"},
        {"a NUL after the object", std::string("{}\0\0", 4), 0, "NUL"},
        {"metadata no object", R"({"__metadata__":1})", 0, "__metadata__"},
        {"metadata no strings", R"({"__metadata__":{"a":1}})", 0, "__metadata__"},
        {"tensor no object", R"({"a":3})", 0, "object expected"},
    };
    for (const auto& attack : cases) {
      CAPTURE(attack.what);
      write_raw(path, attack.header, attack.data_bytes);
      const std::string text = refusal_of(path);
      CAPTURE(text);
      CHECK(text != "accepted");
      CHECK(text.find(attack.message) != std::string::npos);
    }
  }

  TEST_CASE("safetensors: any one byte of the header changed is refused or reads inside the file") {
    const ScratchFolder scratch;
    const fs::path path = scratch.path / "a.safetensors";
    write_safetensors(path, {{"first", at::ones({3, 4})}, {"second", at::ones({5}).to(at::kHalf)}});
    const std::string bytes = slurp(path);
    size_t num_refused = 0;
    for (size_t offset = 0; offset < bytes.size(); ++offset) {
      for (const char bits : {1, 2, 16, 64, -128}) {
        std::string damaged = bytes;
        damaged[offset] = static_cast<char>(damaged[offset] ^ bits);
        spill(path, damaged);
        try {
          for (const SafetensorsEntry& entry : read_safetensors_header(path)) read_safetensors_tensor(path, entry);
        } catch (const UserError& error) {
          CHECK(error.code() == ExitCode::bad_file);
          ++num_refused;
        }
      }
    }
    CHECK(num_refused > bytes.size());  // most of the header's bytes carry meaning; data bytes do not
  }
}
