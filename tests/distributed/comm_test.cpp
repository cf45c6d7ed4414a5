// A world of one, and the sums in rank order with several ranks as threads.
#include "src/distributed/comm.h"

#include "tests/distributed/thread_ranks.h"  // before any CHECK

#include <doctest/doctest.h>

#include <mutex>

using namespace coppice;

namespace {

/// Values of all ranks after body(comm, value) on what each begins with.
std::vector<at::Tensor> on_ranks(std::vector<at::Tensor> values, const std::function<void(Comm&, at::Tensor&)>& body) {
  ThreadRanks::run(static_cast<int>(values.size()),
                   [&](Comm& comm) { body(comm, values[static_cast<size_t>(comm.rank())]); });
  return values;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("alone: every collective copies, a part may lie in the whole") {
    const std::unique_ptr<Comm> comm = alone();
    CHECK(comm->rank() == 0);
    CHECK(comm->size() == 1);
    const at::Tensor part = at::arange(6, at::kFloat);
    at::Tensor whole = at::zeros({2, 3});
    comm->all_gather(part, whole, "test").wait();
    CHECK(whole.flatten().equal(part));
    comm->all_gather(whole, whole, "test").wait();
    CHECK(whole.flatten().equal(part));
    at::Tensor sum = at::zeros({6});
    comm->reduce_scatter(whole, sum, "test").wait();
    CHECK(sum.equal(part));
    whole.zero_();
    comm->gather(part, whole, 0, "test").wait();
    CHECK(whole.flatten().equal(part));
    comm->broadcast(whole, 0, "test").wait();
    CHECK(whole.flatten().equal(part));
    sum_over(*comm, whole, "test");
    CHECK(whole.flatten().equal(part));
    std::vector<double> values{0.5, -3.0};
    sum_over(*comm, values, "test");
    CHECK(values == std::vector<double>{0.5, -3.0});

    CHECK_THROWS_WITH_AS(comm->all_gather(part, at::zeros({7}), "a test").wait(),
                         doctest::Contains("a test: 7 float32 in parts of 6 float32 for 1 ranks"), InternalError);
    CHECK_THROWS_AS(comm->all_gather(part, at::zeros({6}, at::kDouble), "test").wait(), InternalError);
    CHECK_THROWS_AS(comm->reduce_scatter(whole.t(), sum, "test").wait(), InternalError);
    CHECK_THROWS_WITH_AS(comm->broadcast(whole, 1, "a test").wait(), doctest::Contains("a test: rank 1 of 1"),
                         InternalError);
  }

  TEST_CASE("Pending: finishes once, at the latest when it goes") {
    int finished = 0;
    Pending().wait();
    {
      Pending first([&] { ++finished; });
      Pending moved(std::move(first));
      CHECK(finished == 0);
      moved.wait();
      CHECK(finished == 1);
      moved.wait();
    }
    CHECK(finished == 1);
    {
      const Pending left([&] { ++finished; });
    }
    CHECK(finished == 2);
    Pending failing([] { throw InternalError("a rank is gone"); });
    CHECK_THROWS_WITH_AS(failing.wait(), doctest::Contains("a rank is gone"), InternalError);
    CHECK_NOTHROW([] { const Pending lost([] { throw InternalError("a rank is gone"); }); }());
  }

  TEST_CASE("sum_over: added in the order of ranks, the same bits on all of them") {
    // 2^24 + 1 + 1 is 2^24 in float when added from the left, 2^24 + 2 from the right
    const std::vector<float> left{16777216.0f, 1.0f, 1.0f}, right{1.0f, 1.0f, 16777216.0f};
    for (const int64_t count : {int64_t{1}, int64_t{5}, int64_t{20000}, int64_t{16384}, int64_t{16385}}) {
      CAPTURE(count);
      std::vector<at::Tensor> values;
      for (size_t rank = 0; rank < 3; ++rank) {
        at::Tensor value = at::full({count}, left[rank]);
        if (count > 1) value[count - 1] = right[rank];
        values.push_back(value);
      }
      for (const at::Tensor& sum :
           on_ranks(values, [](Comm&comm, at::Tensor&value) { sum_over(comm, value, "a test"); })) {
        CHECK(sum[0].item<float>() == 16777216.0f);
        if (count > 1) CHECK(sum[count - 1].item<float>() == 16777218.0f);
        if (count > 2) CHECK(sum.slice(0, 0, count - 1).eq(16777216.0f).all().item<bool>());
      }
    }
  }

  TEST_CASE("sum_over: counts and doubles; what cannot be summed is refused") {
    const std::vector<at::Tensor> counts =
        on_ranks({at::tensor({int64_t{1}, int64_t{-5}}), at::tensor({int64_t{1} << 40, int64_t{7}})},
                 [](Comm& comm, at::Tensor& value) { sum_over(comm, value, "counts"); });
    for (const at::Tensor& sum : counts) CHECK(sum.equal(at::tensor({(int64_t{1} << 40) + 1, int64_t{2}})));
    std::mutex mutex;
    std::vector<std::vector<double>> sums;
    ThreadRanks::run(4, [&](Comm& comm) {
      std::vector<double> sum{1.0 * comm.rank(), comm.rank() == 2 ? INFINITY : 0.0};
      sum_over(comm, sum, "norms");
      const std::lock_guard lock(mutex);
      sums.push_back(sum);
    });
    CHECK(sums == std::vector<std::vector<double>>(4, {6.0, INFINITY}));
    CHECK_THROWS_WITH_AS(sum_over(*alone(), at::zeros({2}, at::kBFloat16), "a test"),
                         doctest::Contains("a test: a sum in bfloat16"), InternalError);
    CHECK_THROWS_AS(sum_over(*alone(), at::zeros({2, 3}).t(), "a test"), InternalError);
  }

  TEST_CASE("Comm: what all_gather, gather, reduce_scatter and broadcast mean with three ranks") {
    CHECK_NOTHROW(ThreadRanks::run(3, [](Comm& comm) {
      const auto check = [](bool holds) {  // doctest's macros are not made for many threads
        if (!holds) throw InternalError("a collective gave something else");
      };
      const int64_t rank = comm.rank();
      const at::Tensor part = at::tensor({10.0f * static_cast<float>(rank), 1.0f});
      at::Tensor whole = at::zeros({6});
      comm.all_gather(part, whole, "parts").wait();
      check(whole.equal(at::tensor({0.0f, 1.0f, 10.0f, 1.0f, 20.0f, 1.0f})));
      whole.zero_();
      comm.gather(part, whole, 1, "parts").wait();
      check(whole.sum().item<float>() == (rank == 1 ? 33.0f : 0.0f));
      at::Tensor sum = at::zeros({2});
      comm.reduce_scatter(at::arange(6, at::kFloat) + static_cast<double>(rank), sum, "sums").wait();
      check(sum.equal(at::tensor({6.0f * static_cast<float>(rank) + 3.0f, 6.0f * static_cast<float>(rank) + 6.0f})));
      at::Tensor value = at::full({2}, static_cast<double>(rank));
      comm.broadcast(value, 2, "value").wait();
      check(value.eq(2).all().item<bool>());
    }));
  }
}
