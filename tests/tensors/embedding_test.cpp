#include "src/base/errors.h"
#include "src/tensors/ops.h"
#include "src/tensors/shape.h"
#include "tests/tensors/compare.h"

using namespace coppice;

namespace {

void check_output_and_gradient(const Placement& on) {
  for (const int64_t width : {1, 31, 33, 257}) {
    CAPTURE(width);
    const at::Tensor token = at::tensor({4, 0, 4, 4, 2, 0, 4}, at::kLong), given = randn({5, width}, 1).to(on.compute),
                     grad = randn({7, width}, 2).to(on.compute);
    const at::Tensor table = given.to(on.device, false, /*copy=*/true).requires_grad_();
    const at::Tensor out = coppice::embedding(token.to(on.device), table, {});
    CHECK(at::equal(out.detach().cpu(), given.index_select(0, token)));
    out.backward(grad.to(on.device));
    const at::Tensor expected = at::zeros({5, width}, at::kDouble).index_add_(0, token, grad.to(at::kDouble));
    CHECK(max_error(table.grad().cpu(), expected) < 1e-6);
  }
}

}  // namespace

TEST_SUITE("grad") {
  TEST_CASE("embedding: rows are copied, gradients of repeated tokens add up") {
    on_each(host_placements(), check_output_and_gradient);
  }

  TEST_CASE("embedding: the gradient goes into the arena's view, the same at any number of threads") {
    const at::Tensor token = at::arange(5000, at::kLong) * 7919 % 97, table = randn({97, 64}, 1).requires_grad_(),
                     grad = randn({5000, 64}, 2);
    const at::Tensor buffer = at::ones({97, 64}), single = at::ones({97, 64});
    coppice::embedding(token, table, buffer).backward(grad);
    CHECK_FALSE(table.grad().defined());
    const int threads = num_threads();
    start_torch(1);
    coppice::embedding(token, table, single).backward(grad);
    start_torch(threads);
    CHECK(at::equal(buffer, single));
  }
}

TEST_SUITE("unit") {
  TEST_CASE("embedding: a token outside the table is refused; no tokens") {
    const at::Tensor table = randn({5, 3}, 1);
    CHECK_THROWS_WITH_AS(coppice::embedding(at::tensor({1, 5}, at::kLong), table, {}),
                         doctest::Contains("token 5 outside the table of 5 rows"), InternalError);
    CHECK_THROWS_AS(coppice::embedding(at::tensor({-1}, at::kLong), table, {}), InternalError);
    CHECK_THROWS_AS(coppice::embedding(at::tensor({1}, at::kInt), table, {}), InternalError);
    // What is known of the ids is believed where it fits the table, else they are looked at.
    CHECK_THROWS_WITH_AS(coppice::embedding(at::tensor({1, 5}, at::kLong), table, {}, 6),
                         doctest::Contains("token 5 outside the table of 5 rows"), InternalError);
    CHECK(coppice::embedding(at::tensor({4, 1}, at::kLong), table, {}, 5)
              .equal(table.index_select(0, at::tensor({4, 1}))));
    CHECK(coppice::embedding(at::empty({0}, at::kLong), table, {}).sizes() == at::IntArrayRef({0, 3}));
  }
}

TEST_SUITE("gpu") {
  TEST_CASE("embedding: rows are copied, gradients of repeated tokens add up: on a device") {
    on_each(device_placements(), check_output_and_gradient);
  }
}
