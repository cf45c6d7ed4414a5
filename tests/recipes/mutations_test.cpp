// Every parser of files that others wrote, fed with damaged ones under fixed seeds: each is read or refused with exit
// code 2 or 3; never a crash, a hang or a huge allocation [23]. Bytes that a hash vouches for are refused before the
// HDF5 library sees them [24].
#include <ATen/ATen.h>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/resource.h>

#include <cstring>
#include <random>

#include "recipes/language/recipe.h"
#include "src/checkpoint/checkpoint.h"
#include "src/checkpoint/safetensors.h"
#include "src/model/config.h"
#include "src/tasks/task_requests.h"
#include "src/text/documents.h"
#include "src/tokens/tokenizer.h"
#include "src/tokens/tokenizer_training.h"
#include "tests/data/data_files.h"
#include "tests/recipes/program.h"

using namespace coppice;
using namespace coppice::test;

namespace {

constexpr int64_t kMaxGrowth_kB = 400'000;
constexpr unsigned kHang_s = 60;
constexpr size_t kSealBytes = 78;  // ,"sha256":"<64 hex>"}\n

/// One to three damages: bits, bytes, pieces cut out, doubled, put in, the end cut off, eight bytes as an absurd size.
std::string mutated(std::string bytes, std::mt19937_64& random) {
  static const std::vector<std::string> pieces = {"\"",
                                                  "{",
                                                  "}",
                                                  "[",
                                                  "]",
                                                  ",",
                                                  ":",
                                                  "=",
                                                  "\n",
                                                  "-1",
                                                  "0",
                                                  "1e999",
                                                  "18446744073709551616",
                                                  "null",
                                                  "\\u0000",
                                                  "\\ud800",
                                                  "\xff",
                                                  "\xed\xa0\x80",
                                                  std::string(1, '\0'),
                                                  "[[stage]]\n",
                                                  "\"text\"",
                                                  std::string(70, '[')};
  static const std::vector<uint64_t> sizes = {
      0, 1, 255, uint64_t{1} << 31, uint64_t{1} << 32, uint64_t{1} << 63, ~uint64_t{0}};
  const auto below = [&](size_t end) { return static_cast<size_t>(random() % std::max<size_t>(end, 1)); };
  for (uint64_t left = 1 + random() % 3; left > 0; --left) {
    const size_t at = below(bytes.size()), count = std::min(1 + below(16), bytes.size() - std::min(at, bytes.size()));
    switch (random() % 7) {
      case 0:
        if (!bytes.empty()) bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8));
        break;
      case 1:
        if (!bytes.empty()) bytes[at] = static_cast<char>(random());
        break;
      case 2:
        bytes.erase(at, count);
        break;
      case 3:
        bytes.insert(at, bytes.substr(at, count));
        break;
      case 4:
        bytes.insert(at, pieces[below(pieces.size())]);
        break;
      case 5:
        bytes.resize(at);
        break;
      case 6:
        if (const uint64_t size = sizes[below(sizes.size())]; bytes.size() >= at + 8)
          std::memcpy(bytes.data() + at, &size, 8);
        break;
    }
  }
  return bytes;
}

/// The body of a sealed file damaged and sealed anew: what the seal vouches for.
std::string mutated_under_seal(const std::string& sealed, std::mt19937_64& random) {
  const std::string body = mutated(sealed.substr(0, sealed.size() - kSealBytes), random);
  return body + ",\"sha256\":\"" + sha256_hex(body) + "\"}\n";
}

struct Parser {
  const char* name;
  fs::path file;  // holds good bytes
  int count;      // of mutations
  std::string (*mutate)(const std::string& good, std::mt19937_64& random);
  std::function<void()> parse;
};

/// 0, or what went wrong at which mutation: reported by the exit code and a line.
int try_mutations(const Parser& parser) {
  const std::string good = slurp(parser.file);
  std::mt19937_64 random(20240731);
  rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  const int64_t before_kB = usage.ru_maxrss;
  int num_refused = 0;
  for (int i = 0; i < parser.count; ++i) {
    fs::remove(
        parser.file);  // a file cut to nothing and written again may be flushed by the file system: thousands of waits
    spill(parser.file, parser.mutate(good, random));
    ::alarm(kHang_s);
    try {
      parser.parse();
    } catch (const Error& error) {
      ++num_refused;
      if (error.code() == ExitCode::bad_file || error.code() == ExitCode::recipe) continue;
      fmt::print(stdout, "{}: mutation {}: exit code {}: {}\n", parser.name, i, static_cast<int>(error.code()),
                 error.what());
      return 1;
    } catch (const std::exception& error) {
      fmt::print(stdout, "{}: mutation {}: {}\n", parser.name, i, error.what());
      return 2;
    }
  }
  if (num_refused < parser.count / 20) {
    fmt::print(stdout, "{}: {} of {} were refused: is it a parser?\n", parser.name, num_refused, parser.count);
    return 4;
  }
  ::getrusage(RUSAGE_SELF, &usage);
  if (usage.ru_maxrss - before_kB < kMaxGrowth_kB) return 0;
  fmt::print(stdout, "{}: {} kB were taken\n", parser.name, usage.ru_maxrss - before_kB);
  return 3;
}

/// In a child: a crash ends it alone, and hundreds of warnings stay unseen.
int try_in_child(const Parser& parser) {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    (void)!::freopen("/dev/null", "w", stderr);
    const int code = try_mutations(parser);
    std::fflush(stdout);
    ::_exit(code);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

std::string tokenizer_model() {
  int line = 0;
  return train_tokenizer({.vocab_size = 300}, [&](std::string& paragraph) {
    paragraph = fmt::format("the {} of a tree, {} and {}", line % 7, line * 31 % 97, line);
    return line++ < 200;
  });
}

}  // namespace

TEST_SUITE("faults") {
  TEST_CASE("mutations: every parser reads or refuses [23]") {
    const Scratch scratch("mutations");
    const fs::path root = scratch.path;
    write_safetensors(root / "a.safetensors", {{"first", at::ones({3, 4})}, {"second", at::ones({5}).to(at::kHalf)}});
    RawShard().write(root / "tokens");
    write_tensor_folder(root / "tensors", "coppice.model", {{"/model/a", at::ones({4})}},
                        {{"model", to_json(ModelConfig())}});
    const std::string lines =
        "{\"id\": \"a\", \"text\": \"Na\\u00efve \\\"x\\\"\", \"source\": \"web\", \"metadata\": {\"license\": "
        "\"CC0\", \"n\": [1, {\"k\": "
        "null}]}}\n{\"text\": \"b\"}\n";
    spill(root / "a.jsonl", lines);
    spill(root / "a.jsonl.zst", zstd_bytes(lines));
    spill(root / "a.jsonl.gz", gzip_bytes(lines));
    const std::string array = "[" + lines.substr(0, lines.find('\n')) + ",\n {\"text\": \"b\"}]\n";
    spill(root / "a.json", array);
    spill(root / "a.json.zst", zstd_bytes(array));
    spill(root / "a.txt", "plain text, \xC3\xA9");
    const std::string asked =
        "{\"activity_label\": \"Art\", \"ctx_a\": \"A [title] man\", \"ctx_b\": \"he\", \"endings\": [\"a\", "
        "\"b\"], \"label\": \"1\"}\n";
    spill(root / "task.jsonl", asked + asked);
    spill(root / "asked.jsonl", asked);
    spill(root / "task.yaml",
          "task: t\noutput_type: multiple_choice\ndoc_to_text: \"{{ctx_a.split(' ')[:-1]|join(' ')}}\"\n"
          "doc_to_choice: endings\ndoc_to_target: \"{{label}}\"\nmetric_list: [{metric: acc}, {metric: acc_norm}]\n"
          "fewshot_config: {sampler: first_n, samples: [{ctx_a: x y, endings: [a, b], label: 0}]}\nnum_fewshot: 1\n");
    spill(root / "tokenizer.model", tokenizer_model());
    spill(root / "config.json", to_json(ModelConfig()).dump());
    spill(root / "tiny.toml", slurp(fs::path(COPPICE_SOURCE_DIR) / "tests/recipes/tiny.toml"));
    const TokenShards shards(root / "tokens");
    const LabelFingerprint fingerprint = RawLabels::fingerprint(shards);
    RawLabels{.runs = {{0, 1, 0}, {3, 1, 1}}, .rows = 2}.write(root / "labels", shards);
    const uint64_t runs[] = {0, 1, 0, 3, 1, 1};
    spill(root / "runs", {reinterpret_cast<const char*>(runs), sizeof runs});
    spill(root / "repeats", std::string("\x1\x3\x0\x1\x3", 5));
    spill(root / "codes", std::string("\x32\x1\x16\xB\x16", 5) + std::string(5, '\0'));
    spill(root / "codes_and_draws", std::string("\x32\xC7\x3\x16\xB\x16", 6) + std::string(6, '\0'));
    write_documents(root / "small", {{5, 6, 7, 8}}, 16, 100);
    const TokenShards small(root / "small");
    const auto open_labels = [&](const char* name) {
      LabelCache(root / name, shards, fingerprint, LabelCoverage::some);
    };
    spill(root / "ablation.toml", slurp(fs::path(COPPICE_SOURCE_DIR) / "tests/recipes/micro.toml"));
    const auto plain = [](const std::string& good, std::mt19937_64& random) { return mutated(good, random); };
    const auto documents = [&](const char* name) {
      return [path = root / name] { for_each_document(path, [](Document&&) {}, {.max_bad = 0}); };
    };
    const Parser parsers[] = {
        {"safetensors", root / "a.safetensors", 4000, plain,
         [&] {
           for (const SafetensorsEntry& entry : read_safetensors_header(root / "a.safetensors"))
             read_safetensors_tensor(root / "a.safetensors", entry);
         }},
        {"manifest of tokens", root / "tokens/manifest.json", 2000, plain,
         [&] { TokenShards shards(root / "tokens"); }},
        {"manifest of tokens, sealed", root / "tokens/manifest.json", 2000, mutated_under_seal,
         [&] { TokenShards shards(root / "tokens"); }},
        {"manifest of labels", root / "labels/manifest.json", 2000, plain, [&] { open_labels("labels"); }},
        {"manifest of labels, sealed", root / "labels/manifest.json", 2000, mutated_under_seal,
         [&] { open_labels("labels"); }},
        {"runs of labels, hashed", root / "runs", 2000, plain,
         [&] {
           RawLabels labels{.rows = 2};
           const std::string bytes = slurp(root / "runs");
           labels.runs.resize(bytes.size() / 24);
           std::memcpy(labels.runs.data(), bytes.data(), labels.runs.size() * 24);
           labels.write(root / "hashed", shards);
           open_labels("hashed");
         }},
        {"counts of draws, hashed", root / "repeats", 2000, plain,
         [&] {
           const std::string bytes = slurp(root / "repeats");
           const RawDraws draws{.ids = {5, 6, 7, 5, 6, 7, 8, 9, 5}, .repeats = {bytes.begin(), bytes.end()}};
           draws.write(root / "drawn", shards);
           LabelCache(root / "drawn", shards, RawDraws::fingerprint(shards), LabelCoverage::some);
         }},
        {"codes of labels, hashed", root / "codes", 2000, plain,
         [&] {
           std::string bytes = slurp(root / "codes");
           bytes.resize(25);  // of five tokens
           RawCodes{.bytes = {bytes.begin(), bytes.end()}, .rows = 5}.write(root / "coded", small);
           LabelCache(root / "coded", small, RawCodes::fingerprint(small), LabelCoverage::some);
         }},
        {"codes with draws of labels, hashed", root / "codes_and_draws", 2000, plain,
         [&] {
           std::string bytes = slurp(root / "codes_and_draws");
           bytes.resize(30);  // of five tokens
           const RawCodes codes{.bytes = {bytes.begin(), bytes.end()}, .rows = 5, .row_bytes = 6, .draws = 2};
           codes.write(root / "coded", small);
           LabelCache(root / "coded", small, RawCodes::fingerprint(small, 2), LabelCoverage::some);
         }},
        {"manifest of a model, sealed", root / "tensors/manifest.json", 2000, mutated_under_seal,
         [&] { load_model_config(root / "tensors"); }},
        {"config.json", root / "config.json", 4000, plain,
         [&] { config_from_json(read_json(root / "config.json"), "config.json"); }},
        {"JSONL", root / "a.jsonl", 4000, plain, documents("a.jsonl")},
        {"JSONL, zstd", root / "a.jsonl.zst", 2000, plain, documents("a.jsonl.zst")},
        {"JSONL, gzip", root / "a.jsonl.gz", 2000, plain, documents("a.jsonl.gz")},
        {"JSON array", root / "a.json", 4000, plain, documents("a.json")},
        {"JSON array, zstd", root / "a.json.zst", 1000, plain, documents("a.json.zst")},
        {"text", root / "a.txt", 1000, plain, documents("a.txt")},
        {"task lines", root / "task.jsonl", 4000, plain,
         [&] { prepare_task(open_task_file("hellaswag=" + (root / "task.jsonl").string())); }},
        {"task file", root / "task.yaml", 2000, plain,
         [&] { prepare_task(open_task_file((root / "task.yaml").string() + "=" + (root / "asked.jsonl").string())); }},
        {"tokenizer model", root / "tokenizer.model", 1500, plain,
         [&] { Tokenizer::load(root / "tokenizer.model").encode("a tree of 7"); }},
        {"recipe", root / "tiny.toml", 1500, plain, [&] { load_recipe((root / "tiny.toml").string(), {}, {}); }},
        {"recipe of an ablation", root / "ablation.toml", 500, plain,
         [&] { load_recipe((root / "ablation.toml").string(), {}, {}); }},
    };
    for (const Parser& parser : parsers) {
      CAPTURE(parser.name);
      const std::string good = slurp(parser.file);
      CHECK(try_in_child(parser) == 0);
      spill(parser.file, good);
    }
  }

  TEST_CASE("mutations: HDF5 bytes are refused by size or hash, before the library opens them [24]") {
    const Scratch scratch("mutated_hdf5");
    RawShard().write(scratch.path / "tokens");
    write_tensor_folder(scratch.path / "tensors", "test.tensors", {{"/model/a", at::ones({40})}}, Json::object());
    const at::Tensor into = at::zeros({40});
    const TokenShards shards(scratch.path / "tokens");
    RawLabels{.runs = {{0, 1, 0}, {3, 1, 1}}, .rows = 2}.write(scratch.path / "labels", shards);
    const struct {
      fs::path file;
      std::function<void()> open;
    } cases[] = {
        {scratch.path / "tokens/shard-00000.h5", [&] { TokenShards(scratch.path / "tokens"); }},
        {scratch.path / "labels/shard-00000.h5",
         [&] { LabelCache(scratch.path / "labels", shards, RawLabels::fingerprint(shards), LabelCoverage::some); }},
        {scratch.path / "tensors/part-00000.h5", [&] {
           read_tensor_folder(scratch.path / "tensors", "test.tensors", {{"/model/a", into}});
         }}};
    for (const auto& damaged : cases) {
      INFO(damaged.file.filename().string());
      const std::string good = slurp(damaged.file);
      std::mt19937_64 random(7);
      for (int i = 0; i < 2000; ++i) {
        const std::string bytes = mutated(good, random);
        if (bytes == good) continue;
        CAPTURE(i);
        fs::remove(damaged.file);
        spill(damaged.file, bytes);
        const coppice::Caught refusal = coppice::caught(damaged.open);
        REQUIRE(refusal.code == 3);
        REQUIRE((refusal.says("SHA-256") || refusal.says("bytes")));
      }
      spill(damaged.file, good);
      CHECK(caught(damaged.open).code == 0);
    }
    CHECK(at::equal(into, at::ones({40})));
  }
}
