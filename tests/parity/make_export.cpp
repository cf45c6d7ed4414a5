// Our side of the parity tests (tests/parity/*.py), without a word of Python: reads what they wrote into a work folder
// and answers in files.
//   parity_export produce <work>            training.txt, strings.json, items.jsonl -> tokenizers, HF folders of random
//   models, logits, scores, sums,
//                                           a checkpoint, token shards; table/: odd tokenizers, each with its ids and
//                                           an HF folder
//   parity_export import <folder> <ids.json> <logits.safetensors>      opens a folder that transformers wrote
//   parity_export again <folder> <tokenizer.model> <new folder>        and exports it
//   parity_export tokenizer <file, folder or GGUF> <strings.json> <new folder>     ids, its own file, and the keys of a
//                                                                                  GGUF
//   parity_export chat <file, folder or GGUF> <template> <strings.json> <ids.json>    each string as a chat's question
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <cstdio>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string_view>

#include "pruning/scores.h"
#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/hdf5.h"
#include "src/base/json.h"
#include "src/base/random.h"
#include "src/checkpoint/checkpoint.h"
#include "src/checkpoint/given_model.h"
#include "src/checkpoint/hf_export.h"
#include "src/checkpoint/hf_import.h"
#include "src/checkpoint/hf_settings.h"
#include "src/checkpoint/safetensors.h"
#include "src/checkpoint/tokenizer_json.h"
#include "src/evaluate/answer_task.h"
#include "src/model/parameters.h"
#include "src/tasks/chat_prompt.h"
#include "src/tensors/shape.h"
#include "src/tokens/gguf_vocabulary.h"
#include "src/tokens/token_shard_writer.h"
#include "src/tokens/tokenizer.h"
#include "src/tokens/tokenizer_training.h"
#include "tests/parity/cut_model.h"
#include "tests/tokens/tokenizer_models.h"

namespace fs = std::filesystem;
using namespace coppice;

namespace {

void write_json(const fs::path& path, const Json& json) { write_file_atomically(path, json.dump()); }

Tokenizer train(const fs::path& work, int64_t vocab_size) {
  std::ifstream lines(work / "training.txt");
  const auto next_line = [&](std::string& line) { return static_cast<bool>(std::getline(lines, line)); };
  const fs::path path = work / fmt::format("tokenizer-{}.model", vocab_size);
  write_file_atomically(path, train_tokenizer({.vocab_size = vocab_size, .character_coverage = 0.999}, next_line));
  return Tokenizer::load(path);
}

void write_ids(const fs::path& file, const Tokenizer& tokenizer, const Json& strings) {
  Json answer = Json::array();
  for (const Json& text : strings) {
    const std::vector<int32_t> ids = tokenizer.encode(text.get<std::string>());
    answer.push_back({{"ids", ids}, {"decoded", tokenizer.decode(ids)}});
  }
  write_json(file, answer);
}

/// Weights of a size at which attention and FFN both matter, norms away from 1 and biases from 0.
Model random_model(const ModelConfig& config, uint64_t seed) {
  Model model = make_model(config);
  initialise_parameters(config, *model.arena, seed);
  c10::NoGradGuard no_grad;
  uint64_t row = 0;
  for (const Parameter& parameter : parameter_table(config)) {
    const at::Tensor values = model.arena->parameter(parameter.name);
    ++row;
    if (values.dim() == 1) {
      fill_normal({values.mutable_data_ptr<float>(), static_cast<size_t>(values.numel())}, 0.3, seed, Purpose::test,
                  row);
      if (parameter.kind == ParameterKind::norm) values.add_(1.0);
    } else {
      values.mul_(2.0);
    }
  }
  return model;
}

ModelConfig config_of(const Tokenizer& tokenizer, bool qk_norm, std::vector<int64_t> widths) {
  ModelConfig config;
  config.vocab_size = tokenizer.vocab_size();
  config.hidden_size = 64;
  config.num_hidden_layers = static_cast<int64_t>(widths.size());
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 24;  // on purpose not hidden_size / heads
  config.intermediate_size = std::move(widths);
  config.qk_norm = qk_norm;
  config.max_position_embeddings = 256;
  return config;
}

/// Tokenizers with missing, added and renumbered pieces, with and without a dummy prefix: model file, ids, and a folder
/// with a model of one layer.
void write_table(const fs::path& folder, const Tokenizer& trained, const Json& strings) {
  Json names = Json::array();
  fs::create_directories(folder);
  for (const test::TokenizerCase& row : test::tokenizer_table(trained.pieces())) {
    if (!row.load_refusal.empty() || !row.export_refusal.empty()) continue;
    const fs::path file = folder / (row.name + ".model");
    write_file_atomically(file, row.file.bytes());
    const Tokenizer tokenizer = Tokenizer::load(file);
    write_ids(folder / (row.name + "-ids.json"), tokenizer, strings);
    export_hf(folder / row.name, random_model(config_of(tokenizer, false, {32}), 5), tokenizer, "f32");
    names.push_back(row.name);
  }
  write_json(folder / "names.json", names);
}

at::Tensor logits_of(const Model& model, const std::vector<int64_t>& ids) {
  c10::NoGradGuard no_grad;
  const auto length = static_cast<int64_t>(ids.size());
  return decoder_logits(model, {.token_BT = at::tensor(ids, at::kLong).view({1, length}),
                                .position_BT = at::arange(length, at::kLong).view({1, length}),
                                .document_BT = {}})
      .contiguous();
}

void write_logits(const fs::path& path, const Model& model, const Json& prompts) {
  std::vector<SafetensorsTensor> tensors;
  for (size_t i = 0; i < prompts.size(); ++i)
    tensors.push_back({fmt::format("prompt.{}", i), logits_of(model, prompts[i].get<std::vector<int64_t>>())});
  write_safetensors(path, tensors);
}

Json prompt_ids(const Tokenizer& tokenizer) {
  Json prompts = Json::array();
  for (const char* text : {"the first of four prompts", "12345.67\n\tfor (;;) { }", "Ελληνικά и 中文 \U0001F600", "a"})
    prompts.push_back(tokenizer.encode(text));
  return prompts;
}

void export_models(const fs::path& work, const Tokenizer& tokenizer) {
  const Json prompts = prompt_ids(tokenizer);
  write_json(work / "prompts.json", prompts);
  struct Case {
    const char* name;
    bool qk_norm;
    std::vector<int64_t> widths;
    bool tied = true;
    const char* dtype = "f32";
    HfExportOptions options = {};
    std::vector<std::string> cut_axes = {};
    bool biased = false;
  };
  const HfSettings chat{
      .config_ids = {{"eos_token_id", {2, 3}}},
      .generation = {{"eos_token_id", {2, 3}}, {"do_sample", true}, {"temperature", 0.6}},
      .chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}",
      .add_bos = true,
      .split_special_tokens = false};
  const std::vector<Case> cases = {{"qwen3", true, {96, 96}},
                                   {"llama", false, {96, 96}},
                                   {"ragged", true, {96, 33, 64}},
                                   {"untied", false, {96}, false},
                                   {"sharded", true, {96, 96}, true, "f32", {.shard_bytes = 60'000}},
                                   {"bf16", true, {96, 96}, true, "bf16"},
                                   {"bos", true, {32}, true, "f32", {.add_bos = true}},
                                   {"chat", false, {32}, true, "f32", {.settings = &chat}},
                                   {"cut", true, {96, 96, 96}, true, "f32", {}, axis_names()},
                                   {"cut_heads", true, {96, 96}, true, "f32", {}, {"heads"}},
                                   {"cut_layers", true, {96, 96, 96}, true, "f32", {}, {"layers"}},
                                   {"cut_llama", false, {96, 96, 96}, false, "f32", {}, axis_names()},
                                   {"cut_qwen2", false, {96, 96, 96}, true, "f32", {}, axis_names(), true}};
  for (const Case& one : cases) {
    ModelConfig config = config_of(tokenizer, one.qk_norm, one.widths);
    config.tie_word_embeddings = one.tied;
    config.qkv_bias = one.biased;
    const fs::path folder = work / "hf" / one.name;
    Model model = random_model(config, 17);
    model = cut_along(std::move(model), one.cut_axes);
    export_hf(folder, model, tokenizer, one.dtype, one.options);
    // The bf16 file is compared with the weights it holds, the others with the model itself.
    const fs::path logits = work / fmt::format("logits-{}.safetensors", one.name);
    if (std::string_view(one.dtype) == "bf16") {
      write_logits(logits, import_hf(folder), prompts);
    } else {
      write_logits(logits, model, prompts);
    }
  }
}

/// One-shot scores of the qwen3 model on the prompts, each a sample of its own.
void write_scores(const fs::path& work) {
  const Model model = import_hf(work / "hf" / "qwen3");
  std::vector<Batch> batches;
  for (const Json& prompt : read_json(work / "prompts.json")) {
    const auto ids = prompt.get<std::vector<int64_t>>();
    const auto length = static_cast<int64_t>(ids.size());
    if (length < 2) continue;
    std::vector<int64_t> next(ids.begin() + 1, ids.end());
    next.push_back(kIgnoredLabel);
    batches.push_back({.token_BT = at::tensor(ids, at::kLong).view({1, length}),
                       .position_BT = at::arange(length, at::kLong).view({1, length}),
                       .document_BT = {},
                       .true_label_BT = at::tensor(next, at::kLong).view({1, length}),
                       .spans = {},
                       .num_live = length - 1});
  }
  std::vector<SafetensorsTensor> scores;
  for (const ScoreRow& row : score_table())
    if (row.passes > 0 || std::string_view(row.name) == "magnitude")
      scores.push_back({row.name, row.compute({.model = &model, .batches = batches, .seed = 1}).contiguous()});
  write_safetensors(work / "scores.safetensors", scores);
}

/// What the qwen3 model gives the choices of items.jsonl: a list an item.
void write_item_sums(const fs::path& work, const Tokenizer& tokenizer) {
  const Model model = import_hf(work / "hf" / "qwen3");
  const PreparedTask task = prepare_task(choices_file(work / "items.jsonl"));
  const EncodedTask encoded = encode_task(tokenizer, task, /*add_bos=*/false, model.config.max_position_embeddings);
  Json sums = Json::array();
  for (const std::vector<TaskAnswer>& answers : answer_task(model, tokenizer, task, encoded, 4096)) {
    Json& row = sums.emplace_back(Json::array());
    for (const TaskAnswer& answer : answers) row.push_back(answer.log_likelihood);
  }
  write_json(work / "item_sums.json", sums);
}

void write_own_files(const fs::path& work, const Tokenizer& tokenizer) {
  const ModelConfig config = config_of(tokenizer, true, {96, 96});
  const Model model = random_model(config, 23);
  const MasterReader master = model.arena->read_master();
  const TensorSource tensors =
      join({parameter_source(config, "/model/", [&](const std::string& name) { return master[name]; }),
            parameter_source(config, "/optim/v/", [&](const std::string& name) { return master[name] * 2; })});
  write_checkpoint(work / "ckpt", 5, tensors, {{"run", "parity"}});
  std::vector<SafetensorsTensor> copies;
  for (const NamedTensor& tensor : tensors_of(tensors)) copies.push_back({tensor.name, tensor.value});
  write_safetensors(work / "ckpt.safetensors", copies);

  TokenShardWriter shards(work / "tokens", "invented", tokenizer.vocab_size(), tokenizer.eos_id(),
                          tokenizer.fingerprint(), 5000);
  std::ifstream lines(work / "training.txt");
  std::string line;
  for (uint64_t i = 0; i < 300 && std::getline(lines, line); ++i)
    shards.add(i + 1000, tokenizer.encode(line), line.size());
  shards.finish();
}

/// A tokenizer's ids, its own file, and what a GGUF file would say of it.
void write_tokenizer(const fs::path& given, const Json& strings, const fs::path& folder) {
  const Tokenizer tokenizer = given_tokenizer(given);
  tokenizer.save(folder);
  write_ids(folder / "ids.json", tokenizer, strings);
  const GgufVocabulary gguf = gguf_vocabulary(tokenizer, tokenizer.adds_bos(), given.string());
  write_json(folder / "gguf.json", {{"model", gguf.model},
                                    {"pre", gguf.pre},
                                    {"tokens", gguf.tokens},
                                    {"token_types", gguf.token_types},
                                    {"merges", gguf.merges},
                                    {"eos_id", gguf.eos_id.value()}});
}

/// Ids up to the answer, and the token that ends it, for each string; of one that the template writes otherwise the
/// error.
void write_chat(const fs::path& given, const fs::path& source, const Json& strings, const fs::path& file) {
  const Tokenizer tokenizer = given_tokenizer(given);
  const ChatTemplate chat(read_file(source, 1 << 20), source.string());
  const std::time_t seconds = std::time(nullptr);
  Json answer = Json::array();
  for (const Json& text : strings) {
    try {
      const ChatPrompt prompt = chat_prompt(chat, tokenizer, text.get<std::string>(), *std::localtime(&seconds));
      answer.push_back({{"ids", prompt.ids}, {"end", prompt.end_of_turn ? Json(*prompt.end_of_turn) : Json()}});
    } catch (const UserError& error) {
      answer.push_back({{"error", error.what()}});
    }
  }
  write_json(file, answer);
}

int run(int argc, char** argv) {
  const std::string_view verb = argc > 1 ? argv[1] : "";
  if (verb == "produce" && argc == 3) {
    const fs::path work = argv[2];
    const Json strings = read_json(work / "strings.json");
    const Tokenizer small = train(work, 512), large = train(work, 3000);
    for (const Tokenizer* tokenizer : {&small, &large}) {
      write_ids(work / fmt::format("ids-{}.json", tokenizer->vocab_size()), *tokenizer, strings);
      write_file_atomically(work / fmt::format("tokenizer-{}.json", tokenizer->vocab_size()),
                            tokenizer_json(*tokenizer, /*add_bos=*/false));
    }
    write_table(work / "table", small, strings);
    export_models(work, small);
    write_scores(work);
    write_item_sums(work, small);
    write_own_files(work, small);
    return 0;
  }
  if (verb == "import" && argc == 5) {
    write_logits(argv[4], import_hf(argv[2]), read_json(argv[3]));
    return 0;
  }
  if (verb == "again" && argc == 5) {
    export_hf(argv[4], import_hf(argv[2]), Tokenizer::load(argv[3]), "f32");
    return 0;
  }
  if (verb == "tokenizer" && argc == 5) {
    write_tokenizer(argv[2], read_json(argv[3]), argv[4]);
    return 0;
  }
  if (verb == "chat" && argc == 6) {
    write_chat(argv[2], argv[3], read_json(argv[4]), argv[5]);
    return 0;
  }
  std::fputs(
      "usage: parity_export produce <work> | import <folder> <ids.json> <logits.safetensors> | again <folder> "
      "<tokenizer.model> <new folder> | tokenizer <file, folder or GGUF> <strings.json> <new folder> | chat <file, "
      "folder or GGUF> <template> <strings.json> <ids.json>\n",
      stderr);
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  start_hdf5();
  start_torch(2);
  try {
    return run(argc, argv);
  } catch (const Error& error) {
    fmt::print(stderr, "parity_export: {}\n", error.what());
    return static_cast<int>(error.code());
  }
}
