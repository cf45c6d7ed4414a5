// Labels that other programs made: what vLLM gives, log-probabilities that are none, documents that are not in the
// shards, ids of every kind, moved labels.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <random>

#include "src/data/label_cache_writer.h"
#include "src/data/label_import.h"
#include "src/data/label_jsonl.h"
#include "src/text/documents.h"
#include "src/tokens/token_shard_writer.h"
#include "tests/data/data_files.h"

using namespace coppice;
namespace fs = std::filesystem;

namespace {

LabelFingerprint fingerprint_of(const TokenShards& shards, const char* tier, int64_t k) {
  return {.teacher_sha256 = "served model",
          .tokenizer_sha256 = shards.tokenizer_sha256(),
          .vocab_size = shards.vocab_size(),
          .token_manifest_sha256 = shards.manifest_sha256(),
          .tier = tier,
          .k = k,
          .window_rule = "given"};
}

/// Documents by id; EOS = 2 is added to each.
TokenShards write_shards(const fs::path& folder,
                         const std::vector<std::pair<std::string, std::vector<int32_t>>>& documents,
                         uint64_t shard_tokens = 100) {
  TokenShardWriter writer(folder, "prose", 300, 2, "tokenizer-hash", shard_tokens);
  for (const auto& [id, tokens] : documents) writer.add(document_hash(id), tokens, 4);
  writer.finish();
  return TokenShards(folder);
}

struct TopIds {
  std::vector<int64_t> id;
  std::vector<float> logp, tail;
};
TopIds read_all(const fs::path& cache, const TokenShards& shards, const LabelFingerprint& fingerprint) {
  const LabelCache labels(cache, shards, fingerprint, LabelCoverage::some);
  const uint64_t tokens = shards.shards()[0].tokens, k = static_cast<uint64_t>(fingerprint.k);
  TopIds all{.id = std::vector<int64_t>(tokens * k),
             .logp = std::vector<float>(tokens * k),
             .tail = std::vector<float>(tokens)};
  labels.read_top_k(0, 0, tokens, all.id.data(), all.logp.data(), all.tail.data());
  return all;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE(
      "label import: vLLM's prompt_logprobs: entry i is token i's own, k + 1 entries in any order, no first one, no "
      "end-of-text") {
    const ScratchFolder folder;
    const TokenShards a = write_shards(
        folder.path / "a", {{"one", {5, 6, 7}}, {"2", {8, 9}}, {"three", {10, 11, 12, 13}}, {"four", {14, 15, 16}}});
    const LabelFingerprint fingerprint = fingerprint_of(a, "topk", 2);
    // As RequestOutput holds it, the actual token first. "2": a begin-of-text token 1 in front, an id as a number;
    // "three" is cut on the right, "four" on the left.
    const auto dump = folder.write("dump.jsonl", R"(
{"id": "one", "prompt_token_ids": [5, 6, 7], "prompt_logprobs": [null, {"6": {"logprob": -2.5, "rank": 4, "decoded_token": "b"}, "9": {"logprob": -0.5, "rank": 1}, "8": {"logprob": -1.5, "rank": 2}}, {"7": {"logprob": -0.25, "rank": 1}, "30": {"logprob": -3.0, "rank": 2}}]}
{"id": 2, "prompt_token_ids": [1, 8, 9], "prompt_logprobs": [null, {"8": -0.125}, {"301": -0.75, "9": -1.0, "4": -9999.0}]}
{"id": "three", "prompt_token_ids": [10, 11], "prompt_logprobs": [null, {"11": {"logprob": -0.5, "rank": 1}}]}
{"id": "four", "prompt_token_ids": [15, 16], "prompt_logprobs": [null, {"17": {"logprob": -0.5, "rank": 1}}]}
{"id": "held out", "prompt_token_ids": [15, 16], "prompt_logprobs": [null, null]}
)");
    const LabelTransfer transfer = import_labels(dump, a, fingerprint, folder.path / "l", {.format = "vllm"});
    CHECK(transfer.documents == 4);
    CHECK(transfer.left_out == 1);
    CHECK(transfer.labelled == 5);
    CHECK(transfer.padded_ids == 1);
    const TopIds all = read_all(folder.path / "l", a, fingerprint);
    //                                       5     6      7       EOS     8      9       EOS     10      11 ...
    CHECK(all.id == std::vector<int64_t>{9,  8,  7,  30, -1, -1, -1, -1, 9,  4,  -1, -1, -1, -1, 11, -1,
                                         -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 17, -1, -1, -1, -1, -1});
    CHECK(all.logp[0] == -0.5f);
    CHECK(all.logp[1] == -1.5f);
    CHECK(all.tail[0] == doctest::Approx(std::log(1 - std::exp(-0.5) - std::exp(-1.5)))
                             .epsilon(1e-3));  // the actual token's share included
    CHECK(all.tail[4] == doctest::Approx(std::log(1 - std::exp(-1.0))).epsilon(1e-3));  // and that of a padded row
    // The same as lists of ours, first choices alone, with null for what is not there.
    const auto lists = folder.write(
        "lists.jsonl",
        R"({"id": "one", "tokens": [5, 6, 7], "top_ids": [[6, 9, 8], [7, 30], null], "top_logprobs": [[-2.5, -0.5, -1.5], [-0.25, -3.0], null]})"
        "\n");
    const LabelFingerprint first = fingerprint_of(a, "top1_prob", 1);
    CHECK(import_labels(lists, a, first, folder.path / "first", {.format = "vllm"}).labelled == 2);
    CHECK(read_all(folder.path / "first", a, first).id[0] == 9);
    // Without the option each of these is refused by line.
    const auto refusal = [&](const char* text, const LabelImport& options = {}) {
      return caught([&] { import_labels(folder.write("x.jsonl", text), a, fingerprint, folder.path / "x", options); });
    };
    CHECK(
        refusal(
            R"({"id": "one", "tokens": [5, 6, 7, 2], "top_ids": [[6, 9, 8], [7], [], []], "top_logprobs": [[-2, -2, -2], [-1], [], []]})")
            .says("format \"vllm\""));
    CHECK(refusal(R"({"id": "one", "tokens": [5, 6], "top_ids": [[6], [7]], "top_logprobs": [[-2], [-1]]})")
              .says("the format \"vllm\" takes documents that are cut short"));
    const auto vllm = [&](const char* text) { return refusal(text, {.format = "vllm"}); };
    CHECK(
        vllm(
            R"({"id": "one", "prompt_token_ids": [5, 6], "prompt_logprobs": [null, {"6": {"logprob": -2.5, "rank": 4}}]})")
            .says("holds no entry of rank 1"));
    // tails of lists that say them
    const auto tails = folder.write(
        "tails.jsonl",
        R"({"id": "one", "tokens": [5, 6], "top_ids": [[9], null], "top_logprobs": [[-6.0], null], "tail_logprobs": [-0.0025, null]})"
        "\n");
    CHECK(import_labels(tails, a, fingerprint, folder.path / "tails", {.format = "vllm"}).labelled == 1);
    CHECK(read_all(folder.path / "tails", a, fingerprint).tail[0] == doctest::Approx(-0.0025).epsilon(1e-3));
    CHECK(vllm(R"({"id": "one", "prompt_token_ids": [5, 7], "prompt_logprobs": [null, {"6": -1}]})")
              .says("token 1 is 7, the shards hold 6"));
    CHECK(vllm(R"({"id": "one", "prompt_token_ids": [5, 6], "prompt_logprobs": [{"6": -1}, {"6": -1}]})")
              .says("does not begin with null"));
    CHECK(vllm(R"({"id": "one", "prompt_token_ids": [5, 6], "prompt_logprobs": [null, {"the": -1}]})")
              .says("outside the vocabulary"));
    CHECK(vllm(R"({"id": "one", "prompt_token_ids": [5, 6], "prompt_logprobs": [null, {"6": {"rank": 1}}]})")
              .says("no number up to 0"));
    CHECK(vllm(R"({"id": "one", "prompt_token_ids": [5, 6], "prompt_logprobs": [null]})")
              .says("has 1 entries, expected 2"));
  }

  TEST_CASE("label import: documents that are not in the shards are left out; with none left the file is refused") {
    const ScratchFolder folder;
    const TokenShards a = write_shards(folder.path / "a", {{"17", {5, 6}}, {"-3", {7}}, {"1.5", {8}}});
    const std::string rest = R"(, "top_ids": [[1], []]})";
    const auto dump = folder.write("dump.jsonl", R"({"id": "unknown", "tokens": "not even looked at"})"
                                                 "\n"
                                                 R"({"id": 17, "tokens": [5, 6, 2], "top_ids": [[1], [1], []]})"
                                                 "\n"
                                                 R"({"id": 18, "tokens": [5, 6, 2], "top_ids": [[1], [1], []]})"
                                                 "\n"
                                                 R"({"id": -3, "tokens": [7, 2])" +
                                                     rest + "\n" + R"({"id": 1.5, "tokens": [8, 2])" + rest + "\n");
    const LabelTransfer transfer = import_labels(dump, a, fingerprint_of(a, "top1", 1), folder.path / "l");
    CHECK(transfer.documents == 3);
    CHECK(transfer.left_out == 2);
    CHECK(transfer.labelled == 4);
    const Caught nothing = caught([&] {
      import_labels(folder.write("x.jsonl", "{\"id\": 1}\n{\"id\": 2}\n"), a, fingerprint_of(a, "top1", 1),
                    folder.path / "x");
    });
    CHECK(nothing.code == 3);
    CHECK(nothing.says("line 1: the token shards hold no such document, nor any other of the 2"));
    CHECK(caught([&] {
            import_labels(folder.write("x.jsonl", "{\"id\": true}\n"), a, fingerprint_of(a, "top1", 1),
                          folder.path / "x");
          }).says("neither a string nor a number"));
    CHECK(caught([&] {
            import_labels(folder.write("x.jsonl", "{\"id\": 123456789012345678901234567890}\n"), a,
                          fingerprint_of(a, "top1", 1), folder.path / "x");
          }).says("beyond 64 bits; write it as a string"));
    const auto packed = folder.write("dump.jsonl.GZ", test::gzip_bytes(slurp(dump)));
    CHECK(import_labels(packed, a, fingerprint_of(a, "top1", 1), folder.path / "packed").documents == 3);
  }

  TEST_CASE(
      "label import: our own export comes in again whatever the ids are: numbers, none, of any script, twice, of "
      "documents cut in two") {
    const ScratchFolder folder;
    const std::string emoji = "\xF0\x9F\x8D\x82 \xE6\x9E\x9D", nul("a\0b", 3);
    const TokenShards a = write_shards(folder.path / "a",
                                       {{"7", {5, 6}},
                                        {"", {7}},
                                        {emoji, {8, 9}},
                                        {"twice", {10, 11}},
                                        {"twice", {12}},
                                        {"twice", {10, 11}},
                                        {nul, {}},
                                        {"book#1", {20, 21, 22, 23, 24, 25}},
                                        {"book#2", {26, 27}},
                                        {"", {7}}},
                                       9);
    REQUIRE(a.shards().size() > 2);
    for (const auto& [tier, k] : {std::pair<const char*, int64_t>{"top1", 1}, {"topk", 2}}) {
      const LabelFingerprint fingerprint = fingerprint_of(a, tier, k);
      {
        LabelCacheWriter writer(folder.path / "first", a, fingerprint);
        for (size_t shard = 0; shard < a.shards().size(); ++shard) {
          ShardLabels labels(a.shards()[shard].tokens, fingerprint);
          for (size_t i = 0; i < labels.id.size(); ++i) {
            labels.id[i] = static_cast<int32_t>(30 * shard + i);  // every document's are its own, those of one id too
            if (k > 1)
              labels.logp[i] = -1.5f, labels.tail[i / 2] = static_cast<float>(std::log(1 - 2 * std::exp(-1.5)));
          }
          writer.write(shard, labels);
        }
      }
      const LabelTransfer out = export_labels(folder.path / "first", a, folder.path / "out.jsonl"),
                          in = import_labels(folder.path / "out.jsonl", a, fingerprint, folder.path / "second");
      CHECK(out.documents == 10);
      CHECK(in.documents == 10);
      CHECK(in.left_out == 0);
      for (const TokenShardInfo& shard : a.shards())
        CHECK(slurp(folder.path / "first" / shard.name) == slurp(folder.path / "second" / shard.name));
      fs::remove_all(folder.path / "first");
    }
  }

  TEST_CASE("label import: of two equal texts of one id the labelled one is labelled again, whichever it was") {
    const ScratchFolder folder;
    const TokenShards a =
        write_shards(folder.path / "a", {{"same", {5, 6}}, {"other", {7}}, {"same", {5, 6}}, {"same", {5, 6}}});
    const LabelFingerprint fingerprint = fingerprint_of(a, "top1", 1);
    for (const uint64_t begin : {0, 5, 8}) {  // of the one that has labels
      {
        LabelCacheWriter writer(folder.path / "first", a, fingerprint);
        ShardLabels labels(TokenRuns(), fingerprint);
        const uint64_t row = labels.append({begin, begin + 3});
        for (uint64_t i = 0; i < 3; ++i) labels.id[row + i] = static_cast<int32_t>(30 + i);
        writer.write(0, labels);
      }
      export_labels(folder.path / "first", a, folder.path / "out.jsonl");
      import_labels(folder.path / "out.jsonl", a, fingerprint, folder.path / "second");
      const std::string& shard = a.shards()[0].name;
      CHECK((slurp(folder.path / "first" / shard) == slurp(folder.path / "second" / shard)));
      fs::remove_all(folder.path / "first");
    }
  }
}

TEST_SUITE("faults") {
  TEST_CASE("label import: what is no natural log-probability is refused as what it most likely is") {
    const ScratchFolder folder;
    const TokenShards a = write_shards(folder.path / "a", {{"one", {5, 6, 7}}});
    const LabelFingerprint fingerprint = fingerprint_of(a, "topk", 3);
    const auto of_values = [&](const std::vector<std::vector<double>>& logps, const std::string& more = "",
                               const LabelImport& options = {}) {
      Json line = {
          {"id", "one"}, {"tokens", {5, 6, 7, 2}}, {"top_ids", Json::array()}, {"top_logprobs", Json::array()}};
      for (const auto& values : logps) {
        Json ids = Json::array();
        for (size_t j = 0; j < values.size(); ++j) ids.push_back(20 + j);
        line["top_ids"].push_back(ids);
        line["top_logprobs"].push_back(values);
      }
      std::string text = line.dump();
      text.insert(text.size() - 1, more);
      return caught([&] {
        import_labels(folder.write("x.jsonl", "\n" + text + "\n"), a, fingerprint, folder.path / "l", options);
      });
    };
    const auto logs = [](double base) {  // probabilities 0.6, 0.3, 0.05
      const double unit = std::log(base);
      return std::vector<double>{std::log(0.6) / unit, std::log(0.3) / unit, std::log(0.05) / unit};
    };
    const double e = std::exp(1);
    CHECK(of_values({logs(e), logs(e), logs(e), {}}).code == 0);
    const Caught base_10 = of_values({logs(e), logs(10), logs(10), {}});
    CHECK(base_10.code == 3);
    CHECK(base_10.says("line 2: the probabilities of 3 ids at a token add up to"));
    CHECK(base_10.says("base 10"));
    CHECK(of_values({logs(e), {-0.2, -0.3, -0.4}, logs(e), {}}).says("raw logits"));  // 10^v is above 1 as well
    CHECK(of_values({logs(e), {12.5, 3, -4}, logs(e), {}}).says("raw logits"));
    // 1e-3 above is rounding, twice that is not
    const double above = std::log(1.0009 / 2), far_above = std::log(1.002 / 2);
    CHECK(of_values({{above, above}, logs(e), {}, {}}).code == 0);
    CHECK(of_values({{far_above, far_above}, logs(e), {}, {}}).code == 3);
    // next to nothing: 0.019 each in base 2
    const std::vector<double> base_2(3, std::log2(0.019)), nothing = {-20, -21, -22};
    const Caught low = of_values({base_2, base_2, logs(e), {}});
    CHECK(low.code == 3);
    CHECK(low.says("line 2: the probabilities of 2 of 3 tokens add up to less than 0.01"));
    CHECK(low.says("base 2"));
    CHECK(low.says("--low-mass (low_mass = true"));
    CHECK(of_values({nothing, nothing, nothing, {}}).says("raw logits, or log-probabilities divided by a temperature"));
    CHECK(of_values({nothing, logs(e), logs(e), {}}).code == 0);  // not most of them
    CHECK(of_values({nothing, nothing, nothing, {}}, "", {.low_mass = true}).code == 0);
    CHECK(of_values({nothing, nothing, nothing, {}}, R"(, "tail_logprobs": [0, 0, 0, null])").code ==
          0);  // it says so itself
    // a tail that is no complement: the line is named, and not the cache that would hold it
    const Caught tail = of_values({logs(e), logs(2), {}, {}}, R"(, "tail_logprobs": [-2.9957, -4.32, null, null])");
    CHECK(tail.code == 3);
    CHECK(tail.says("line 2: the probabilities of 3 ids at a token and its tail add up to"));
    CHECK(of_values({{-0.2}, {}, {}, {}}, R"(, "tail_logprobs": [null, null, null, null])")
              .says("and its tail add up to 0.8187, expected 1"));
  }

  TEST_CASE(
      "label import: labels that stand one place beside their tokens are refused, in a part of the file too, in every "
      "tier and format") {
    // A text of which half can be known, and a teacher that knows a third of it; documents from `from` on say what
    // belongs `by` tokens on.
    const auto follower = [](int64_t token) { return static_cast<int32_t>(3 + (token * 37 + 11) % 290); };
    const auto label = [&](int32_t token) { return token % 3 == 0 ? follower(token) : 50; };
    struct Case {
      const char *format, *tier;
      int by, documents, from;
    };
    for (const auto& [format, tier, by, documents, from] : {Case{"coppice", "top1", 0, 40, 0},
                                                            {"coppice", "top1", 1, 40, 0},
                                                            {"coppice", "top1", -1, 40, 0},
                                                            {"coppice", "topk", 1, 40, 0},
                                                            {"vllm", "topk", 0, 40, 0},
                                                            {"vllm", "topk", 1, 40, 0},
                                                            {"vllm", "topk", -1, 40, 0},
                                                            {"coppice", "top1", -1, 300, 200}}) {
      std::mt19937_64 random(5);
      std::vector<std::pair<std::string, std::vector<int32_t>>> texts;
      std::string dump;
      for (int document = 0; document < documents; ++document) {
        std::vector<int32_t> tokens = {static_cast<int32_t>(3 + random() % 290)};
        while (tokens.size() < 1000)
          tokens.push_back(random() % 2 == 0 ? follower(tokens.back())
                                             : static_cast<int32_t>(3 + random() % (1 + random() % 290)));
        std::string given = fmt::format("{}", fmt::join(tokens, ",")), ids, logps, prompt = "null";
        for (int64_t i = 0; i < 1000; ++i) {
          const int64_t at = i + (document >= from ? by : 0);
          const bool there = at >= 0 && at < 1000;
          const int32_t id = there ? label(tokens[static_cast<size_t>(at)]) : 0;
          ids += there ? fmt::format("[{}],", id) : "[],";
          logps += there ? "[-0.7]," : "[],";
          if (i < 999) prompt += there ? fmt::format(R"(,{{"{}":-0.7}})", id) : ",null";
        }
        dump +=
            std::string(format) == "vllm"
                ? fmt::format(R"({{"id":{},"prompt_token_ids":[{}],"prompt_logprobs":[{}]}})", document, given, prompt)
                : fmt::format(R"({{"id":{},"tokens":[{},2],"top_ids":[{}[]],"top_logprobs":[{}[]]}})", document, given,
                              ids, logps);
        dump += "\n";
        texts.emplace_back(std::to_string(document), std::move(tokens));
      }
      const ScratchFolder folder;
      const TokenShards a = write_shards(folder.path / "a", texts, 1'000'000);
      const Caught refusal = caught([&] {
        import_labels(folder.write("dump.jsonl", dump), a, fingerprint_of(a, tier, 1), folder.path / "l",
                      {.format = format, .low_mass = false, .stage = "given"});
      });
      CAPTURE(format);
      CAPTURE(by);
      CAPTURE(from);
      INFO(refusal.text);
      CHECK(refusal.code == (by == 0 ? 0 : 3));
      if (by == 0) continue;
      CHECK(refusal.says("the labels of stage 'given' in domain 'prose' stand one place"));
      CHECK(refusal.says(by > 0 ? "before their tokens" : "behind their tokens"));
    }
  }
}
