#include "teacher/label.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <filesystem>
#include <limits>
#include <numeric>
#include <set>

#include "src/base/errors.h"
#include "src/base/random.h"
#include "src/data/draw_numbers.h"
#include "src/data/windows.h"
#include "src/model/parameters.h"
#include "src/tensors/draws.h"
#include "src/tokens/token_shard_writer.h"
#include "teacher/live_signal.h"
#include "tests/scratch_folder.h"
#include "tests/tensors/whole_arena.h"

using namespace coppice;

namespace {

/// Two shards of random documents in a folder that goes away; lengths (EOS included) from 1 to 90.
class RandomShards {
 public:
  RandomShards() {
    TokenShardWriter writer(folder_.path, "prose", 300, 2, std::string(64, 'a'), /*shard_tokens=*/400);
    for (uint64_t document = 0; document < 14; ++document) {
      std::vector<int32_t> ids(document == 3 ? 0 : 5 + 7 * document % 85);
      for (size_t i = 0; i < ids.size(); ++i)
        ids[i] = 3 + static_cast<int32_t>(random_bits(1, Purpose::test, document, i) % 297);
      writer.add(document, ids, ids.size());
    }
    writer.finish();
  }
  const std::filesystem::path& folder() const { return folder_.path; }

 private:
  ScratchFolder folder_;
};

Model random_teacher() {
  const ModelConfig config = preset("test", "t");
  Model model = make_model(config);
  initialise_parameters(config, *model.arena, 2);
  scale_master(*model.arena, 2.0);  // clear winners: rounding decides no label
  return model;
}

/// Logits of one window read alone.
at::Tensor window_logits(const Model& model, const TokenShards& shards, size_t shard, uint64_t begin, uint64_t length) {
  const at::Tensor token_BT = at::empty({1, static_cast<int64_t>(length)}, at::kLong);
  shards.read(shard, begin, length, token_BT.mutable_data_ptr<int64_t>());
  return decoder_logits(
      model,
      {.token_BT = token_BT, .position_BT = at::arange(static_cast<int64_t>(length)).unsqueeze(0), .document_BT = {}});
}

/// Labels of one window by the plain road: logits of the window alone, argmax.
std::vector<int64_t> window_labels(const Model& model, const TokenShards& shards, size_t shard, uint64_t begin,
                                   uint64_t length) {
  const at::Tensor label = window_logits(model, shards, shard, begin, length).argmax(1);
  return {label.const_data_ptr<int64_t>(), label.const_data_ptr<int64_t>() + length};
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("label: windows of the document rule, by hand") {
    // Documents [0, 5), [5, 6), [6, 20); context 6, overlap 2: windows 4 apart.
    const std::vector<LabelWindow> windows =
        label_windows({5, 6, 20}, {.window_rule = "document", .context = 6, .overlap = 2, .batch_tokens = 1});
    const std::vector<std::array<uint64_t, 3>> expected{{0, 5, 0}, {5, 1, 0}, {6, 6, 0}, {10, 6, 2}, {14, 6, 2}};
    REQUIRE(windows.size() == expected.size());
    for (size_t i = 0; i < windows.size(); ++i)
      CHECK(std::array{windows[i].begin, windows[i].length, windows[i].skip} == expected[i]);
    // One token more needs one window more, which labels that token alone.
    const std::vector<LabelWindow> longer =
        label_windows({15}, {.window_rule = "document", .context = 6, .overlap = 2, .batch_tokens = 1});
    CHECK(longer.back().begin == 12);
    CHECK(longer.back().length == 3);
    CHECK(longer.back().skip == 2);
  }

  TEST_CASE("label: windows of the aligned rule ignore documents and overlap") {
    const std::vector<LabelWindow> windows =
        label_windows({5, 6, 20}, {.window_rule = "aligned", .context = 8, .overlap = 2, .batch_tokens = 1});
    const std::vector<std::array<uint64_t, 3>> expected{{0, 8, 0}, {8, 8, 0}, {16, 4, 0}};
    REQUIRE(windows.size() == expected.size());
    for (size_t i = 0; i < windows.size(); ++i)
      CHECK(std::array{windows[i].begin, windows[i].length, windows[i].skip} == expected[i]);
  }

  TEST_CASE("label: every token is labelled once, whatever the rule") {
    for (const int64_t context : {1, 2, 7, 64})
      for (const int64_t overlap : {int64_t{0}, context / 4, context - 1})
        for (const char* rule : {"document", "aligned"}) {
          const std::vector<uint64_t> ends{3, 4, 50, 114, 115, 300};
          std::vector<int> times(300, 0);
          for (const LabelWindow& window :
               label_windows(ends, {.window_rule = rule, .context = context, .overlap = overlap, .batch_tokens = 1}))
            for (uint64_t i = window.skip; i < window.length; ++i) ++times[window.begin + i];
          CHECK(times == std::vector<int>(300, 1));
        }
    CHECK(label_windows({}, {}).empty());
  }
}

TEST_SUITE("parity") {
  TEST_CASE("label: labels of the document rule are those of each window read alone, for any batch_tokens") {
    const RandomShards made;
    const TokenShards shards(made.folder());
    const Model teacher = random_teacher();
    REQUIRE(shards.shards().size() >= 2);
    for (size_t shard = 0; shard < shards.shards().size(); ++shard) {
      LabelRule rule{.window_rule = "document", .context = 24, .overlap = 6, .batch_tokens = 1};
      std::vector<int32_t> expected(shards.shards()[shard].tokens, -1);
      for (const LabelWindow& window : label_windows(shards.document_ends(shard), rule)) {
        const std::vector<int64_t> labels = window_labels(teacher, shards, shard, window.begin, window.length);
        for (uint64_t i = window.skip; i < window.length; ++i)
          expected[window.begin + i] = static_cast<int32_t>(labels[i]);
      }
      CHECK(std::ranges::count(expected, -1) == 0);  // the last token of a document has a label too
      for (const int64_t batch_tokens : {1, 24, 100, 8192}) {
        rule.batch_tokens = batch_tokens;
        std::vector<uint64_t> told;
        CHECK(label_shard(teacher, shards, shard, rule, [&](uint64_t done) { told.push_back(done); }) == expected);
        CHECK(std::ranges::is_sorted(told));
        CHECK(told.back() == shards.shards()[shard].tokens);
      }
    }
  }

  TEST_CASE("label: a document's labels do not depend on its neighbours") {
    const RandomShards made;
    const TokenShards shards(made.folder());
    const Model teacher = random_teacher();
    const std::vector<int32_t> labels = label_shard(
        teacher, shards, 0, {.window_rule = "document", .context = 256, .overlap = 64, .batch_tokens = 4096}, {});
    const uint64_t begin = shards.document_ends(0)[1], end = shards.document_ends(0)[2];
    const std::vector<int64_t> alone = window_labels(teacher, shards, 0, begin, end - begin);
    for (uint64_t i = begin; i < end; ++i) CHECK(labels[i] == alone[i - begin]);
  }

  TEST_CASE("label: aligned labels are the argmax over the loader's windows") {
    const RandomShards made;
    const TokenShards shards(made.folder());
    const Model teacher = random_teacher();
    constexpr int64_t kSeqLen = 32;
    std::vector<std::vector<int32_t>> labels;
    for (size_t shard = 0; shard < shards.shards().size(); ++shard)
      labels.push_back(label_shard(teacher, shards, shard,
                                   {.window_rule = "aligned", .context = kSeqLen, .overlap = 0, .batch_tokens = 64},
                                   {}));
    WindowReader reader(shards, kSeqLen, /*document_mask=*/false);
    Batch batch;
    int64_t compared = 0;
    while (reader.next(1, batch)) {
      const at::Tensor top =
          decoder_logits(
              teacher, {.token_BT = batch.token_BT, .position_BT = batch.position_BT, .document_BT = batch.document_BT})
              .argmax(1);
      for (const Span& span : batch.spans)
        for (int32_t i = 0; i < span.length; ++i, ++compared)
          CHECK(labels[static_cast<size_t>(span.shard)][span.offset + static_cast<uint64_t>(i)] ==
                top[span.column + i].item<int64_t>());
    }
    CHECK(compared == static_cast<int64_t>(reader.num_windows()) * kSeqLen);
    CHECK(compared > 0);
  }

  TEST_CASE(
      "label: some tokens of a shard get the labels that they get among all, in every tier, and nothing else is kept") {
    const RandomShards made;
    const TokenShards shards(made.folder());
    const Model teacher = random_teacher();
    for (size_t shard = 0; shard < shards.shards().size(); ++shard) {
      const uint64_t tokens = shards.shards()[shard].tokens;
      for (const char* window_rule : {"document", "aligned"})
        for (const TokenRuns& wanted : {TokenRuns{{0, 1}, {5, 40}, {41, 42}, {130, 200}},
                                        TokenRuns{{tokens - 1, tokens}}, TokenRuns{{17, tokens}}, TokenRuns()}) {
          CAPTURE(window_rule);
          const LabelRule rule{.window_rule = window_rule, .context = 24, .overlap = 6, .batch_tokens = 100};
          const std::vector<int32_t> all = label_shard(teacher, shards, shard, rule, {});
          const LabelFingerprint top_1_tier{.vocab_size = 300}, top_k_tier{.vocab_size = 300, .tier = "topk", .k = 3};
          uint64_t told = 0;
          const ShardLabels some = label_shard_tier(
              teacher, shards, shard, rule, top_1_tier, [&](uint64_t done) { told = done; }, wanted);
          const ShardLabels probable = label_shard_tier(teacher, shards, shard, rule, top_k_tier, {}, wanted);
          CHECK((some.runs == wanted));
          CHECK(told == count_tokens(wanted));
          REQUIRE(some.id.size() == count_tokens(wanted));
          REQUIRE(probable.tail.size() == count_tokens(wanted));
          size_t row = 0;
          for (const TokenRun& run : wanted)
            for (uint64_t token = run.begin; token < run.end; ++token, ++row) {
              CHECK(some.id[row] == all[token]);
              CHECK(probable.id[row * 3] == all[token]);
            }
        }
    }
  }

  TEST_CASE("label: draws are those of each window read alone, whatever batch_tokens and coverage") {
    const RandomShards made;
    const TokenShards shards(made.folder());
    Model teacher = random_teacher();
    scale_master(*teacher.arena, 0.6);  // many ids that may be drawn
    for (const char* window_rule : {"document", "aligned"}) {
      CAPTURE(window_rule);
      LabelRule rule{.window_rule = window_rule, .context = 24, .overlap = 6, .batch_tokens = 1};
      const LabelFingerprint fingerprint{
          .vocab_size = 300, .tier = "sample", .k = 7, .temperature = 1.5, .draw_seed = 11};
      const ShardLabels labels = label_shard_tier(teacher, shards, 1, rule, fingerprint, {});
      const uint64_t tokens = shards.shards()[1].tokens, stream = draw_stream(shards.shards()[1]);
      CHECK(labels.near_ties == -1);
      REQUIRE(labels.id.size() == 7 * tokens);
      // the plain road: the window's logits in float, its distribution function in double
      int64_t near = 0;
      std::set<int32_t> different;
      for (const LabelWindow& window : label_windows(shards.document_ends(1), rule)) {
        const at::Tensor sum_NV =
            (window_logits(teacher, shards, 1, window.begin, window.length).to(at::kDouble) / 1.5).softmax(1).cumsum(1);
        for (uint64_t i = window.skip; i < window.length; ++i)
          for (uint64_t j = 0; j < 7; ++j) {
            const uint64_t token = window.begin + i;
            const int32_t id = labels.id[7 * token + j];
            const double number = draw_number(11, stream, token, static_cast<int64_t>(j));
            const at::Tensor sum_V = sum_NV[static_cast<int64_t>(i)];
            const double below = id == 0 ? 0 : sum_V[id - 1].item<double>(), upto = sum_V[id].item<double>();
            CHECK(number >= below - 1e-5);
            CHECK(number < upto + 1e-5);
            near += number < below || number >= upto;
            different.insert(id);
          }
      }
      CHECK(near <= 5);
      CHECK(different.size() > 100);
      for (const int64_t batch_tokens : {24, 100, 8192}) {
        rule.batch_tokens = batch_tokens;
        CHECK(label_shard_tier(teacher, shards, 1, rule, fingerprint, {}).id == labels.id);
      }
      const TokenRuns wanted = {{0, 1}, {5, 40}, {41, 42}, {130, 200}};
      const ShardLabels some = label_shard_tier(teacher, shards, 1, rule, fingerprint, {}, wanted);
      size_t row = 0;
      for (const TokenRun& run : wanted)
        for (uint64_t token = run.begin; token < run.end; ++token, ++row)
          CHECK(std::equal(some.id.begin() + static_cast<std::ptrdiff_t>(7 * row),
                           some.id.begin() + static_cast<std::ptrdiff_t>(7 * (row + 1)),
                           labels.id.begin() + static_cast<std::ptrdiff_t>(7 * token)));
      LabelFingerprint other = fingerprint;
      other.draw_seed = 12;
      CHECK(label_shard_tier(teacher, shards, 1, rule, other, {}).id != labels.id);
      other = fingerprint;
      other.k = 1;  // the first of seven
      const ShardLabels one = label_shard_tier(teacher, shards, 1, rule, other, {});
      for (uint64_t token = 0; token < tokens; ++token) CHECK(one.id[token] == labels.id[7 * token]);
    }
  }

  TEST_CASE("label: draws of a live teacher are the stored ones where it reads one window at a time") {
    const RandomShards made;
    const TokenShards shards(made.folder());
    const Model teacher = random_teacher();
    constexpr int64_t kSeqLen = 32;
    const LabelFingerprint fingerprint{.vocab_size = 300, .tier = "sample", .k = 4, .temperature = 2, .draw_seed = 3};
    std::vector<ShardLabels> stored;
    for (size_t shard = 0; shard < shards.shards().size(); ++shard)
      stored.push_back(label_shard_tier(teacher, shards, shard,
                                        {.window_rule = "aligned", .context = kSeqLen, .overlap = 0}, fingerprint, {}));
    WindowReader reader(shards, kSeqLen, /*document_mask=*/false);
    Batch batch;
    int64_t compared = 0;
    while (reader.next(1, batch)) {
      const SignalRequest request{.loss = "sample",
                                  .temperature = 2,
                                  .hidden_layers = {},
                                  .draw_number_NR = draw_numbers(batch, {&shards}, 4, 3)};
      const TeacherSignal signal = live_signal(teacher, batch, request);
      CHECK(signal.labels_below == 300);
      for (const Span& span : batch.spans)
        for (int32_t i = 0; i < span.length; ++i, ++compared) {
          const auto* ids =
              stored[static_cast<size_t>(span.shard)].id.data() + 4 * (span.offset + static_cast<uint64_t>(i));
          const TopK wanted = shares_of_draws(at::tensor(std::vector<int64_t>(ids, ids + 4), at::kLong).unsqueeze(0));
          CHECK(signal.top.id_NK.narrow(0, span.column + i, 1).equal(wanted.id_NK));
          CHECK(signal.top.logp_NK.narrow(0, span.column + i, 1).equal(wanted.logp_NK));
        }
    }
    CHECK(compared > 100);
  }

  TEST_CASE(
      "label: draws from a proposal are those of its temperature, whatever the batch, and weigh what they do live") {
    const RandomShards made;
    const TokenShards shards(made.folder());
    const Model teacher = random_teacher();
    constexpr int64_t kSeqLen = 32;
    LabelFingerprint fingerprint{.vocab_size = 300, .tier = "sample", .k = 4, .temperature = 2, .draw_seed = 3};
    fingerprint.proposal_temperature = 1.5;
    LabelFingerprint softer = fingerprint;
    softer.temperature = 3;
    softer.proposal_temperature = 1;
    LabelRule rule{.window_rule = "aligned", .context = kSeqLen, .overlap = 0, .batch_tokens = 1};
    std::vector<ShardLabels> stored;
    for (size_t shard = 0; shard < shards.shards().size(); ++shard) {
      rule.batch_tokens = 1;
      stored.push_back(label_shard_tier(teacher, shards, shard, rule, fingerprint, {}));
      const ShardLabels plain = label_shard_tier(teacher, shards, shard, rule, softer, {});
      CHECK(plain.id == stored.back().id);
      CHECK(plain.log_weight.empty());
      REQUIRE(stored.back().log_weight.size() == stored.back().id.size());
      rule.batch_tokens = 8192;
      const ShardLabels again = label_shard_tier(teacher, shards, shard, rule, fingerprint, {});
      CHECK(again.id == stored.back().id);
      CHECK(std::equal(again.log_weight.begin(), again.log_weight.end(), stored.back().log_weight.begin()));
    }
    WindowReader reader(shards, kSeqLen, /*document_mask=*/false);
    Batch batch;
    int64_t compared = 0;
    double sum = 0;
    while (reader.next(1, batch)) {
      const SignalRequest request{.loss = "sample",
                                  .temperature = 2,
                                  .proposal_temperature = 1.5,
                                  .hidden_layers = {},
                                  .draw_number_NR = draw_numbers(batch, {&shards}, 4, 3)};
      const TeacherSignal signal = live_signal(teacher, batch, request);
      for (const Span& span : batch.spans)
        for (int32_t i = 0; i < span.length; ++i, ++compared) {
          const ShardLabels& labels = stored[static_cast<size_t>(span.shard)];
          const size_t at = 4 * (span.offset + static_cast<uint64_t>(i));
          std::vector<int64_t> ids(labels.id.begin() + static_cast<std::ptrdiff_t>(at),
                                   labels.id.begin() + static_cast<std::ptrdiff_t>(at + 4));
          std::vector<float> log_weight;
          for (size_t j = at; j < at + 4; ++j) log_weight.push_back(static_cast<float>(labels.log_weight[j]));
          for (const float value : log_weight) sum += std::exp(value);
          const TopK wanted = shares_of_draws({.id_NR = at::tensor(ids, at::kLong).unsqueeze(0),
                                               .log_weight_NR = at::tensor(log_weight, at::kFloat).unsqueeze(0)});
          CHECK(signal.top.id_NK.narrow(0, span.column + i, 1).equal(wanted.id_NK));
          CHECK((signal.top.logp_NK.narrow(0, span.column + i, 1) - wanted.logp_NK).abs().max().item<double>() <= 2e-3);
        }
    }
    CHECK(compared > 100);
    CHECK(sum / static_cast<double>(4 * compared) == doctest::Approx(1).epsilon(0.1));  // importance weights
  }

  TEST_CASE(
      "label: head and draws are those of each window read alone, stored and live; the draws are none of the head") {
    const RandomShards made;
    const TokenShards shards(made.folder());
    Model teacher = random_teacher();
    scale_master(*teacher.arena, 0.6);  // much is left over
    constexpr int64_t kSeqLen = 32, kHead = 5, kDraws = 4;
    const LabelFingerprint fingerprint{
        .vocab_size = 300, .tier = "hybrid", .k = kHead, .draws = kDraws, .temperature = 1.5, .draw_seed = 11};
    LabelRule rule{.window_rule = "aligned", .context = kSeqLen, .overlap = 0, .batch_tokens = 1};
    std::vector<ShardLabels> stored;
    for (size_t shard = 0; shard < shards.shards().size(); ++shard)
      stored.push_back(label_shard_tier(teacher, shards, shard, rule, fingerprint, {}));
    for (const int64_t batch_tokens : {100, 8192}) {
      rule.batch_tokens = batch_tokens;
      const ShardLabels again = label_shard_tier(teacher, shards, 1, rule, fingerprint, {});
      CHECK(again.id == stored[1].id);
      CHECK(again.drawn == stored[1].drawn);
      CHECK(std::equal(again.logp.begin(), again.logp.end(), stored[1].logp.begin()));
    }
    CHECK(stored[1].near_ties == -1);
    const TokenRuns wanted = {{0, 1}, {5, 40}, {130, 200}};
    const ShardLabels some = label_shard_tier(teacher, shards, 1, rule, fingerprint, {}, wanted);
    size_t row = 0;
    for (const TokenRun& run : wanted)
      for (uint64_t token = run.begin; token < run.end; ++token, ++row)
        for (size_t j = 0; j < kDraws; ++j) CHECK(some.drawn[row * kDraws + j] == stored[1].drawn[token * kDraws + j]);

    LabelFingerprint head = fingerprint, other = fingerprint;
    head.tier = "topk";
    head.draws = 0;
    other.draw_seed = 12;
    rule.batch_tokens = kSeqLen;
    const ShardLabels of_head = label_shard_tier(teacher, shards, 1, rule, head, {});
    CHECK(of_head.id == stored[1].id);
    CHECK(std::equal(of_head.tail.begin(), of_head.tail.end(), stored[1].tail.begin()));
    CHECK(label_shard_tier(teacher, shards, 1, rule, other, {}).drawn != stored[1].drawn);

    WindowReader reader(shards, kSeqLen, /*document_mask=*/false);
    Batch batch;
    int64_t compared = 0;
    std::set<int32_t> different;
    while (reader.next(1, batch)) {
      const SignalRequest request{.loss = "hybrid",
                                  .top_k = kHead,
                                  .temperature = 1.5,
                                  .hidden_layers = {},
                                  .draw_number_NR = draw_numbers(batch, {&shards}, kDraws, 11)};
      const TeacherSignal signal = live_signal(teacher, batch, request);
      CHECK(signal.labels_below == 300);
      for (const Span& span : batch.spans)
        for (int32_t i = 0; i < span.length; ++i, ++compared) {
          const ShardLabels& labels = stored[static_cast<size_t>(span.shard)];
          const uint64_t token = span.offset + static_cast<uint64_t>(i);
          const at::Tensor id_K = signal.top.id_NK[span.column + i], logp_K = signal.top.logp_NK[span.column + i];
          for (int64_t j = 0; j < kHead; ++j) {
            const size_t at = token * kHead + static_cast<size_t>(j);
            CHECK(id_K[j].item<int64_t>() == labels.id[at]);
            const c10::Half rounded = logp_K[j].item<float>();
            CHECK(static_cast<float>(rounded) == static_cast<float>(labels.logp[at]));
          }
          const auto* drawn = labels.drawn.data() + token * kDraws;
          const auto* ids = labels.id.data() + token * kHead;
          double rest = 0;
          for (int64_t j = kHead; j < kHead + kDraws && id_K[j].item<int64_t>() >= 0; ++j) {
            const auto id = static_cast<int32_t>(id_K[j].item<int64_t>());
            const auto times = static_cast<double>(std::count(drawn, drawn + kDraws, id));
            CHECK(times > 0);
            CHECK(std::find(ids, ids + kHead, id) == ids + kHead);
            CHECK(std::exp(logp_K[j].item<double>()) ==
                  doctest::Approx(std::exp(static_cast<float>(labels.tail[token])) * times / kDraws).epsilon(0.02));
            rest += times;
            different.insert(id);
          }
          CHECK(rest == kDraws);
        }
    }
    CHECK(compared > 100);
    CHECK(different.size() > 100);
  }

  TEST_CASE("label: progress may stop the work") {
    const RandomShards made;
    const TokenShards shards(made.folder());
    struct Stop {};
    CHECK_THROWS_AS(label_shard(random_teacher(), shards, 0,
                                {.window_rule = "document", .context = 16, .overlap = 4, .batch_tokens = 16},
                                [](uint64_t) { throw Stop{}; }),
                    Stop);
  }

  TEST_CASE(
      "label: at other batch shapes a label differs only where the two best logits lie within 1e-5 of each other") {
    const RandomShards made;
    const TokenShards shards(made.folder());
    Model teacher = random_teacher();
    scale_master(*teacher.arena, 0.5);  // no clear winners: near ties happen
    int64_t differences = 0, compared = 0;
    for (size_t shard = 0; shard < shards.shards().size(); ++shard) {
      const LabelRule small{.window_rule = "document", .context = 24, .overlap = 6, .batch_tokens = 1},
          large{.window_rule = "document", .context = 24, .overlap = 6, .batch_tokens = 4096};
      const std::vector<int32_t> a = label_shard(teacher, shards, shard, small, {}),
                                 b = label_shard(teacher, shards, shard, large, {});
      for (const LabelWindow& window : label_windows(shards.document_ends(shard), small)) {
        const at::Tensor token_BT = at::empty({1, static_cast<int64_t>(window.length)}, at::kLong);
        shards.read(shard, window.begin, window.length, token_BT.mutable_data_ptr<int64_t>());
        const at::Tensor logits =
            decoder_logits(teacher, {.token_BT = token_BT,
                                     .position_BT = at::arange(static_cast<int64_t>(window.length)).unsqueeze(0),
                                     .document_BT = {}});
        for (uint64_t i = window.skip; i < window.length; ++i, ++compared) {
          if (a[window.begin + i] == b[window.begin + i]) continue;
          ++differences;
          const at::Tensor best = std::get<0>(logits[static_cast<int64_t>(i)].topk(2));
          CHECK(best[0].item<double>() - best[1].item<double>() <= 1e-5 * std::abs(best[0].item<double>()));
        }
      }
    }
    MESSAGE(differences << " of " << compared << " labels differ between batch shapes");
    CHECK(compared == static_cast<int64_t>(shards.num_tokens()));
  }

  TEST_CASE("label: probabilities are those of the logits, and their first id is the label") {
    const RandomShards made;
    const TokenShards shards(made.folder());
    const Model teacher = random_teacher();
    const LabelRule rule{.window_rule = "document", .context = 24, .overlap = 6, .batch_tokens = 100};
    const LabelFingerprint fingerprint{.vocab_size = 300, .tier = "topk", .k = 5, .temperature = 2.0};
    const ShardLabels labels = label_shard_tier(teacher, shards, 0, rule, fingerprint, {});
    const std::vector<int32_t> top = label_shard(teacher, shards, 0, rule, {});
    const LabelWindow window = label_windows(shards.document_ends(0), rule).front();
    const at::Tensor token_BT = at::empty({1, static_cast<int64_t>(window.length)}, at::kLong);
    shards.read(0, window.begin, window.length, token_BT.mutable_data_ptr<int64_t>());
    const at::Tensor log_p =
        (decoder_logits(teacher, {.token_BT = token_BT,
                                  .position_BT = at::arange(static_cast<int64_t>(window.length)).unsqueeze(0),
                                  .document_BT = {}}) /
         2.0)
            .log_softmax(1);
    for (size_t i = 0; i < window.length; ++i) {
      CHECK(labels.id[i * 5] == top[i]);
      double mass = 0;
      for (size_t j = 0; j < 5; ++j) {
        const double wanted = log_p[static_cast<int64_t>(i)][labels.id[i * 5 + j]].item<double>();
        CHECK(static_cast<float>(labels.logp[i * 5 + j]) == doctest::Approx(wanted).epsilon(1e-3));
        mass += std::exp(wanted);
      }
      CHECK(static_cast<float>(labels.tail[i]) == doctest::Approx(std::log(1 - mass)).epsilon(1e-3));
    }
  }
}

TEST_SUITE("unit") {
  TEST_CASE("live_signal: tokens whose logits are not finite have no choice, and are faults") {
    const RandomShards made;
    const TokenShards shards(made.folder());
    WindowReader reader(shards, 16, /*document_mask=*/false);
    Batch batch;
    REQUIRE(reader.next(2, batch));
    const int64_t tokens = batch.token_BT.numel();
    Model teacher = random_teacher();
    for (const bool broken : {false, true}) {
      if (broken)
        teacher.arena->parameter("embed_tokens.weight").detach()[299].fill_(std::numeric_limits<float>::quiet_NaN());
      for (const std::string loss : {"labels", "top_k", "sample", "hybrid"}) {
        CAPTURE(loss);
        CAPTURE(broken);
        const TeacherSignal signal = live_signal(
            teacher, batch,
            {.loss = loss, .top_k = 3, .hidden_layers = {}, .draw_number_NR = draw_numbers(batch, {&shards}, 2, 3)});
        const at::Tensor id_NK = loss == "labels" ? signal.label_BT.view({-1, 1}) : signal.top.id_NK;
        CHECK(signal.faults.item<int64_t>() == (broken ? tokens : 0));
        CHECK(id_NK.select(1, 0).ge(0).all().item<bool>() == !broken);
        if (broken) CHECK(id_NK.lt(0).all().item<bool>());
      }
      CHECK_FALSE(live_signal(teacher, batch, {.loss = "kl", .hidden_layers = {}}).faults.defined());
    }
  }

  TEST_CASE("label: a teacher whose logits are not finite is refused by name, in every tier") {
    const RandomShards made;
    const TokenShards shards(made.folder());
    for (const float value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      Model teacher = random_teacher();
      teacher.arena->parameter("embed_tokens.weight").detach()[299].fill_(value);  // one id's row of the output table
      for (const std::string tier : {"top1", "top1_prob", "sample", "hybrid"}) {
        CAPTURE(tier);
        try {
          label_shard_tier(
              teacher, shards, 0,
              {.window_rule = "document", .context = 24, .overlap = 6, .batch_tokens = 100, .teacher = "stage 'dense'"},
              {.vocab_size = 300, .tier = tier, .draws = tier == "hybrid" ? 2 : 0}, {});
          FAIL("labels of a broken teacher");
        } catch (const UserError& error) {
          CHECK((error.code() == ExitCode::bad_file));
          CHECK(std::string(error.what()).find("stage 'dense'") != std::string::npos);
          CHECK(std::string(error.what()).find("not finite") != std::string::npos);
        }
      }
    }
  }

  TEST_CASE("label: near ties are counted: two ids of one embedding tie wherever they win") {
    const RandomShards made;
    const TokenShards shards(made.folder());
    Model teacher = random_teacher();
    const LabelRule rule{.window_rule = "document", .context = 24, .overlap = 6, .batch_tokens = 100};
    const LabelFingerprint top_1_tier{.vocab_size = 300}, top_k_tier{.vocab_size = 300, .tier = "topk", .k = 3};
    const ShardLabels before = label_shard_tier(teacher, shards, 0, rule, top_1_tier, {});
    const int32_t winner = before.id[0], twin = winner == 299 ? 298 : 299;
    at::Tensor table = teacher.arena->parameter("embed_tokens.weight").detach();
    table[twin].copy_(table[winner] * (1 + 1e-6));
    const ShardLabels after = label_shard_tier(teacher, shards, 0, rule, top_1_tier, {}),
                      with_k = label_shard_tier(teacher, shards, 0, rule, top_k_tier, {});
    const auto wins = std::ranges::count_if(after.id, [&](int32_t id) { return id == winner || id == twin; });
    CHECK(wins > 0);
    CHECK(after.near_ties == before.near_ties + wins);
    CHECK(with_k.near_ties == after.near_ties);
  }
}
