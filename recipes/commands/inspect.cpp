// coppice inspect: what a file or folder of coppice holds, and whether it is whole.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <memory>
#include <nlohmann/json.hpp>

#include "pruning/mask_budget.h"
#include "pruning/mask_file.h"
#include "pruning/mask_health.h"
#include "pruning/plan.h"
#include "pruning/soft_masks.h"
#include "recipes/commands/verbs.h"
#include "recipes/folder/run_folder.h"
#include "src/base/errors.h"
#include "src/base/hdf5.h"
#include "src/base/log.h"
#include "src/checkpoint/checkpoint.h"
#include "src/checkpoint/gguf_import.h"
#include "src/checkpoint/given_model.h"
#include "src/checkpoint/hf_import.h"
#include "src/checkpoint/model_card.h"
#include "src/checkpoint/safetensors.h"
#include "src/data/label_cache.h"
#include "src/model/parameters.h"
#include "src/tokens/token_shards.h"
#include "src/tokens/tokenizer.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

/// Text for people. UserError::bad_file (exit 3) when it is damaged or nothing coppice knows.
std::string inspect(const fs::path& path);

std::string config_text(const ModelConfig& config) {
  const auto [narrow, wide] = std::ranges::minmax(config.intermediate_size);
  return fmt::format(
      "{} layers x {}, heads {}/{} x {}, FFN {}, vocabulary {}, RoPE base {}{}{}{}{}\n{} parameters ({} in the "
      "embedding)\n",
      config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.num_key_value_heads,
      config.head_dim, narrow == wide ? fmt::format("{}", narrow) : fmt::format("{} to {}", narrow, wide),
      config.vocab_size, config.rope_theta,
      config.rope_scaling ? fmt::format(" (llama3 scaling by {})", config.rope_scaling->factor) : "",
      config.qkv_bias ? ", q/k/v biases" : "", config.qk_norm ? ", QK-norm" : "",
      config.tie_word_embeddings ? ", tied" : "", count_parameters(config), count_embedding_parameters(config));
}

std::string shape_of(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

/// Domains under `folder` whose shards are complete, and their tokens by their manifests.
struct Tokenized {
  int64_t domains = 0;
  uint64_t tokens = 0;
};
Tokenized count_tokenized(const fs::path& folder) {
  Tokenized found;
  if (!fs::is_directory(folder)) return found;
  for (const fs::directory_entry& domain : fs::directory_iterator(folder)) {
    const fs::path file = domain.path() / "manifest.json";
    if (!fs::exists(file)) continue;
    ++found.domains;
    const Json manifest = read_sealed(file, "coppice.tokens", 1);
    for (const Json& shard : array_at(manifest, "shards", file.string()))
      found.tokens += unsigned_at(shard, "tokens", file.string());
  }
  return found;
}

/// The data of a run: no stage, each domain's shards carry a manifest of their own.
std::string data_text(const fs::path& folder) {
  std::string text;
  for (const auto& [split, words] :
       {std::pair{"tokens", "domains tokenized"}, {"heldout", "held out"}, {"tuning", "for tuning"}}) {
    const Tokenized found = count_tokenized(folder / split);
    if (found.domains == 0 && split == std::string_view("tuning")) continue;
    text += fmt::format("{}{} {} ({} tokens)", text.empty() ? "" : ", ", found.domains, words, found.tokens);
  }
  return text;
}

std::string inspect_run(const fs::path& path) {
  std::string text = "run folder\n";
  for (const auto& entry : fs::directory_iterator(path)) {
    if (!fs::exists(entry.path() / "identity.json")) continue;
    if (entry.path().filename() == "data") {
      text += fmt::format("  {:<14} {}\n", "data", data_text(entry.path()));
      continue;
    }
    const auto manifest = find_stage_manifest(entry.path());
    text += fmt::format("  {:<14} {}\n", entry.path().filename().string(),
                        manifest ? fmt::format("{}, complete, whole", manifest->kind) : std::string("begun"));
  }
  return text;
}

/// `all`: fingerprint and gaps as well.
std::string labels_text(const fs::path& path, bool all) {
  constexpr size_t kGaps = 8;
  const LabelCacheSummary labels = summarise_labels(path);
  const auto share = [](uint64_t part, uint64_t whole) {
    return 100.0 * static_cast<double>(part) / std::max(1.0, static_cast<double>(whole));
  };
  std::string text = all ? fmt::format("teacher labels of domain '{}'\n{}\n", printable(labels.domain),
                                       labels.fingerprint.to_json().dump(1))
                         : "";
  text += fmt::format(
      "{}{} of {} shards finished, whole; {} of {} tokens labelled ({:.1f}%), {:.4f} bytes a label; {}\n",
      all ? "" : fmt::format("labels of '{}': ", printable(labels.domain)), labels.finished, labels.shards,
      labels.labelled, labels.tokens, share(labels.labelled, labels.tokens),
      static_cast<double>(labels.bytes) / std::max(1.0, static_cast<double>(labels.labelled)),
      labels.fingerprint.has_draws() ? fmt::format("draws a label: {}{}", labels.fingerprint.k,
                                                   labels.fingerprint.has_weights() ? ", each with its weight" : "")
      : labels.fingerprint.has_tail_draws()
          ? fmt::format("ids a label: {}, draws beside them: {}", labels.fingerprint.k, labels.fingerprint.draws)
          : fmt::format("{} near ties", labels.near_ties));
  if (!all) return text;
  size_t gaps = 0;
  for (const LabelShardSummary& shard : labels.shard) {
    if (shard.labelled == shard.tokens || ++gaps > kGaps) continue;
    const auto& [begin, end] = shard.first_gap;
    text += shard.finished ? fmt::format("  {}: {} of {} tokens labelled; first gap: tokens {} to {}\n", shard.name,
                                         shard.labelled, shard.tokens, begin, end - 1)
                           : fmt::format("  {}: not finished: tokens {} to {}\n", shard.name, begin, end - 1);
  }
  if (gaps > kGaps) text += fmt::format("  and {} more shards with tokens without labels\n", gaps - kGaps);
  return text;
}

/// A line for each label cache of a stage.
std::string stage_labels(const fs::path& stage) {
  std::string text;
  std::vector<fs::path> caches;
  if (fs::is_directory(stage / "labels"))
    for (const auto& entry : fs::directory_iterator(stage / "labels"))
      if (fs::exists(entry.path() / "manifest.json")) caches.push_back(entry.path());
  std::ranges::sort(caches);
  for (const fs::path& cache : caches) text += labels_text(cache, /*all=*/false);
  return text;
}

std::string inspect_stage(const fs::path& path) {
  const auto manifest = find_stage_manifest(path);
  if (!manifest) {
    std::string text =
        fmt::format("stage, begun and not finished; fingerprint {}\n", begun_fingerprint(path)) + stage_labels(path);
    for (const CheckpointPlace& place : list_checkpoints(path / "ckpt"))
      text += fmt::format("  checkpoint of step {}\n", place.step);
    return text;
  }
  std::string text = fmt::format("stage '{}' of kind {}, complete; fingerprint {}\n", printable(manifest->name),
                                 printable(manifest->kind), printable(manifest->fingerprint));
  for (const char* key : {"steps", "tokens", "results"})
    if (manifest->body.contains(key)) text += fmt::format("{}: {}\n", key, manifest->body[key].dump());
  const fs::path holder = result_folder(path);
  if (holder != path) text += fmt::format("the result is that of {}\n", holder.string());
  if (fs::exists(holder / "model")) text += inspect(holder / "model");
  text += stage_labels(holder);
  return text;
}

std::string inspect_model(const fs::path& path) {
  std::string sha256;
  check_tensor_folder(path, "coppice.model");
  const ModelConfig config = load_model_config(path, &sha256);
  return fmt::format("model, whole (hashes hold); identity {}\n{}", sha256, config_text(config));
}

std::string inspect_checkpoint(const fs::path& path) {
  const Json manifest = check_tensor_folder(path, "coppice.checkpoint");
  return fmt::format("checkpoint, whole: step {}, {} tokens, stage {}\n{}", manifest.at("step").dump(),
                     manifest.at("tokens").dump(), manifest.at("stage").dump(),
                     config_text(config_from_json(manifest.at("model"), path.string())));
}

std::string inspect_tokens(const fs::path& path) {
  const TokenShards shards(path);
  std::string text = fmt::format(
      "token shards of domain '{}', whole: {} shards, {} tokens, {:.3f} bytes of text a token, vocabulary "
      "{}\ntokenizer {}\n",
      printable(shards.domain()), shards.shards().size(), shards.num_tokens(),
      static_cast<double>(shards.text_bytes()) / static_cast<double>(shards.num_tokens()), shards.vocab_size(),
      shards.tokenizer_sha256());
  for (const SourceRights& source : shards.sources())
    text += fmt::format("source {}, licence {}{}\n", printable(source.source), printable(source.license),
                        source.stages.empty() ? "" : fmt::format(", for {} alone", fmt::join(source.stages, ", ")));
  return text;
}

/// How many channels of a layer lie in each tenth of [0, 1], as bars.
std::string soft_histogram(const at::Tensor& soft_F) {
  constexpr int kBins = 10, kWidth = 24;
  std::array<int64_t, kBins> count{};
  const at::Tensor values = soft_F.contiguous();
  for (const float *value = values.const_data_ptr<float>(), *end = value + values.numel(); value != end; ++value)
    ++count[static_cast<size_t>(std::clamp(static_cast<int>(*value * kBins), 0, kBins - 1))];
  std::string text;
  for (int bin = 0; bin < kBins; ++bin) {
    const auto share = static_cast<double>(count[static_cast<size_t>(bin)]) / static_cast<double>(values.numel());
    text += fmt::format("      {:.1f} to {:.1f} {:>7}  {}\n", bin / 10.0, (bin + 1) / 10.0,
                        count[static_cast<size_t>(bin)], std::string(static_cast<size_t>(share * kWidth + 0.5), '#'));
  }
  return text;
}

std::string units_text(CutAxis axis) { return axis == CutAxis::ffn ? "channels" : row_of(axis).units; }

/// "layer 3: " where a row is a layer's.
std::string row_text(CutAxis axis, size_t row) { return row_of(axis).per_layer ? fmt::format("layer {}: ", row) : ""; }

std::string inspect_masks(const fs::path& path) {
  const MaskFile masks = load_masks(path);
  const std::vector<int64_t> widths = masks.widths();
  const at::Tensor hard_LF = hard_top_k(masks.scores_LF, widths);
  const MaskHealth health = mask_health({.soft_LF = masks.soft_LF,
                                         .raw_LF = masks.scores_LF,
                                         .hard_LF = hard_LF,
                                         .k = static_cast<double>(masks.num_kept),
                                         .epsilon = masks.epsilon,
                                         .global = masks.global});
  const bool per_layer = row_of(masks.axis).per_layer;
  std::string text = fmt::format(
      "mask by {}: {}{} {}, {} kept{}, epsilon {}\nmodel {}\nsharpness {:.4f} (1 = binary), entropy "
      "{:.4f}, std of raw scores {:.4f}\n",
      printable(masks.method), per_layer ? fmt::format("{} layers x ", masks.scores_LF.size(0)) : "",
      masks.scores_LF.size(1), units_text(masks.axis), masks.num_kept,
      !per_layer     ? ""
      : masks.global ? " on average"
                     : " in each",
      masks.epsilon, masks.source_sha256, health.sharpness, health.entropy, health.score_std);
  for (size_t layer = 0; layer < health.layer_sharpness.size(); ++layer) {
    const at::Tensor soft_F = masks.soft_LF[static_cast<int64_t>(layer)];
    text +=
        fmt::format("  {}{} kept, sharpness {:.4f}, sum {:.4f}; soft values:\n{}", row_text(masks.axis, layer),
                    widths[layer], health.layer_sharpness[layer], soft_F.sum().item<double>(), soft_histogram(soft_F));
  }
  return text;
}

std::string inspect_plan(const fs::path& path) {
  const PrunePlan plan = load_plan(path);
  std::string text = fmt::format("prune plan by {}, for the model {}\n", printable(plan.scores), plan.source_sha256);
  for (size_t layer = 0; layer < plan.kept.size(); ++layer)
    text += fmt::format(
        "  {}{} {} kept, {}\n", row_text(plan.axis, layer), plan.kept[layer].size(), units_text(plan.axis),
        plan.axis == CutAxis::layers ? fmt::format("{}", fmt::join(plan.kept[layer], ", "))
                                     : fmt::format("{} to {}", plan.kept[layer].front(), plan.kept[layer].back()));
  return text;
}

std::string inspect_safetensors(const fs::path& path) {
  std::string text = "safetensors, whole\n";
  for (const SafetensorsEntry& entry : read_safetensors_header(path))
    text += fmt::format("  {:<52} {} {}\n", printable(entry.name), entry.dtype, shape_of(entry.shape));
  return text;
}

std::string inspect_tokenizer(const fs::path& path) {
  const Tokenizer tokenizer = given_tokenizer(path);
  const auto id_text = [](std::optional<int64_t> id) { return id ? std::to_string(*id) : "none"; };
  return fmt::format("{} tokenizer: {} pieces; unk {}, bos {}, eos {}, pad {}{}\nfingerprint {}\n",
                     tokenizer.is_byte_level() ? "byte-level BPE" : "SentencePiece", tokenizer.vocab_size(),
                     id_text(tokenizer.unk_id()), id_text(tokenizer.bos_id()), tokenizer.eos_id(),
                     id_text(tokenizer.pad_id()), tokenizer.has_dummy_prefix() ? "; dummy prefix" : "",
                     tokenizer.fingerprint());
}

std::string inspect_hf(const fs::path& path) {
  const Model model = import_hf(path);
  return "Hugging Face folder, whole\n" + config_text(model.config);
}

std::string inspect_imported(const fs::path& path) {
  check_given_files(path);
  return fmt::format("imported model\n{}{}", config_text(given_shape(path).config),
                     inspect_tokenizer(tokenizer_in(path / kImportedTokenizer).value_or(path)));
}

std::string inspect_gguf(const fs::path& path) {
  const GgufFacts facts = gguf_facts(path);
  std::string text =
      fmt::format("GGUF file, architecture {}, most weights {}\n", facts.architecture, facts.weight_type);
  const GgufGeneral& general = facts.general;
  const std::string& license = general.license_name.empty() ? general.license : general.license_name;
  for (const auto& [what, value] : {std::pair{"name", &general.name}, {"license", &license}})
    if (!value->empty()) text += fmt::format("{} {}\n", what, printable(*value));
  for (const GgufReference& base : general.base_models)
    text += fmt::format("made from {}\n", printable(model_id(base)));
  text += config_text(import_gguf_config(path));
  const GgufFile file(path);
  for (const GgufTensor& tensor : file.tensors())
    text += fmt::format("  {:<40} {:<5} {}\n", printable(tensor.name), find_ggml_type(tensor.type)->name,
                        shape_of(tensor.shape));
  return text;
}

/// The `format` of a folder's manifest.json, read without trusting it.
std::string manifest_format(const fs::path& folder) {
  if (!fs::exists(folder / "manifest.json")) return "";
  const Json manifest = read_json(folder / "manifest.json");
  return manifest.contains("format") && manifest["format"].is_string() ? manifest["format"].get<std::string>() : "";
}

std::string inspect(const fs::path& path) {
  if (!fs::exists(path)) throw UserError::bad_file(path.string(), "no such file or folder");
  if (fs::is_directory(path)) {
    const std::string format = manifest_format(path);
    if (format == "coppice.model") return inspect_model(path);
    if (format == "coppice.checkpoint") return inspect_checkpoint(path);
    if (format == "coppice.tokens") return inspect_tokens(path);
    if (format == "coppice.labels") return labels_text(path, /*all=*/true);
    if (format == "coppice.stage" || fs::exists(path / "identity.json")) return inspect_stage(path);
    if (fs::exists(path / "recipe.toml")) return inspect_run(path);
    if (fs::exists(path / kImportedFacts)) return inspect_imported(path);
    if (fs::exists(path / "config.json")) return inspect_hf(path);
  } else {
    const std::string name = path.filename().string();
    if (name.ends_with(".safetensors")) return inspect_safetensors(path);
    if (name == "prune_plan.json") return inspect_plan(path);
    if (name == "masks.h5") return inspect_masks(path);
    if (name.ends_with(".model") || name == "tokenizer.json") return inspect_tokenizer(path);
    if (is_gguf(path)) return inspect_gguf(path);
    if (name == "manifest.json") return inspect(path.parent_path());
  }
  throw UserError::bad_file(path.string(),
                            "nothing that coppice knows: expected a run, stage, model, checkpoint, tokens, labels or "
                            "Hugging Face folder, or a GGUF, .safetensors, masks.h5, prune_plan.json, tokenizer.json "
                            "or .model file");
}

}  // namespace

void add_inspect(CLI::App& app, Action& action) {
  const auto path = std::make_shared<std::string>();
  CLI::App* show = add_verb(app, "inspect", "what a file or folder holds, and whether it is whole",
                            "coppice inspect runs/demo/masks/masks.h5");
  show->add_option("path", *path,
                   "run, stage, model, checkpoint, tokens, labels or Hugging Face folder; GGUF, .safetensors, "
                   "masks.h5, prune_plan.json, tokenizer.model, tokenizer.json")
      ->required();
  show->callback([path, &action] { action = [path] { fmt::print("{}", inspect(*path)); }; });
}

}  // namespace coppice
