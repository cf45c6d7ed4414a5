// A fastText model file, field by field.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace coppice::test {

struct MadeFastText {
  struct Entry {
    std::string text;
    int64_t count = 1;
    int8_t type = 0;
  };
  int32_t magic = 793712314, version = 12;
  int32_t dim = 2, word_ngrams = 1, loss = 3, model = 3, bucket = 0, minn = 0, maxn = 0;
  std::vector<Entry> entries = {{"a"}, {"b"}, {"__label__x", 3, 1}, {"__label__y", 2, 1}};
  int32_t num_entries = 4, words = 2, labels = 2;
  int64_t pruned = -1;
  uint8_t quantised = 0;
  int64_t input_rows = 2, output_rows = 2;
  std::vector<float> input = {1, 0, 0, 2}, output = {1, 0, 0, 1};

  std::string bytes() const {
    std::string out;
    const auto put = [&out](const auto& value) { out.append(reinterpret_cast<const char*>(&value), sizeof value); };
    for (const int32_t value : {magic, version, dim, 5, 5, 1, 5, word_ngrams, loss, model, bucket, minn, maxn, 100})
      put(value);
    put(1e-4);
    for (const int32_t value : {num_entries, words, labels}) put(value);
    put(int64_t{100});
    put(pruned);
    for (const Entry& entry : entries) {
      out.append(entry.text).push_back('\0');
      put(entry.count);
      put(entry.type);
    }
    const auto matrix = [&](int64_t rows, const std::vector<float>& values) {
      put(quantised);
      put(rows);
      put(int64_t{dim});
      for (const float value : values) put(value);
    };
    matrix(input_rows, input);
    matrix(output_rows, output);
    return out;
  }
};

}  // namespace coppice::test
