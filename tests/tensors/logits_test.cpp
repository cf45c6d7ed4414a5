#include "src/tensors/kernels/logits.h"

#include <ATen/Parallel.h>

#include <limits>

#include "tests/tensors/compare.h"

using namespace coppice;

namespace {

at::Tensor logits(const at::Tensor& hidden_ND, const at::Tensor& head_VD, int lanes = vector_lanes()) {
  Guarded out(hidden_ND.size(0) * head_VD.size(0));
  logits_cpu({.hidden = hidden_ND.const_data_ptr<float>(),
              .head = head_VD.const_data_ptr<float>(),
              .logits = out.data(),
              .num_rows = hidden_ND.size(0),
              .num_vocab = head_VD.size(0),
              .width = head_VD.size(1)},
             lanes);
  CHECK(out.intact());
  return out.tensor({hidden_ND.size(0), head_VD.size(0)});
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE(
      "logits: within the stated bound of the product in double, for every register width, at sizes around a tile's "
      "edges") {
    for (int lanes = 4; lanes <= vector_lanes(); lanes *= 2) {
      for (const int64_t rows : {1, 7, 8, 9, 40})
        for (const int64_t vocab : {1, 11, 12, 13, 47, 48, 49, 100, 500})
          for (const int64_t width : {1, 15, 16, 17, 96}) {
            CAPTURE(lanes);
            CAPTURE(rows);
            CAPTURE(vocab);
            CAPTURE(width);
            const at::Tensor hidden = randn({rows, width}, 1), head = randn({vocab, width}, 2),
                             ours = logits(hidden, head, lanes);
            const at::Tensor exact = hidden.to(at::kDouble).mm(head.to(at::kDouble).t());
            const at::Tensor bound = hidden.abs().to(at::kDouble).mm(head.abs().to(at::kDouble).t()) *
                                     (static_cast<double>(width) * 0x1p-23);
            CHECK((ours.to(at::kDouble) - exact).abs().le(bound).all().item<bool>());
          }
    }
  }

  TEST_CASE("logits: the same bits whichever rows are beside a row, and however many threads share the work") {
    const at::Tensor hidden = randn({300, 64}, 1), head = randn({700, 64}, 2), all = logits(hidden, head);
    for (const auto& [first, rows] : {std::pair<int64_t, int64_t>{0, 1}, {17, 1}, {299, 1}, {5, 100}, {3, 296}}) {
      CAPTURE(first);
      CAPTURE(rows);
      CHECK(logits(hidden.narrow(0, first, rows), head).equal(all.narrow(0, first, rows)));
    }
    const int threads = at::get_num_threads();
    for (const int other : {1, 3}) {
      at::set_num_threads(other);
      CHECK(logits(hidden, head).equal(all));
      CHECK(logits(hidden, head.narrow(0, 0, 250))
                .equal(all.narrow(1, 0, 250)));  // more rows than ids: shared out by rows
    }
    at::set_num_threads(threads);
  }

  TEST_CASE("logits: infinity and NaN stay in their own row or column") {
    at::Tensor hidden = randn({9, 20}, 1), head = randn({50, 20}, 2);
    const at::Tensor finite = logits(hidden, head);
    hidden[8][3] = std::numeric_limits<float>::infinity();
    head[49][5] = std::numeric_limits<float>::quiet_NaN();
    const at::Tensor ours = logits(hidden, head);
    CHECK(ours.narrow(0, 0, 8).narrow(1, 0, 49).equal(finite.narrow(0, 0, 8).narrow(1, 0, 49)));
    CHECK(ours[8].narrow(0, 0, 49).isinf().all().item<bool>());
    CHECK(ours.narrow(1, 49, 1).isnan().all().item<bool>());
  }
}
