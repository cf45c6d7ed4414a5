#include "src/base/errors.h"
#include "src/tensors/ops.h"
#include "src/tensors/shape.h"
#include "tests/tensors/compare.h"

using namespace coppice;

namespace {

void check_output_and_gradient(const OpPlacement& on) {
  const at::Tensor few = at::tensor({4, 0, 4, 4, 2, 0, 4}, at::kLong),
                   many = at::arange(300, at::kLong).square() % 5;  // one of them more often than a piece holds
  for (const int64_t width : {1, 31, 33, 256, 257})
    for (const at::Tensor& token : {few, many}) {
      CAPTURE(width);
      CAPTURE(token.size(0));
      const at::Tensor given = randn({5, width}, 1).to(on.compute),
                       grad = randn({token.size(0), width}, 2).to(on.compute);
      const at::Tensor table = given.to(on.device, false, /*copy=*/true).requires_grad_();
      const at::Tensor out = coppice::embedding(token.to(on.device), table, {});
      CHECK(at::equal(out.detach().cpu(), given.index_select(0, token)));
      out.backward(grad.to(on.device));
      const at::Tensor expected = at::zeros({5, width}, at::kDouble).index_add_(0, token, grad.to(at::kDouble));
      check_close(table.grad().cpu(), expected, expected, 2e-6);
      // Into the arena's view, with the order that backward makes and with one that is given.
      const at::Tensor made = at::ones({5, width}, at::TensorOptions(on.device)), with = made.clone();
      coppice::embedding(token.to(on.device), table, made).backward(grad.to(on.device));
      coppice::embedding(token.to(on.device), table, with, 5, make_token_order(token).to(on.device))
          .backward(grad.to(on.device));
      check_close(made.cpu() - 1.0, expected, expected, 2e-6);
      CHECK(at::equal(made, with));
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
    on_each(host_placements(), [&](const OpPlacement& on) {
      const at::Tensor leaf = table.to(on.compute, false, /*copy=*/true).requires_grad_();
      const at::Tensor none = coppice::embedding(at::empty({0}, at::kLong), leaf, {});
      CHECK(none.sizes() == at::IntArrayRef({0, 3}));
      none.backward(none.detach());
      CHECK(leaf.grad().eq(0).all().item<bool>());
    });
    CHECK_THROWS_WITH_AS(
        coppice::embedding(at::tensor({1, 2}, at::kLong), table, {}, 5, make_token_order(at::tensor({1}, at::kLong))),
        doctest::Contains("order.row_N: got (1), expected (2)"), InternalError);
    TokenOrder elsewhere = make_token_order(at::tensor({1, 2}, at::kLong));
    elsewhere.piece_X4 = elsewhere.piece_X4.to(at::kMeta);
    CHECK_THROWS_WITH(coppice::embedding(at::tensor({1, 2}, at::kLong), table, {}, 5, elsewhere),
                      doctest::Contains("order.piece_X4 is on meta"));
  }
}

TEST_SUITE("gpu") {
  TEST_CASE("embedding: rows are copied, gradients of repeated tokens add up: on a device") {
    on_each(device_placements(), check_output_and_gradient);
  }
}
