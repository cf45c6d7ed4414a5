#include "src/tensors/kernels/hidden_state_loss.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>

#include "tests/executor/outputs.h"
#include "tests/kernels/every_schedule.h"
#include "tests/kernels/last_row.h"
#include "tests/kernels/table_bytes.h"

using namespace coppice;

namespace {

constexpr float kScale = 0.37f;  // times D: gradients of about 1

struct Shape {
  HiddenLoss kind;
  int64_t num_tokens;
  int64_t hidden_size;
  int64_t padding;  // of a row's end, full of NaN; the teacher's rows have twice as much
  bool all_live = false;
};

/// The rows of T, and the same numbers as floats for the reference.
template <class T>
struct Problem {
  explicit Problem(const Shape& shape)
      : shape(shape),
        student(rows(shape.padding, 1)),
        teacher(rows(2 * shape.padding, 2)),
        live(new bool[static_cast<size_t>(shape.num_tokens)]) {
    for (int64_t n = 0; n < shape.num_tokens; ++n) live[static_cast<size_t>(n)] = shape.all_live || n % 3 != 1;
  }
  std::vector<T> rows(int64_t padding, uint32_t stream) const {
    const int64_t stride = shape.hidden_size + padding;
    std::vector<T> values = numbers<T>(shape.num_tokens * stride, stream, 2.0f);
    const T nan = numbers<T>(1, 0, std::numeric_limits<float>::quiet_NaN())[0];
    for (int64_t i = 0; i < shape.num_tokens * stride; ++i)
      if (i % stride >= shape.hidden_size) values[static_cast<size_t>(i)] = nan;
    return values;
  }
  template <class Params>
  Params params() const {
    Params params;
    params.kind = shape.kind;
    params.student = student.data();
    params.teacher = teacher.data();
    params.live = live.get();
    params.num_tokens = shape.num_tokens;
    params.hidden_size = shape.hidden_size;
    params.student_row_stride = shape.hidden_size + shape.padding;
    params.teacher_row_stride = shape.hidden_size + 2 * shape.padding;
    return params;
  }
  Problem<float> as_floats() const {
    Problem<float> floats(shape);
    std::transform(student.begin(), student.end(), floats.student.begin(), [](T value) { return to_float(value); });
    std::transform(teacher.begin(), teacher.end(), floats.teacher.begin(), [](T value) { return to_float(value); });
    return floats;
  }

  Shape shape;
  std::vector<T> student, teacher;
  std::unique_ptr<bool[]> live;
};

/// Losses and, of cosine, products as means over D; a sentinel behind each.
template <class T, class Run>
Outputs forward(const Problem<T>& problem, const Run& run, bool with_products = true) {
  const auto rows = static_cast<size_t>(problem.shape.num_tokens);
  std::vector<float> loss(rows + 1, -7.0f), products(3 * rows + 1, -7.0f);
  auto params = problem.template params<HiddenStateLossParams<T>>();
  params.loss = loss.data();
  params.products = with_products ? products.data() : nullptr;
  run(params);
  for (float& product : products) product /= static_cast<float>(problem.shape.hidden_size);
  Outputs outputs(loss);
  append(outputs, products);
  return outputs;
}

template <class T, class Run>
Outputs backward(const Problem<T>& problem, const std::vector<float>& products, const Run& run) {
  const T sentinel = numbers<T>(1, 0, 42.0f)[0];
  std::vector<T> grad(static_cast<size_t>(problem.shape.num_tokens * problem.shape.hidden_size) + 8, sentinel);
  auto params = problem.template params<HiddenStateLossBackwardParams<T>>();
  params.products = products.data();
  const float scale = kScale * static_cast<float>(problem.shape.hidden_size);
  params.scale = &scale;
  params.student_grad = grad.data();
  run(params);
  Outputs outputs;
  append(outputs, grad);
  return outputs;
}

template <class T>
void check(const Shape& shape) {
  CAPTURE(shape.num_tokens);
  CAPTURE(shape.hidden_size);
  const Problem<T> problem(shape);
  const Problem<float> floats = problem.as_floats();
  const auto kernel = [](const auto& params) { REQUIRE(emulated::hidden_state_loss(params, nullptr) == 0); };
  const auto backward_kernel = [](const auto& params) {
    REQUIRE(emulated::hidden_state_loss_backward(params, nullptr) == 0);
  };
  // losses are float32 whatever T is
  check_every_schedule<float>([&] { return forward(problem, kernel); }, forward(floats, hidden_state_loss_reference));

  std::vector<float> products(static_cast<size_t>(3 * shape.num_tokens));
  auto params = problem.template params<HiddenStateLossParams<T>>();
  std::vector<float> loss(static_cast<size_t>(shape.num_tokens));
  params.loss = loss.data();
  params.products = products.data();
  kernel(params);
  check_every_schedule<T>([&] { return backward(problem, products, backward_kernel); },
                          backward(floats, products, hidden_state_loss_backward_reference));
}

template <class T>
void check_table(int64_t hidden_size) {
  constexpr int64_t kRows = 2;
  const std::vector<float> products(3 * kRows, 1.0f);
  for (const HiddenLoss kind : {HiddenLoss::mse, HiddenLoss::cosine}) {
    const Problem<T> problem({kind, kRows, hidden_size, 0, true});
    const KernelShape shape{.rows = kRows, .hidden_size = hidden_size, .element_bytes = sizeof(T)};
    check_table_bytes(kind == HiddenLoss::mse ? Kernel::hidden_state_mse : Kernel::hidden_state_cosine, shape, [&] {
      forward(problem, [](const auto& params) { emulated::hidden_state_loss(params, nullptr); });
    });
    check_table_bytes(Kernel::hidden_state_backward, shape, [&] {
      backward(problem, products, [](const auto& params) { emulated::hidden_state_loss_backward(params, nullptr); });
    });
  }
}

}  // namespace

TEST_SUITE("kernel") {
  TEST_CASE("hidden_state_loss: equals the reference both ways, with equal bits under every schedule") {
    for (const HiddenLoss kind : {HiddenLoss::mse, HiddenLoss::cosine})
      for (const Shape& shape : std::initializer_list<Shape>{{kind, 1, 1, 0},
                                                             {kind, 4, 31, 1},
                                                             {kind, 3, 32, 0},
                                                             {kind, 5, 264, 8},
                                                             {kind, 2, 3072, 0},
                                                             {kind, 1, 8064, 8},
                                                             {kind, 1, 4099, 0}}) {
        if (kUnderRaceCheck && shape.hidden_size > 300) continue;
        check<float>(shape);
        check<Bf16>(shape);
      }
  }

  TEST_CASE("hidden_state_loss: values worked out by hand") {
    const std::vector<float> student{3, 4, 0, 0}, teacher{0, 5, 0, 0};
    const bool live[] = {true, true};
    std::vector<float> loss(2), products(6), grad(4);
    const float scale = 2.0f;
    for (const HiddenLoss kind : {HiddenLoss::mse, HiddenLoss::cosine}) {
      emulated::hidden_state_loss<float>({.kind = kind,
                                          .student = student.data(),
                                          .teacher = teacher.data(),
                                          .live = live,
                                          .loss = loss.data(),
                                          .products = products.data(),
                                          .num_tokens = 2,
                                          .hidden_size = 2,
                                          .student_row_stride = 2,
                                          .teacher_row_stride = 2},
                                         nullptr);
      emulated::hidden_state_loss_backward<float>({.kind = kind,
                                                   .student = student.data(),
                                                   .teacher = teacher.data(),
                                                   .live = live,
                                                   .products = products.data(),
                                                   .scale = &scale,
                                                   .student_grad = grad.data(),
                                                   .num_tokens = 2,
                                                   .hidden_size = 2,
                                                   .student_row_stride = 2,
                                                   .teacher_row_stride = 2},
                                                  nullptr);
      if (kind == HiddenLoss::mse) {  // (9 + 1) / 2; 2 * 2 / 2 * (3, -1)
        CHECK(loss == std::vector<float>{5.0f, 0.0f});
        CHECK(grad == std::vector<float>{6.0f, -2.0f, 0.0f, 0.0f});
      } else {  // cos = 20 / 25; 2 * (0.8 * (3, 4) / 25 - (0, 5) / 25); rows of zeros are at right angles
        CHECK(loss[0] == doctest::Approx(0.2));
        CHECK(loss[1] == 1.0f);
        CHECK(grad[0] == doctest::Approx(0.192));
        CHECK(grad[1] == doctest::Approx(-0.144));
        CHECK(std::vector<float>(grad.begin() + 2, grad.end()) == std::vector<float>{0.0f, 0.0f});
      }
    }
  }

  TEST_CASE("hidden_state_loss: bytes are those of the table of costs") {
    for (const int64_t hidden_size : {256, 257}) {
      check_table<float>(hidden_size);
      check_table<Bf16>(hidden_size);
    }
  }

  TEST_CASE("hidden_state_loss: bytes of a row") {
    constexpr int64_t kRows = 2, kSize = kUnderRaceCheck ? 256 : 3072;
    const std::vector<float> products(3 * kRows, 1.0f);
    for (const HiddenLoss kind : {HiddenLoss::mse, HiddenLoss::cosine})
      for (const bool all_live : {true, false}) {
        const int64_t live = all_live ? kRows : 1, of_products = kind == HiddenLoss::cosine ? 12 : 0;
        const Problem<Bf16> problem({kind, kRows, kSize, 0, all_live});
        executor::reset_counts();
        forward(problem, [](const auto& params) { emulated::hidden_state_loss(params, nullptr); });
        CHECK(executor::counts().bytes_loaded == live * 4 * kSize);
        CHECK(executor::counts().bytes_stored == kRows * (4 + of_products));
        executor::reset_counts();
        forward(
            problem, [](const auto& params) { emulated::hidden_state_loss(params, nullptr); }, false);
        CHECK(executor::counts().bytes_stored == kRows * 4);
        executor::reset_counts();
        backward(problem, products, [](const auto& params) { emulated::hidden_state_loss_backward(params, nullptr); });
        CHECK(executor::counts().launches == 1);
        CHECK(executor::counts().bytes_loaded == live * 4 * kSize);
        CHECK(executor::counts().bytes_stored == kRows * 2 * kSize);
      }
  }

#ifndef COPPICE_RACE_CHECK  // too wide for it
  TEST_CASE("hidden_state_loss: offsets beyond 32 bits") {
    constexpr int64_t kRows = 800'000, kSize = 3072;
    static_assert(kRows * kSize > int64_t{1} << 31);
    const LastRow<Bf16> student(kRows, kSize), teacher(kRows, kSize), grad(kRows, kSize);
    const Problem<Bf16> problem({HiddenLoss::cosine, 1, kSize, 0});
    student.write_row(problem.student);
    teacher.write_row(problem.teacher);
    const std::unique_ptr<bool[]> live(new bool[kRows]);
    std::fill_n(live.get(), kRows, true);
    std::vector<float> loss(kRows, -1.0f), products(3 * kRows, -1.0f);
    const float scale = kScale * static_cast<float>(kSize);
    executor::run_only_last_block(true);
    emulated::hidden_state_loss<Bf16>({.kind = HiddenLoss::cosine,
                                       .student = student.data(),
                                       .teacher = teacher.data(),
                                       .live = live.get(),
                                       .loss = loss.data(),
                                       .products = products.data(),
                                       .num_tokens = kRows,
                                       .hidden_size = kSize,
                                       .student_row_stride = kSize,
                                       .teacher_row_stride = kSize},
                                      nullptr);
    emulated::hidden_state_loss_backward<Bf16>({.kind = HiddenLoss::cosine,
                                                .student = student.data(),
                                                .teacher = teacher.data(),
                                                .live = live.get(),
                                                .products = products.data(),
                                                .scale = &scale,
                                                .student_grad = grad.data(),
                                                .num_tokens = kRows,
                                                .hidden_size = kSize,
                                                .student_row_stride = kSize,
                                                .teacher_row_stride = kSize},
                                               nullptr);
    executor::run_only_last_block(false);
    const Outputs alone = forward(problem, [](const auto& params) { emulated::hidden_state_loss(params, nullptr); });
    CHECK(loss.front() == -1.0f);
    CHECK(loss.back() == alone[0]);
    const Outputs alone_grad = backward(problem, {products.end() - 3, products.end()}, [](const auto& params) {
      emulated::hidden_state_loss_backward(params, nullptr);
    });
    for (size_t d = 0; d < kSize; ++d) REQUIRE(to_float(grad.row()[d]) == alone_grad[d]);
  }
#endif
}
