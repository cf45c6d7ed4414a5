// Export: write `.tmp-*`, read it back, compare, rename. Padding: gate and up get zero rows, down zero columns, which
// is exact: silu(0) * 0 = 0.
#include "src/checkpoint/gguf_export.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <span>
#include <vector>

#include "src/base/errors.h"
#include "src/base/failpoint.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/checkpoint/export_check.h"
#include "src/checkpoint/gguf_config.h"
#include "src/checkpoint/gguf_export_metadata.h"
#include "src/checkpoint/gguf_import.h"
#include "src/checkpoint/gguf_tensors.h"
#include "src/checkpoint/gguf_writer.h"
#include "src/checkpoint/quantised_blocks.h"
#include "src/checkpoint/rope_factors.h"
#include "src/model/parameters.h"

namespace coppice {

namespace fs = std::filesystem;

namespace {

constexpr double kMaxLogitDifference = 1e-4;
constexpr int64_t kPieceElements = int64_t{1} << 20;

struct FileType {
  const char* name;
  GgmlType matrices, tables;  // tables: embedding and output
  uint32_t number;            // general.file_type
};
constexpr FileType kFileTypes[] = {{"f32", GgmlType::f32, GgmlType::f32, 0},
                                   {"f16", GgmlType::f16, GgmlType::f16, 1},
                                   {"bf16", GgmlType::bf16, GgmlType::bf16, 32},
                                   {"q8_0", GgmlType::q8_0, GgmlType::q8_0, 7},
                                   {"q4_0", GgmlType::q4_0, GgmlType::q8_0, 2}};

const FileType& find_file_type(const std::string& name) {
  const auto found = std::ranges::find(kFileTypes, name, &FileType::name);
  if (found != std::end(kFileTypes)) return *found;
  throw UserError::recipe("type",
                          fmt::format("got '{}', expected 'f32', 'f16', 'bf16', 'q8_0' or 'q4_0'", printable(name)));
}

/// How a parameter lies in the file.
struct Place {
  Parameter parameter;
  std::vector<int64_t> shape;  // channels of the FFN padded
  GgmlType type = GgmlType::f32;
  int64_t permuted_head_dim = 0;
};

std::vector<Place> places_of(const ModelConfig& config, const FileType& type) {
  int64_t width = std::ranges::max(config.intermediate_size);
  const int64_t block = ggml_type_row(type.matrices).elements;
  width = (width + block - 1) / block * block;
  const bool neighbours = rotates_neighbours(gguf_architecture(config));
  std::vector<Place> places;
  for (const Parameter& parameter : parameter_table(config)) {
    Place place{.parameter = parameter, .shape = parameter.shape};
    for (size_t axis = 0; axis < place.shape.size(); ++axis)
      if (parameter.axes[axis] == Axis::ffn) place.shape[axis] = width;
    if (place.shape.size() > 1) place.type = parameter.axes[0] == Axis::vocab ? type.tables : type.matrices;
    if (neighbours && is_rotated(parameter)) place.permuted_head_dim = config.head_dim;
    if (const GgmlTypeRow& row = ggml_type_row(place.type); place.shape.back() % row.elements != 0)
      throw UserError::recipe("type", fmt::format("{} has rows of {}, {} goes by blocks of {}; f32, f16 and bf16 fit",
                                                  parameter.name, place.shape.back(), row.name, row.elements));
    places.push_back(std::move(place));
  }
  return places;
}

using TakePiece = std::function<void(int64_t first_row, std::span<const float> values)>;

/// The matrix that the file holds, zeros and order of rows included, in pieces of whole rows.
void for_all_pieces(const Place& place, const at::Tensor& weight, const TakePiece& take) {
  const auto [rows, columns] = matrix_size(place.shape);
  const auto [own_rows, own_columns] = matrix_size(place.parameter.shape);
  const float* values = weight.const_data_ptr<float>();
  const int64_t step = std::clamp<int64_t>(kPieceElements / columns, 1, rows);
  std::vector<float> piece(static_cast<size_t>(step * columns));
  for (int64_t first = 0; first < rows; first += step) {
    const int64_t count = std::min(step, rows - first);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = first + i;
      const auto target = std::span(piece).subspan(static_cast<size_t>(i * columns), static_cast<size_t>(columns));
      std::ranges::fill(target, 0.0F);
      if (row >= own_rows) continue;
      const int64_t own = place.permuted_head_dim == 0 ? row : row_of_halves(row, place.permuted_head_dim);
      std::memcpy(target.data(), values + own * own_columns, static_cast<size_t>(own_columns) * sizeof(float));
    }
    take(first, std::span(piece).first(static_cast<size_t>(count * columns)));
  }
}

std::vector<std::byte> quantised(const Place& place, std::span<const float> values) {
  const GgmlTypeRow& row = ggml_type_row(place.type);
  std::vector<std::byte> blocks(values.size() / row.elements * row.bytes);
  if (quantise(place.type, values, blocks)) return blocks;
  const bool finite = std::ranges::all_of(values, [](float value) { return std::isfinite(value); });
  throw UserError::bad_file(place.parameter.name,
                            finite ? fmt::format("holds values beyond what {} can say: export f32 or bf16", row.name)
                                   : "holds values that are not finite: never exported");
}

uint64_t write_file(const fs::path& path, const Model& model, const std::vector<Place>& places, GgufWriter& writer) {
  std::vector<float> factors;
  if (const auto& scaling = model.config.rope_scaling)
    factors = rope_factors(*scaling, model.config.rope_theta, model.config.head_dim);
  if (!factors.empty()) writer.add_tensor(kRopeFactors, {std::ssize(factors)}, GgmlType::f32);
  for (const Place& place : places) writer.add_tensor(place.parameter.gguf_name, place.shape, place.type);
  writer.start(path);
  if (!factors.empty()) writer.write(std::as_bytes(std::span(factors)));
  const MasterReader master = model.arena->read_master();
  for (const Place& place : places)
    for_all_pieces(place, master[place.parameter.name],
                   [&](int64_t, std::span<const float> values) { writer.write(quantised(place, values)); });
  return writer.finish();
}

/// Numbers travel as f32, a scaling as what it does: equal but for that.
void check_config_read_back(const ModelConfig& ours, ModelConfig theirs) {
  const auto close = [](double a, double b) { return std::fabs(a - b) <= 1e-6 * std::fabs(a); };
  const bool numbers = close(ours.rope_theta, theirs.rope_theta) && close(ours.rms_norm_eps, theirs.rms_norm_eps) &&
                       ours.rope_scaling.has_value() == theirs.rope_scaling.has_value();
  theirs.rope_theta = ours.rope_theta, theirs.rms_norm_eps = ours.rms_norm_eps, theirs.rope_scaling = ours.rope_scaling;
  COPPICE_CHECK(numbers && theirs == ours, "the exported shape reads back as another; nothing was put in place");
}

/// Every weight of theirs is ours as the file's type rounds it, bit for bit.
void check_weights_read_back(const std::vector<Place>& places, const Model& ours, const Model& theirs) {
  const MasterReader master = ours.arena->read_master(), found = theirs.arena->read_master();
  std::vector<float> rounded;
  for (const Place& place : places) {
    const auto [own_rows, own_columns] = matrix_size(place.parameter.shape);
    const float* values = found[place.parameter.name].const_data_ptr<float>();
    const int64_t columns = matrix_size(place.shape).columns;
    for_all_pieces(place, master[place.parameter.name], [&](int64_t first, std::span<const float> piece) {
      rounded.resize(piece.size());
      dequantise(place.type, quantised(place, piece), rounded);
      for (int64_t row = first; row < std::min(own_rows, first + std::ssize(piece) / columns); ++row) {
        const int64_t own = place.permuted_head_dim == 0 ? row : row_of_halves(row, place.permuted_head_dim);
        COPPICE_CHECK(std::memcmp(values + own * own_columns, rounded.data() + (row - first) * columns,
                                  static_cast<size_t>(own_columns) * sizeof(float)) == 0,
                      place.parameter.name + " reads back as other values; nothing was put in place");
      }
    });
  }
}

void check_tokens_read_back(const fs::path& path, const Tokenizer& ours) {
  const Tokenizer theirs = tokenizer_from_gguf(gguf_tokenizer(path), path.string());
  for (const char* prompt : check_prompts())
    COPPICE_CHECK(theirs.encode(prompt) == ours.encode(prompt),
                  "the exported tokenizer gives other ids; nothing was put in place");
}

GgufExportReport write_and_check(const fs::path& temporary, const Model& model, const Tokenizer& tokenizer,
                                 const GgufExportOptions& options) {
  const FileType& type = find_file_type(options.type);
  const std::vector<Place> places = places_of(model.config, type);
  const auto down =
      std::ranges::find_if(places, [](const Place& place) { return place.parameter.axes[0] == Axis::ffn; });
  GgufWriter writer;
  add_gguf_metadata(writer, {.config = model.config,
                             .width = down->shape[0],
                             .file_type = type.number,
                             .tokenizer = tokenizer,
                             .options = options});
  GgufExportReport report{.bytes = write_file(temporary, model, places, writer)};
  const Model theirs = import_gguf(temporary);
  check_config_read_back(model.config, theirs.config);
  check_weights_read_back(places, model, theirs);
  check_tokens_read_back(temporary, tokenizer);
  report.max_logit_difference = max_logit_difference(model, theirs, tokenizer);
  if (COPPICE_FAILPOINT("export.logits")) report.max_logit_difference = NAN;
  return report;
}

}  // namespace

void check_gguf_export(const ModelConfig& config, const Tokenizer& tokenizer, const GgufExportOptions& options) {
  places_of(config, find_file_type(options.type));
  if (config.qkv_bias && config.num_attention_heads * config.head_dim != config.hidden_size)
    throw UserError::recipe(
        "gguf", fmt::format("llama.cpp reads models with q/k/v biases (qwen2) only with heads of hidden_size / "
                            "num_attention_heads = {} / {}, this one has head_dim {}; export it as hf",
                            config.hidden_size, config.num_attention_heads, config.head_dim));
  if (tokenizer.vocab_size() > config.vocab_size)
    throw UserError::recipe("tokenizer", fmt::format("{} pieces, but the model's vocabulary has {}",
                                                     tokenizer.vocab_size(), config.vocab_size));
  (void)gguf_vocabulary(tokenizer, adds_bos(options), "tokenizer");
}

GgufExportReport export_gguf(const fs::path& file, const Model& model, const Tokenizer& tokenizer,
                             const GgufExportOptions& options) {
  check_gguf_export(model.config, tokenizer, options);
  const c10::NoGradGuard no_grad;
  make_folder(file.has_parent_path() ? file.parent_path() : ".");
  const fs::path temporary = temporary_path(file);
  try {
    const GgufExportReport report = write_and_check(temporary, model, tokenizer, options);
    const bool exact = options.type == "f32";  // otherwise the weights were compared with rounded ones
    log_info(fmt::format("export {}: every weight reads back as written; logits differ from ours by at most {:.3g}{}",
                         file.filename().string(), report.max_logit_difference,
                         exact ? fmt::format(" (bar {:.0e})", kMaxLogitDifference) : ""));
    if (!(report.max_logit_difference <= (exact ? kMaxLogitDifference : INFINITY)))
      throw InternalError(fmt::format(
          "exported weights give other logits: difference {:.3g}, at most {:.0e} allowed; nothing was put in place",
          report.max_logit_difference, kMaxLogitDifference));
    commit_rename(temporary, file);
    return report;
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
}

}  // namespace coppice
