// Labels follow their tokens, under any batch size, length, seed and order; and a cache that does not fit is refused by
// name.
#include "src/data/label_cache.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <tuple>

#include "src/base/errors.h"
#include "src/data/label_cache_writer.h"
#include "src/data/loader.h"
#include "src/data/teacher_signal.h"
#include "tests/data/data_files.h"

namespace coppice {

namespace {

constexpr int64_t kVocab = 300;

/// A label that tells its shard and offset.
int32_t label_at(size_t shard, uint64_t offset, int64_t vocab_size = kVocab) {
  return static_cast<int32_t>((offset * 7919 + shard * 104'729 + 13) % static_cast<uint64_t>(vocab_size));
}

std::vector<std::vector<int32_t>> some_documents(int count, int length) {
  std::vector<std::vector<int32_t>> documents(static_cast<size_t>(count));
  int next = 0;
  for (auto& document : documents)
    for (int i = 0; i < length + next % 5; ++i) document.push_back(3 + next++ % 290);
  return documents;
}

LabelFingerprint fingerprint_of(const TokenShards& shards, int64_t vocab_size = kVocab) {
  LabelFingerprint fingerprint;
  fingerprint.teacher_sha256 = std::string(64, 'a');
  fingerprint.tokenizer_sha256 = shards.tokenizer_sha256();
  fingerprint.vocab_size = vocab_size;
  fingerprint.token_manifest_sha256 = shards.manifest_sha256();
  fingerprint.context = 16;
  fingerprint.overlap = 4;
  return fingerprint;
}

std::vector<int32_t> labels_of(const TokenShards& shards, size_t shard, int64_t vocab_size = kVocab) {
  std::vector<int32_t> labels(shards.shards()[shard].tokens);
  for (uint64_t i = 0; i < labels.size(); ++i) labels[i] = label_at(shard, i, vocab_size);
  return labels;
}

void write_cache(const std::filesystem::path& folder, const TokenShards& shards, const LabelFingerprint& fingerprint) {
  LabelCacheWriter writer(folder, shards, fingerprint);
  for (size_t shard = 0; shard < shards.shards().size(); ++shard)
    if (const auto claim = writer.claim(shard); claim && !writer.has(shard))
      writer.write(shard, labels_of(shards, shard, fingerprint.vocab_size));
}

/// Probabilities that tell their token: halves, quarters, ... from id label_at() on, with a tail; every seventh token
/// has fewer than k ids.
ShardLabels top_k_of(const TokenShards& shards, size_t shard, const LabelFingerprint& fingerprint) {
  const uint64_t tokens = shards.shards()[shard].tokens;
  const auto k = static_cast<uint64_t>(fingerprint.k);
  ShardLabels labels(tokens, fingerprint);
  for (uint64_t i = 0; i < tokens; ++i) {
    const uint64_t count = i % 7 == 3 ? 1 : k;
    double mass = 0;
    for (uint64_t j = 0; j < k; ++j) {
      const double p = std::exp2(-static_cast<double>(j + 1));
      labels.id[i * k + j] =
          j < count ? (label_at(shard, i) + static_cast<int32_t>(j)) % static_cast<int32_t>(fingerprint.vocab_size)
                    : kNoLabel;
      labels.logp[i * k + j] = j < count ? static_cast<float>(std::log(p)) : -60000.0f;
      mass += j < count ? p : 0;
    }
    if (fingerprint.has_tail()) labels.tail[i] = static_cast<float>(std::log(1 - mass));
  }
  return labels;
}

struct Layout {
  int64_t rows, seq_len;
  uint64_t seed;
  bool document_mask;
};

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("label cache: one cache, three layouts, the same label under every (shard, offset)") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", some_documents(60, 20), kVocab, 300, "a");
    test::write_documents(folder.path / "b", some_documents(30, 33), kVocab, 500, "b");
    const TokenShards a(folder.path / "a"), b(folder.path / "b");
    REQUIRE(a.shards().size() > 3);
    write_cache(folder.path / "la", a, fingerprint_of(a));
    write_cache(folder.path / "lb", b, fingerprint_of(b));
    const LabelCache labels_a(folder.path / "la", a, fingerprint_of(a)),
        labels_b(folder.path / "lb", b, fingerprint_of(b));
    std::map<std::tuple<int, int, uint64_t>, int64_t> first;
    size_t num_compared = 0;
    for (const Layout& layout : {Layout{4, 16, 1, false}, Layout{7, 9, 2, true}, Layout{1, 64, 33, false}}) {
      Loader loader({&a, &b}, {{"a", 0.6}, {"b", 0.4}},
                    {.seq_len = layout.seq_len, .document_mask = layout.document_mask, .seed = layout.seed});
      for (int i = 0; i < 200; ++i) {
        const Batch batch = loader.next(layout.rows);
        const at::Tensor labels = lookup_labels({&labels_a, &labels_b}, batch);
        REQUIRE(labels.sizes() == batch.token_BT.sizes());
        for (const Span& span : batch.spans) {
          for (int32_t t = 0; t < span.length; ++t) {
            const int64_t label = labels.const_data_ptr<int64_t>()[span.row * layout.seq_len + span.column + t];
            const auto key = std::tuple(span.domain, span.shard, span.offset + static_cast<uint64_t>(t));
            const bool is_new = first.emplace(key, label).second;
            num_compared += !is_new;
            CHECK(first[key] == label);
            CHECK(label == label_at(static_cast<size_t>(span.shard), span.offset + static_cast<uint64_t>(t)));
          }
        }
      }
    }
    CHECK(num_compared > 3000);
  }

  TEST_CASE("label cache: no label reads as ignored; a domain without labels is all ignored") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", {{5, 6, 7, 8, 9, 10, 11, 12}}, kVocab, 300);
    const TokenShards a(folder.path / "a");
    LabelFingerprint fingerprint = fingerprint_of(a);
    fingerprint.window_rule = "aligned";
    fingerprint.context = 4;
    {
      LabelCacheWriter writer(folder.path / "l", a, fingerprint);
      // 9 tokens: windows [0, 4), [4, 8); token 8 has no window
      writer.write(0, {1, 2, 3, 4, 5, 6, 7, 8, kNoLabel});
    }
    const LabelCache cache(folder.path / "l", a, fingerprint);
    std::vector<int64_t> labels(9);
    cache.read(0, 0, 9, labels.data());
    CHECK(labels == std::vector<int64_t>{1, 2, 3, 4, 5, 6, 7, 8, kNoLabel});
    WindowReader reader(a, 8, false);
    Batch batch;
    REQUIRE(reader.next(1, batch));
    CHECK(lookup_labels({&cache}, batch).const_data_ptr<int64_t>()[7] == 8);
    CHECK(lookup_labels({nullptr}, batch).const_data_ptr<int64_t>()[7] == kIgnoredLabel);
    CHECK(labels_below({&cache}) == 300);
    CHECK(labels_below({nullptr, &cache}) == 300);
    CHECK(labels_below({nullptr}) == 0);

    const auto faults_of = [&](const Batch& read, const LabelCache* from) {
      return stored_signal({from}, read, {}, /*some=*/false).faults.item<int64_t>();
    };
    CHECK(faults_of(batch, &cache) == 0);
    CHECK(faults_of(batch, nullptr) == 8);
    batch.true_label_BT.select(1, 3).fill_(kIgnoredLabel);  // whose next token does not count
    CHECK(faults_of(batch, nullptr) == 7);
    CHECK_FALSE(stored_signal({nullptr}, batch, {}, /*some=*/true).faults.defined());
    CHECK_NOTHROW(check_labelled(0, "labels"));
    CHECK_THROWS_WITH_AS(check_labelled(7, "labels"),
                         doctest::Contains("7 positions of a batch have no label of 'labels'"), InternalError);
  }

  TEST_CASE("label cache: two bytes up to 65,535 pieces, else three, and less than 1% beside them") {
    const ScratchFolder folder;
    std::vector<std::vector<int32_t>> documents(1024, std::vector<int32_t>(1023, 7));  // 1 Mi tokens with their ends
    test::write_documents(folder.path / "a", documents, kVocab, 1 << 20);
    const TokenShards a(folder.path / "a");
    REQUIRE(a.num_tokens() == 1 << 20);
    for (const auto& [vocab_size, width] : {std::pair<int64_t, double>{65'535, 2}, {151'936, 3}}) {
      const auto path = folder.path / std::to_string(vocab_size);
      write_cache(path, a, fingerprint_of(a, vocab_size));
      const LabelCache cache(path, a, fingerprint_of(a, vocab_size));
      const double bytes_per_token = static_cast<double>(cache.bytes()) / static_cast<double>(a.num_tokens());
      MESSAGE(vocab_size << " pieces: " << bytes_per_token << " bytes a token");
      CHECK(bytes_per_token < 1.01 * width);
      CHECK(bytes_per_token >= width);
      std::vector<int64_t> labels(1000);
      cache.read(0, 500'000, 1000, labels.data());
      for (uint64_t i = 0; i < 1000; ++i) CHECK(labels[i] == label_at(0, 500'000 + i, vocab_size));
    }
  }

  TEST_CASE("label cache: labelling goes on where it stopped, and interruptions leave no trace") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", some_documents(20, 20), kVocab, 100);
    const TokenShards a(folder.path / "a");
    const size_t count = a.shards().size();
    REQUIRE(count >= 4);
    write_cache(folder.path / "straight", a, fingerprint_of(a));
    for (const size_t shard : {size_t{2}, size_t{0}}) {
      LabelCacheWriter writer(folder.path / "l", a, fingerprint_of(a));
      writer.write(shard, labels_of(a, shard));
    }
    folder.write("l/shard-00001.h5", "left by a run that died before its manifest");
    folder.write("l/.tmp-shard-00003.h5-1", "left over");
    {
      std::fstream file(folder.path / "l/shard-00002.h5", std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(1000);
      file.put('!');
    }
    CHECK_FALSE(std::filesystem::exists(folder.path / "l/.lock-shard-00000"));
    const LabelCacheWriter writer(folder.path / "l", a, fingerprint_of(a));
    CHECK(writer.has(0));
    CHECK_FALSE(writer.has(1));
    CHECK_FALSE(writer.has(2));
    CHECK_FALSE(writer.has(3));
    write_cache(folder.path / "l", a, fingerprint_of(a));
    for (const auto& entry : std::filesystem::directory_iterator(folder.path / "l"))
      CHECK(slurp(entry.path()) == slurp(folder.path / "straight" / entry.path().filename()));
  }
}

TEST_SUITE("unit") {
  TEST_CASE(
      "label cache: top-k with its tail comes back, two and four bytes an id; its first id serves readers of labels") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", some_documents(60, 20), kVocab, 300, "a");
    const TokenShards a(folder.path / "a");
    for (const int64_t vocab_size : {kVocab, int64_t{70'000}}) {
      LabelFingerprint fingerprint = fingerprint_of(a, vocab_size);
      fingerprint.tier = "topk";
      fingerprint.k = 5;
      const auto path = folder.path / std::to_string(vocab_size);
      {
        LabelCacheWriter writer(path, a, fingerprint);
        for (size_t shard = 0; shard < a.shards().size(); ++shard) writer.write(shard, top_k_of(a, shard, fingerprint));
      }
      const LabelCache cache(path, a, fingerprint);
      CHECK(cache.k() == 5);
      Loader loader({&a}, {{"a", 1.0}}, {.seq_len = 16, .seed = 5});
      for (int i = 0; i < 20; ++i) {
        const Batch batch = loader.next(3);
        const TopK top = lookup_top_k({&cache}, batch);
        const at::Tensor labels = lookup_labels({&cache}, batch);
        CHECK(labels.reshape({-1}).equal(top.id_NK.select(1, 0)));
        for (const Span& span : batch.spans) {
          const ShardLabels wanted = top_k_of(a, static_cast<size_t>(span.shard), fingerprint);
          for (int32_t t = 0; t < span.length; ++t)
            for (int64_t j = 0; j < 5; ++j) {
              const int64_t row = span.row * 16 + span.column + t;
              const size_t at = (span.offset + static_cast<uint64_t>(t)) * 5 + static_cast<size_t>(j);
              CHECK(top.id_NK[row][j].item<int64_t>() == (wanted.id[at] == kNoLabel ? kIgnoredLabel : wanted.id[at]));
              CHECK(top.logp_NK[row][j].item<float>() == static_cast<float>(wanted.logp[at]));
              if (j == 0) CHECK(top.tail_logp_N[row].item<float>() == static_cast<float>(wanted.tail[at / 5]));
            }
        }
      }
    }
  }

  TEST_CASE("label cache: a probability beside the top-1 label leaves the rest as its tail") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", {{5, 6, 7}}, kVocab, 300);
    const TokenShards a(folder.path / "a");
    LabelFingerprint fingerprint = fingerprint_of(a);
    fingerprint.tier = "top1_prob";
    ShardLabels labels(4, fingerprint);
    labels.id = {1, 2, 3, 4};
    for (size_t i = 0; i < 4; ++i) labels.logp[i] = i == 2 ? 0.0f : -1.0f;
    LabelCacheWriter(folder.path / "l", a, fingerprint).write(0, labels);
    const LabelCache cache(folder.path / "l", a, fingerprint);
    std::vector<int64_t> id(4);
    std::vector<float> logp(4), tail(4);
    cache.read_top_k(0, 0, 4, id.data(), logp.data(), tail.data());
    CHECK(id == std::vector<int64_t>{1, 2, 3, 4});
    CHECK(logp[0] == -1.0f);
    CHECK(tail[0] == doctest::Approx(std::log(1 - std::exp(-1.0))));
    CHECK(tail[2] == -std::numeric_limits<float>::infinity());
  }

  TEST_CASE("label cache: bytes a token of the finer tiers") {
    const ScratchFolder folder;
    std::vector<std::vector<int32_t>> documents(256, std::vector<int32_t>(1023, 7));  // 256 Ki tokens with their ends
    test::write_documents(folder.path / "a", documents, kVocab, 1 << 20);
    const TokenShards a(folder.path / "a");
    for (const auto& [tier, k, vocab_size, width] :
         {std::tuple<const char*, int64_t, int64_t, double>{"top1_prob", 1, 65'535, 4},
          {"top1_prob", 1, 151'936, 5},
          {"topk", 8, 65'535, 34},
          {"topk", 8, 151'936, 50}}) {
      LabelFingerprint fingerprint = fingerprint_of(a, vocab_size);
      fingerprint.tier = tier;
      fingerprint.k = k;
      const auto path = folder.path / (std::string(tier) + std::to_string(vocab_size));
      LabelCacheWriter(path, a, fingerprint).write(0, top_k_of(a, 0, fingerprint));
      const double bytes_per_token =
          static_cast<double>(LabelCache(path, a, fingerprint).bytes()) / static_cast<double>(a.num_tokens());
      MESSAGE(std::string(tier) << ", " << vocab_size << " pieces: " << bytes_per_token << " bytes a token");
      CHECK(bytes_per_token < 1.01 * width);
      CHECK(bytes_per_token >= width);
    }
  }

  TEST_CASE("label cache: two writers share the shards, and the result is that of one") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", some_documents(20, 20), kVocab, 100);
    const TokenShards a(folder.path / "a");
    write_cache(folder.path / "one", a, fingerprint_of(a));
    LabelCacheWriter first(folder.path / "l", a, fingerprint_of(a)), second(folder.path / "l", a, fingerprint_of(a));
    for (size_t shard = 0; shard < a.shards().size(); ++shard) {
      LabelCacheWriter &mine = shard % 2 ? second : first, &other = shard % 2 ? first : second;
      const auto claim = mine.claim(shard);
      REQUIRE(claim);
      CHECK_FALSE(mine.has(shard));
      CHECK(other.claim(shard) == nullptr);  // taken
      mine.write(shard, labels_of(a, shard));
      CHECK_FALSE(other.has(shard));
    }
    for (size_t shard = 0; shard < a.shards().size(); ++shard) {
      CHECK(first.claim(shard));
      CHECK(first.has(shard));  // seen with the claim
    }
    CHECK(slurp(folder.path / "l/manifest.json") == slurp(folder.path / "one/manifest.json"));
    const LabelCache whole(folder.path / "l", a, fingerprint_of(a));
    const LabelCacheSummary summary = summarise_labels(folder.path / "l");
    CHECK(summary.shards == a.shards().size());
    CHECK(summary.labelled == a.num_tokens());
    CHECK(summary.tokens == a.num_tokens());
  }
}

TEST_SUITE("unit") {
  TEST_CASE("label cache: coverage is that of all token shards, finished or not; gaps and near ties are told") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", some_documents(20, 20), kVocab, 100);
    const TokenShards a(folder.path / "a");
    REQUIRE(a.shards().size() >= 4);
    const LabelFingerprint fingerprint = fingerprint_of(a);
    {
      LabelCacheWriter writer(folder.path / "l", a, fingerprint);
      ShardLabels labels(a.shards()[1].tokens, fingerprint);
      labels.id = labels_of(a, 1);
      std::fill_n(labels.id.begin() + 7, 5, kNoLabel);
      labels.id[40] = kNoLabel;
      labels.near_ties = 3;
      writer.write(1, labels);
      writer.write(2, labels_of(a, 2));
    }
    const LabelCacheSummary summary = summarise_labels(folder.path / "l");
    CHECK(summary.domain == "prose");
    CHECK(summary.shards == a.shards().size());
    CHECK(summary.finished == 2);
    CHECK(summary.tokens == a.num_tokens());
    CHECK(summary.stored == a.shards()[1].tokens + a.shards()[2].tokens);
    CHECK(summary.labelled == summary.stored - 6);
    CHECK(summary.near_ties == 3);
    CHECK(count_near_ties(folder.path / "l") == 3);
    REQUIRE(summary.shard.size() == a.shards().size());
    CHECK_FALSE(summary.shard[0].finished);
    CHECK(summary.shard[0].first_gap == std::pair<uint64_t, uint64_t>(0, a.shards()[0].tokens));
    CHECK(summary.shard[1].finished);
    CHECK(summary.shard[1].first_gap == std::pair<uint64_t, uint64_t>(7, 12));
    CHECK(summary.shard[1].near_ties == 3);
    CHECK(summary.shard[2].labelled == a.shards()[2].tokens);
    CHECK(summary.shard[2].near_ties == -1);
  }

  TEST_CASE("label cache: the first gap of a run of tokens; the last token of a document is none") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", {{5, 6, 7, 8, 9, 10, 11, 12, 13}, {14, 15, 16, 17}}, kVocab,
                          300);  // tokens 0 to 9 and 10 to 14
    const TokenShards a(folder.path / "a");
    const LabelFingerprint fingerprint = fingerprint_of(a);
    std::vector<int32_t> labels = labels_of(a, 0);
    labels[3] = labels[4] = labels[9] = labels[12] = kNoLabel;
    LabelCacheWriter(folder.path / "l", a, fingerprint).write(0, labels);
    const LabelCache cache(folder.path / "l", a, fingerprint, LabelCoverage::some);
    using Gap = std::pair<uint64_t, uint64_t>;
    for (const auto& [begin, count, gap] : {std::tuple<uint64_t, uint64_t, std::optional<Gap>>{0, 15, Gap(3, 5)},
                                            {0, 3, std::nullopt},
                                            {4, 6, Gap(4, 5)},
                                            {0, 4, Gap(3, 4)},
                                            {5, 7, std::nullopt},
                                            {5, 8, Gap(12, 13)},
                                            {13, 2, std::nullopt}}) {
      CAPTURE(begin);
      CAPTURE(count);
      CHECK((cache.first_gap(0, begin, count) == gap));
    }
  }
}

TEST_SUITE("faults") {
  TEST_CASE("label cache: probabilities that cannot be are refused") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", {{5, 6, 7}}, kVocab, 300);
    const TokenShards a(folder.path / "a");
    LabelFingerprint fingerprint = fingerprint_of(a);
    fingerprint.tier = "topk";
    fingerprint.k = 3;
    const auto refusal_with = [&](const std::function<void(ShardLabels&)>& change) {
      ShardLabels labels = top_k_of(a, 0, fingerprint);
      change(labels);
      LabelCacheWriter(folder.path / "l", a, fingerprint).write(0, labels);
      return caught([&] { LabelCache(folder.path / "l", a, fingerprint); });
    };
    CHECK(refusal_with([](ShardLabels&) {}).code == 0);
    CHECK(refusal_with([](ShardLabels& labels) {
            std::swap(labels.logp[3], labels.logp[4]);
          }).says("token 1 are not in descending order"));
    CHECK(refusal_with([](ShardLabels& labels) { labels.logp[6] = 0.5f; }).says("log-probability 0.5 at token 2"));
    CHECK(refusal_with([](ShardLabels& labels) { labels.logp[6] = NAN; }).code == 3);
    CHECK(refusal_with([](ShardLabels& labels) { labels.tail[2] = 0.0f; }).says("token 2 and their tail add up to"));
  }

  TEST_CASE("label cache: every field of the fingerprint must match, and the one that does not is named") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", some_documents(5, 20), kVocab, 1000);
    const TokenShards a(folder.path / "a");
    const LabelFingerprint good = fingerprint_of(a);
    write_cache(folder.path / "l", a, good);
    const auto refuse = [&](const std::string& field, const std::function<void(LabelFingerprint&)>& change) {
      LabelFingerprint other = good;
      change(other);
      const Caught opening = caught([&] { LabelCache(folder.path / "l", a, other); });
      const Caught writing = caught([&] { LabelCacheWriter(folder.path / "l", a, other); });
      INFO(field << ": " << opening.text);
      CHECK(opening.code == 3);
      CHECK(opening.says(field));
      CHECK(writing.code == 3);
    };
    refuse("teacher_sha256", [](auto& f) { f.teacher_sha256 = std::string(64, 'b'); });
    refuse("tokenizer_sha256", [](auto& f) { f.tokenizer_sha256 = "other"; });
    refuse("vocab_size", [](auto& f) { f.vocab_size = 304; });
    refuse("token_manifest_sha256", [](auto& f) { f.token_manifest_sha256 = "other"; });
    refuse("tier", [](auto& f) { f.tier = "topk"; });
    refuse("window_rule", [](auto& f) { f.window_rule = "aligned"; });
    refuse("context", [](auto& f) { f.context = 32; });
    refuse("overlap", [](auto& f) { f.overlap = 0; });
    refuse("k", [](auto& f) { f.tier = "topk", f.k = 8; });
    refuse("temperature", [](auto& f) { f.temperature = 2; });
    refuse("compute_dtype", [](auto& f) { f.compute_dtype = "bf16"; });
  }

  TEST_CASE("label cache: missing shards and holes name their documents; damage is seen") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", {{5, 6, 7}, {8, 9}, {10, 11, 12}, {13}}, kVocab, 7);
    const TokenShards a(folder.path / "a");  // two shards: 4 + 3 tokens, 4 + 2 tokens
    REQUIRE(a.shards().size() == 2);
    const LabelFingerprint fingerprint = fingerprint_of(a);
    const auto open = [&] { return caught([&] { LabelCache(folder.path / "l", a, fingerprint); }); };
    CHECK(open().code == 3);  // nothing there
    {
      LabelCacheWriter writer(folder.path / "l", a, fingerprint);
      writer.write(0, labels_of(a, 0));
    }
    Caught refusal = open();
    CHECK(refusal.code == 3);
    CHECK(refusal.says("documents 0 to 1 of 2 in shard-00001.h5"));
    {
      LabelCacheWriter writer(folder.path / "l", a, fingerprint);
      writer.write(1, labels_of(a, 1));
      std::vector<int32_t> hole = labels_of(a, 0);
      hole[3] = kNoLabel;  // of the last token of document 0: never used
      writer.write(0, hole);
    }
    CHECK(open().code == 0);
    {
      LabelCacheWriter writer(folder.path / "l", a, fingerprint);
      std::vector<int32_t> hole = labels_of(a, 0);
      hole[4] = hole[5] = kNoLabel;
      writer.write(0, hole);
    }
    refusal = open();
    CHECK(refusal.code == 3);
    CHECK(refusal.says("documents 1 to 1 of 2 in shard-00000.h5, tokens 4 to 5"));
    // what is left out where that was asked for reads as no label
    const LabelCache some(folder.path / "l", a, fingerprint, LabelCoverage::some);
    std::vector<int64_t> read(7);
    some.read(0, 0, read.size(), read.data());
    for (size_t i = 0; i < read.size(); ++i) CHECK((read[i] == kNoLabel) == (i == 4 || i == 5));
    write_cache(folder.path / "m", a, fingerprint);
    std::filesystem::copy_file(folder.path / "m/shard-00001.h5", folder.path / "m/shard-00000.h5",
                               std::filesystem::copy_options::overwrite_existing);
    CHECK(caught([&] { LabelCache(folder.path / "m", a, fingerprint); }).code == 3);
    std::filesystem::resize_file(folder.path / "m/shard-00000.h5", 100);
    CHECK(caught([&] { LabelCache(folder.path / "m", a, fingerprint); }).says("shard-00000.h5"));
  }
}

}  // namespace coppice
