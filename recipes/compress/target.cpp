#include "recipes/compress/target.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "pruning/cut_axis.h"
#include "recipes/language/parameter_budget.h"
#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/checkpoint/tokenizer_json.h"
#include "src/model/parameters.h"
#include "src/tokens/tokenizer.h"

namespace coppice {
namespace {

struct ElementType {
  std::string_view name;
  int64_t elements;    // of a block
  double bytes;        // of a block
  double table_bytes;  // the same for the rows of the vocabulary
};
constexpr ElementType kTypes[] = {
    {"f32", 1, 4, 4}, {"f16", 1, 2, 2}, {"bf16", 1, 2, 2}, {"q8_0", 32, 34, 34}, {"q4_0", 32, 18, 34}};
constexpr std::string_view kGgufChoices[] = {"f16", "q8_0", "q4_0"}, kHfChoices[] = {"f32", "bf16"};
constexpr double kTensorBytes = 256;      // its name, shape and padding
constexpr double kMetadataBytes = 65536;  // of keys, templates and settings

bool wants(const std::vector<std::string>& formats, const char* format) {
  return std::ranges::find(formats, format) != formats.end();
}

const ElementType& type_of(std::string_view name) {
  const auto found = std::ranges::find(kTypes, name, &ElementType::name);
  COPPICE_CHECK(found != std::end(kTypes), fmt::format("no element type {}", name));
  return *found;
}

/// The widest on the grid, up to all channels, of which `fits` is true; 0 = none.
int64_t widest(const ModelConfig& source, const std::function<bool(const ModelConfig&)>& fits) {
  return most_units(source, CutAxis::ffn, kWidthGrid, fits);
}

[[noreturn]] void refuse_target(const std::string& flag, const std::string& message) {
  throw UserError::recipe(flag, message);
}

/// A cut that is one, and leaves something.
void check_width(const ModelConfig& source, int64_t width, const std::string& flag, const std::string& asked) {
  const int64_t channels = source.intermediate_size.front(), least = least_units(channels, kWidthGrid);
  if (width >= channels)
    refuse_target(flag,
                  fmt::format("{} asked, and the model has {} FFN channels: there is nothing to cut", asked, channels));
  if (width < least)
    refuse_target(flag,
                  fmt::format("{} asked leaves {} of {} FFN channels, expected at least {} (an eighth, in steps of "
                              "{}): such a student has {} parameters of {}",
                              asked, width, channels, least, kWidthGrid,
                              count_parameters(with_units(source, CutAxis::ffn, least)), count_parameters(source)));
}

int64_t width_for_parameters(const ModelConfig& source, const Budget& budget) {
  const ParameterBudget parameters{.is_share = budget.kind == Budget::Kind::share, .value = budget.value};
  const double all = static_cast<double>(count_parameters(source)), most = parameters.most(all);
  const std::string asked = parameters.in_words(all);
  if (most >= all)
    refuse_target("--params", fmt::format("{} asked, and the model has {:.0f}: there is nothing to cut", asked, all));
  const int64_t width =
      widest(source, [&](const ModelConfig& c) { return static_cast<double>(count_parameters(c)) <= most; });
  check_width(source, width, "--params", asked);
  return width;
}

int64_t width_for_channels(const ModelConfig& source, const Budget& budget) {
  const auto width = static_cast<int64_t>(budget.value);
  const int64_t below = width / kWidthGrid * kWidthGrid;
  if (width % kWidthGrid != 0)
    refuse_target(
        "--intermediate-size",
        fmt::format("got {}, expected a multiple of {}, such as {} (quantised rows hold whole blocks)", width,
                    kWidthGrid,
                    below > 0 ? fmt::format("{} or {}", below, below + kWidthGrid) : fmt::format("{}", kWidthGrid)));
  check_width(source, width, "--intermediate-size", fmt::format("{} channels", width));
  return width;
}

/// The first of the types that keeps half of the channels, or the last one: fills type and width.
void fit_bytes(const ModelConfig& source, const CompressRequest& request, double basis, CompressTarget& target,
               std::string& type) {
  const int64_t channels = source.intermediate_size.front();
  const bool is_gguf = !target.quantization.empty();
  std::vector<std::string_view> choices(is_gguf ? std::begin(kGgufChoices) : std::begin(kHfChoices),
                                        is_gguf ? std::end(kGgufChoices) : std::end(kHfChoices));
  if (!request.quantization.empty() && is_gguf) choices = {request.quantization};
  const double most = request.budget.value;
  std::string chosen;  // what it holds
  bool found = false;
  for (const std::string_view choice : choices) {
    const int64_t width =
        widest(source, [&](const ModelConfig& config) { return file_bytes(config, choice, basis) <= most; });
    const double whole = file_bytes(source, choice, basis);
    target.considered.push_back(
        whole <= most ? fmt::format("{} holds all {} channels in {}", choice, channels, format_bytes(whole))
                      : fmt::format("{} holds {} of {} channels", choice, width, channels));
    if (found) continue;
    chosen = target.considered.back();
    target.width = whole <= most ? channels : width;
    type = choice;
    found = 2 * target.width >= channels;
  }
  const std::string asked = fmt::format("{} in {}", format_bytes(most), type);
  if (target.width >= channels)
    refuse_target("--bytes", fmt::format("{}: nothing would be cut ({}); coppice export writes the model as it is, and "
                                         "a smaller --bytes or --quantization cuts",
                                         asked, chosen));
  check_width(source, target.width, "--bytes", asked);
}

}  // namespace

FileBasis file_basis(const Tokenizer& tokenizer, const std::vector<std::string>& formats) {
  FileBasis basis;
  const double own = kMetadataBytes + static_cast<double>(tokenizer.model_bytes().size());
  if (wants(formats, "hf")) basis.hf_bytes = own + static_cast<double>(tokenizer_json(tokenizer, false).size());
  if (!wants(formats, "gguf")) return basis;
  basis.gguf_bytes = own;                        // no less than its merges
  for (const Piece& piece : tokenizer.pieces())  // with their lengths, scores and types
    basis.gguf_bytes += static_cast<double>(piece.text.size()) + 16;
  return basis;
}

double file_bytes(const ModelConfig& config, std::string_view name, double basis_bytes) {
  const ElementType& type = type_of(name);
  double bytes = basis_bytes;
  for (const Parameter& parameter : parameter_table(config)) {
    double elements = 1;
    for (const int64_t size : parameter.shape) elements *= static_cast<double>(size);
    const double blocks = elements / static_cast<double>(type.elements);
    const bool is_matrix = parameter.shape.size() == 2;
    if (is_matrix && parameter.shape.back() % type.elements != 0) return std::numeric_limits<double>::infinity();
    bytes += kTensorBytes;
    bytes +=
        !is_matrix ? 4 * elements : blocks * (parameter.axes.front() == Axis::vocab ? type.table_bytes : type.bytes);
  }
  return bytes;
}

CompressTarget choose_target(const ModelConfig& source, const CompressRequest& request, const FileBasis& basis) {
  CompressTarget target;
  const bool is_gguf = wants(request.formats, "gguf");
  const bool in_blocks = std::isfinite(file_bytes(with_units(source, CutAxis::ffn, kWidthGrid), "q8_0", 0));
  if (is_gguf) target.quantization = !request.quantization.empty() ? request.quantization : in_blocks ? "q8_0" : "f16";
  if (wants(request.formats, "hf")) target.dtype = "bf16";
  std::string type = is_gguf ? target.quantization : target.dtype;
  const double basis_bytes = is_gguf ? basis.gguf_bytes : basis.hf_bytes;
  switch (request.budget.kind) {
    case Budget::Kind::share:
    case Budget::Kind::parameters:
      target.width = width_for_parameters(source, request.budget);
      break;
    case Budget::Kind::channels:
      target.width = width_for_channels(source, request.budget);
      break;
    case Budget::Kind::bytes:
      fit_bytes(source, request, basis_bytes, target, type);
      break;
  }
  (is_gguf ? target.quantization : target.dtype) = type;
  target.config = with_units(source, CutAxis::ffn, target.width);
  target.bytes = file_bytes(target.config, type, basis_bytes);
  return target;
}

}  // namespace coppice
