// The op of losses between hidden states beside a composition of ATen's operations in double, wherever there are
// kernels.
#include "src/tensors/hidden_state_loss.h"

#include "tests/caught.h"
#include "tests/tensors/compare.h"

using namespace coppice;

namespace {

at::Tensor composition(const char* kind, const at::Tensor& student_ND, const at::Tensor& teacher_ND,
                       const at::Tensor& live_N) {
  const at::Tensor row_N = kind == std::string("mse") ? (student_ND - teacher_ND).square().mean(1)
                                                      : 1 - at::cosine_similarity(student_ND, teacher_ND, 1);
  return row_N.masked_select(live_N).sum();
}

/// Value and gradient times 0.37, as a step's scale comes to it.
void check_value_and_gradient(const OpPlacement& on) {
  if (on.execution == Execution::cpu) return;  // no kernel
  for (const char* kind : {"cosine", "mse"})
    for (const auto& [num_tokens, hidden_size] : {std::pair<int64_t, int64_t>{1, 8}, {7, 33}, {12, 256}})
      for (const int64_t surplus : {0, 5}) {  // of the rows; their padding is full of NaN
        CAPTURE(kind);
        CAPTURE(hidden_size);
        const auto rows = [&](uint64_t seed) {
          return strided_copy(randn({num_tokens, hidden_size}, seed).to(on.compute).to(at::kFloat), surplus, 0);
        };
        const at::Tensor student = rows(1), teacher = rows(2);
        const at::Tensor live_N = at::arange(num_tokens).remainder(3).ne(1);
        const auto placed = [&](const at::Tensor& tensor) {
          return strided_copy(tensor, surplus, 0)
              .as_strided({num_tokens, hidden_size + surplus}, {hidden_size + surplus, 1})
              .to(on.device, on.compute)
              .narrow(1, 0, hidden_size)
              .detach();
        };
        const at::Tensor own = placed(student).requires_grad_(), wide = student.to(at::kDouble).requires_grad_();
        const at::Tensor loss = sum_hidden_state_loss(kind, own, placed(teacher), live_N.to(on.device)),
                         wanted = composition(kind, wide, teacher.to(at::kDouble), live_N);
        CHECK((loss.scalar_type() == at::kFloat));
        CHECK(loss.dim() == 0);
        CHECK(loss.item<double>() == doctest::Approx(wanted.item<double>()).epsilon(3e-6));
        (0.37 * loss).backward();
        (0.37 * wanted).backward();
        CHECK((own.grad().scalar_type() == on.compute));
        const at::Tensor off = (own.grad().cpu().to(at::kDouble) - wide.grad()).abs();
        const double rounding = on.compute == at::kBFloat16 ? 0x1p-8 : 0;
        CHECK((off - rounding * wide.grad().abs()).max().item<double>() <= 3e-6);
        for (int64_t n = 1; n < num_tokens; n += 3) CHECK(own.grad()[n].abs().max().item<double>() == 0);
      }
}

}  // namespace

TEST_SUITE("grad") {
  TEST_CASE("sum_hidden_state_loss: value and gradient of the composition in double, rows apart") {
    on_each(host_placements(), check_value_and_gradient);
  }

  TEST_CASE("sum_hidden_state_loss: what it is not for is refused") {
    const at::Tensor rows = at::zeros({2, 3}, at::kBFloat16), live_N = at::ones({2}, at::kBool);
    CHECK(caught([&] { sum_hidden_state_loss("l1", rows, rows, live_N); }).code == 1);
    CHECK(caught([&] { sum_hidden_state_loss("mse", rows, rows.to(at::kFloat), live_N); }).code == 1);
    CHECK(caught([&] { sum_hidden_state_loss("mse", rows, rows.narrow(1, 0, 2), live_N); }).code == 1);
    CHECK(caught([&] { sum_hidden_state_loss("mse", rows, rows, live_N.to(at::kLong)); }).code == 1);
    CHECK(caught([&] { sum_hidden_state_loss("mse", rows.to(at::kFloat), rows.to(at::kFloat), live_N); }).code == 1);
  }
}

TEST_SUITE("gpu") {
  TEST_CASE("sum_hidden_state_loss: value and gradient of the composition in double on a device") {
    on_each(device_placements(), check_value_and_gradient);
  }
}
