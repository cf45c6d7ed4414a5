// Labels of some of a shard's tokens: what they cost follows what is labelled, they read like the same labels beside
// tokens without any, and a table that does not fit its file is refused before it is used.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "src/data/label_cache.h"
#include "src/data/label_cache_writer.h"
#include "src/data/label_import.h"
#include "src/data/label_jsonl.h"
#include "src/data/label_table.h"
#include "tests/data/data_files.h"

using namespace coppice;

namespace {

LabelFingerprint fingerprint_of(const TokenShards& shards, const char* tier = "top1", int64_t k = 1) {
  return {.teacher_sha256 = "a teacher",
          .tokenizer_sha256 = shards.tokenizer_sha256(),
          .vocab_size = shards.vocab_size(),
          .token_manifest_sha256 = shards.manifest_sha256(),
          .tier = tier,
          .k = k,
          .window_rule = "given",
          .context = 1};
}

/// Labels that tell their token, for the tokens of these runs.
ShardLabels labels_of(const TokenRuns& runs, const LabelFingerprint& fingerprint) {
  ShardLabels labels(TokenRuns(), fingerprint);
  const auto k = static_cast<uint64_t>(fingerprint.k);
  for (const TokenRun& run : runs)
    for (uint64_t token = run.begin; token < run.end; ++token) {
      const uint64_t row = labels.append({token, token + 1});
      double mass = 0;
      for (uint64_t j = 0; j < k; ++j) {
        const double p = 0.6 / static_cast<double>((1 + j + token % 3) * k);
        labels.id[row * k + j] = static_cast<int32_t>((7 * token + j) % static_cast<uint64_t>(fingerprint.vocab_size));
        if (fingerprint.has_logp()) labels.logp[row * k + j] = static_cast<float>(std::log(p));
        mass += p;
      }
      if (fingerprint.has_tail()) labels.tail[row] = static_cast<float>(std::log(1 - mass));
    }
  return labels;
}

/// About one token in `one_in` as windows of up to 40.
TokenRuns scattered(uint64_t tokens, uint64_t one_in, uint64_t seed) {
  std::mt19937_64 random(seed);
  TokenRuns runs;
  for (uint64_t wanted = tokens / one_in; wanted > 0;) {
    const uint64_t length = std::min<uint64_t>(1 + random() % 40, wanted), begin = random() % (tokens - length + 1);
    runs.push_back({begin, begin + length});
    wanted -= length;
  }
  return merge_runs(std::move(runs));
}

/// One flag a token.
std::vector<bool> flags_of(const TokenRuns& runs, uint64_t tokens) {
  std::vector<bool> flags(tokens, false);
  for (const TokenRun& run : runs)
    std::fill(flags.begin() + static_cast<std::ptrdiff_t>(run.begin),
              flags.begin() + static_cast<std::ptrdiff_t>(run.end), true);
  return flags;
}

/// Documents of 1 to 60 tokens with their ends, in shards of about `shard_tokens`.
void write_shards(const std::filesystem::path& folder, int64_t vocab_size, int documents, uint64_t shard_tokens) {
  std::vector<std::vector<int32_t>> ids(static_cast<size_t>(documents));
  for (size_t i = 0; i < ids.size(); ++i) ids[i].assign(i * 13 % 60, 7);
  test::write_documents(folder, ids, vocab_size, shard_tokens);
}

constexpr std::pair<const char*, int64_t> kTiers[] = {{"top1", 1}, {"top1_prob", 1}, {"topk", 4}};

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("packed labels: every read, gap and count is that of one flag a token, in every tier") {
    const ScratchFolder folder;
    write_shards(folder.path / "a", 300, 200, 1500);
    const TokenShards a(folder.path / "a");
    REQUIRE(a.shards().size() >= 3);
    for (const auto& [tier, k] : kTiers)
      for (const uint64_t one_in : {2, 10, 400}) {
        CAPTURE(tier);
        CAPTURE(one_in);
        const LabelFingerprint fingerprint = fingerprint_of(a, tier, k);
        const auto path = folder.path / fmt::format("{}-{}", tier, one_in);
        std::vector<TokenRuns> runs;
        {
          LabelCacheWriter writer(path, a, fingerprint);
          for (size_t shard = 0; shard < a.shards().size(); ++shard) {
            runs.push_back(shard == 1 ? TokenRuns()
                                      : scattered(a.shards()[shard].tokens, one_in, shard));  // of one shard nothing
            writer.write(shard, labels_of(runs[shard], fingerprint));
            CHECK(writer.has(shard));
          }
        }
        const LabelCache cache(path, a, fingerprint, LabelCoverage::some);
        const LabelCacheSummary summary = summarise_labels(path);
        CHECK(cache.labelled() == summary.labelled);
        std::mt19937_64 random(1);
        for (size_t shard = 0; shard < a.shards().size(); ++shard) {
          const uint64_t tokens = a.shards()[shard].tokens;
          const std::vector<bool> flags = flags_of(runs[shard], tokens);
          const ShardLabels all = labels_of({{0, tokens}}, fingerprint);
          CHECK(summary.shard[shard].labelled == count_tokens(runs[shard]));
          const auto bare = static_cast<uint64_t>(std::ranges::find(flags, false) - flags.begin());
          CHECK(summary.shard[shard].first_gap.first == bare);
          const std::vector<uint64_t>& ends = a.document_ends(shard);
          for (int round = 0; round < 60; ++round) {
            const uint64_t begin = random() % tokens, count = 1 + random() % std::min<uint64_t>(80, tokens - begin);
            std::vector<int64_t> id(count), ids(count * static_cast<uint64_t>(k));
            cache.read(shard, begin, count, id.data());
            std::vector<float> logp(ids.size()), tail(count);
            if (fingerprint.has_logp()) cache.read_top_k(shard, begin, count, ids.data(), logp.data(), tail.data());
            std::optional<std::pair<uint64_t, uint64_t>> gap;  // the first, up to its document's last token
            for (uint64_t i = 0; i < count; ++i) {
              const uint64_t token = begin + i;
              const bool needed = std::ranges::find(ends, token + 1) == ends.end();
              if (!flags[token] && needed && !gap) gap = {token, token};
              if (!flags[token] && needed && gap && gap->second == token) ++gap->second;
              REQUIRE(id[i] == (flags[token] ? all.id[token * static_cast<uint64_t>(k)] : kNoLabel));
              for (uint64_t j = i * static_cast<uint64_t>(k), at = token * static_cast<uint64_t>(k);
                   fingerprint.has_logp() && j < (i + 1) * static_cast<uint64_t>(k); ++j, ++at) {
                REQUIRE(ids[j] == (flags[token] ? all.id[at] : kNoLabel));
                REQUIRE(logp[j] ==
                        (flags[token] ? static_cast<float>(all.logp[at]) : -std::numeric_limits<float>::infinity()));
              }
              if (fingerprint.has_tail())
                REQUIRE(tail[i] ==
                        (flags[token] ? static_cast<float>(all.tail[token]) : -std::numeric_limits<float>::infinity()));
            }
            REQUIRE((cache.first_gap(shard, begin, count) == gap));
          }
        }
        CHECK(caught([&] { LabelCache(path, a, fingerprint); }).says("no labels for documents "));
      }
  }

  TEST_CASE("packed labels: bytes follow what is labelled; a whole shard has no table and its version stays 1") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", std::vector<std::vector<int32_t>>(256, std::vector<int32_t>(1023, 7)), 300,
                          1 << 18);
    const TokenShards a(folder.path / "a");
    REQUIRE(a.num_tokens() == 1 << 18);
    constexpr double kFileBytes = 15'000;  // of a file with four datasets and its manifest
    for (const auto& [tier, k] : {std::pair<const char*, int64_t>{"top1", 1}, {"topk", 20}})
      for (const uint64_t one_in : {1, 4, 64, 1024}) {
        CAPTURE(tier);
        CAPTURE(one_in);
        const LabelFingerprint fingerprint = fingerprint_of(a, tier, k);
        const auto path = folder.path / fmt::format("{}-{}", tier, one_in);
        const TokenRuns runs = one_in == 1 ? TokenRuns{{0, a.num_tokens()}} : scattered(a.num_tokens(), one_in, 3);
        LabelCacheWriter(path, a, fingerprint).write(0, labels_of(runs, fingerprint));
        const auto bytes = static_cast<double>(LabelCache(path, a, fingerprint, LabelCoverage::some).bytes());
        const double labels = static_cast<double>(count_tokens(runs) * label_row_bytes(fingerprint)),
                     table = static_cast<double>(runs.size() * kLabelRunBytes);
        MESSAGE(std::string(tier) << ", 1 token in " << one_in << ": "
                                  << bytes / static_cast<double>(count_tokens(runs)) << " bytes a label");
        CHECK(bytes >= labels);
        CHECK(bytes <= 1.01 * (labels + table) + kFileBytes);
        CHECK(read_json(path / "manifest.json").at("version") == (one_in == 1 ? 1 : 2));
        CHECK(Hdf5Reader(path / "shard-00000.h5").has(kRunsDataset) == (one_in > 1));
      }
  }

  TEST_CASE("packed labels: the file depends on the labels alone, not on the order in which they came") {
    const ScratchFolder folder;
    write_shards(folder.path / "a", 300, 100, 100'000);
    const TokenShards a(folder.path / "a");
    const LabelFingerprint fingerprint = fingerprint_of(a, "topk", 4);
    TokenRuns runs = scattered(a.num_tokens(), 5, 1);
    REQUIRE(runs.size() > 10);
    LabelCacheWriter(folder.path / "straight", a, fingerprint).write(0, labels_of(runs, fingerprint));
    std::ranges::reverse(runs);
    runs.insert(runs.begin() + 3, {runs[0].end, runs[0].end});  // an empty one, and a run that comes in two parts
    const TokenRun last = runs.back();
    if (last.size() > 1) runs.back().begin = last.begin + 1, runs.insert(runs.begin(), {last.begin, last.begin + 1});
    LabelCacheWriter(folder.path / "turned", a, fingerprint).write(0, labels_of(runs, fingerprint));
    CHECK(slurp(folder.path / "straight/shard-00000.h5") == slurp(folder.path / "turned/shard-00000.h5"));
    CHECK(slurp(folder.path / "straight/manifest.json") == slurp(folder.path / "turned/manifest.json"));
  }

  TEST_CASE("packed labels: a gap is stored where that costs no more than a run; runs are merged") {
    CHECK(merge_runs({{5, 9}, {1, 3}, {3, 4}, {7, 7}, {6, 12}, {20, 21}}) == TokenRuns{{1, 4}, {5, 12}, {20, 21}});
    const auto runs_of = [](const TokenRuns& labelled, uint64_t row_bytes) {
      std::vector<std::array<uint64_t, 3>> runs;
      const LabelTable table = LabelTable::packed(labelled, 100, row_bytes);
      for (const LabelRun& run : table.runs()) runs.push_back({run.begin, run.length, run.place});
      return runs;
    };
    using Runs = std::vector<std::array<uint64_t, 3>>;
    CHECK(runs_of({{20, 30}, {42, 50}, {63, 64}}, 2) ==
          Runs{{20, 30, 0}, {63, 1, 30}});  // 12 tokens are 24 bytes, 13 are 26
    CHECK(runs_of({{12, 30}, {42, 88}}, 2) == Runs{{0, 100, 0}});
    CHECK(runs_of({{13, 30}, {42, 87}}, 2) == Runs{{13, 74, 0}});
    CHECK(runs_of({{0, 1}, {2, 99}}, 25) == Runs{{0, 1, 0}, {2, 97, 1}});
    CHECK(runs_of({}, 2).empty());
    CHECK(LabelTable::packed({{0, 99}}, 100, 2).is_whole());
    CHECK_FALSE(LabelTable::packed({{0, 99}}, 100, 25).is_whole());
    CHECK_FALSE(LabelTable::packed({}, 100, 2).is_whole());
  }

  TEST_CASE("packed labels: out as JSONL and in again is the same cache, and a cache without a label too") {
    const ScratchFolder folder;
    write_shards(folder.path / "a", 300, 200, 3000);
    const TokenShards a(folder.path / "a");
    {
      LabelCacheWriter writer(folder.path / "bare", a, fingerprint_of(a));
      for (size_t shard = 0; shard < a.shards().size(); ++shard)
        writer.write(shard, ShardLabels(TokenRuns(), fingerprint_of(a)));
    }
    CHECK(export_labels(folder.path / "bare", a, folder.path / "bare.jsonl").documents == 0);
    CHECK(import_labels(folder.path / "bare.jsonl", a, fingerprint_of(a), folder.path / "bare-again").labelled == 0);
    CHECK(slurp(folder.path / "bare/manifest.json") == slurp(folder.path / "bare-again/manifest.json"));
    for (const auto& [tier, k] : kTiers) {
      CAPTURE(tier);
      const LabelFingerprint fingerprint = fingerprint_of(a, tier, k);
      const auto first = folder.path / (std::string(tier) + "-first"),
                 second = folder.path / (std::string(tier) + "-second");
      {
        LabelCacheWriter writer(first, a, fingerprint);
        for (size_t shard = 0; shard < a.shards().size(); ++shard)
          writer.write(shard, labels_of(scattered(a.shards()[shard].tokens, 20, shard), fingerprint));
      }
      const LabelTransfer out = export_labels(first, a, folder.path / "out.jsonl");
      CHECK(out.documents < 200);  // those without a label are left out
      CHECK(import_labels(folder.path / "out.jsonl", a, fingerprint, second).labelled == out.labelled);
      CHECK(slurp(first / "manifest.json") == slurp(second / "manifest.json"));
      for (const TokenShardInfo& shard : a.shards()) CHECK(slurp(first / shard.name) == slurp(second / shard.name));
    }
  }
}

TEST_SUITE("golden") {
  // tests/data/labels_v1: tokens and labels as the program of format version 1 wrote them, a row for every token: two
  // shards of three documents of 20 tokens, labels of tokens 5 to 17 and 41 to 49 of each; of top1 the second shard is
  // missing.
  TEST_CASE("packed labels: caches of the first version are read, and one that was begun is gone on with") {
    const ScratchFolder folder;
    const std::filesystem::path old = folder.path / "labels_v1";
    std::filesystem::copy(std::filesystem::path(COPPICE_SOURCE_DIR) / "tests/data/labels_v1", old,
                          std::filesystem::copy_options::recursive);
    const TokenShards shards(old / "tokens");
    REQUIRE(shards.shards().size() == 2);
    const std::vector<bool> labelled = flags_of({{5, 18}, {41, 50}}, 60);
    const auto id_at = [](size_t shard, uint64_t token, uint64_t j) {
      return static_cast<int64_t>((7 * token + 11 * shard + j) % 300);
    };
    const auto check_top_1 = [&](const LabelCache& cache) {
      using Gap = std::pair<uint64_t, uint64_t>;
      for (size_t shard = 0; shard < 2; ++shard) {
        std::vector<int64_t> id(60);
        cache.read(shard, 0, 60, id.data());
        for (uint64_t token = 0; token < 60; ++token)
          CHECK(id[token] == (labelled[token] ? id_at(shard, token, 0) : kNoLabel));
        CHECK((cache.first_gap(shard, 0, 60) == std::optional(Gap(0, 5))));
        CHECK((cache.first_gap(shard, 5, 37) == std::optional(Gap(18, 19))));  // token 19 ends its document
        CHECK_FALSE(cache.first_gap(shard, 6, 12).has_value());
      }
    };
    const LabelFingerprint top_k = read_label_fingerprint(old / "topk"), top_1 = read_label_fingerprint(old / "top1");
    CHECK(read_json(old / "topk/manifest.json").at("version") == 1);
    const LabelCache cache(old / "topk", shards, top_k, LabelCoverage::some);
    check_top_1(cache);
    CHECK(summarise_labels(old / "topk").labelled == 44);
    CHECK(count_near_ties(old / "topk") == 2);
    std::vector<int64_t> ids(60 * 3);
    std::vector<float> logp(60 * 3), tail(60);
    cache.read_top_k(1, 0, 60, ids.data(), logp.data(), tail.data());
    for (uint64_t token = 0; token < 60; ++token) {
      for (uint64_t j = 0; j < 3; ++j) {
        CHECK(ids[token * 3 + j] == (labelled[token] ? id_at(1, token, j) : kNoLabel));
        if (labelled[token])
          CHECK(logp[token * 3 + j] == doctest::Approx(-std::log(2.0) * static_cast<double>(j + 1)).epsilon(1e-3));
      }
      if (labelled[token]) CHECK(tail[token] == doctest::Approx(std::log(0.125)).epsilon(1e-3));
    }

    // what is finished stays as it is, what comes is packed
    const std::string first_shard = slurp(old / "top1/shard-00000.h5");
    {
      LabelCacheWriter writer(old / "top1", shards, top_1);
      CHECK(writer.has(0));
      CHECK_FALSE(writer.has(1));
      ShardLabels labels({{40, 50}, {5, 18}}, top_1);
      size_t row = 0;
      for (const TokenRun& run : labels.runs)
        for (uint64_t token = run.begin; token < run.end; ++token, ++row)
          if (labelled[token]) labels.id[row] = static_cast<int32_t>(id_at(1, token, 0));  // token 40 has none
      writer.write(1, labels);
    }
    CHECK(slurp(old / "top1/shard-00000.h5") == first_shard);
    CHECK(read_json(old / "top1/manifest.json").at("version") == 2);
    CHECK(Hdf5Reader(old / "top1/shard-00001.h5").has(kRunsDataset));
    check_top_1(LabelCache(old / "top1", shards, top_1, LabelCoverage::some));
    Json newer = read_json(old / "top1/manifest.json");
    newer.erase("sha256");
    newer["version"] = 6;
    write_file_atomically(old / "top1/manifest.json", seal(newer));
    CHECK(
        caught([&] { summarise_labels(old / "top1"); }).says("version 6, expected \"coppice.labels\" up to version 5"));
  }
}

TEST_SUITE("faults") {
  TEST_CASE(
      "packed labels: a table out of order, overlapping, empty, beyond the shard or the data, or whose sums overflow "
      "is refused, whatever the hash says") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", {std::vector<int32_t>(99, 7)}, 300, 1000);
    const TokenShards a(folder.path / "a");
    REQUIRE(a.num_tokens() == 100);
    constexpr uint64_t kHuge = ~uint64_t{0};
    const auto opened = [&](const test::RawLabels& labels) {
      labels.write(folder.path / "l", a);
      const Caught opening =
          caught([&] { LabelCache(folder.path / "l", a, test::RawLabels::fingerprint(a), LabelCoverage::some); });
      const Caught telling = caught([&] { summarise_labels(folder.path / "l"); });
      CHECK(opening.code == telling.code);
      return opening;
    };
    const auto refused = [&](const test::RawLabels& labels, const std::string& word) {
      const Caught refusal = opened(labels);
      INFO(refusal.text);
      CHECK(refusal.code == 3);
      CHECK(refusal.says(word));
      CHECK(refusal.says("shard-00000.h5"));
    };
    CHECK(opened({.runs = {{20, 4, 0}, {30, 6, 4}}}).code == 0);
    CHECK(opened({.runs = {{20, 4, 0}, {24, 6, 4}}}).code == 0);  // touching
    CHECK(opened({.runs = {}, .rows = 0}).code == 0);
    refused({.runs = {{30, 6, 0}, {20, 4, 6}}}, "run 1 holds 4 tokens from 20 on");    // out of order
    refused({.runs = {{20, 6, 0}, {25, 4, 6}}}, "behind those of the run before");     // overlapping
    refused({.runs = {{20, 0, 0}, {30, 10, 0}}}, "expected a token");                  // empty
    refused({.runs = {{20, 4, 0}, {95, 6, 4}}}, "expected tokens of a shard of 100");  // beyond the shard
    refused({.runs = {{20, 4, 0}, {30, 7, 4}}}, "no more than the file's 10 labels");  // beyond the data
    refused({.runs = {{20, 4, 0}, {30, 5, 4}}}, "runs of 9 tokens for 10 labels");     // less than the data
    refused({.runs = {}}, "runs of 0 tokens for 10 labels");
    refused({.runs = {{20, 4, 0}, {30, 6, 5}}}, "expected labels at 4");  // places apart
    refused({.runs = {{20, 4, 6}, {30, 6, 0}}}, "expected labels at 0");  // places turned
    refused({.runs = {{20, 4, kHuge}, {30, 6, 3}}}, "expected labels at 0");
    refused({.runs = {{20, 4, 0}, {kHuge, 6, 4}}}, "does not fit in 64 bits");  // sums that overflow
    refused({.runs = {{20, kHuge, 0}}}, "does not fit in 64 bits");
    refused({.runs = {{20, kHuge - 20, 0}, {30, 21, kHuge - 20}}}, "expected tokens of a shard of 100");
    refused({.runs = {{20, 4, 0}, {30, 6, 4}}, .rows = 9, .listed_rows = 10},
            "another type or shape");  // of the labels
    refused({.runs = {{0, 100, 0}}, .rows = 100, .listed_rows = 101}, "101 labels for 100 tokens");
    refused({.runs = {{0, 100, 0}}, .rows = 100, .listed_rows = kHuge}, "labels for 100 tokens");
    refused({.runs = {{20, 4, 0}, {30, 6, 4}}, .type = Hdf5Type::i64}, "another type or shape");  // of the table
  }

  TEST_CASE("packed labels: an id outside the vocabulary names its token, not its row") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", {std::vector<int32_t>(99, 7)}, 300, 1000);
    const TokenShards a(folder.path / "a");
    LabelFingerprint large = fingerprint_of(a, "topk", 2), small = large;
    large.vocab_size = 400;
    ShardLabels labels = labels_of({{10, 20}, {50, 60}}, small);
    labels.id[2 * 13] = 350;  // the fourth token of the second run
    LabelCacheWriter(folder.path / "l", a, large).write(0, labels);
    Json manifest = read_json(folder.path / "l/manifest.json");
    manifest.erase("sha256");
    manifest["fingerprint"]["vocab_size"] = 300;
    write_file_atomically(folder.path / "l/manifest.json", seal(manifest));
    const Caught outside = caught([&] { LabelCache(folder.path / "l", a, small, LabelCoverage::some); });
    INFO(outside.text);
    CHECK(outside.says("label 350 of token 53 is outside the vocabulary of 300"));
    labels.id[2 * 13] = 35;
    labels.tail[13] = 0.0f;
    LabelCacheWriter(folder.path / "m", a, large).write(0, labels);
    CHECK(caught([&] {
            LabelCache(folder.path / "m", a, large, LabelCoverage::some);
          }).says("token 53 and their tail add up to"));
  }
}
