// Windows, targets, masks, mixture and resuming, on shards small enough to work out by hand.
#include "src/data/loader.h"

#include <doctest/doctest.h>

#include <map>
#include <set>

#include "src/tokens/token_shard_writer.h"
#include "tests/data/data_files.h"

namespace coppice {

namespace {

std::vector<int64_t> row_of(const at::Tensor& tensor, int64_t row) {
  std::vector<int64_t> values;
  for (int64_t t = 0; t < tensor.size(1); ++t)
    values.push_back(tensor.scalar_type() == at::kInt ? tensor.const_data_ptr<int32_t>()[row * tensor.size(1) + t]
                                                      : tensor.const_data_ptr<int64_t>()[row * tensor.size(1) + t]);
  return values;
}

/// `count` documents of `length` tokens that say where they are: id = 3 + running number modulo 50,000.
std::vector<std::vector<int32_t>> numbered_documents(int count, int length, int first = 0) {
  std::vector<std::vector<int32_t>> documents(static_cast<size_t>(count));
  int next = first;
  for (auto& document : documents)
    for (int i = 0; i < length; ++i) document.push_back(3 + next++ % 50'000);
  return documents;
}

bool same(const Batch& a, const Batch& b) {
  bool spans = a.spans.size() == b.spans.size();
  for (size_t i = 0; spans && i < a.spans.size(); ++i)
    spans = a.spans[i].domain == b.spans[i].domain && a.spans[i].shard == b.spans[i].shard &&
            a.spans[i].offset == b.spans[i].offset;
  return spans && a.num_live == b.num_live && a.token_BT.equal(b.token_BT) && a.true_label_BT.equal(b.true_label_BT) &&
         a.position_BT.equal(b.position_BT);
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("windows: by hand") {
    const ScratchFolder folder;
    // shard 0: 5 6 2 7 2 8 9 4 2 (9 tokens: 2 windows of 4); shard 1: 5 5 5 5 2 (5 tokens: 1); shard 2: 6 2 (2 tokens:
    // none)
    {
      TokenShardWriter writer(folder.path / "t", "prose", 10, 2, "h", 9);
      writer.add(1, {5, 6}, 0);
      writer.add(2, {7}, 0);
      writer.add(3, {8, 9, 4}, 0);
      writer.add(4, {5, 5, 5, 5}, 0);
      writer.add(5, {6, 6, 6, 6, 6, 6, 6, 6, 6, 6}, 0);
      writer.finish();
    }
    const TokenShards shards(folder.path / "t");
    REQUIRE(shards.shards().size() == 3);
    const WindowIndex index(shards, 4);
    CHECK(index.num_windows == 2 + 1 + 2);
    CHECK(index.at(1).shard == 0);
    CHECK(index.at(1).offset == 4);
    CHECK(index.at(2).shard == 1);
    CHECK(index.at(2).offset == 0);
    CHECK(index.at(4).shard == 2);
    CHECK(index.at(4).offset == 4);

    WindowReader reader(shards, 4, true);
    CHECK(reader.num_windows() == 5);
    Batch batch;
    REQUIRE(reader.next(2, batch));
    CHECK(row_of(batch.token_BT, 0) == std::vector<int64_t>{5, 6, 2, 7});
    CHECK(row_of(batch.true_label_BT, 0) ==
          std::vector<int64_t>{6, 2, -100, 2});  // the end token is a target, and has none
    CHECK(row_of(batch.document_BT, 0) == std::vector<int64_t>{0, 0, 0, 1});
    CHECK(row_of(batch.position_BT, 0) == std::vector<int64_t>{0, 1, 2, 0});
    CHECK(row_of(batch.token_BT, 1) == std::vector<int64_t>{2, 8, 9, 4});
    CHECK(row_of(batch.true_label_BT, 1) == std::vector<int64_t>{-100, 9, 4, 2});
    CHECK(row_of(batch.document_BT, 1) == std::vector<int64_t>{0, 1, 1, 1});
    CHECK(row_of(batch.position_BT, 1) == std::vector<int64_t>{0, 0, 1, 2});
    CHECK(batch.num_live == 3 + 3);
    CHECK(batch.segment_end == std::vector<int32_t>{3, 4, 5, 8});
    CHECK(batch.largest_position == 2);
    CHECK(batch.ids_below == shards.vocab_size());
    const DecoderInput input = batch.input();
    CHECK(input.token_BT.is_same(batch.token_BT));
    CHECK(input.largest_position == 2);
    CHECK(input.ids_below == shards.vocab_size());
    const DecoderInput part = input.part(1, 1, 1, 2);
    CHECK(row_of(part.token_BT, 0) == std::vector<int64_t>{8, 9});
    CHECK(row_of(part.position_BT, 0) == std::vector<int64_t>{0, 1});
    CHECK(row_of(part.document_BT, 0) == std::vector<int64_t>{1, 1});
    CHECK(part.largest_position == 2);
    REQUIRE(batch.spans.size() == 2);
    CHECK(batch.spans[1].row == 1);
    CHECK(batch.spans[1].length == 4);
    CHECK(batch.spans[1].offset == 4);
    REQUIRE(reader.next(10, batch));
    CHECK(batch.token_BT.size(0) == 3);
    CHECK(row_of(batch.true_label_BT, 0) == std::vector<int64_t>{5, 5, 5, 2});
    CHECK_FALSE(reader.next(1, batch));

    WindowReader plain(shards, 4, false);
    REQUIRE(plain.next(2, batch));
    CHECK_FALSE(batch.document_BT.defined());
    CHECK(batch.segment_end.empty());
    CHECK(batch.largest_position == 3);
    CHECK(row_of(batch.position_BT, 0) == std::vector<int64_t>{0, 1, 2, 3});
    CHECK(row_of(batch.true_label_BT, 0) == std::vector<int64_t>{6, 2, -100, 2});  // whatever the attention mask

    WindowReader spread(shards, 4, false, 2);
    CHECK(spread.num_windows() == 2);
    REQUIRE(spread.next(2, batch));
    CHECK(batch.spans[0].offset == 0);
    CHECK(batch.spans[1].shard == 1);  // window floor(1 * 5 / 2) = 2
  }

  TEST_CASE("mixture: error feedback by hand, ties to the first") {
    // share * max(i, 1) - drawn, largest first.
    // 0.5 0.3 0.2: 0 (.5 .3 .2); 1 (-.5 .3 .2); 2 (0 -.4 .4); 0 (.5 -.1 -.4); 0 and 1 (0 .2 -.2) -> 1; then (.5 -.5 0)
    // -> 0
    const std::vector<MixtureEntry> mixture = {{"a", 5}, {"b", 3}, {"c", 2}};
    std::vector<uint64_t> drawn(3, 0);
    std::vector<int> order;
    for (int i = 0; i < 6; ++i) {
      order.push_back(next_domain(mixture, drawn, {0, 0, 0}));
      ++drawn[static_cast<size_t>(order.back())];
    }
    CHECK(order == std::vector<int>{0, 1, 2, 0, 1, 0});
    CHECK(next_domain({{"a", 1}, {"b", 1}}, {0, 0}, {0, 0}) == 0);
    CHECK(next_domain({{"a", 1}, {"b", 3}}, {0, 0}, {0, 0}) == 1);
    CHECK(next_domain({{"a", 0}, {"b", 1}}, {0, 5}, {0, 0}) == 1);
    CHECK(mixture_counts(mixture, 1000) == std::vector<uint64_t>{500, 300, 200});
    for (uint64_t n = 1; n < 200; ++n) {
      const auto counts = mixture_counts(mixture, n);
      CHECK(counts[0] + counts[1] + counts[2] == n);
      CHECK(std::abs(static_cast<double>(counts[0]) - 0.5 * static_cast<double>(n)) <= 1.0);
      CHECK(std::abs(static_cast<double>(counts[2]) - 0.2 * static_cast<double>(n)) <= 1.0);
    }
  }

  TEST_CASE("mixture: a domain that reached max_epochs is skipped, the others share by weight") {
    const std::vector<MixtureEntry> mixture = {{"a", 4, 2.0}, {"b", 3}, {"c", 1}};
    const auto counts = mixture_counts(mixture, 1010, {5, 100, 100});
    CHECK(counts[0] == 10);  // 2 epochs of 5 windows
    CHECK(std::abs(static_cast<double>(counts[1]) - 750) <= 2);
    CHECK(mixture_counts({{"a", 1, 1.5}}, 100, {4}) == std::vector<uint64_t>{6});
  }

  TEST_CASE("loader: each epoch visits every window once, in another order; domains have their own") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", numbered_documents(20, 15), 60'000, 100, "a");
    test::write_documents(folder.path / "b", numbered_documents(20, 15), 60'000, 100, "b");
    const TokenShards a(folder.path / "a"), b(folder.path / "b");
    Loader loader({&a, &b}, {{"a", 1}, {"b", 1}}, {.seq_len = 8, .seed = 3});
    const uint64_t windows = WindowIndex(a, 8).num_windows;
    REQUIRE(windows > 30);
    std::map<int, std::vector<std::pair<int, uint64_t>>> seen;
    for (uint64_t i = 0; i < 4 * windows; ++i) {
      const Batch batch = loader.next(1);
      seen[batch.spans[0].domain].emplace_back(batch.spans[0].shard, batch.spans[0].offset);
    }
    CHECK(loader.epochs() == std::vector<double>{2.0, 2.0});
    CHECK(loader.position() == 4 * windows);
    for (const auto& [domain, places] : seen) {
      REQUIRE(places.size() == 2 * windows);
      const auto middle = places.begin() + static_cast<int64_t>(windows);
      CHECK(std::set(places.begin(), middle).size() == windows);
      CHECK(std::set(places.begin(), middle) == std::set(middle, places.end()));
      CHECK_FALSE(std::equal(places.begin(), middle, middle));
      CHECK_FALSE(std::is_sorted(places.begin(), middle));
    }
    CHECK(seen[0] != seen[1]);
  }

  TEST_CASE("loader: resume anywhere gives the same batches, whatever the batch size before") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", numbered_documents(30, 11), 60'000, 100, "a");
    test::write_documents(folder.path / "b", numbered_documents(7, 40, 5000), 60'000, 1000, "b");
    const TokenShards a(folder.path / "a"), b(folder.path / "b");
    const std::vector<MixtureEntry> mixture = {{"a", 0.7, 3}, {"b", 0.3}};
    const LoaderOptions options{.seq_len = 8, .document_mask = true, .seed = 9};
    Loader straight({&a, &b}, mixture, options);
    std::vector<Batch> batches;
    std::vector<std::vector<uint64_t>> states;
    for (int i = 0; i < 60; ++i) {
      states.push_back(straight.drawn());
      batches.push_back(straight.next(4));
    }
    for (size_t i = 0; i < batches.size(); ++i) {
      Loader resumed({&a, &b}, mixture, options);
      resumed.restore(states[i]);
      CHECK(same(resumed.next(4), batches[i]));
    }
    Loader single({&a, &b}, mixture, options);
    for (const Batch& batch : batches)
      for (int64_t row = 0; row < 4; ++row) CHECK(row_of(single.next(1).token_BT, 0) == row_of(batch.token_BT, row));
    Loader other({&a, &b}, mixture, {.seq_len = 8, .document_mask = true, .seed = 10});
    CHECK_FALSE(same(other.next(4), batches[0]));
    CHECK(caught([&] { straight.restore({1}); }).code == 2);
  }

  TEST_CASE("loader: every token of a batch is where its span says") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", numbered_documents(50, 13), 60'000, 200, "a");
    const TokenShards a(folder.path / "a");
    Loader loader({&a}, {{"a", 1}}, {.seq_len = 16, .seed = 1});
    for (int i = 0; i < 10; ++i) {
      const Batch batch = loader.next(3);
      int64_t live = 0;
      for (const Span& span : batch.spans) {
        std::vector<int64_t> tokens(17);
        a.read(static_cast<size_t>(span.shard), span.offset, 17, tokens.data());
        const auto row = row_of(batch.token_BT, span.row), label = row_of(batch.true_label_BT, span.row);
        for (size_t t = 0; t < 16; ++t) {
          CHECK(row[t] == tokens[t]);
          CHECK(label[t] == (tokens[t] == 2 ? kIgnoredLabel : tokens[t + 1]));
          live += label[t] != kIgnoredLabel;
        }
      }
      CHECK(live == batch.num_live);
    }
  }
}

TEST_SUITE("faults") {
  TEST_CASE("loader: what cannot be drawn is refused, naming the domain") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "a", numbered_documents(10, 15), 60'000, 1000, "a");
    test::write_documents(folder.path / "b", numbered_documents(10, 5), 60'000, 8, "b");
    const TokenShards a(folder.path / "a"), b(folder.path / "b");
    Caught refusal = caught([&] { Loader({&a, &b}, {{"a", 1}, {"b", 1}}, {.seq_len = 8}); });
    CHECK(refusal.code == 3);
    CHECK(refusal.says("b"));
    CHECK(refusal.says("no window of 8"));
    CHECK(caught([&] { Loader({&a}, {{"a", 0}}, {.seq_len = 8}); }).code == 2);
    CHECK(caught([&] { Loader({&a}, {{"a", -1}}, {.seq_len = 8}); }).code == 2);
    CHECK(caught([&] { Loader({&a}, {{"a", std::nan("")}}, {.seq_len = 8}); }).code == 2);
    CHECK(caught([&] { Loader({&a}, {{"a", 1, -1}}, {.seq_len = 8}); }).code == 2);

    const std::filesystem::path closed = folder.path / "closed";
    TokenShardWriter writer(closed, "closed", 60'000, 2, "tokenizer-hash", 1000);
    for (const auto& ids : numbered_documents(10, 15)) writer.add(1, ids, 1);
    writer.finish({{"open", "CC0-1.0", {}}, {"press", "unknown", {"core", "long"}}});
    const TokenShards c(closed);
    CHECK(Loader({&c}, {{"c", 1}}, {.seq_len = 8, .stage = "long"}).next(1).num_live > 0);
    CHECK(Loader({&a, &c}, {{"a", 1}, {"c", 0}}, {.seq_len = 8, .stage = "student"}).next(1).num_live > 0);
    refusal = caught([&] { Loader({&a, &c}, {{"a", 1}, {"c", 1}}, {.seq_len = 8, .stage = "student"}); });
    CHECK(refusal.code == 3);
    CHECK(refusal.says("c: its token shards hold the source 'press', allowed in core, long alone (" +
                       (closed / "manifest.json").string() + "); the stage 'student' draws from it"));

    Loader loader({&a}, {{"a", 1, 1}}, {.seq_len = 8});
    const auto windows = static_cast<int64_t>(WindowIndex(a, 8).num_windows);
    loader.next(windows - 1);
    const auto before = loader.drawn();
    refusal = caught([&] { loader.next(2); });
    CHECK(refusal.code == 2);
    CHECK(refusal.says("'a'"));
    CHECK(loader.drawn() == before);
    loader.next(1);
  }
}

}  // namespace coppice
