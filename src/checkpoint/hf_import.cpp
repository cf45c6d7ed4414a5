// Reading the weights of a Hugging Face folder: one safetensors file or an index of several, every tensor accounted
// for. Its shape: hf_config.cpp.
#include "src/checkpoint/hf_import.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/checkpoint/safetensors.h"
#include "src/model/parameters.h"
#include "src/tensors/shape.h"

namespace coppice {

namespace fs = std::filesystem;

namespace {

constexpr const char* kFrequencies = "rotary_emb.inv_freq";  // once a constant of every layer, stored with its weights

struct FileEntry {
  fs::path path;
  SafetensorsEntry entry;
};
using Entries = std::map<std::string, FileEntry>;

/// All tensors of model.safetensors, or of the files an index names: each tensor exactly once, in the file that the
/// index says.
Entries read_entries(const fs::path& folder) {
  Entries entries;
  const fs::path index_path = folder / "model.safetensors.index.json";
  std::error_code error;
  if (!fs::exists(index_path, error)) {
    const fs::path path = folder / "model.safetensors";
    if (!fs::exists(path, error))
      throw UserError::bad_file(
          path.string(),
          "no such file, nor model.safetensors.index.json beside it; weights in another form (pytorch_model.bin) are "
          "read once transformers has saved them as safetensors");
    for (SafetensorsEntry& entry : read_safetensors_header(path)) entries.emplace(entry.name, FileEntry{path, entry});
    return entries;
  }
  const std::string where = index_path.string();
  const Json index = read_json(index_path);
  std::map<std::string, std::string> file_of;
  std::set<std::string> files;
  for (const auto& [tensor, file] : object_at(index, "weight_map", where).items()) {
    if (!file.is_string())
      throw UserError::bad_file(where, fmt::format("weight_map: '{}' maps to no name", printable(tensor)));
    const std::string name = file.get<std::string>();
    check_leaf_name(name, where);  // all of them before any is opened
    file_of[tensor] = name;
    files.insert(name);
  }
  for (const std::string& file : files) {
    const fs::path path = folder / file;
    for (SafetensorsEntry& entry : read_safetensors_header(path)) {
      const auto mapped = file_of.find(entry.name);
      if (mapped == file_of.end() ? !entry.name.ends_with(kFrequencies) : mapped->second != file)
        throw UserError::bad_file(path.string(),
                                  fmt::format("tensor '{}' is not what the index says", printable(entry.name)));
      entries.emplace(entry.name, FileEntry{path, entry});
    }
  }
  for (const auto& [tensor, file] : file_of)
    if (!entries.contains(tensor))
      throw UserError::bad_file(where, fmt::format("tensor '{}' is not in '{}'", printable(tensor), printable(file)));
  return entries;  // metadata.total_size is not asked: programs write the number of elements there, floats, or the size
                   // before a conversion
}

/// A base model's tensors ("embed_tokens.weight") under the names they have inside a model for generation
/// ("model.embed_tokens.weight").
void name_as_in_full_model(Entries& entries) {
  if (entries.contains("model.embed_tokens.weight") || !entries.contains("embed_tokens.weight")) return;
  Entries named;
  for (auto& [name, entry] : entries)
    named.emplace(name.starts_with("lm_head.") ? name : "model." + name, std::move(entry));
  entries = std::move(named);
}

/// Stored RoPE frequencies must be those that rope_theta gives, as far as their type can say; they are left out then.
void take_frequencies(Entries& entries, const ModelConfig& config) {
  for (auto next = entries.begin(); next != entries.end();) {
    const auto one = next++;
    if (!one->first.ends_with(kFrequencies)) continue;
    const auto& [path, entry] = one->second;
    const at::Tensor expected = at::pow(
        config.rope_theta, at::arange(0, config.head_dim, 2, at::kDouble) / -static_cast<double>(config.head_dim));
    const double relative = entry.dtype == "F32"   ? 1e-5
                            : entry.dtype == "F16" ? 1e-3
                                                   : 1e-2,
                 absolute = entry.dtype == "F16" ? 1e-7 : 0;  // subnormals
    const bool fits = expected.sizes().equals(entry.shape);   // before a hostile size is read
    if (!fits || !at::allclose(read_safetensors_tensor(path, entry).to(at::kDouble), expected, relative, absolute))
      throw UserError::bad_file(path.string(), fmt::format("tensor '{}' holds other frequencies than rope_theta = {} "
                                                           "gives for heads of {}: a scaled RoPE is not supported",
                                                           printable(one->first), config.rope_theta, config.head_dim));
    entries.erase(one);
  }
}

/// Every expected tensor with its shape and a type that is read, none left over but a copy of a tied head.
void check_entries(const Entries& entries, const std::vector<Parameter>& table, const ModelConfig& config,
                   const fs::path& folder) {
  std::set<std::string> left;
  for (const auto& [name, entry] : entries) left.insert(name);
  for (const Parameter& parameter : table) {
    const auto found = entries.find(parameter.hf_name);
    if (found == entries.end())
      throw UserError::bad_file(
          folder.string(),
          fmt::format("tensor {} is missing, expected {}{}", parameter.hf_name, shape_text(parameter.shape),
                      parameter.hf_name == "lm_head.weight" ? " since tie_word_embeddings is not true" : ""));
    if (found->second.entry.shape != parameter.shape)
      throw UserError::bad_file(found->second.path.string(),
                                fmt::format("tensor {}: got {}, expected {}", parameter.hf_name,
                                            shape_text(found->second.entry.shape), shape_text(parameter.shape)));
    if (const std::string& dtype = found->second.entry.dtype; dtype != "F32" && dtype != "BF16" && dtype != "F16")
      throw UserError::bad_file(
          found->second.path.string(),
          fmt::format("tensor {} is {}, only F32, BF16 and F16 are read", parameter.hf_name, dtype));
    left.erase(parameter.hf_name);
  }
  if (config.tie_word_embeddings) left.erase("lm_head.weight");
  if (!left.empty())
    throw UserError::bad_file(folder.string(), fmt::format("tensor '{}' is not expected ({} additional)",
                                                           printable(*left.begin()), left.size()));
}

/// Where each parameter lies, and nothing that is none.
Entries checked_entries(const fs::path& folder, const std::vector<Parameter>& table, const ModelConfig& config) {
  Entries entries = read_entries(folder);
  name_as_in_full_model(entries);
  take_frequencies(entries, config);
  check_entries(entries, table, config, folder);
  return entries;
}

void check_tied_head(const Entries& entries, const fs::path& folder) {
  const auto head = entries.find("lm_head.weight");
  if (head == entries.end()) return;
  const auto& embedding = entries.at("model.embed_tokens.weight");
  const bool equal = head->second.entry.shape == embedding.entry.shape &&
                     at::equal(read_safetensors_tensor(head->second.path, head->second.entry),
                               read_safetensors_tensor(embedding.path, embedding.entry));
  if (!equal)
    throw UserError::bad_file(folder.string(),
                              "tie_word_embeddings is set, yet lm_head.weight differs from model.embed_tokens.weight");
}

/// The first rows and columns of every tensor, as many as `config` has.
Model cut_to(const ModelConfig& config, const Model& larger,
             const std::function<void(const Parameter&, const at::Tensor& cut, int64_t size)>& check_cut) {
  Model model = make_model(config);
  const MasterReader from = larger.arena->read_master();
  const MasterEditor into = model.arena->edit_master();
  for (const Parameter& parameter : parameter_table(config)) {
    at::Tensor kept = from[parameter.name];
    for (size_t axis = 0; axis < parameter.shape.size(); ++axis) {
      const auto dim = static_cast<int64_t>(axis);
      const int64_t size = parameter.shape[axis], extra = kept.size(dim) - size;
      if (extra > 0) check_cut(parameter, kept.narrow(dim, size, extra), size);
      kept = kept.narrow(dim, 0, size);
    }
    into[parameter.name].copy_(kept);
  }
  return model;
}

/// Cuts every layer to its true width; the channels cut must be zero.
Model without_padding(const Model& padded, const std::vector<int64_t>& widths, const std::string& where) {
  ModelConfig config = padded.config;
  config.intermediate_size = widths;
  check_config(config, where, /*from_file=*/true);
  return cut_to(config, padded, [&](const Parameter& parameter, const at::Tensor& cut, int64_t size) {
    if (cut.count_nonzero().item<int64_t>() != 0)
      throw UserError::bad_file(
          where, fmt::format("coppice_intermediate_sizes: {} is not zero beyond channel {}", parameter.hf_name, size));
  });
}

}  // namespace

Model read_hf_model(const fs::path& folder, const HfConfig& hf) {
  const std::vector<Parameter> table = parameter_table(hf.config);
  const Entries entries =
      checked_entries(folder, table, hf.config);  // before anything of the model's size is allocated
  c10::NoGradGuard no_grad;
  if (hf.config.tie_word_embeddings) check_tied_head(entries, folder);
  Model model = make_model(hf.config);
  const MasterEditor master = model.arena->edit_master();
  for (const Parameter& parameter : table) {
    const FileEntry& file = entries.at(parameter.hf_name);
    const at::Tensor values = read_safetensors_tensor(file.path, file.entry);
    if (!at::isfinite(values).all().item<bool>())
      throw UserError::bad_file(file.path.string(),
                                "tensor " + parameter.hf_name + " holds values that are not finite");
    master[parameter.name].copy_(values);
  }
  return model;
}

Model import_hf(const fs::path& folder) {
  const HfConfig hf = read_hf_config(folder);
  Model model = read_hf_model(folder, hf);
  if (hf.intermediate_sizes.empty()) return model;
  c10::NoGradGuard no_grad;
  return without_padding(model, hf.intermediate_sizes, (folder / "config.json").string());
}

void check_hf_files(const fs::path& folder) {
  const HfConfig hf = read_hf_config(folder);
  checked_entries(folder, parameter_table(hf.config), hf.config);
}

std::string hf_folder_sha256(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name == "config.json" || name == "tokenizer.model" || name == "model.safetensors.index.json" ||
        name.ends_with(".safetensors"))
      files.push_back(entry.path());
  }
  std::ranges::sort(files);
  Sha256 hash;
  for (const fs::path& file : files) hash.update(file.filename().string() + "\n" + sha256_file(file) + "\n");
  return hash.hex();
}

HfShape import_hf_config(const fs::path& folder) {
  HfConfig hf = read_hf_config(folder);
  if (!hf.intermediate_sizes.empty()) hf.config.intermediate_size = hf.intermediate_sizes;
  return {.config = hf.config, .attention_window = hf.attention_window};
}

std::optional<int64_t> padded_rows(int64_t rows, int64_t vocab_size) {
  return rows >= vocab_size ? std::optional(rows - vocab_size) : std::nullopt;
}

Model without_padded_rows(const Model& model, int64_t vocab_size) {
  const c10::NoGradGuard no_grad;
  ModelConfig config = model.config;
  config.vocab_size = vocab_size;
  return cut_to(config, model, [](const Parameter&, const at::Tensor&, int64_t) {});
}

}  // namespace coppice
