// Labels of tier topk in fewer bytes (code q8): rows by hand, how far what is read lies from what was given, what they
// take, and that files which cannot be are refused by token.
#include "src/data/label_codes.h"

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

LabelFingerprint fingerprint_of(const TokenShards& shards, int64_t k, int64_t vocab_size = 300) {
  return {.teacher_sha256 = "a teacher",
          .tokenizer_sha256 = shards.tokenizer_sha256(),
          .vocab_size = vocab_size,
          .token_manifest_sha256 = shards.manifest_sha256(),
          .tier = "topk",
          .k = k,
          .code = "q8",
          .window_rule = "given",
          .context = 1};
}

/// What a token's label is given as and read as.
struct Label {
  std::vector<int32_t> id;
  std::vector<c10::Half> logp;
  c10::Half tail = kNothing;
};
struct ReadLabel {
  std::vector<int64_t> id;
  std::vector<float> logp;
  float tail = 0;
};

/// `count` ids of softmax-like probabilities, the most probable first, with their tail.
Label random_label(uint64_t k, uint64_t count, int64_t vocab_size, std::mt19937_64& random) {
  std::vector<int32_t> ids;
  while (ids.size() < count) {
    const auto id = static_cast<int32_t>(random() % static_cast<uint64_t>(vocab_size));
    if (std::ranges::find(ids, id) == ids.end()) ids.push_back(id);
  }
  std::normal_distribution<double> logits(0, 1 + static_cast<double>(random() % 4));
  std::vector<double> p(count + 1);
  double sum = 0;
  for (double& value : p) sum += value = std::exp(logits(random));
  std::ranges::sort(p.begin(), p.begin() + static_cast<std::ptrdiff_t>(count), std::ranges::greater{});
  Label label{.id = std::vector<int32_t>(k, kNoLabel), .logp = std::vector<c10::Half>(k, kNothing)};
  for (uint64_t i = 0; i < count; ++i) {
    label.id[i] = ids[i];
    label.logp[i] = static_cast<float>(std::log(p[i] / sum));
  }
  label.tail = static_cast<float>(std::log(p[count] / sum));
  return label;
}

std::vector<uint8_t> row_of(const LabelCode& code, const Label& label) {
  std::vector<uint8_t> row(code.row_bytes(), 0);
  code.write({.id = label.id.data(), .logp = label.logp.data(), .tail = label.tail, .drawn = nullptr}, row.data());
  return row;
}
ReadLabel read_row(const LabelCode& code, uint64_t k, const std::vector<uint8_t>& row) {
  ReadLabel label{.id = std::vector<int64_t>(k), .logp = std::vector<float>(k)};
  LabelRow place{.id = label.id.data(), .logp = label.logp.data(), .tail = 0, .drawn = nullptr};
  const char* complaint = code.read(row.data(), place);
  REQUIRE_MESSAGE(complaint == nullptr, complaint);
  label.tail = place.tail;
  return label;
}

/// Labels of every token but the first of these runs, and a hole in the middle of each.
ShardLabels labels_of(const TokenRuns& runs, const LabelFingerprint& fingerprint, uint64_t seed) {
  ShardLabels labels(runs, fingerprint);
  std::mt19937_64 random(seed);
  const auto k = static_cast<uint64_t>(fingerprint.k);
  for (uint64_t row = 0; row < labels.tail.size(); ++row) {
    const uint64_t count = row % 5 == 3 ? 1 + random() % k : k;
    const Label label = random_label(k, count, fingerprint.vocab_size, random);
    if (row == 0 || row == labels.tail.size() / 2) continue;
    std::ranges::copy(label.id, labels.id.begin() + static_cast<std::ptrdiff_t>(row * k));
    std::ranges::copy(label.logp, labels.logp.begin() + static_cast<std::ptrdiff_t>(row * k));
    labels.tail[row] = label.tail;
  }
  return labels;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("label codes: a row by hand") {
    // ids 14 and 5 of sixteen with 1/2 and 1/4: -16 log p = 11.09 and 22.18; the ids as in sorted_ids_test
    const LabelCode code(2, 0, 16);
    const Label label{.id = {14, 5}, .logp = {std::log(0.5f), std::log(0.25f)}, .tail = std::log(0.25f)};
    REQUIRE(code.row_bytes() == 5);
    const std::vector<uint8_t> row = row_of(code, label);
    CHECK(row == std::vector<uint8_t>{0b00110010, 0b1, 22, 11, 22});
    const ReadLabel read = read_row(code, 2, row);
    CHECK(read.id == std::vector<int64_t>{14, 5});
    CHECK(read.logp == std::vector<float>{-0.6875f, -1.375f});
    CHECK(read.tail == -1.375f);
    // one id alone, nothing left over; and no label
    CHECK(row_of(code, {.id = {14, kNoLabel}, .logp = {0.0f, kNothing}}) ==
          std::vector<uint8_t>{0b01001000, 0, 0, 0, 255});
    const std::vector<uint8_t> none = row_of(code, {.id = {kNoLabel, kNoLabel}, .logp = {kNothing, kNothing}});
    CHECK(none == std::vector<uint8_t>(5, 0));
    CHECK(read_row(code, 2, none).id == std::vector<int64_t>{kNoLabel, kNoLabel});
    CHECK(read_row(code, 2, none).tail == kNothing);
  }

  TEST_CASE("label codes: the first id stays the first where others have its byte") {
    const LabelCode code(3, 0, 16);
    const auto codes = [&](float first, float second, float third) {
      const std::vector<uint8_t> row =
          row_of(code, {.id = {9, 3, 12}, .logp = {first, second, third}, .tail = kNothing});
      const ReadLabel read = read_row(code, 3, row);
      CHECK(read.id[0] == 9);
      std::vector<int> found;
      for (const float logp : read.logp) found.push_back(static_cast<int>(-16 * logp));
      return found;
    };
    CHECK(codes(-0.7f, -0.71f, -1.5f) == std::vector<int>{11, 12, 24});  // 11.2 and 11.36: the others go down
    CHECK(codes(-0.68f, -0.7f, -0.7f) == std::vector<int>{10, 11, 11});  // 10.88 and 11.2: it goes up
    CHECK(codes(-0.7f, -0.7f, -0.74f) == std::vector<int>{11, 12, 12});  // of equal ones the first; 12 is another's
    CHECK(codes(0.0f, -0.01f, -9.0f) == std::vector<int>{0, 1, 144});    // nothing is above 1
    CHECK(codes(-20.0f, -21.0f, -22.0f) == std::vector<int>{254, 255, 255});
  }

  TEST_CASE("label codes: probabilities within the stated bounds, ids all of them, the first one first") {
    std::mt19937_64 random(7);
    double largest = 0, largest_tied = 0;
    for (const auto& [k, vocab_size] : {std::pair<uint64_t, int64_t>{1, 300}, {4, 4096}, {16, 49'152}, {64, 151'936}}) {
      CAPTURE(k);
      const LabelCode code(k, 0, static_cast<uint64_t>(vocab_size));
      for (int round = 0; round < 300; ++round) {
        const uint64_t count = round % 7 == 0 ? 1 + random() % k : k;
        const Label label = random_label(k, count, vocab_size, random);
        const std::vector<uint8_t> row = row_of(code, label);
        const ReadLabel read = read_row(code, k, row);
        REQUIRE(read.id[0] == label.id[0]);
        CHECK(std::ranges::is_sorted(read.logp, std::ranges::greater{}));
        if (count > 1) CHECK(read.logp[0] > read.logp[1]);
        for (uint64_t i = 0; i < k; ++i) {
          if (i >= count) {
            REQUIRE(read.id[i] == kNoLabel);
            REQUIRE(read.logp[i] == kNothing);
            continue;
          }
          const auto at = static_cast<size_t>(std::ranges::find(read.id, label.id[i]) - read.id.begin());
          REQUIRE(at < count);
          const float given = label.logp[i], error = std::abs(read.logp[at] - given);
          if (given < -15.95f) {
            CHECK(read.logp[at] == -15.9375f);
          } else if (label.logp[0] - given < 1.0f / 16) {  // within a step of the first
            largest_tied = std::max(largest_tied, double{error});
          } else {
            largest = std::max(largest, double{error});
          }
        }
        if (label.tail >= -15.9f) CHECK(std::abs(read.tail - static_cast<float>(label.tail)) <= 1.0f / 32);
        // written again as it was read it is the same row
        Label again{.id = std::vector<int32_t>(read.id.begin(), read.id.end()), .logp = {}, .tail = read.tail};
        for (const float logp : read.logp) again.logp.push_back(logp);
        REQUIRE(row_of(code, again) == row);
      }
    }
    CHECK(largest <= 1.0 / 32);
    CHECK(largest >= 1.0 / 40);  // the bound is reached, not far above
    CHECK(largest_tied <= 1.0 / 16);
  }

  TEST_CASE(
      "label codes: a small tail is kept, none is told from it, and probabilities add up to 1 where they are used") {
    const LabelCode code(2, 0, 300);
    const auto tail_of = [&](float tail) {
      return read_row(code, 2, row_of(code, {.id = {8, 9}, .logp = {-0.1f, -2.3f}, .tail = tail})).tail;
    };
    CHECK(tail_of(-6.0f) == -6.0f);
    CHECK(tail_of(-40.0f) == -15.875f);
    CHECK(tail_of(kNothing) == kNothing);
    std::array<float, 3> logp = {std::log(0.5f), std::log(0.3f), kNothing};
    float tail = std::log(0.22f);
    normalise(logp.data(), 3, tail);
    CHECK(std::exp(logp[0]) == doctest::Approx(0.5 / 1.02));
    CHECK(std::exp(tail) == doctest::Approx(0.22 / 1.02));
    CHECK(logp[2] == kNothing);
    tail = kNothing;
    std::array<float, 1> alone = {-0.0625f};
    normalise(alone.data(), 1, tail);
    CHECK(alone[0] == doctest::Approx(0).epsilon(1e-6));
    CHECK(tail == kNothing);
  }

  TEST_CASE("label codes: bytes a token") {
    for (const auto& [vocab_size, k, bytes] : {std::tuple<int64_t, int64_t, uint64_t>{4096, 4, 11},
                                               {4096, 8, 20},
                                               {4096, 16, 37},
                                               {4096, 64, 129},
                                               {49'152, 4, 13},
                                               {49'152, 8, 24},
                                               {49'152, 16, 44},
                                               {49'152, 64, 157},
                                               {65'535, 4, 13},
                                               {65'535, 8, 24},
                                               {65'535, 16, 45},
                                               {65'535, 64, 161},
                                               {151'936, 16, 48}}) {
      const LabelFingerprint fingerprint{.vocab_size = vocab_size, .tier = "topk", .k = k, .code = "q8"};
      CHECK(label_row_bytes(fingerprint) == bytes);
      CHECK(most_label_row_bytes(fingerprint) == bytes);
      CHECK(bytes < label_row_bytes({.vocab_size = vocab_size, .tier = "topk", .k = k}));
    }
    const ScratchFolder folder;
    std::vector<std::vector<int32_t>> documents(256, std::vector<int32_t>(1023, 7));  // 256 Ki tokens with their ends
    test::write_documents(folder.path / "a", documents, 300, 1 << 20);
    const TokenShards a(folder.path / "a");
    for (const auto& [k, bytes] : {std::pair<int64_t, double>{4, 13}, {16, 44}}) {
      const LabelFingerprint fingerprint = fingerprint_of(a, k, 49'152);
      ShardLabels labels(a.num_tokens(), fingerprint);
      for (uint64_t row = 0; row < a.num_tokens(); ++row)
        for (uint64_t j = 0; j < static_cast<uint64_t>(k); ++j) {
          labels.id[row * static_cast<uint64_t>(k) + j] = static_cast<int32_t>((row * 7919 + j * 104'729) % 49'152);
          labels.logp[row * static_cast<uint64_t>(k) + j] = -0.6931472f * static_cast<float>(j + 1);
          labels.tail[row] = -0.6931472f * static_cast<float>(k);
        }
      const auto path = folder.path / std::to_string(k);
      LabelCacheWriter(path, a, fingerprint).write(0, labels);
      const double per_token =
          static_cast<double>(LabelCache(path, a, fingerprint).bytes()) / static_cast<double>(a.num_tokens());
      MESSAGE(k << " ids: " << per_token << " bytes a token");
      CHECK(per_token >= bytes);
      CHECK(per_token < 1.01 * bytes);
    }
  }

  TEST_CASE("label codes: files whole and packed are read at any token as their rows say, by both readers") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", std::vector<std::vector<int32_t>>(60, std::vector<int32_t>(29, 7)), 300,
                          700);
    const TokenShards a(folder.path / "a");
    REQUIRE(a.shards().size() >= 3);
    const LabelFingerprint fingerprint = fingerprint_of(a, 5);
    const LabelCode code(5, 0, 300);
    std::vector<ShardLabels> written;
    {
      LabelCacheWriter writer(folder.path / "l", a, fingerprint);
      for (size_t shard = 0; shard < a.shards().size(); ++shard) {
        const uint64_t tokens = a.shards()[shard].tokens;
        const TokenRuns runs = shard == 1 ? TokenRuns{{10, 40}, {200, 207}} : TokenRuns{{0, tokens}};
        written.push_back(labels_of(runs, fingerprint, shard));
        writer.write(shard, written.back());
      }
    }
    const Json manifest = read_json(folder.path / "l/manifest.json");
    CHECK(manifest["version"] == 4);
    CHECK(manifest["fingerprint"]["code"] == "q8");
    CHECK(summarise_labels(folder.path / "l").fingerprint.to_json() == fingerprint.to_json());
    const LabelCache cache(folder.path / "l", a, fingerprint, LabelCoverage::some);
    CHECK(cache.labelled() == summarise_labels(folder.path / "l").labelled);
    for (size_t shard = 0; shard < a.shards().size(); ++shard) {
      const uint64_t tokens = a.shards()[shard].tokens;
      const ShardLabels& labels = written[shard];
      std::vector<int64_t> first(tokens), id(5 * tokens), part_id(5 * 7);
      std::vector<float> logp(5 * tokens), tail(tokens), part_logp(5 * 7), part_tail(7);
      cache.read(shard, 0, tokens, first.data());
      cache.read_top_k(shard, 0, tokens, id.data(), logp.data(), tail.data());
      uint64_t row = 0;
      std::vector<bool> known(tokens, false);
      for (const TokenRun& run : labels.runs)
        for (uint64_t token = run.begin; token < run.end; ++token, ++row) {
          known[token] = true;
          std::vector<uint8_t> bytes(code.row_bytes(), 0);
          code.write({.id = labels.id.data() + 5 * row,
                      .logp = labels.logp.data() + 5 * row,
                      .tail = labels.tail[row],
                      .drawn = nullptr},
                     bytes.data());
          const ReadLabel wanted = read_row(code, 5, bytes);
          CHECK(first[token] == wanted.id[0]);
          CHECK(std::equal(wanted.id.begin(), wanted.id.end(), id.begin() + static_cast<std::ptrdiff_t>(5 * token)));
          CHECK(std::equal(wanted.logp.begin(), wanted.logp.end(),
                           logp.begin() + static_cast<std::ptrdiff_t>(5 * token)));
          CHECK(tail[token] == wanted.tail);
        }
      for (uint64_t token = 0; token < tokens; ++token)
        if (!known[token]) CHECK(first[token] == kNoLabel);
      for (const uint64_t begin : {uint64_t{0}, uint64_t{5}, uint64_t{36}, uint64_t{203}, tokens - 7}) {
        cache.read_top_k(shard, begin, 7, part_id.data(), part_logp.data(), part_tail.data());
        CHECK(std::equal(part_id.begin(), part_id.end(), id.begin() + static_cast<std::ptrdiff_t>(5 * begin)));
        CHECK(std::equal(part_logp.begin(), part_logp.end(), logp.begin() + static_cast<std::ptrdiff_t>(5 * begin)));
      }
    }
    // a batch's probabilities add up to 1
    Loader loader({&a}, {{"a", 1.0}}, {.seq_len = 16, .seed = 5});
    const Batch batch = loader.next(8);
    const TeacherSignal signal = stored_signal({&cache}, batch, {.loss = "top_k", .hidden_layers = {}}, true);
    const at::Tensor given = signal.top.id_NK.ge(0), labelled_N = given.select(1, 0);
    CHECK(labelled_N.any().item<bool>());
    const at::Tensor mass_N =
        (signal.top.logp_NK.to(at::kDouble).exp() * given).sum(1) + signal.top.tail_logp_N.to(at::kDouble).exp();
    CHECK((mass_N - 1).masked_select(labelled_N).abs().max().item<double>() <= 1e-6);
    CHECK(signal.top.logp_NK.isnan().sum().item<int64_t>() == 0);
  }

  TEST_CASE("label codes: out as JSONL and in again is the same cache; another program's come in") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", {{5, 6, 7}, {8, 9}, {10, 11, 12, 13}, {14}}, 300, 8);
    const TokenShards a(folder.path / "a");
    REQUIRE(a.shards().size() >= 2);
    const LabelFingerprint fingerprint = fingerprint_of(a, 4);
    {
      LabelCacheWriter writer(folder.path / "first", a, fingerprint);
      for (size_t shard = 0; shard < a.shards().size(); ++shard)
        writer.write(shard, labels_of({{0, a.shards()[shard].tokens}}, fingerprint, shard));
    }
    const auto file = folder.path / "out.jsonl";
    const LabelTransfer out = export_labels(folder.path / "first", a, file),
                        in = import_labels(file, a, fingerprint, folder.path / "second");
    CHECK(out.labelled == a.num_tokens() - 2 * a.shards().size());
    CHECK(in.labelled == out.labelled);
    CHECK(read_label_header(file)->to_json() == fingerprint.to_json());
    for (const auto& entry : std::filesystem::directory_iterator(folder.path / "first"))
      if (const std::string name = entry.path().filename().string(); !name.starts_with("."))
        CHECK(slurp(folder.path / "second" / name) == slurp(entry.path()));

    const auto dump = folder.write(
        "dump.jsonl",
        fmt::format(R"({{"doc": "{:016x}", "tokens": [5, 6, 7, 2], "top_ids": [[6, 9], [2], [], [1]], )", 1000) +
            R"("top_logprobs": [[-0.5, -1.5], [-0.25], [], [0]]})" + "\n");
    CHECK(import_labels(dump, a, fingerprint, folder.path / "l").labelled == 3);
    const LabelCache cache(folder.path / "l", a, fingerprint, LabelCoverage::some);
    std::vector<int64_t> id(16);
    std::vector<float> logp(16), tail(4);
    cache.read_top_k(0, 0, 4, id.data(), logp.data(), tail.data());
    CHECK(id == std::vector<int64_t>{6, 9, -1, -1, 2, -1, -1, -1, -1, -1, -1, -1, 1, -1, -1, -1});
    CHECK(logp[1] == -1.5f);
    CHECK(tail[0] == doctest::Approx(std::log(1 - std::exp(-0.5) - std::exp(-1.5))).epsilon(0.02));
    CHECK(tail[3] == kNothing);
  }
}

TEST_SUITE("faults") {
  TEST_CASE("label codes: another code is another cache, either way; only tier topk has one") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", {{5, 6, 7, 8}}, 300, 100);
    const TokenShards a(folder.path / "a");
    const LabelFingerprint coded = fingerprint_of(a, 4);
    LabelFingerprint plain = coded;
    plain.code = "f16";
    LabelCacheWriter(folder.path / "q8", a, coded).write(0, labels_of({{0, 5}}, coded, 1));
    LabelCacheWriter(folder.path / "f16", a, plain).write(0, labels_of({{0, 5}}, plain, 1));
    CHECK_FALSE(read_json(folder.path / "f16/manifest.json")["fingerprint"].contains("code"));
    const auto open = [&](const char* name, const LabelFingerprint& expected) {
      return caught([&] { LabelCache(folder.path / name, a, expected, LabelCoverage::some); });
    };
    CHECK(open("q8", coded).code == 0);
    CHECK(open("q8", plain).says("another code: found q8, expected f16"));
    CHECK(open("f16", coded).says("another code: found f16, expected q8"));
    CHECK(open("q8", plain).code == 3);
    Json json = coded.to_json();
    json["code"] = "q3";
    CHECK(caught([&] { LabelFingerprint::from_json(json, "x"); }).says("with code 'q3'"));
    json = coded.to_json();
    json["tier"] = "top1_prob";
    json["k"] = 1;
    CHECK(caught([&] { LabelFingerprint::from_json(json, "x"); }).code == 3);
  }

  TEST_CASE("label codes: rows that cannot be are refused, naming the token, whatever the hash says") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", {{5, 6, 7}}, 16, 100);
    const TokenShards a(folder.path / "a");  // four tokens
    const LabelFingerprint fingerprint = test::RawCodes::fingerprint(a);
    const auto opened = [&](const test::RawCodes& codes) {
      codes.write(folder.path / "l", a);
      const Caught opening = caught([&] { LabelCache(folder.path / "l", a, fingerprint, LabelCoverage::some); });
      const Caught telling = caught([&] { summarise_labels(folder.path / "l"); });
      CHECK(opening.code == telling.code);
      return opening;
    };
    // rows of five bytes as in "a row by hand"
    const std::vector<uint8_t> good = {0b00110010, 0b1, 22, 11, 22}, none(5, 0);
    const auto refused = [&](const std::vector<uint8_t>& third, const std::string& word) {
      test::RawCodes codes;
      for (const auto& row : {good, none, third, good}) codes.bytes.insert(codes.bytes.end(), row.begin(), row.end());
      const Caught refusal = opened(codes);
      INFO(refusal.text);
      CHECK(refusal.code == (word.empty() ? 0 : 3));
      CHECK(refusal.says(word));
      if (!word.empty()) CHECK(refusal.says("token 2"));
    };
    refused(good, "");
    refused({0b00000110, 0b0, 11, 22, 22}, "an id stands twice");       // 4 and 4
    refused({0b00000110 | 0b100000, 0b0, 11, 22, 22}, "out of order");  // 5 and 4
    refused({0b00011100, 0b0, 11, 22, 22}, "out of order or outside");  // three ids
    refused({0b00110010, 0b11, 22, 11, 22}, "more than its ids");       // a bit behind them
    refused({0b01001000, 0, 11, 22, 11}, "probabilities of no ids");    // one id, two probabilities
    refused({0, 0, 0, 0, 16}, "probabilities of no ids");               // a tail of no label
    refused({0b00110010, 0b1, 60, 60, 60}, "token 2 and their tail add up to 0.07");
    refused({0b00110010, 0b1, 2, 2, 22}, "token 2 and their tail add up to 2.0");
    test::RawCodes codes{.bytes = std::vector<uint8_t>(15, 0), .rows = 3};
    CHECK(opened(codes).says("another type or shape"));
    codes = {.bytes = std::vector<uint8_t>(24, 0), .rows = 4, .row_bytes = 6};
    CHECK(opened(codes).says("another type or shape"));
  }

  TEST_CASE("label codes: a vocabulary that ids do not fit is refused by token") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", {{5, 6, 7}}, 16, 100);
    const TokenShards a(folder.path / "a");
    test::RawCodes codes;
    for (int row = 0; row < 4; ++row) codes.bytes.insert(codes.bytes.end(), {0b00110010, 0b1, 22, 11, 22});  // 5 and 14
    codes.write(folder.path / "l", a);
    Json manifest = read_json(folder.path / "l/manifest.json");
    manifest.erase("sha256");
    manifest["fingerprint"]["vocab_size"] = 14;  // as many bits
    write_file_atomically(folder.path / "l/manifest.json", seal(manifest));
    const Caught outside = caught([&] { summarise_labels(folder.path / "l"); });
    INFO(outside.text);
    CHECK(outside.says("the label of token 0 is none: its ids are out of order or outside the vocabulary"));
  }
}
