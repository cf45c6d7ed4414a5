// Reading the weights of a GGUF file: every tensor accounted for, dequantised piece by piece into the arena, its pages
// given back behind the reader.
#include "src/checkpoint/gguf_import.h"

#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <set>
#include <span>

#include "src/base/errors.h"
#include "src/checkpoint/gguf_config.h"
#include "src/checkpoint/gguf_file.h"
#include "src/checkpoint/gguf_tensors.h"
#include "src/checkpoint/quantised_blocks.h"
#include "src/model/parameters.h"
#include "src/tensors/shape.h"

namespace coppice {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kPieceElements = int64_t{1} << 20;

/// Every expected tensor with its shape and a type that is read, none left over.
void check_tensors(const GgufFile& file, const std::vector<Parameter>& table) {
  std::set<std::string> left;
  for (const GgufTensor& tensor : file.tensors()) left.insert(tensor.name);
  left.erase(kRopeFactors);
  for (const Parameter& parameter : table) {
    const GgufTensor* tensor = file.find_tensor(parameter.gguf_name);
    if (tensor == nullptr)
      throw UserError::bad_file(file.where(), fmt::format("tensor {} is missing, expected {}", parameter.gguf_name,
                                                          shape_text(parameter.shape)));
    if (tensor->shape != parameter.shape)
      throw UserError::bad_file(file.where(), fmt::format("tensor {}: got {}, expected {}", parameter.gguf_name,
                                                          shape_text(tensor->shape), shape_text(parameter.shape)));
    if (const GgmlTypeRow* type = find_ggml_type(tensor->type); !type->is_read)
      throw UserError::bad_file(file.where(),
                                fmt::format("tensor {} is {}: {}", parameter.gguf_name, type->name, read_ggml_types()));
    left.erase(parameter.gguf_name);
  }
  if (!left.empty())
    throw UserError::bad_file(file.where(),
                              fmt::format("tensor '{}' is not expected ({} additional)", *left.begin(), left.size()));
}

bool all_zero(std::span<const float> values) {
  return std::ranges::all_of(values, [](float value) { return value == 0.0F; });
}

/// One tensor into its place, whose rows and columns may be fewer: channels of the FFN that are cut must be zero, rows
/// of a vocabulary table need not.
void read_values(const GgufFile& file, const GgufTensor& tensor, const Parameter& parameter, const at::Tensor& into,
                 int64_t permuted_head_dim) {
  COPPICE_CHECK(into.is_contiguous(), parameter.name);
  const auto [rows, columns] = matrix_size(tensor.shape);
  const auto [kept_rows, kept_columns] = matrix_size(parameter.shape);
  const bool must_be_zero = parameter.axes[0] != Axis::vocab;
  const bool straight = permuted_head_dim == 0 && columns == kept_columns;
  const auto type = static_cast<GgmlType>(tensor.type);
  const GgmlTypeRow& block = ggml_type_row(type);
  float* values = into.mutable_data_ptr<float>();
  std::vector<float> piece;
  // A vector is one row of blocks: it goes in one piece.
  const int64_t step = tensor.shape.size() == 1 ? rows : std::max<int64_t>(1, kPieceElements / columns);
  for (int64_t first = 0; first < (must_be_zero ? rows : kept_rows);) {
    const bool behind = first >= kept_rows;
    const int64_t count = std::min(step, (behind ? rows : kept_rows) - first);
    const auto elements = static_cast<size_t>(count * columns);
    const std::span<const std::byte> bytes = file.bytes_of(tensor).subspan(
        static_cast<size_t>(first * columns) / block.elements * block.bytes, elements / block.elements * block.bytes);
    const bool in_place = straight && !behind;
    if (!in_place) piece.resize(elements);
    const std::span<float> place = in_place ? std::span(values + first * columns, elements) : std::span(piece);
    if (!dequantise(type, bytes, place))
      throw UserError::bad_file(file.where(), "tensor " + tensor.name + " holds values that are not finite");
    for (int64_t row = 0; !in_place && row < count; ++row) {
      const auto source =
          std::span<const float>(piece).subspan(static_cast<size_t>(row * columns), static_cast<size_t>(columns));
      const auto cut = static_cast<size_t>(behind ? 0 : kept_columns);
      if (!all_zero(source.subspan(cut)))
        throw UserError::bad_file(file.where(), fmt::format("{}: tensor {} is not zero beyond channel {}", kTrueWidths,
                                                            tensor.name, behind ? kept_rows : kept_columns));
      if (behind) continue;
      const int64_t target = permuted_head_dim == 0 ? first + row : row_of_halves(first + row, permuted_head_dim);
      std::memcpy(values + target * kept_columns, source.data(), cut * sizeof(float));
    }
    first += count;
  }
  file.drop(tensor);
}

}  // namespace

StoredWeights gguf_weights(const fs::path& path, int64_t vocab_size) {
  auto file = std::make_shared<const GgufFile>(path);
  const GgufShape shape = read_gguf_shape(*file);
  check_tensors(*file, parameter_table(shape.config));  // before anything of the model's size is allocated
  ModelConfig config = shape.config;
  if (!shape.true_widths.empty()) config.intermediate_size = shape.true_widths;
  if (vocab_size > config.vocab_size)
    throw UserError::bad_file(file->where(), fmt::format("the vocabulary table has {} rows, fewer than {} ids",
                                                         config.vocab_size, vocab_size));
  if (vocab_size > 0) config.vocab_size = vocab_size;
  const bool permutes = rotates_neighbours(shape.architecture);
  return {.config = config,
          .read = [file, permutes, head_dim = config.head_dim](const Parameter& parameter, const at::Tensor& into) {
            read_values(*file, *file->find_tensor(parameter.gguf_name), parameter, into,
                        permutes && is_rotated(parameter) ? head_dim : 0);
          }};
}

Model import_gguf(const fs::path& path, int64_t vocab_size) { return read_model(gguf_weights(path, vocab_size)); }

ModelConfig import_gguf_config(const fs::path& path) {
  const GgufFile file(path);
  GgufShape shape = read_gguf_shape(file);
  if (!shape.true_widths.empty()) shape.config.intermediate_size = shape.true_widths;
  return shape.config;
}

void check_gguf_file(const fs::path& path) {
  const GgufFile file(path);
  check_tensors(file, parameter_table(read_gguf_shape(file).config));
}

GgufVocabulary gguf_tokenizer(const fs::path& path) { return read_gguf_vocabulary(GgufFile(path)); }

GgufFacts gguf_facts(const fs::path& path) {
  const GgufFile file(path);
  return {.architecture = read_gguf_shape(file).architecture,
          .general = read_gguf_general(file),
          .weight_type = weight_type(file),
          .quantised = has_quantised_weights(file)};
}

ReadSettings gguf_settings(const fs::path& path) { return read_gguf_settings(GgufFile(path)); }

}  // namespace coppice
