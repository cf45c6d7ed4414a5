// Labels of tier sample: what they take, that they come back by every way of reading them, and that files which cannot
// be are refused by token.
#include <ATen/ATen.h>
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <set>

#include "src/base/random.h"
#include "src/data/draw_numbers.h"
#include "src/data/label_cache_files.h"
#include "src/data/label_cache_writer.h"
#include "src/data/label_import.h"
#include "src/data/label_jsonl.h"
#include "src/data/loader.h"
#include "src/data/teacher_signal.h"
#include "tests/data/data_files.h"

using namespace coppice;

namespace {

LabelFingerprint fingerprint_of(const TokenShards& shards, int64_t draws, int64_t vocab_size = 300) {
  return {.teacher_sha256 = "a teacher",
          .tokenizer_sha256 = shards.tokenizer_sha256(),
          .vocab_size = vocab_size,
          .token_manifest_sha256 = shards.manifest_sha256(),
          .tier = "sample",
          .k = draws,
          .window_rule = "given",
          .context = 1,
          .draw_seed = 5};
}

/// The same of draws from a proposal.
LabelFingerprint weighted_of(const TokenShards& shards, int64_t draws) {
  LabelFingerprint fingerprint = fingerprint_of(shards, draws);
  fingerprint.proposal_temperature = 1.25;
  return fingerprint;
}
/// The log of what a draw weighs, exact in half precision, 0.04 above 1 on average.
float log_weight_of(uint64_t token, int64_t id) {
  return static_cast<float>((token * 31 + static_cast<uint64_t>(id) * 7) % 17) / 16.0f - 0.5f;
}

/// Draws that tell their token, in no order: of token i one id of two, three, ...
std::vector<int64_t> draws_at(uint64_t token, int64_t draws, int64_t vocab_size = 300) {
  std::vector<int64_t> ids;
  for (int64_t j = 0; j < draws; ++j)
    ids.push_back(
        (static_cast<int64_t>(7 * token) +
         static_cast<int64_t>(random_bits(1, Purpose::test, token, static_cast<uint64_t>(j)) % (2 + token % 9))) %
        vocab_size);
  return ids;
}

/// The same as they are to be read: most drawn first, lower first among equals.
std::vector<int64_t> sorted(const std::vector<int64_t>& ids) {
  std::map<int64_t, int64_t> count;
  for (const int64_t id : ids) ++count[id];
  std::vector<int64_t> ordered = ids;
  std::ranges::sort(ordered, {}, [&](int64_t id) { return std::pair(-count[id], id); });
  return ordered;
}

ShardLabels labels_of(const TokenRuns& runs, const LabelFingerprint& fingerprint) {
  ShardLabels labels(TokenRuns(), fingerprint);
  const auto k = static_cast<uint64_t>(fingerprint.k);
  for (const TokenRun& run : runs)
    for (uint64_t token = run.begin; token < run.end; ++token) {
      const uint64_t row = labels.append({token, token + 1});
      const std::vector<int64_t> ids = draws_at(token, fingerprint.k, fingerprint.vocab_size);
      for (uint64_t j = 0; j < k; ++j) labels.id[row * k + j] = static_cast<int32_t>(ids[j]);
      if (fingerprint.has_weights())
        for (uint64_t j = 0; j < k; ++j) labels.log_weight[row * k + j] = log_weight_of(token, ids[j]);
    }
  return labels;
}

/// Different ids of these tokens' draws: what their rows take.
uint64_t different_ids(const TokenRuns& runs, int64_t draws) {
  uint64_t count = 0;
  for (const TokenRun& run : runs)
    for (uint64_t token = run.begin; token < run.end; ++token) {
      const std::vector<int64_t> ids = draws_at(token, draws);
      count += std::set<int64_t>(ids.begin(), ids.end()).size();
    }
  return count;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("label draws: numbers are a function of seed, shard, offset and draw, and the same in a batch") {
    const ScratchFolder folder;
    std::vector<std::vector<int32_t>> documents(20, std::vector<int32_t>(30, 7));
    test::write_documents(folder.path / "a", documents, 300, 200, "a");
    test::write_documents(folder.path / "b", documents, 300, 200, "b");
    const TokenShards a(folder.path / "a"), b(folder.path / "b");
    REQUIRE(a.shards().size() > 2);
    const uint64_t stream = draw_stream(a.shards()[0]);
    CHECK(stream == std::stoull(a.shards()[0].sha256.substr(0, 14), nullptr, 16));
    CHECK(draw_number(3, stream, 1000, 5) == random_uniform(3, Purpose::label_draws, stream, 1000 * 256 + 5));
    std::set<double> seen;
    for (const uint64_t seed : {1, 2})
      for (const size_t shard : {0, 1})
        for (const uint64_t offset : {0, 1, 255, 256})
          for (const int64_t draw : {0, 1, 255})
            seen.insert(draw_number(seed, draw_stream(a.shards()[shard]), offset, draw));
    CHECK(seen.size() == 2 * 2 * 4 * 3);
    CHECK(caught([&] { draw_number(1, stream, 0, kMaxDraws); }).code == 1);

    Loader loader({&b, &a}, {{"b", 0.5}, {"a", 0.5}}, {.seq_len = 16, .document_mask = true, .seed = 3});
    for (int i = 0; i < 5; ++i) {
      const Batch batch = loader.next(4);
      const at::Tensor number_NR = draw_numbers(batch, {&b, &a}, 3, 9);
      REQUIRE(number_NR.size(0) == 64);
      for (const Span& span : batch.spans)
        for (int32_t t = 0; t < span.length; ++t)
          for (int64_t draw = 0; draw < 3; ++draw)
            CHECK(number_NR[span.row * 16 + span.column + t][draw].item<double>() ==
                  draw_number(9, draw_stream((span.domain == 0 ? b : a).shards()[static_cast<size_t>(span.shard)]),
                              span.offset + static_cast<uint64_t>(t), draw));
    }
  }

  TEST_CASE("label draws: one draw takes at most 2.01 bytes a token of a full shard, several their different ids") {
    const ScratchFolder folder;
    constexpr double kFileBytes = 15'000;  // of a file and its manifest
    for (const auto& [draws, vocab_size, documents] :
         {std::tuple<int64_t, int64_t, size_t>{1, 65'535, 1024}, {1, 65'536, 1024}, {16, 300, 64}}) {
      CAPTURE(draws);
      CAPTURE(vocab_size);
      const auto path = folder.path / fmt::format("{}-{}", draws, vocab_size);
      test::write_documents(path / "a", std::vector<std::vector<int32_t>>(documents, std::vector<int32_t>(1023, 7)),
                            300, 1 << 20);
      const TokenShards a(path / "a");
      REQUIRE(a.num_tokens() == documents * 1024);
      const LabelFingerprint fingerprint = fingerprint_of(a, draws, vocab_size);
      const TokenRuns all = {{0, a.num_tokens()}};
      LabelCacheWriter(path / "l", a, fingerprint).write(0, labels_of(all, fingerprint));
      const auto bytes = static_cast<double>(LabelCache(path / "l", a, fingerprint).bytes()),
                 tokens = static_cast<double>(a.num_tokens());
      const uint64_t id_bytes = vocab_size > 65'535 ? 3 : 2, repeats = draws == 1 ? 0 : 2;
      const double ids = draws == 1 ? tokens : static_cast<double>(different_ids(all, draws)),
                   expected = static_cast<double>(id_bytes) * ids + static_cast<double>(repeats) * tokens;
      MESSAGE(draws << " draws of " << vocab_size << " pieces: " << bytes / tokens << " bytes a token, " << ids / tokens
                    << " different ids");
      CHECK(bytes >= expected);
      CHECK(bytes <= expected + kFileBytes);
      CHECK(label_row_bytes(fingerprint) == id_bytes + repeats);
      CHECK(most_label_row_bytes(fingerprint) == id_bytes * static_cast<uint64_t>(draws) + repeats);
      if (draws > 1) continue;
      CHECK(tokens == 1 << 20);
      CHECK(bytes <= (static_cast<double>(id_bytes) + 0.01) * tokens);
    }
  }

  TEST_CASE("label draws: every read is the draws in their order, whole and packed, whatever their number") {
    const ScratchFolder folder;
    std::vector<std::vector<int32_t>> documents(60);
    for (size_t i = 0; i < documents.size(); ++i) documents[i].assign(i * 13 % 60, 7);
    test::write_documents(folder.path / "a", documents, 300, 1500);
    const TokenShards a(folder.path / "a");
    const uint64_t tokens = a.shards()[0].tokens;
    REQUIRE(tokens > 1000);
    const TokenRuns all = {{0, tokens}}, some = {{3, 4}, {5, 300}, {600, 601}, {tokens - 200, tokens - 100}};
    for (const int64_t draws : {1, 2, 8, 9, 10, 16, 17, 256})
      for (const TokenRuns& runs : {all, some}) {
        CAPTURE(draws);
        CAPTURE(runs.size());
        const LabelFingerprint fingerprint = fingerprint_of(a, draws);
        const auto path = folder.path / fmt::format("{}-{}", draws, runs.size());
        {
          LabelCacheWriter writer(path, a, fingerprint);
          writer.write(0, labels_of(runs, fingerprint));
          for (size_t shard = 1; shard < a.shards().size(); ++shard)
            writer.write(shard, labels_of({{0, a.shards()[shard].tokens}}, fingerprint));
        }
        CHECK(read_json(path / "manifest.json").at("version") == 3);
        CHECK(read_label_fingerprint(path).to_json() == fingerprint.to_json());
        CHECK(summarise_labels(path).shard[0].labelled == count_tokens(runs));
        const LabelCache cache(path, a, fingerprint, LabelCoverage::some);
        const auto k = static_cast<uint64_t>(draws);
        std::mt19937_64 random(2);
        for (int round = 0; round < 40; ++round) {
          const uint64_t begin = random() % tokens, count = 1 + random() % std::min<uint64_t>(400, tokens - begin);
          std::vector<int64_t> ids(count * k), first(count);
          cache.read_draws(0, begin, count, ids.data(), nullptr);
          cache.read(0, begin, count, first.data());
          for (uint64_t i = 0; i < count; ++i) {
            const bool labelled = std::ranges::any_of(
                runs, [&](const TokenRun& run) { return begin + i >= run.begin && begin + i < run.end; });
            const std::vector<int64_t> wanted =
                labelled ? sorted(draws_at(begin + i, draws)) : std::vector<int64_t>(k, kNoLabel);
            REQUIRE(std::equal(wanted.begin(), wanted.end(), ids.begin() + static_cast<std::ptrdiff_t>(i * k)));
            REQUIRE(first[i] == wanted[0]);
          }
        }
      }
  }

  TEST_CASE("label draws: a read may begin at any row of a file that is longer than what lies between known places") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", std::vector<std::vector<int32_t>>(95, std::vector<int32_t>(99, 7)), 300,
                          100'000);
    const TokenShards a(folder.path / "a");
    REQUIRE(a.shards()[0].tokens == 9500);
    const LabelFingerprint fingerprint = fingerprint_of(a, 9);
    LabelCacheWriter(folder.path / "l", a, fingerprint).write(0, labels_of({{0, 9500}}, fingerprint));
    const LabelCache cache(folder.path / "l", a, fingerprint);
    std::mt19937_64 random(3);
    std::vector<uint64_t> begins = {0, 255, 256, 4095, 4096, 4097, 8191, 8192, 9499};
    for (int round = 0; round < 30; ++round) begins.push_back(random() % 9500);
    for (const uint64_t begin : begins) {
      const uint64_t count = std::min<uint64_t>(20, 9500 - begin);
      std::vector<int64_t> ids(count * 9);
      cache.read_draws(0, begin, count, ids.data(), nullptr);
      for (uint64_t i = 0; i < count; ++i) {
        const std::vector<int64_t> wanted = sorted(draws_at(begin + i, 9));
        REQUIRE(std::equal(wanted.begin(), wanted.end(), ids.begin() + static_cast<std::ptrdiff_t>(i * 9)));
      }
    }
  }

  TEST_CASE("label draws: the file does not depend on the order of draws or tokens") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", std::vector<std::vector<int32_t>>(9, std::vector<int32_t>(40, 7)), 300,
                          100'000);
    const TokenShards a(folder.path / "a");
    const LabelFingerprint fingerprint = fingerprint_of(a, 12);
    const TokenRuns runs = {{3, 90}, {120, 200}, {300, 310}}, turned = {{300, 310}, {120, 200}, {3, 90}};
    LabelCacheWriter(folder.path / "straight", a, fingerprint).write(0, labels_of(runs, fingerprint));
    ShardLabels labels = labels_of(turned, fingerprint);
    for (size_t row = 0; row < labels.id.size(); row += 12)
      std::reverse(labels.id.begin() + static_cast<std::ptrdiff_t>(row),
                   labels.id.begin() + static_cast<std::ptrdiff_t>(row + 12));
    LabelCacheWriter(folder.path / "turned", a, fingerprint).write(0, labels);
    CHECK(slurp(folder.path / "straight/shard-00000.h5") == slurp(folder.path / "turned/shard-00000.h5"));
    CHECK(slurp(folder.path / "straight/manifest.json") == slurp(folder.path / "turned/manifest.json"));
  }

  TEST_CASE("label draws: a batch gets the shares of its tokens' draws, whatever its shape") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", std::vector<std::vector<int32_t>>(40, std::vector<int32_t>(50, 7)), 300,
                          500);
    const TokenShards a(folder.path / "a");
    const LabelFingerprint fingerprint = fingerprint_of(a, 6);
    {
      LabelCacheWriter writer(folder.path / "l", a, fingerprint);
      for (size_t shard = 0; shard < a.shards().size(); ++shard)
        writer.write(shard, labels_of({{0, a.shards()[shard].tokens}}, fingerprint));
    }
    const LabelCache cache(folder.path / "l", a, fingerprint);
    for (const int64_t seq_len : {8, 33}) {
      Loader loader({&a}, {{"a", 1.0}}, {.seq_len = seq_len, .seed = 5});
      const Batch batch = loader.next(5);
      const TeacherSignal signal = stored_signal({&cache}, batch, {.loss = "sample", .hidden_layers = {}}, false);
      CHECK(signal.labels_below == 300);
      for (const Span& span : batch.spans)
        for (int32_t t = 0; t < span.length; ++t) {
          const int64_t row = span.row * seq_len + span.column + t;
          const std::vector<int64_t> wanted = sorted(draws_at(span.offset + static_cast<uint64_t>(t), 6));
          double share = 0;
          for (int64_t j = 0; j < 6; ++j) {
            const int64_t id = signal.top.id_NK[row][j].item<int64_t>();
            if (id < 0) continue;
            const double one = std::exp(signal.top.logp_NK[row][j].item<double>());
            CHECK(one * 6 == doctest::Approx(static_cast<double>(std::ranges::count(wanted, id))));
            share += one;
          }
          CHECK(share == doctest::Approx(1));
        }
    }
    // a domain without labels has no teacher
    Loader loader({&a}, {{"a", 1.0}}, {.seq_len = 8, .seed = 5});
    CHECK(lookup_draws({nullptr}, loader.next(2)).id_NK.max().item<int64_t>() == kIgnoredLabel);
  }

  TEST_CASE("label draws: weights are read with their ids, whole and packed, and take two bytes a different id") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", std::vector<std::vector<int32_t>>(20, std::vector<int32_t>(59, 7)), 300,
                          100'000);
    const TokenShards a(folder.path / "a");
    const uint64_t tokens = a.shards()[0].tokens;
    REQUIRE(tokens == 1200);
    const TokenRuns all = {{0, tokens}}, some = {{3, 4}, {5, 300}, {600, 601}, {tokens - 200, tokens - 100}};
    for (const int64_t draws : {1, 9, 16})
      for (const TokenRuns& runs : {all, some}) {
        CAPTURE(draws);
        CAPTURE(runs.size());
        const LabelFingerprint fingerprint = weighted_of(a, draws);
        const auto path = folder.path / fmt::format("{}-{}", draws, runs.size());
        LabelCacheWriter(path, a, fingerprint).write(0, labels_of(runs, fingerprint));
        const Json manifest = read_json(path / "manifest.json");
        CHECK(manifest.at("version") == 5);
        CHECK(manifest.at("fingerprint").at("proposal_temperature") == "1.25");
        CHECK(read_label_fingerprint(path).to_json() == fingerprint.to_json());
        CHECK(summarise_labels(path).labelled == count_tokens(runs));
        const uint64_t repeats = draws == 1 ? 0 : draws == 9 ? 1 : 2, k = static_cast<uint64_t>(draws);
        CHECK(label_row_bytes(fingerprint) == 4 + repeats);
        CHECK(most_label_row_bytes(fingerprint) == 4 * k + repeats);
        CHECK(Hdf5Reader(path / "shard-00000.h5").shape("/log_weights").dims ==
              Hdf5Reader(path / "shard-00000.h5").shape("/draws").dims);
        const LabelCache cache(path, a, fingerprint, LabelCoverage::some);
        std::vector<int64_t> ids(tokens * k), first(tokens);
        std::vector<float> log_weight(tokens * k, -7.0f);
        cache.read_draws(0, 0, tokens, ids.data(), log_weight.data());
        cache.read(0, 0, tokens, first.data());
        for (uint64_t token = 0; token < tokens; ++token) {
          REQUIRE(first[token] == ids[token * k]);
          if (ids[token * k] == kNoLabel) {
            REQUIRE(std::all_of(log_weight.begin() + static_cast<std::ptrdiff_t>(token * k),
                                log_weight.begin() + static_cast<std::ptrdiff_t>((token + 1) * k),
                                [](float value) { return value == 0; }));
            continue;
          }
          const std::vector<int64_t> wanted = sorted(draws_at(token, draws));
          for (uint64_t j = 0; j < k; ++j) {
            REQUIRE(ids[token * k + j] == wanted[j]);
            REQUIRE(log_weight[token * k + j] == log_weight_of(token, wanted[j]));
          }
        }
        CHECK(caught([&] { cache.read_draws(0, 0, 1, ids.data(), nullptr); }).code == 1);  // ids alone would be biased
      }
    // shares of a batch
    const LabelFingerprint fingerprint = weighted_of(a, 9);
    const LabelCache cache(folder.path / "9-1", a, fingerprint);
    Loader loader({&a}, {{"a", 1.0}}, {.seq_len = 33, .seed = 5});
    const Batch batch = loader.next(5);
    const TeacherSignal signal = stored_signal({&cache}, batch, {.loss = "sample", .hidden_layers = {}}, false);
    for (const Span& span : batch.spans)
      for (int32_t t = 0; t < span.length; ++t) {
        const int64_t row = span.row * 33 + span.column + t;
        const uint64_t token = span.offset + static_cast<uint64_t>(t);
        const std::vector<int64_t> wanted = sorted(draws_at(token, 9));
        for (int64_t j = 0; j < 9; ++j)
          if (const int64_t id = signal.top.id_NK[row][j].item<int64_t>(); id >= 0)
            CHECK(std::exp(signal.top.logp_NK[row][j].item<double>()) ==
                  doctest::Approx(static_cast<double>(std::ranges::count(wanted, id)) / 9 *
                                  std::exp(log_weight_of(token, id))));
      }
  }

  TEST_CASE("label draws: with weights the file does not depend on the order of draws either") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", std::vector<std::vector<int32_t>>(9, std::vector<int32_t>(40, 7)), 300,
                          100'000);
    const TokenShards a(folder.path / "a");
    const LabelFingerprint fingerprint = weighted_of(a, 12);
    ShardLabels labels = labels_of({{3, 90}, {120, 200}}, fingerprint);
    LabelCacheWriter(folder.path / "straight", a, fingerprint).write(0, labels);
    for (size_t row = 0; row < labels.id.size(); row += 12) {
      const auto at = static_cast<std::ptrdiff_t>(row);
      std::reverse(labels.id.begin() + at, labels.id.begin() + at + 12);
      std::reverse(labels.log_weight.begin() + at, labels.log_weight.begin() + at + 12);
    }
    LabelCacheWriter(folder.path / "turned", a, fingerprint).write(0, labels);
    CHECK(slurp(folder.path / "straight/shard-00000.h5") == slurp(folder.path / "turned/shard-00000.h5"));
  }

  TEST_CASE("label draws: out as JSONL and in again is the same cache; another program's draws come in") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", {{5, 6, 7}, {8, 9}, {10, 11, 12, 13}, {14}}, 300, 8);
    const TokenShards a(folder.path / "a");
    REQUIRE(a.shards().size() >= 2);
    for (const auto& [draws, weighted] : {std::pair<int64_t, bool>{1, false}, {5, false}, {1, true}, {5, true}}) {
      CAPTURE(draws);
      CAPTURE(weighted);
      const LabelFingerprint fingerprint = weighted ? weighted_of(a, draws) : fingerprint_of(a, draws);
      const auto first = folder.path / fmt::format("first-{}-{}", draws, weighted),
                 second = folder.path / fmt::format("second-{}-{}", draws, weighted);
      {
        LabelCacheWriter writer(first, a, fingerprint);
        for (size_t shard = 0; shard < a.shards().size(); ++shard)
          writer.write(shard, labels_of({{1, a.shards()[shard].tokens}}, fingerprint));  // one token without
      }
      const LabelTransfer out = export_labels(first, a, folder.path / "out.jsonl"),
                          in = import_labels(folder.path / "out.jsonl", a, fingerprint, second);
      CHECK(out.labelled == a.num_tokens() - a.shards().size());
      CHECK(in.labelled == out.labelled);
      CHECK(read_label_header(folder.path / "out.jsonl")->to_json() == fingerprint.to_json());
      CHECK(slurp(first / "manifest.json") == slurp(second / "manifest.json"));
      for (const TokenShardInfo& shard : a.shards()) CHECK(slurp(first / shard.name) == slurp(second / shard.name));
    }
    const LabelFingerprint fingerprint = fingerprint_of(a, 3);
    const auto dump = folder.write("dump.jsonl", fmt::format(R"({{"doc": "{:016x}", "tokens": [5, 6, 7, 2], )"
                                                             R"("draws": [[9, 8, 9], [], [4, 2, 3], [299, 0, 0]]}})"
                                                             "\n",
                                                             1000));
    CHECK(import_labels(dump, a, fingerprint, folder.path / "l").labelled == 3);
    const LabelCache cache(folder.path / "l", a, fingerprint, LabelCoverage::some);
    std::vector<int64_t> ids(12);
    cache.read_draws(0, 0, 4, ids.data(), nullptr);
    CHECK(ids == std::vector<int64_t>{9, 9, 8, kNoLabel, kNoLabel, kNoLabel, 2, 3, 4, 0, 0, 299});
    // with weights: as near as half precision comes
    const auto weighted = folder.write(
        "weighted.jsonl",
        fmt::format(R"({{"doc": "{:016x}", "tokens": [5, 6, 7, 2], "draws": [[9, 8, 9], [], [4, 2, 3], []], )"
                    R"("draw_log_weights": [[0.1, -0.7, 0.1], [], [0, 1, -1.5], []]}})"
                    "\n",
                    1000));
    const LabelFingerprint of_weights = weighted_of(a, 3);
    CHECK(import_labels(weighted, a, of_weights, folder.path / "w").labelled == 2);
    const LabelCache with_weights(folder.path / "w", a, of_weights, LabelCoverage::some);
    std::vector<float> log_weight(12);
    with_weights.read_draws(0, 0, 4, ids.data(), log_weight.data());
    CHECK(ids == std::vector<int64_t>{9, 9, 8, kNoLabel, kNoLabel, kNoLabel, 2, 3, 4, kNoLabel, kNoLabel, kNoLabel});
    const std::vector<float> wanted = {0.1f, 0.1f, -0.7f, 0, 0, 0, 1, -1.5f, 0, 0, 0, 0};
    for (size_t i = 0; i < 12; ++i) CHECK(std::abs(log_weight[i] - wanted[i]) <= std::abs(wanted[i]) * 0x1p-11f);
  }
}

TEST_SUITE("faults") {
  TEST_CASE("label draws: another number or seed is another cache; a stored probability is none of them") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", {{5, 6, 7, 8}}, 300, 100);
    const TokenShards a(folder.path / "a");
    const LabelFingerprint good = fingerprint_of(a, 4);
    LabelCacheWriter(folder.path / "l", a, good).write(0, labels_of({{0, 5}}, good));
    const auto refused = [&](const std::string& field, const std::function<void(LabelFingerprint&)>& change) {
      LabelFingerprint other = good;
      change(other);
      const Caught refusal = caught([&] { LabelCache(folder.path / "l", a, other); });
      CHECK(refusal.code == 3);
      CHECK(refusal.says(field));
    };
    refused("another k: found 4, expected 8", [](auto& f) { f.k = 8; });
    refused("another draw_seed: found 5, expected 6", [](auto& f) { f.draw_seed = 6; });
    refused("another temperature", [](auto& f) { f.temperature = 2; });
    refused("another tier: found sample, expected topk", [](auto& f) { f.tier = "topk"; });
    refused("another proposal_temperature: found 1, expected 1.25", [](auto& f) { f.proposal_temperature = 1.25; });
    LabelFingerprint chosen = good;  // the other way round: draws have a field that others lack
    chosen.tier = "top1";
    chosen.k = 1;
    LabelCacheWriter(folder.path / "top1", a, chosen).write(0, std::vector<int32_t>(5, 7));
    const Caught refusal = caught([&] { LabelCache(folder.path / "top1", a, good); });
    INFO(refusal.text);
    CHECK(refusal.code == 3);
    CHECK(refusal.says("another tier: found top1, expected sample"));
  }

  TEST_CASE("label draws: counts that change between their check and their use are refused, fewer ids and more") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", {{5, 6, 7}}, 300, 100);
    const TokenShards a(folder.path / "a");  // four tokens
    const LabelFingerprint fingerprint = test::RawDraws::fingerprint(a);
    test::RawDraws{.ids = {5, 6, 7, 8, 9, 65535}, .repeats = {0b01, 0b11, 0b01, 0b11}}.write(folder.path / "l", a);
    const auto path = folder.path / "l" / a.shards()[0].name;
    const std::string whole = slurp(path);
    const uint64_t place = Hdf5Reader(path).chunks("/repeats").offsets.at(0);
    REQUIRE(whole.substr(place, 4) == "\x01\x03\x01\x03");
    for (const std::string after : {"\x03\x03\x03\x03", "\x01\x03\x01\x01"}) {  // two too few, one too many
      const LabelFile file(path, fingerprint, {.bytes = whole.size(), .tokens = 4, .sha256 = "", .ids = 6});
      CHECK(file.check().size() == 1);
      spill(path, std::string(whole).replace(place, 4, after));
      const Caught refusal = caught([&] { (void)file.check(); });
      spill(path, whole);
      INFO(refusal.text);
      CHECK(refusal.code == 3);
      CHECK(refusal.says("/repeats: other counts than a moment ago"));
      CHECK(refusal.says("shard-00000.h5"));
    }
  }

  TEST_CASE("label draws: columns that cannot be are refused, naming the token, whatever the hash says") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", {{5, 6, 7}}, 300, 100);
    const TokenShards a(folder.path / "a");  // four tokens
    const LabelFingerprint fingerprint = test::RawDraws::fingerprint(a);
    const auto opened = [&](const test::RawDraws& draws) {
      draws.write(folder.path / "l", a);
      const Caught opening = caught([&] { LabelCache(folder.path / "l", a, fingerprint, LabelCoverage::some); });
      const Caught telling = caught([&] { summarise_labels(folder.path / "l"); });
      CHECK(opening.code == telling.code);
      return opening;
    };
    const auto refused = [&](const test::RawDraws& draws, const std::string& word) {
      const Caught refusal = opened(draws);
      INFO(refusal.text);
      CHECK(refusal.code == 3);
      CHECK(refusal.says(word));
      CHECK(refusal.says("shard-00000.h5"));
    };
    // {5, 5, 6}, {7, 7, 7}, {8, 9, 10}, none
    const std::vector<uint16_t> ids = {5, 6, 7, 8, 9, 10, 65535};
    const std::vector<uint8_t> repeats = {0b01, 0b11, 0b00, 0b11};
    CHECK(opened({.ids = ids, .repeats = repeats}).code == 0);
    const LabelCache cache(folder.path / "l", a, fingerprint, LabelCoverage::some);
    std::vector<int64_t> read(12);
    cache.read_draws(0, 0, 4, read.data(), nullptr);
    CHECK(read == std::vector<int64_t>{5, 5, 6, 7, 7, 7, 8, 9, 10, kNoLabel, kNoLabel, kNoLabel});
    refused({.ids = {5, 6, 7, 8, 9, 9, 11}, .repeats = repeats}, "draws of token 2 are not different ids");
    refused({.ids = {5, 5, 7, 8, 9, 10, 11}, .repeats = repeats}, "draws of token 0 are not different ids");  // twice
    refused({.ids = {5, 6, 7, 8, 10, 9, 65535}, .repeats = repeats},
            "draws of token 2 are not different ids, the most drawn first and the lower first among equals");
    refused({.ids = {5, 6, 7, 9, 8, 9, 65535}, .repeats = repeats}, "draws of token 2");  // twice, and not side by side
    refused({.ids = ids, .repeats = {0b10, 0b11, 0b00, 0b11}}, "draws of token 0 are not different ids");  // {5, 6, 6}
    refused({.ids = {5, 300, 7, 8, 9, 10, 11}, .repeats = repeats}, "label 300 of token 0 is outside the vocabulary");
    refused({.ids = {5, 65535, 7, 8, 9, 10, 11}, .repeats = repeats}, "label 65535 of token 0");  // some draws and none
    refused({.ids = ids, .repeats = {0b01, 0b11, 0b100, 0b11}}, "row 2 holds more than 3 draws");
    refused({.ids = ids, .repeats = {0b01, 0b01, 0b00, 0b11}}, "rows of 8 different ids, and the file holds 7");
    refused({.ids = ids, .repeats = {0b01, 0b11, 0b00}}, "another type or shape");
    refused({.ids = ids, .repeats = repeats, .listed_ids = 3}, "3 different ids of 4 labels");
    refused({.ids = ids, .repeats = repeats, .listed_ids = 13}, "13 different ids of 4 labels");
    refused({.ids = ids, .repeats = repeats, .listed_ids = ~uint64_t{0}}, "different ids of 4 labels");
    refused({.ids = ids, .repeats = repeats, .listed_ids = 8}, "another type or shape");
  }

  TEST_CASE("label draws: weights that are none are refused, in a file and in lines") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", {{5, 6}}, 300, 100);
    const TokenShards a(folder.path / "a");
    const LabelFingerprint fingerprint = weighted_of(a, 2);
    ShardLabels labels = labels_of({{0, 3}}, fingerprint);
    LabelCacheWriter(folder.path / "good", a, fingerprint).write(0, labels);
    LabelFingerprint other = fingerprint;
    other.proposal_temperature = 1;
    const Caught plain = caught([&] { LabelCache(folder.path / "good", a, other); });
    CHECK(plain.code == 3);
    CHECK(plain.says("another proposal_temperature: found 1.25, expected 1"));
    for (const float value : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
      labels.log_weight[2] = labels.log_weight[3] = value;
      const auto path = folder.path / (std::isnan(value) ? "nan" : "infinite");
      LabelCacheWriter(path, a, fingerprint).write(0, labels);
      const Caught refusal = caught([&] { LabelCache(path, a, fingerprint, LabelCoverage::some); });
      INFO(refusal.text);
      CHECK(refusal.code == 3);
      CHECK(refusal.says("/log_weights: the log of weight"));
    }
    const auto refused = [&](const LabelFingerprint& of, const std::string& weights, const std::string& word) {
      const std::string line =
          fmt::format(R"({{"doc": "{:016x}", "tokens": [5, 6, 2], "draws": [[1, 1], [3, 4], []]{}}})", 1000, weights);
      const Caught refusal =
          caught([&] { import_labels(folder.write("x.jsonl", line + "\n"), a, of, folder.path / "l"); });
      INFO(refusal.text);
      CHECK(refusal.code == 3);
      CHECK(refusal.says("line 1"));
      CHECK(refusal.says(word));
    };
    refused(fingerprint, "", "\"draw_log_weights\" is missing");
    refused(fingerprint, R"(, "draw_log_weights": [[0, 0], [0, 0]])", "has 2 entries, expected 3");
    refused(fingerprint, R"(, "draw_log_weights": [[0, 0], [0], []])", "differ in length at a token");
    refused(fingerprint, R"(, "draw_log_weights": [[0, 0], [0, null], []])", "no number of half precision: null");
    refused(fingerprint, R"(, "draw_log_weights": [[0, 0], [0, 1e9], []])",
            "no number of half precision: 1000000000.0");
    refused(fingerprint, R"(, "draw_log_weights": [[0, 0.5], [0, 0], []])", "draws of id 1 have different weights");
    refused(other, R"(, "draw_log_weights": [[0, 0], [0, 0], []])", "have no weights; say what they were drawn at");
  }

  TEST_CASE("label draws: weights in place of their logarithms do not average 1, and are refused") {
    const ScratchFolder folder;
    const std::vector<int32_t> document(199, 7);
    test::write_documents(folder.path / "a", {document}, 300, 1000);
    const TokenShards a(folder.path / "a");
    const LabelFingerprint fingerprint = weighted_of(a, 2);
    const auto imported = [&](bool logarithms) {
      // three ids of 10 by the proposal's 0.5, 0.25, 0.25, of the teacher's 0.8, 0.1, 0.1
      std::mt19937_64 random(3);
      Json line = {{"doc", fmt::format("{:016x}", 1000)}, {"tokens", document}};
      line["tokens"].push_back(2);
      for (int i = 0; i < 200; ++i) {
        Json ids = Json::array(), weights = Json::array();
        for (int j = 0; j < 2; ++j) {
          const uint64_t quarter = random() % 4;
          const double weight = quarter < 2 ? 1.6 : 0.4;
          ids.push_back(quarter < 2 ? 10 : 10 + quarter);
          weights.push_back(logarithms ? std::log(weight) : weight);
        }
        line["draws"].push_back(ids);
        line["draw_log_weights"].push_back(weights);
      }
      return caught(
          [&] { import_labels(folder.write("x.jsonl", line.dump() + "\n"), a, fingerprint, folder.path / "l"); });
    };
    CHECK(imported(true).code == 0);
    const Caught refusal = imported(false);
    INFO(refusal.text);
    CHECK(refusal.code == 3);
    CHECK(refusal.says("line 1: the weights of draws at 200 tokens"));
    CHECK(refusal.says("weights instead of their natural logarithms"));
  }

  TEST_CASE("label draws: lines that hold other draws than they say are refused") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", {{5, 6}}, 300, 100);
    const TokenShards a(folder.path / "a");
    const auto refused = [&](const std::string& draws, const std::string& word) {
      const std::string line = fmt::format(R"({{"doc": "{:016x}", "tokens": [5, 6, 2]{}}})", 1000, draws);
      const Caught refusal = caught(
          [&] { import_labels(folder.write("x.jsonl", line + "\n"), a, fingerprint_of(a, 2), folder.path / "l"); });
      INFO(refusal.text);
      CHECK(refusal.code == 3);
      CHECK(refusal.says(word));
    };
    refused("", "\"draws\" is missing");
    refused(R"(, "draws": [[1, 2], [3, 4]])", "\"draws\" has 2 entries, expected 3");
    refused(R"(, "draws": [[1, 2], [3], []])", "holds 1 ids at a token, expected 2");
    refused(R"(, "draws": [[1, 2], [3, 4, 5], []])", "holds 3 ids at a token, expected 2");
    refused(R"(, "draws": [[1, 2], null, []])", "\"draws\" holds null at a token");
    refused(R"(, "draws": [[1, 300], [3, 4], []])", "draw 300 is outside the vocabulary of 300");
    refused(R"(, "draws": [[1, -3], [3, 4], []])", "no whole number from 0 on");
  }
}
