// Labels out and in again give the same files; what does not fit the token shards is refused by line.
#include "src/data/label_jsonl.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "src/data/label_cache_writer.h"
#include "src/data/label_import.h"
#include "src/text/documents.h"
#include "src/tokens/token_shard_writer.h"
#include "tests/data/data_files.h"

using namespace coppice;

namespace {

LabelFingerprint fingerprint_of(const TokenShards& shards, const char* tier, int64_t k) {
  return {.teacher_sha256 = "served model",
          .tokenizer_sha256 = shards.tokenizer_sha256(),
          .vocab_size = shards.vocab_size(),
          .token_manifest_sha256 = shards.manifest_sha256(),
          .tier = tier,
          .k = k,
          .window_rule = "given",
          .context = 1};
}

ShardLabels some_labels(const TokenShards& shards, size_t shard, const LabelFingerprint& fingerprint) {
  const uint64_t tokens = shards.shards()[shard].tokens;
  const auto k = static_cast<uint64_t>(fingerprint.k);
  ShardLabels labels(tokens, fingerprint);
  for (uint64_t i = 0; i < tokens; ++i) {
    double mass = 0;
    for (uint64_t j = 0; j < k; ++j) {
      const double p = 0.61803 / static_cast<double>(1 + j + i % 3) / static_cast<double>(k);
      labels.id[i * k + j] = static_cast<int32_t>((7 * i + 3 * j + shard) % static_cast<uint64_t>(shards.vocab_size()));
      if (fingerprint.has_logp()) labels.logp[i * k + j] = static_cast<float>(std::log(p));
      mass += p;
    }
    if (fingerprint.has_tail()) labels.tail[i] = static_cast<float>(std::log(1 - mass));
  }
  return labels;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("label jsonl: out and in again is the same cache, byte for byte, in every tier") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", {{5, 6, 7}, {8, 9}, {10, 11, 12, 13}, {14}}, 300, 8);
    const TokenShards a(folder.path / "a");
    REQUIRE(a.shards().size() >= 2);
    // some tokens without a label, as coverage "used" leaves them
    const auto labels_of = [&](size_t shard, const LabelFingerprint& fingerprint) {
      ShardLabels labels = some_labels(a, shard, fingerprint);
      const ShardLabels none(1, fingerprint);
      std::copy(none.id.begin(), none.id.end(), labels.id.begin());
      std::copy(none.logp.begin(), none.logp.end(), labels.logp.begin());
      std::copy(none.tail.begin(), none.tail.end(), labels.tail.begin());
      return labels;
    };
    for (const auto& [tier, k] : {std::pair<const char*, int64_t>{"top1", 1}, {"top1_prob", 1}, {"topk", 4}})
      for (const char* ending : {".jsonl", ".jsonl.zst"}) {
        CAPTURE(tier);
        const LabelFingerprint fingerprint = fingerprint_of(a, tier, k);
        const auto first = folder.path / (std::string(tier) + ending + "-first"),
                   second = folder.path / (std::string(tier) + ending + "-second"),
                   file = folder.path / (std::string(tier) + ending);
        {
          LabelCacheWriter writer(first, a, fingerprint);
          for (size_t shard = 0; shard < a.shards().size(); ++shard) {
            ShardLabels labels = labels_of(shard, fingerprint);
            if (shard > 0) labels.near_ties = 2;  // of the first unknown
            writer.write(shard, labels);
          }
        }
        const LabelTransfer out = export_labels(first, a, file), in = import_labels(file, a, fingerprint, second);
        CHECK(out.documents == 4);
        CHECK(out.labelled == a.num_tokens() - a.shards().size());
        CHECK(in.labelled == out.labelled);
        CHECK(read_label_header(file)->to_json() == fingerprint.to_json());
        CHECK(slurp(first / "manifest.json") == slurp(second / "manifest.json"));
        for (const TokenShardInfo& shard : a.shards()) CHECK(slurp(first / shard.name) == slurp(second / shard.name));
      }
  }

  TEST_CASE("label jsonl: a dump of a served model, by id, without its tail; a document left out is a hole") {
    const ScratchFolder folder;
    {
      TokenShardWriter writer(folder.path / "a", "prose", 300, 2, "tokenizer-hash", 100);
      writer.add(document_hash("one"), {5, 6}, 4);
      writer.add(document_hash("two"), {7}, 4);
      writer.finish();
    }
    const TokenShards a(folder.path / "a");
    const LabelFingerprint fingerprint = fingerprint_of(a, "topk", 2);
    const auto dump = folder.write(
        "dump.jsonl",
        R"({"id": "one", "tokens": [5, 6, 2], "top_ids": [[6, 9], [2], []], "top_logprobs": [[-0.5, -1.5], [-0.25], []]})"
        "\n");
    CHECK(import_labels(dump, a, fingerprint, folder.path / "l").labelled == 2);
    const LabelCache cache(folder.path / "l", a, fingerprint, LabelCoverage::some);
    std::vector<int64_t> id(6);
    std::vector<float> logp(6), tail(3);
    cache.read_top_k(0, 0, 3, id.data(), logp.data(), tail.data());
    CHECK(id == std::vector<int64_t>{6, 9, 2, kNoLabel, kNoLabel, kNoLabel});
    CHECK(logp[1] == -1.5f);
    CHECK(tail[0] == doctest::Approx(std::log(1 - std::exp(-0.5) - std::exp(-1.5))).epsilon(1e-3));
    CHECK(caught([&] { LabelCache(folder.path / "l", a, fingerprint); }).says("documents 1 to 1 of 2"));
  }

  TEST_CASE("label jsonl: ids of a padded output table are left out, their probability goes to the tail") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", {{5, 6, 7}}, 300, 100);
    const TokenShards a(folder.path / "a");
    const LabelFingerprint fingerprint = fingerprint_of(a, "topk", 2);
    // log 0.5, 0.25, 0.125; a label that is nothing but padding is none
    const auto dump = folder.write(
        "dump.jsonl",
        "{" + fmt::format(R"("doc": "{:016x}")", 1000) +
            R"(, "tokens": [5, 6, 7, 2], "top_ids": [[300, 9], [8, 1323], [310], []], )"
            R"("top_logprobs": [[-0.693147, -1.386294], [-0.287682, -1.386294], [-0.1], []], "tail_logprobs": [-1.386294, null, -2.5, null]})" +
            "\n");
    const LabelTransfer transfer = import_labels(dump, a, fingerprint, folder.path / "l");
    CHECK(transfer.padded_ids == 3);
    CHECK(transfer.labelled == 2);
    const LabelCache cache(folder.path / "l", a, fingerprint, LabelCoverage::some);
    std::vector<int64_t> id(8);
    std::vector<float> logp(8), tail(4);
    cache.read_top_k(0, 0, 4, id.data(), logp.data(), tail.data());
    CHECK(id == std::vector<int64_t>{9, kNoLabel, 8, kNoLabel, kNoLabel, kNoLabel, kNoLabel, kNoLabel});
    CHECK(std::exp(logp[0]) == doctest::Approx(0.25).epsilon(1e-3));
    CHECK(std::exp(tail[0]) == doctest::Approx(0.75).epsilon(1e-3));
    CHECK(std::exp(tail[1]) == doctest::Approx(0.25).epsilon(1e-3));
  }
}

TEST_SUITE("unit") {
  TEST_CASE(
      "label jsonl: documents in any order make the same cache; an import replaces what was there, a refused one "
      "leaves it") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", {{5, 6, 7}, {8, 9}, {10, 11, 12, 13}, {14}}, 300, 8);
    const TokenShards a(folder.path / "a");
    const LabelFingerprint fingerprint = fingerprint_of(a, "topk", 3);
    {
      LabelCacheWriter writer(folder.path / "first", a, fingerprint);
      for (size_t shard = 0; shard < a.shards().size(); ++shard)
        writer.write(shard, some_labels(a, shard, fingerprint));
    }
    export_labels(folder.path / "first", a, folder.path / "straight.jsonl");
    std::vector<std::string> lines;
    std::ifstream file(folder.path / "straight.jsonl");
    for (std::string line; std::getline(file, line);) lines.push_back(line);
    REQUIRE(lines.size() == 5);
    std::string turned = lines[0] + "\n", headless;
    for (size_t i = 4; i > 0; --i) turned += lines[i] + "\n", headless += lines[i] + "\n";
    const auto same = [&](const std::filesystem::path& cache) {
      for (const auto& entry : std::filesystem::directory_iterator(folder.path / "first"))
        if (const std::string name = entry.path().filename().string(); !name.starts_with("."))
          CHECK(slurp(cache / name) == slurp(entry.path()));
    };
    import_labels(folder.write("turned.jsonl", turned), a, fingerprint, folder.path / "l");
    same(folder.path / "l");
    CHECK_FALSE(read_label_header(folder.write("headless.jsonl", headless)));
    import_labels(folder.path / "headless.jsonl", a, fingerprint, folder.path / "l");
    same(folder.path / "l");
    const Caught broken = caught(
        [&] { import_labels(folder.write("broken.jsonl", turned + "{}\n"), a, fingerprint, folder.path / "l"); });
    CHECK(broken.says("line 6"));
    same(folder.path / "l");
    for (const auto& entry : std::filesystem::directory_iterator(folder.path))
      CHECK_FALSE(entry.path().filename().string().starts_with(".tmp-"));

    LabelFingerprint other = fingerprint;
    other.temperature = 2;
    CHECK(caught([&] {
            import_labels(folder.path / "turned.jsonl", a, other, folder.path / "l");
          }).says("another temperature: found 1, expected 2"));
    std::string newer = turned;
    newer.replace(newer.find("\"version\":1"), 11, "\"version\":2");
    CHECK(caught([&] {
            import_labels(folder.write("newer.jsonl", newer), a, fingerprint, folder.path / "l");
          }).says("of version 2"));
  }
}

TEST_SUITE("faults") {
  TEST_CASE("label jsonl: what does not fit is refused by line") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", {{5, 6}}, 300, 100);
    const TokenShards a(folder.path / "a");
    const std::string doc = fmt::format(R"("doc": "{:016x}")", 1000);
    const auto refused = [&](const std::string& line, const std::string& word) {
      const Caught refusal = caught([&] {
        import_labels(folder.write("x.jsonl", "\n" + line + "\n"), a, fingerprint_of(a, "topk", 2), folder.path / "l");
      });
      INFO(refusal.text);
      CHECK(refusal.code == 3);
      CHECK(refusal.says(word));
    };
    const std::string tokens = R"(, "tokens": [5, 6, 2])", good = R"(, "top_logprobs": [[-0.5], [-0.5], []]})";
    refused("{" + doc + tokens, "");
    refused(R"({"id": "other")" + tokens + "}", "line 2: the token shards hold no such document");
    refused("{" + doc + R"(, "tokens": [5, 7, 2], "top_ids": [[1], [1], []])" + good,
            "token 1 is 7, the shards hold 6");
    refused("{" + doc + tokens + R"(, "top_ids": [[1], [1]])" + good, "\"top_ids\" has 2 entries, expected 3");
    refused("{" + doc + tokens + R"(, "top_ids": [[1324], [1], []])" + good, "outside the vocabulary");
    refused("{" + doc + tokens + R"(, "top_ids": [[1, 2, 3], [1], []])" + good, "at most 2 ids");
    refused("{" + doc + tokens + R"(, "top_ids": [[1, 1], [1], []], "top_logprobs": [[-1, -1], [-0.5], []]})",
            "stands twice");
    refused("{" + doc + tokens + R"(, "top_ids": [[1, 2], [1], []], "top_logprobs": [[-2, -1], [-0.5], []]})",
            "descending");
    refused("{" + doc + tokens + R"(, "top_ids": [[1], [1], []], "top_logprobs": [[0.5], [-0.5], []]})",
            "no number up to 0");
  }
}
