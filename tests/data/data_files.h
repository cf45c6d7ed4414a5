// Small files for the data tests: token shards and label caches, written with or without the writer's checks.
#pragma once

#include <array>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "src/base/files.h"
#include "src/base/hdf5.h"
#include "src/base/json.h"
#include "src/data/label_cache.h"
#include "src/tokens/token_shard_writer.h"
#include "src/tokens/token_shards.h"
#include "tests/caught.h"
#include "tests/scratch_folder.h"
#include "tests/text/packed.h"

namespace coppice::test {

namespace fs = std::filesystem;

/// Documents of ids through the real writer: EOS = 2 is added to each.
inline void write_documents(const fs::path& folder, const std::vector<std::vector<int32_t>>& documents,
                            int64_t vocab_size, uint64_t shard_tokens, const std::string& domain = "prose") {
  TokenShardWriter writer(folder, domain, vocab_size, 2, "tokenizer-hash", shard_tokens);
  for (size_t i = 0; i < documents.size(); ++i) writer.add(1000 + i, documents[i], 3 * documents[i].size());
  writer.finish();
}

/// One shard with any content, honestly hashed and sealed: what only the checks of the content can refuse.
struct RawShard {
  std::vector<uint16_t> tokens = {5, 6, 2, 7, 2};
  std::vector<uint64_t> document_ends = {3, 5};
  uint64_t vocab_size = 10, eos_id = 2;
  std::optional<uint64_t> listed_tokens;
  std::string format = "coppice.tokens";
  int version = 1;

  void write(const fs::path& folder) const {
    fs::create_directories(folder);
    const fs::path path = folder / "shard-00000.h5";
    {
      Hdf5Writer file(path);
      file.set_attribute("/", "format", "coppice.tokens");
      file.set_attribute("/", "version", uint64_t{1});
      file.set_attribute("/", "vocab_size", vocab_size);
      file.set_attribute("/", "eos_id", eos_id);
      file.set_attribute("/", "tokenizer_sha256", "tokenizer-hash");
      file.set_attribute("/", "n_tokens", tokens.size());
      file.set_attribute("/", "n_docs", document_ends.size());
      const std::vector<uint64_t> document_ids(document_ends.size(), 0xABC);
      file.write_chunked("/tokens", Hdf5Type::u16, {tokens.size()}, 65536, tokens.data());
      file.write_chunked("/doc_end", Hdf5Type::u64, {document_ends.size()}, 65536, document_ends.data());
      file.write_chunked("/doc_id", Hdf5Type::u64, {document_ends.size()}, 65536, document_ids.data());
      file.close();
    }
    const Json shard = {{"name", "shard-00000.h5"},     {"bytes", fs::file_size(path)},
                        {"sha256", sha256_file(path)},  {"tokens", listed_tokens.value_or(tokens.size())},
                        {"docs", document_ends.size()}, {"text_bytes", 9}};
    const Json manifest = {
        {"format", format},
        {"version", version},
        {"domains", {"prose"}},
        {"tokenizer", {{"sha256", "tokenizer-hash"}, {"vocab_size", vocab_size}, {"eos_id", eos_id}}},
        {"shards", {shard}}};
    write_file_atomically(folder / "manifest.json", seal(manifest));
  }
};

/// A cache of one label file with these columns, honestly hashed and sealed; `counts` are added to its entry.
inline void write_raw_cache(const fs::path& folder, const TokenShards& shards, int version,
                            const LabelFingerprint& fingerprint, const Json& counts,
                            const std::function<void(Hdf5Writer&)>& write_columns) {
  fs::create_directories(folder);
  const TokenShardInfo& info = shards.shards().at(0);
  const fs::path path = folder / info.name;
  {
    Hdf5Writer file(path, 1);
    file.set_attribute("/", "token_shard_sha256", info.sha256);
    write_columns(file);
    file.close();
  }
  Json shard = {
      {"name", info.name}, {"bytes", fs::file_size(path)}, {"sha256", sha256_file(path)}, {"tokens", info.tokens}};
  shard.update(counts);
  const Json manifest = {{"format", "coppice.labels"},
                         {"version", version},
                         {"domain", shards.domain()},
                         {"fingerprint", fingerprint.to_json()},
                         {"token_shards", Json::array({shard})},
                         {"shards", Json::array({shard})}};
  write_file_atomically(folder / "manifest.json", seal(manifest));
}

/// A cache of one packed file of top-1 labels with any table of (begin, length, place).
struct RawLabels {
  std::vector<std::array<uint64_t, 3>> runs;
  uint64_t rows = 10;
  std::optional<uint64_t> listed_rows;
  Hdf5Type type = Hdf5Type::u64;

  static LabelFingerprint fingerprint(const TokenShards& shards) {
    return {.teacher_sha256 = "a teacher",
            .tokenizer_sha256 = shards.tokenizer_sha256(),
            .vocab_size = shards.vocab_size(),
            .token_manifest_sha256 = shards.manifest_sha256()};
  }
  void write(const fs::path& folder, const TokenShards& shards) const {
    write_raw_cache(folder, shards, 2, fingerprint(shards), {{"rows", listed_rows.value_or(rows)}},
                    [&](Hdf5Writer& file) {
                      const std::vector<uint16_t> ids(rows, 5);
                      file.write_chunked("/top1", Hdf5Type::u16, {rows}, 64, ids.data());
                      file.write_chunked("/runs", type, {runs.size(), 3}, 64, runs.data());
                    });
  }
};

/// A cache of one file of three draws with any columns.
struct RawDraws {
  std::vector<uint16_t> ids;
  std::vector<uint8_t> repeats;
  std::optional<uint64_t> listed_ids;

  static LabelFingerprint fingerprint(const TokenShards& shards) {
    LabelFingerprint of_draws = RawLabels::fingerprint(shards);
    of_draws.tier = "sample";
    of_draws.k = 3;
    return of_draws;
  }

  void write(const fs::path& folder, const TokenShards& shards) const {
    write_raw_cache(folder, shards, 3, fingerprint(shards), {{"ids", listed_ids.value_or(ids.size())}},
                    [&](Hdf5Writer& file) {
                      file.write_chunked("/draws", Hdf5Type::u16, {ids.size()}, 64, ids.data());
                      file.write_chunked("/repeats", Hdf5Type::u8, {repeats.size(), 1}, 64, repeats.data());
                    });
  }
};

/// A cache of one file of two ids a token, out of sixteen, and draws of the rest, if any, with any rows of codes.
struct RawCodes {
  std::vector<uint8_t> bytes;
  uint64_t rows = 4, row_bytes = 5;
  int64_t draws = 0;

  static LabelFingerprint fingerprint(const TokenShards& shards, int64_t draws = 0) {
    LabelFingerprint coded = RawLabels::fingerprint(shards);
    coded.vocab_size = 16;
    coded.tier = draws > 0 ? "hybrid" : "topk";
    coded.k = 2;
    coded.draws = draws;
    if (draws == 0) coded.code = "q8";
    return coded;
  }

  void write(const fs::path& folder, const TokenShards& shards) const {
    write_raw_cache(folder, shards, 4, fingerprint(shards, draws), Json::object(), [&](Hdf5Writer& file) {
      file.write_chunked("/codes", Hdf5Type::u8, {rows, row_bytes}, 64, bytes.data());
    });
  }
};

}  // namespace coppice::test
