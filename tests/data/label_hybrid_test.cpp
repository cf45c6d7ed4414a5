// Labels of tier hybrid: a head of probable ids and draws of the rest. Rows by hand, every way of reading them, out and
// in as JSONL, and what cannot be.
#include <ATen/ATen.h>
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <tuple>
#include <vector>

#include "src/data/label_cache_files.h"
#include "src/data/label_cache_writer.h"
#include "src/data/label_import.h"
#include "src/data/label_jsonl.h"
#include "src/data/loader.h"
#include "src/data/teacher_signal.h"
#include "tests/data/data_files.h"

using namespace coppice;

namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();
constexpr int64_t kHead = 3, kDraws = 4;

LabelFingerprint fingerprint_of(const TokenShards& shards, int64_t k = kHead, int64_t draws = kDraws) {
  return {.teacher_sha256 = "a teacher",
          .tokenizer_sha256 = shards.tokenizer_sha256(),
          .vocab_size = 300,
          .token_manifest_sha256 = shards.manifest_sha256(),
          .tier = "hybrid",
          .k = k,
          .draws = draws,
          .window_rule = "given",
          .context = 1,
          .draw_seed = 5};
}

/// What a token's label is: ids that tell the token, probabilities of halves, and draws of other ids; every fifth token
/// has two ids that are all there is, every seventh none.
struct Label {
  std::vector<int64_t> id;
  std::vector<double> p;
  std::vector<int64_t> drawn;
};
Label label_at(uint64_t token) {
  const auto id = [&](uint64_t j) { return static_cast<int64_t>((7 * token + 31 * j) % 300); };
  if (token % 7 == 6) return {};
  if (token % 5 == 3) return {.id = {id(0), id(1)}, .p = {0.75, 0.25}, .drawn = {}};
  Label label{.id = {id(0), id(1), id(2)}, .p = {0.5, 0.25, 0.125}, .drawn = {}};
  for (uint64_t j = 0; j < kDraws; ++j) label.drawn.push_back(id(3 + (token * j) % 5));
  return label;
}

ShardLabels labels_of(const TokenRuns& runs, const LabelFingerprint& fingerprint) {
  ShardLabels labels(runs, fingerprint);
  uint64_t row = 0;
  for (const TokenRun& run : runs)
    for (uint64_t token = run.begin; token < run.end; ++token, ++row) {
      const Label label = label_at(token);
      double mass = 0;
      for (size_t j = 0; j < label.id.size(); ++j) {
        labels.id[row * kHead + j] = static_cast<int32_t>(label.id[j]);
        labels.logp[row * kHead + j] = static_cast<float>(std::log(label.p[j]));
        mass += label.p[j];
      }
      if (mass > 0 && mass < 1) labels.tail[row] = static_cast<float>(std::log(1 - mass));
      for (size_t j = 0; j < label.drawn.size(); ++j)
        labels.drawn[row * kDraws + j] = static_cast<int32_t>(label.drawn[j]);
    }
  return labels;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("hybrid labels: a row by hand") {
    // as in label_codes_test, and twice 3 = 0011b behind the ids: 1, 1 for its high bits 0, then the low bits 11b, 11b
    const LabelCode code(2, 2, 16);
    REQUIRE(code.row_bytes() == 6);
    const std::array<int32_t, 2> id = {14, 5}, drawn = {3, 3}, other = {3, 1}, none = {kNoLabel, kNoLabel};
    const std::array<c10::Half, 2> logp = {std::log(0.5f), std::log(0.25f)};
    std::vector<uint8_t> row(6, 0);
    code.write({.id = id.data(), .logp = logp.data(), .tail = std::log(0.25f), .drawn = drawn.data()}, row.data());
    CHECK(row == std::vector<uint8_t>{0b00110010, 0b11000111, 0b11, 22, 11, 22});
    std::array<int64_t, 2> read_id{}, read_drawn{};
    std::array<float, 2> read_logp{};
    LabelRow read{.id = read_id.data(), .logp = read_logp.data(), .tail = 0, .drawn = read_drawn.data()};
    CHECK(code.read(row.data(), read) == nullptr);
    CHECK(read_id == std::array<int64_t, 2>{14, 5});
    CHECK(read_drawn == std::array<int64_t, 2>{3, 3});
    CHECK(read.tail == -1.375f);
    // in order, whatever order they came in; none of nothing
    std::ranges::fill(row, uint8_t{0});
    code.write({.id = id.data(), .logp = logp.data(), .tail = std::log(0.25f), .drawn = other.data()}, row.data());
    CHECK(code.read(row.data(), read) == nullptr);
    CHECK(read_drawn == std::array<int64_t, 2>{1, 3});
    std::ranges::fill(row, uint8_t{0});
    code.write({.id = id.data(), .logp = logp.data(), .tail = kNothing, .drawn = none.data()}, row.data());
    CHECK(row == std::vector<uint8_t>{0b00110010, 0b1, 0, 22, 11, 255});
    CHECK(code.read(row.data(), read) == nullptr);
    CHECK(read_drawn == std::array<int64_t, 2>{kNoLabel, kNoLabel});
    const GivenLabel lacking{.id = id.data(), .logp = logp.data(), .tail = std::log(0.25f), .drawn = none.data()},
        among{.id = id.data(), .logp = logp.data(), .tail = std::log(0.25f), .drawn = id.data()};
    CHECK_THROWS_AS(code.write(lacking, row.data()), InternalError);
    CHECK_THROWS_AS(code.write(among, row.data()), InternalError);
  }

  TEST_CASE("hybrid labels: bytes a token") {
    for (const auto& [vocab_size, k, draws, bytes] : {std::tuple<int64_t, int64_t, int64_t, uint64_t>{4096, 4, 4, 17},
                                                      {4096, 8, 8, 31},
                                                      {4096, 16, 16, 57},
                                                      {49'152, 4, 4, 21},
                                                      {49'152, 8, 8, 38},
                                                      {49'152, 16, 16, 71},
                                                      {65'535, 4, 4, 21},
                                                      {65'535, 8, 8, 39},
                                                      {65'535, 16, 16, 73}}) {
      const LabelFingerprint fingerprint{.vocab_size = vocab_size, .tier = "hybrid", .k = k, .draws = draws};
      CHECK(label_row_bytes(fingerprint) == bytes);
      CHECK(most_label_row_bytes(fingerprint) == bytes);
    }
  }

  TEST_CASE("hybrid labels: whole and packed, read at any token; as a head alone, as choices, and as shares of all") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", std::vector<std::vector<int32_t>>(60, std::vector<int32_t>(29, 7)), 300,
                          700);
    const TokenShards a(folder.path / "a");
    REQUIRE(a.shards().size() >= 3);
    const LabelFingerprint fingerprint = fingerprint_of(a);
    {
      LabelCacheWriter writer(folder.path / "l", a, fingerprint);
      for (size_t shard = 0; shard < a.shards().size(); ++shard)
        writer.write(shard,
                     labels_of(shard == 1 ? TokenRuns{{10, 40}, {200, 260}} : TokenRuns{{0, a.shards()[shard].tokens}},
                               fingerprint));
    }
    const LabelCacheSummary summary = summarise_labels(folder.path / "l");
    CHECK(summary.fingerprint.to_json() == fingerprint.to_json());
    CHECK(read_json(folder.path / "l/manifest.json")["version"] == 4);
    const LabelCache cache(folder.path / "l", a, fingerprint, LabelCoverage::some);
    CHECK(cache.labelled() == summary.labelled);
    const auto has = [&](size_t shard, uint64_t token) {
      return (shard != 1 || (token >= 10 && token < 40) || (token >= 200 && token < 260)) &&
             !label_at(token).id.empty();
    };
    for (size_t shard = 0; shard < a.shards().size(); ++shard)
      for (const auto& [begin, count] :
           {std::pair<uint64_t, uint64_t>{0, a.shards()[shard].tokens}, {5, 40}, {190, 80}}) {
        std::vector<int64_t> first(count), id(kHead * count), drawn(kDraws * count), head_id(kHead * count);
        std::vector<float> logp(kHead * count), tail(count), head_logp(kHead * count), head_tail(count);
        cache.read(shard, begin, count, first.data());
        cache.read_hybrid(shard, begin, count, id.data(), logp.data(), tail.data(), drawn.data());
        cache.read_top_k(shard, begin, count, head_id.data(), head_logp.data(), head_tail.data());
        CHECK(head_id == id);
        CHECK(head_logp == logp);
        CHECK(head_tail == tail);
        for (uint64_t i = 0; i < count; ++i) {
          const Label wanted = has(shard, begin + i) ? label_at(begin + i) : Label{};
          REQUIRE(first[i] == (wanted.id.empty() ? kNoLabel : wanted.id[0]));
          std::vector<int64_t> sorted = wanted.drawn;
          std::ranges::sort(sorted);
          for (size_t j = 0; j < kHead; ++j) {
            REQUIRE(id[i * kHead + j] == (j < wanted.id.size() ? wanted.id[j] : kNoLabel));
            if (j < wanted.id.size()) REQUIRE(std::abs(logp[i * kHead + j] - std::log(wanted.p[j])) <= 1.0 / 32 + 1e-3);
          }
          for (size_t j = 0; j < kDraws; ++j)
            REQUIRE(drawn[i * kDraws + j] == (j < sorted.size() ? sorted[j] : kNoLabel));
          REQUIRE((tail[i] == kNothing) == sorted.empty());
        }
      }
    // in a batch: shares that add up to 1, draws by their counts
    Loader loader({&a}, {{"a", 1.0}}, {.seq_len = 16, .seed = 5});
    for (int round = 0; round < 10; ++round) {
      const Batch batch = loader.next(5);
      const TeacherSignal signal = stored_signal({&cache}, batch, {.loss = "hybrid", .hidden_layers = {}}, true);
      CHECK(signal.labels_below == 300);
      REQUIRE(signal.top.id_NK.size(1) == kHead + kDraws);
      CHECK(signal.top.tail_logp_N.eq(kNothing).all().item<bool>());
      const TopK head = lookup_top_k({&cache}, batch);
      for (const Span& span : batch.spans)
        for (int32_t t = 0; t < span.length; ++t) {
          const int64_t row = span.row * 16 + span.column + t;
          const uint64_t token = span.offset + static_cast<uint64_t>(t);
          const Label wanted = has(static_cast<size_t>(span.shard), token) ? label_at(token) : Label{};
          double sum = 0;
          for (int64_t j = 0; j < kHead + kDraws; ++j) {
            const int64_t id = signal.top.id_NK[row][j].item<int64_t>();
            if (id < 0) continue;
            const double share = std::exp(signal.top.logp_NK[row][j].item<double>());
            sum += share;
            if (j < kHead) {
              REQUIRE(id == wanted.id.at(static_cast<size_t>(j)));
              REQUIRE(signal.top.logp_NK[row][j].item<float>() == head.logp_NK[row][j].item<float>());
            } else {
              const auto count = static_cast<double>(std::ranges::count(wanted.drawn, id));
              REQUIRE(count > 0);
              REQUIRE(share == doctest::Approx(std::exp(head.tail_logp_N[row].item<double>()) * count / kDraws));
            }
          }
          if (!wanted.id.empty()) REQUIRE(sum == doctest::Approx(1));
        }
    }
    CHECK(lookup_hybrid({nullptr}, loader.next(2)).id_NK.max().item<int64_t>() == kIgnoredLabel);
  }

  TEST_CASE("hybrid labels: out as JSONL and in again is the same cache; another program's come in") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", {{5, 6, 7}, {8, 9}, {10, 11, 12, 13}, {14}}, 300, 8);
    const TokenShards a(folder.path / "a");
    REQUIRE(a.shards().size() >= 2);
    const LabelFingerprint fingerprint = fingerprint_of(a);
    {
      LabelCacheWriter writer(folder.path / "first", a, fingerprint);
      for (size_t shard = 0; shard < a.shards().size(); ++shard)
        writer.write(shard, labels_of({{0, a.shards()[shard].tokens}}, fingerprint));
    }
    const auto file = folder.path / "out.jsonl";
    const LabelTransfer out = export_labels(folder.path / "first", a, file),
                        in = import_labels(file, a, fingerprint, folder.path / "second");
    CHECK(in.labelled == out.labelled);
    CHECK(out.labelled > 8);
    CHECK(read_label_header(file)->to_json() == fingerprint.to_json());
    for (const auto& entry : std::filesystem::directory_iterator(folder.path / "first"))
      if (const std::string name = entry.path().filename().string(); !name.starts_with("."))
        CHECK(slurp(folder.path / "second" / name) == slurp(entry.path()));

    const LabelFingerprint two = fingerprint_of(a, 2, 2);
    const auto dump = folder.write(
        "dump.jsonl",
        fmt::format(R"({{"doc": "{:016x}", "tokens": [5, 6, 7, 2], "top_ids": [[6, 9], [2], [], [1, 3]], )", 1000) +
            R"("top_logprobs": [[-0.5, -1.5], [-0.25], [], [-0.6931472, -0.6931472]], )"
            R"("tail_logprobs": [-1.770, -1.5087, null, null], "tail_draws": [[8, 7], [299, 299], [], []]})" +
            "\n");
    CHECK(import_labels(dump, a, two, folder.path / "l").labelled == 3);
    const LabelCache cache(folder.path / "l", a, two, LabelCoverage::some);
    std::vector<int64_t> id(8), drawn(8);
    std::vector<float> logp(8), tail(4);
    cache.read_hybrid(0, 0, 4, id.data(), logp.data(), tail.data(), drawn.data());
    CHECK(id == std::vector<int64_t>{6, 9, 2, -1, -1, -1, 1, 3});
    CHECK(drawn == std::vector<int64_t>{7, 8, 299, 299, -1, -1, -1, -1});
    CHECK(tail[3] == kNothing);
  }
}

TEST_SUITE("faults") {
  TEST_CASE("hybrid labels: other counts or another seed are another cache; it says what it is") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", {{5, 6, 7, 8}}, 300, 100);
    const TokenShards a(folder.path / "a");
    const LabelFingerprint good = fingerprint_of(a);
    LabelCacheWriter(folder.path / "l", a, good).write(0, labels_of({{0, 5}}, good));
    const auto refused = [&](const std::string& field, const std::function<void(LabelFingerprint&)>& change) {
      LabelFingerprint other = good;
      change(other);
      const Caught refusal = caught([&] { LabelCache(folder.path / "l", a, other, LabelCoverage::some); });
      INFO(refusal.text);
      CHECK(refusal.code == 3);
      CHECK(refusal.says(field));
    };
    CHECK(caught([&] { LabelCache(folder.path / "l", a, good, LabelCoverage::some); }).code == 0);
    refused("another draws: found 4, expected 8", [](auto& f) { f.draws = 8; });
    refused("another k: found 3, expected 8", [](auto& f) { f.k = 8; });
    refused("another draw_seed: found 5, expected 6", [](auto& f) { f.draw_seed = 6; });
    refused("another temperature", [](auto& f) { f.temperature = 2; });
    refused("another tier: found hybrid, expected topk", [](auto& f) { f.tier = "topk", f.code = "q8", f.draws = 0; });
    for (const Json& draws : {Json(0), Json(257), Json(-1), Json("4"), Json()}) {
      Json json = good.to_json();
      json["draws"] = draws;
      CHECK(caught([&] { LabelFingerprint::from_json(json, "x"); }).code == 3);
    }
    Json json = good.to_json();
    json.erase("draws");
    CHECK(caught([&] { LabelFingerprint::from_json(json, "x"); }).code == 3);
  }

  TEST_CASE("hybrid labels: rows that cannot be are refused, naming the token, whatever the hash says") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", {{5, 6, 7}}, 16, 100);
    const TokenShards a(folder.path / "a");  // four tokens
    const LabelFingerprint fingerprint = test::RawCodes::fingerprint(a, 2);
    const std::vector<uint8_t> good = {0b00110010, 0b11000111, 0b11, 22, 11, 22};  // as in "a row by hand"
    const auto refused = [&](const std::vector<uint8_t>& third, const std::string& word) {
      test::RawCodes codes{.row_bytes = 6, .draws = 2};
      for (const auto& row : {good, std::vector<uint8_t>(6, 0), third, good})
        codes.bytes.insert(codes.bytes.end(), row.begin(), row.end());
      codes.write(folder.path / "l", a);
      const Caught refusal = caught([&] { LabelCache(folder.path / "l", a, fingerprint, LabelCoverage::some); });
      INFO(refusal.text);
      CHECK(refusal.code == (word.empty() ? 0 : 3));
      CHECK(refusal.says(word));
      if (!word.empty()) CHECK(refusal.says("token 2"));
      CHECK(caught([&] { summarise_labels(folder.path / "l"); }).code == refusal.code);
    };
    refused(good, "");
    refused({0b00110010, 0b01000011, 0b0, 22, 11, 22}, "too few");                  // one draw
    refused({0b00110010, 0b11000111, 0b10, 22, 11, 22}, "draws are out of order");  // 3 and 2
    refused({0b00110010, 0b1, 0, 22, 11, 22}, "none of what its ids leave over");   // no draw of a quarter
    refused({0b00110010, 0b11000111, 0b11, 22, 6, 255}, "draws of nothing");        // two of nothing
    refused({0b00110010, 0b11001011, 0b1, 22, 11, 22}, "one of its ids");           // 3 and 5
    refused({0b00110010, 0b11000111, 0b111, 22, 11, 22}, "more than its ids");      // a bit behind them
    refused({0, 0b11000110, 0b11, 0, 0, 0}, "draws of nothing");                    // no ids, two draws
    refused({0, 0, 0, 0, 0, 255}, "probabilities of no ids");
  }

  TEST_CASE("hybrid labels: lines that hold other draws than they say are refused") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", {{5, 6}}, 300, 100);
    const TokenShards a(folder.path / "a");
    const auto refused = [&](const std::string& lists, const std::string& word) {
      const std::string line = fmt::format(R"({{"doc": "{:016x}", "tokens": [5, 6, 2], {}}})", 1000, lists);
      const Caught refusal = caught(
          [&] { import_labels(folder.write("x.jsonl", line + "\n"), a, fingerprint_of(a, 2, 2), folder.path / "l"); });
      INFO(refusal.text);
      CHECK(refusal.code == (word.empty() ? 0 : 3));
      CHECK(refusal.says(word));
    };
    const std::string head = R"("top_ids": [[1, 2], [3], []], "top_logprobs": [[-0.7, -1.4], [-0.5], []], )";
    refused(head + R"("tail_draws": [[5, 4], [2, 1], []])", "");
    refused(head + R"("tail_logprobs": [-1.37, -0.93, null])", "\"tail_draws\" is missing");
    refused(head + R"("tail_draws": [[5, 4], [2, 1]])", "\"tail_draws\" has 2 entries, expected 3");
    refused(head + R"("tail_draws": [[5], [2, 1], []])", "holds 1 ids at a token, expected 2 (draws = 2) or none");
    refused(head + R"("tail_draws": [[5, 4], [2, 3], []])",
            "draw 3 of what a token's ids leave over is one of these ids");
    refused(head + R"("tail_draws": [[5, 300], [2, 1], []])", "draw 300 is outside the vocabulary of 300");
    refused(head + R"("tail_draws": [[5, -4], [2, 1], []])", "no whole number from 0 on");
    refused(head + R"("tail_draws": [[], [2, 1], []])", "holds none at a token whose ids leave 0.26 over");
    refused(head + R"("tail_draws": [[5, 4], [2, 1], [7, 7]])", "draws at a token without ids");
    refused(head + R"("tail_draws": [[5, 4], null, []])", "\"tail_draws\" holds null at a token");
    refused(R"("top_ids": [[1], [3], []], "top_logprobs": [[-0.7], [0], []], "tail_draws": [[5, 4], [2, 1], []])",
            "holds draws at a token whose ids leave nothing over");
    refused(R"("top_ids": [[1], [3], []], "top_logprobs": [[-0.7], [0], []], "tail_draws": [[5, 4], [], []])", "");
    refused(R"("top_ids": [[1], [3], []], "top_logprobs": [[-0.01], [-0.7], []], "tail_logprobs": [-1e7, -0.7, null], )"
            R"("tail_draws": [[5, 4], [2, 1], []])",
            "leave nothing over");  // too small for half precision
    refused(R"("top_ids": [[1, 300], [3], []], "top_logprobs": [[-0.7, -1.4], [-0.7], []], )"
            R"("tail_draws": [[5, 4], [2, 1], []])",
            "id 300 is outside the vocabulary of 300");  // padded rows of an output table are not drawn from
  }
}
