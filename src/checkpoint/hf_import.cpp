// Reading the weights of a Hugging Face folder: one safetensors file or an index of several, every tensor accounted
// for. Its shape: hf_config.cpp.
#include "src/checkpoint/hf_import.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
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

/// Stored RoPE frequencies must be those that the config gives, as far as their type can say; they are left out then.
void take_frequencies(Entries& entries, const ModelConfig& config) {
  for (auto next = entries.begin(); next != entries.end();) {
    const auto one = next++;
    if (!one->first.ends_with(kFrequencies)) continue;
    const auto& [path, entry] = one->second;
    const at::Tensor expected = rope_frequencies(config);
    const double relative = entry.dtype == "F32"   ? 1e-5
                            : entry.dtype == "F16" ? 1e-3
                                                   : 1e-2,
                 absolute = entry.dtype == "F16" ? 1e-7 : 0;  // subnormals
    const bool fits = expected.sizes().equals(entry.shape);   // before a hostile size is read
    if (!fits || !at::allclose(read_safetensors_tensor(path, entry).to(at::kDouble), expected, relative, absolute))
      throw UserError::bad_file(path.string(),
                                fmt::format("tensor '{}' holds other frequencies than rope_theta = {}{} "
                                            "gives for heads of {}",
                                            printable(one->first), config.rope_theta,
                                            config.rope_scaling ? " with its scaling" : "", config.head_dim));
    entries.erase(one);
  }
}

/// What attention_bias means besides biases of q, k and v: one of o_proj, which must be zero, and is left out then.
void take_output_biases(Entries& entries, const ModelConfig& config) {
  if (!config.qkv_bias) return;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const auto one = entries.find(fmt::format("model.layers.{}.self_attn.o_proj.bias", layer));
    if (one == entries.end()) continue;
    const auto& [path, entry] = one->second;
    const bool fits = entry.shape == std::vector{config.hidden_size};  // before a hostile size is read
    if (!fits || read_safetensors_tensor(path, entry).count_nonzero().item<int64_t>() != 0)
      throw UserError::bad_file(
          path.string(), fmt::format("tensor '{}' is not ({}) zeros: only q_proj, k_proj and v_proj may have a bias",
                                     one->first, config.hidden_size));
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
  take_output_biases(entries, config);
  check_entries(entries, table, config, folder);
  return entries;
}

/// Reads the part of a tensor that `into` has, from its first row and column on. Every value must be finite, and what
/// lies beyond `into` zero where `zero_beyond` says so.
void read_part(const std::string& name, const FileEntry& file, const at::Tensor& into, bool zero_beyond) {
  const int64_t columns = file.entry.shape.back(), kept_columns = into.size(-1),
                kept_rows = into.dim() == 1 ? 1 : into.size(0);
  COPPICE_CHECK(into.is_contiguous() && kept_columns <= columns, name + ": a part of the stored tensor expected");
  float* out = into.mutable_data_ptr<float>();
  std::atomic<bool> finite = true, zero = true;
  read_safetensors_values(file.path, file.entry, [&](int64_t first, std::span<const float> values) {
    uint32_t all_ones = 0;  // 1 where the exponent of a value is: infinity or NaN
    for (const float value : values)
      all_ones |= static_cast<uint32_t>((std::bit_cast<uint32_t>(value) << 1) >= 0xff000000);
    if (all_ones != 0) finite = false;
    for (size_t at = 0; at < values.size();) {
      const int64_t row = (first + static_cast<int64_t>(at)) / columns,
                    column = (first + static_cast<int64_t>(at)) % columns;
      const std::span<const float> piece =
          values.subspan(at, std::min(values.size() - at, static_cast<size_t>(columns - column)));
      const int64_t kept = row < kept_rows ? std::clamp<int64_t>(kept_columns - column, 0, std::ssize(piece)) : 0;
      if (kept > 0) std::ranges::copy(piece.first(static_cast<size_t>(kept)), out + row * kept_columns + column);
      if (zero_beyond && std::ranges::any_of(piece.subspan(static_cast<size_t>(kept)), [](float x) { return x != 0; }))
        zero = false;
      at += piece.size();
    }
  });
  if (!finite) throw UserError::bad_file(file.path.string(), "tensor " + name + " holds values that are not finite");
  if (!zero)
    throw UserError::bad_file(file.path.string(), fmt::format("coppice_intermediate_sizes: {} is not zero beyond {}",
                                                              name, shape_text(into.sizes())));
}

/// A head that is stored although it is the embedding again.
void check_tied_head(const Entries& entries, const at::Tensor& embedding_VD, const fs::path& folder) {
  const auto head = entries.find("lm_head.weight");
  if (head == entries.end()) return;
  bool equal = head->second.entry.shape == entries.at("model.embed_tokens.weight").entry.shape;
  if (equal) {
    std::atomic<bool> differs = false;
    const std::span<const float> embedding(embedding_VD.const_data_ptr<float>(),
                                           static_cast<size_t>(embedding_VD.numel()));
    read_safetensors_values(head->second.path, head->second.entry, [&](int64_t first, std::span<const float> values) {
      const size_t begin = std::min(static_cast<size_t>(first), embedding.size()),
                   count = std::min(values.size(), embedding.size() - begin);
      if (!std::ranges::equal(values.first(count), embedding.subspan(begin, count))) differs = true;
    });
    equal = !differs;
  }
  if (!equal)
    throw UserError::bad_file(folder.string(),
                              "tie_word_embeddings is set, yet lm_head.weight differs from model.embed_tokens.weight");
}

/// Of a model as large as the files say, or with fewer rows and channels.
StoredWeights weights_in(const fs::path& folder, const HfConfig& hf, const ModelConfig& wanted) {
  // before anything of the model's size is allocated
  auto entries = std::make_shared<const Entries>(checked_entries(folder, parameter_table(hf.config), hf.config));
  return {
      .config = wanted,
      .read = [folder, entries, tied = wanted.tie_word_embeddings](const Parameter& parameter, const at::Tensor& into) {
        read_part(parameter.hf_name, entries->at(parameter.hf_name), into,
                  /*zero_beyond=*/parameter.axes.front() != Axis::vocab);
        if (tied && parameter.name == "embed_tokens.weight") check_tied_head(*entries, into, folder);
      }};
}

}  // namespace

Model read_hf_model(const fs::path& folder, const HfConfig& hf, const ModelConfig& wanted) {
  return read_model(weights_in(folder, hf, wanted));
}

StoredWeights hf_weights(const fs::path& folder, int64_t vocab_size) {
  const HfConfig hf = read_hf_config(folder);
  ModelConfig wanted = hf.config;
  if (!hf.intermediate_sizes.empty()) wanted.intermediate_size = hf.intermediate_sizes;
  if (vocab_size > 0) wanted.vocab_size = vocab_size;
  COPPICE_CHECK(wanted.vocab_size <= hf.config.vocab_size,
                fmt::format("{} ids for {} rows", vocab_size, hf.config.vocab_size));
  return weights_in(folder, hf, wanted);
}

Model import_hf(const fs::path& folder, int64_t vocab_size) { return read_model(hf_weights(folder, vocab_size)); }

void check_hf_files(const fs::path& folder) {
  const HfConfig hf = read_hf_config(folder);
  checked_entries(folder, parameter_table(hf.config), hf.config);
}

std::string hf_folder_sha256(const fs::path& folder) {
  std::vector<fs::path> files;
  const bool without_model = !fs::exists(folder / "tokenizer.model");
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name == "config.json" || name == "tokenizer.model" || (name == "tokenizer.json" && without_model) ||
        name == "model.safetensors.index.json" || name.ends_with(".safetensors"))
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

}  // namespace coppice
