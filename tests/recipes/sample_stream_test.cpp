// The samples of a step, cut among ranks: each rank reads its own, all count the same.
#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "recipes/stages/prepare_data.h"
#include "recipes/stages/sample_stream.h"
#include "recipes/stages/train.h"
#include "src/optim/optimizer.h"
#include "tests/recipes/program.h"

using namespace coppice;
using namespace coppice::test;

namespace {

/// One of several ranks, all of which hold the same numbers.
class AmongEquals final : public Comm {
 public:
  AmongEquals(int rank, int size) : rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  Pending all_gather(const at::Tensor& part, const at::Tensor& whole, const char*) override {
    for (int64_t r = 0; r < size_; ++r) whole.view({size_, -1})[r].copy_(part.flatten());
    return {};
  }
  Pending reduce_scatter(const at::Tensor&, const at::Tensor&, const char*) override { throw InternalError("unused"); }
  Pending gather(const at::Tensor&, const at::Tensor&, int, const char*) override { throw InternalError("unused"); }
  Pending broadcast(const at::Tensor&, int, const char*) override { throw InternalError("unused"); }

 private:
  int rank_, size_;
};

using Place = std::tuple<int32_t, int32_t, uint64_t>;  // domain, shard, offset
std::vector<Place> places_of(const std::vector<Batch>& batches) {
  std::vector<Place> places;
  for (const Batch& batch : batches)
    for (const Span& span : batch.spans) places.emplace_back(span.domain, span.shard, span.offset);
  return places;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("sample stream: sample i belongs to rank i mod size") {
    std::vector<Span> drawn;
    for (uint64_t i = 0; i < 7; ++i) drawn.push_back({.offset = i});
    const auto offsets = [&](int rank, int size) {
      std::vector<uint64_t> own;
      for (const Span& span : spans_of_rank(drawn, rank, size)) own.push_back(span.offset);
      return own;
    };
    CHECK(offsets(0, 1) == std::vector<uint64_t>{0, 1, 2, 3, 4, 5, 6});
    CHECK(offsets(0, 3) == std::vector<uint64_t>{0, 3, 6});
    CHECK(offsets(2, 3) == std::vector<uint64_t>{2, 5});
    CHECK(offsets(7, 8).empty());
  }
}

TEST_SUITE("recipe") {
  TEST_CASE("sample stream: ranks read apart what one rank reads, and count alike") {
    const ScratchFolder scratch("sample_stream");
    write_run(scratch.path, "small.toml");
    REQUIRE(run(scratch.path, {"data", "tokenize", "small.toml", "--out", "run"}).code == 0);
    const Recipe recipe =
        load_recipe((scratch.path / "small.toml").string(), {{"dense.micro_batch_tokens", "128"}}, {});
    const PreparedData data = open_data(scratch.path / "run");
    RunFolder folder = RunFolder::beside_its_owner(scratch.path / "run");
    AmongEquals first(0, 2), second(1, 2);
    const std::unique_ptr<Comm> one = alone();
    const auto stream = [&](Comm& comm) {
      const Stage& stage = recipe.stage("dense");
      const StageContext context{.recipe = recipe,
                                 .stage = stage,
                                 .run = folder,
                                 .data = data,
                                 .comm = comm,
                                 .fingerprint = "",
                                 .identity = {}};
      return SampleStream(context, stage.get<TrainStage>().training, comm);
    };
    SampleStream whole = stream(*one), even = stream(first), odd = stream(second);
    for (int step = 0; step < 3; ++step) {
      const std::vector<Place> all = places_of(whole.next()), of_even = places_of(even.next()),
                               of_odd = places_of(odd.next());
      REQUIRE(all.size() == 8);  // 512 tokens in rows of 64
      CHECK(whole.batches().size() == 4);
      CHECK(even.batches().size() == 2);  // micro-batches have as many rows on every rank
      for (size_t i = 0; i < all.size(); ++i) CHECK((i % 2 == 0 ? of_even : of_odd)[i / 2] == all[i]);
      CHECK(whole.drawn() == even.drawn());
      CHECK(whole.drawn() == odd.drawn());
      int64_t live = 0;
      for (const Batch& batch : even.batches()) live += batch.num_live;
      CHECK(even.scale() == gradient_scale(2 * live));  // its peer holds as many
    }
    CHECK(whole.drawn()["prose"] == 24);

    // what is read ahead is the next step's, counts once that is under way, and is forgotten by who goes elsewhere
    SampleStream ahead = stream(*one), again = stream(*one);
    CHECK(ahead.ahead() == nullptr);
    for (int step = 0; step < 2; ++step) {
      const Json drawn = ahead.drawn();
      const std::vector<Place> under_way = places_of(ahead.batches());
      ahead.read_ahead();
      ahead.read_ahead();
      CHECK(ahead.drawn() == drawn);
      CHECK((places_of(ahead.batches()) == under_way));
      REQUIRE(ahead.ahead() != nullptr);
      const at::Tensor first_BT = ahead.ahead()->token_BT;
      CHECK((places_of(ahead.next()) == places_of(again.next())));
      CHECK(ahead.batches().front().token_BT.is_same(first_BT));
      CHECK(ahead.ahead() == nullptr);
      CHECK(ahead.drawn() == again.drawn());
      CHECK(ahead.scale() == again.scale());
    }
    ahead.read_ahead();
    ahead.restore(stream(*one).drawn(), "");
    CHECK((places_of(ahead.next()) == places_of(stream(*one).next())));
  }
}
