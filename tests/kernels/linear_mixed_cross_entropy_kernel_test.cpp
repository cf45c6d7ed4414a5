#include "src/tensors/kernels/linear_mixed_cross_entropy.h"

#include <doctest/doctest.h>

#include "tests/kernels/every_schedule.h"
#include "tests/kernels/guarded_rows.h"
#include "tests/kernels/last_row.h"
#include "tests/kernels/table_bytes.h"

using namespace coppice;

namespace {

/// What a row's gradient is multiplied by, so that its values are no small numbers beside 1.
double gradient_scale(int64_t num_vocab) { return static_cast<double>(num_vocab) / 4; }

struct Shape {
  int64_t num_rows;
  int64_t num_vocab;
  int64_t shift = 0;  // elements that the logits start behind a pack's place
  double teacher_weight = 0.9;
  double z_loss = 1e-3;
  bool has_teacher = true;
  bool gradient = true;
  bool argmax = true;
};

/// Row 0: two labels. Row 1: ignored. Row 2: no teacher label. Row 3: both labels agree. Row 4: a logit far above all
/// others, twice.
template <class T>
struct Problem {
  Shape shape;
  std::vector<T> logits;
  std::vector<int64_t> true_label, teacher_label;

  explicit Problem(const Shape& given) : shape(given) {
    const int64_t vocab = shape.num_vocab;
    logits = numbers<T>(shape.num_rows * vocab, 1, 8.0f);
    for (int64_t n = 0; n < shape.num_rows; ++n) {
      true_label.push_back(n == 1 ? kIgnoredLabel : (n * 131 + vocab - 1) % vocab);
      teacher_label.push_back(n == 2 ? kIgnoredLabel : n == 3 ? true_label.back() : (n * 77 + 5) % vocab);
      if (n != 4) continue;
      for (const int64_t v : {vocab / 2, vocab - 1}) logits[static_cast<size_t>(n * vocab + v)] = element<T>(50.0f);
      teacher_label.back() = vocab / 2;
    }
  }

  MixedCrossEntropyParams<T> params(T* in, LossTerms* terms) const {
    return {.logits = in,
            .true_label = true_label.data(),
            .teacher_label = shape.has_teacher ? teacher_label.data() : nullptr,
            .terms = terms,
            .num_rows = shape.num_rows,
            .num_vocab = shape.num_vocab,
            .teacher_weight = shape.teacher_weight,
            .z_loss = shape.z_loss,
            .scale = gradient_scale(shape.num_vocab),
            .write_gradient = shape.gradient,
            .argmax = shape.argmax};
  }

  Outputs run() const {
    GuardedRows<T> rows(logits, shape.shift);
    std::vector<LossTerms> terms(static_cast<size_t>(shape.num_rows), LossTerms{-1, -1, -1, -1});
    REQUIRE(emulated::mixed_cross_entropy<T>(params(rows.data(), terms.data()), nullptr) == 0);
    Outputs outputs;
    append(outputs, rows.all());
    append_terms(outputs, terms);
    return outputs;
  }

  Outputs reference() const {
    Outputs terms;
    std::vector<double> left;
    for (int64_t n = 0; n < shape.num_rows; ++n) {
      const auto i = static_cast<size_t>(n);
      const int64_t teacher = shape.has_teacher ? teacher_label[i] : kIgnoredLabel;
      const std::vector<double> row = doubles_of(logits.data() + n * shape.num_vocab, shape.num_vocab);
      std::vector<double> gradient(row.size());
      LossRow expected =
          mixed_cross_entropy_reference(row, true_label[i], teacher, shape.teacher_weight, shape.z_loss, gradient);
      expected.teacher_top_1 = teacher;
      append_reference(terms, expected, n != 1, shape.argmax, true_label[i]);
      for (double& value : gradient) value *= gradient_scale(shape.num_vocab);
      left.insert(left.end(), (shape.gradient ? gradient : row).begin(), (shape.gradient ? gradient : row).end());
    }
    Outputs outputs = GuardedRows<T>(logits, shape.shift).around(left);
    outputs.insert(outputs.end(), terms.begin(), terms.end());
    return outputs;
  }
};

template <class T>
void check_shape(const Shape& shape) {
  CAPTURE(shape.num_rows);
  CAPTURE(shape.num_vocab);
  CAPTURE(shape.shift);
  const Problem<T> problem(shape);
  check_every_schedule<T>([&] { return problem.run(); }, problem.reference());
}

/// Bytes where a row is ignored, where no gradient is wanted, where rows start between packs.
template <class T>
void check_bytes(int64_t num_vocab, bool gradient, int64_t reads_of_row) {
  CAPTURE(num_vocab);
  const Problem<T> problem({.num_rows = 3, .num_vocab = num_vocab, .gradient = gradient});
  executor::reset_counts();
  problem.run();
  constexpr int64_t kLive = 2, kElement = sizeof(T);
  CHECK(executor::counts().bytes_loaded == kLive * (reads_of_row * num_vocab + 2) * kElement);
  CHECK(executor::counts().bytes_stored == 3 * ((gradient ? num_vocab * kElement : 0) + 16));
}

template <class T>
void check_table() {
  constexpr int64_t kPack = 16 / sizeof(T), kWidest = kHeldBytes / sizeof(T);
  for (const int64_t vocab : {int64_t{256}, int64_t{257}, int64_t{49'152}, kWidest, kWidest + kPack}) {
    if (kUnderRaceCheck && vocab > 300) continue;
    CAPTURE(vocab);
    const Problem<T> problem({.num_rows = 1, .num_vocab = vocab});
    check_table_bytes(Kernel::label_mix_rows, {.rows = 1, .vocab_size = vocab, .element_bytes = sizeof(T)},
                      [&] { problem.run(); });
  }
}

}  // namespace

TEST_SUITE("kernel") {
  TEST_CASE("mixed_cross_entropy: equals the reference with equal bits under every schedule") {
    for (const Shape& shape :
         std::initializer_list<Shape>{{.num_rows = 1, .num_vocab = 1},
                                      {.num_rows = 5, .num_vocab = 8},
                                      {.num_rows = 5, .num_vocab = 31, .teacher_weight = 1.0},
                                      {.num_rows = 5, .num_vocab = 257, .has_teacher = false},
                                      {.num_rows = 5, .num_vocab = 256, .gradient = false},
                                      {.num_rows = 5, .num_vocab = 264, .shift = 1, .argmax = false},
                                      {.num_rows = 7, .num_vocab = 264, .teacher_weight = 0.0, .z_loss = 0.0},
                                      {.num_rows = 2, .num_vocab = 4099},
                                      {.num_rows = 1, .num_vocab = 16'392},
                                      {.num_rows = 1, .num_vocab = 49'152},
                                      {.num_rows = 1, .num_vocab = 58'504, .argmax = false},  // float32: read twice
                                      {.num_rows = 1, .num_vocab = 128'256}}) {
      if (kUnderRaceCheck && shape.num_vocab > 300) continue;
      check_shape<float>(shape);
      check_shape<Bf16>(shape);
    }
  }

  TEST_CASE("mixed_cross_entropy: a NaN or an infinity among the logits shows in the loss") {
    for (const float value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      Problem<float> problem({.num_rows = 1, .num_vocab = 264});
      problem.logits[77] = value;
      const Outputs outputs = problem.run();
      CHECK(!std::isfinite(outputs[outputs.size() - 4]));
    }
    Problem<float> problem({.num_rows = 1, .num_vocab = 264});  // while these have no share
    problem.logits[77] = -std::numeric_limits<float>::infinity();
    std::fill_n(problem.logits.begin() + 100, 64, -std::numeric_limits<float>::infinity());
    const Outputs outputs = problem.run(), expected = problem.reference();
    CHECK(error_of(outputs, {expected.begin(), expected.end()}) < 2e-6);
  }

  TEST_CASE("mixed_cross_entropy: bytes of a row") {
    check_bytes<Bf16>(256, true, 1);
    check_bytes<Bf16>(256, false, 1);
    check_bytes<float>(257, true, 2);
    check_table<float>();
    check_table<Bf16>();
  }

#ifndef COPPICE_RACE_CHECK  // too wide for it
  TEST_CASE("mixed_cross_entropy: the last of 50,000 rows of 49,152") {
    constexpr int64_t kRows = 50'000, kVocab = 49'152;
    static_assert(kRows * kVocab > int64_t{1} << 31);
    const Problem<Bf16> problem({.num_rows = 1, .num_vocab = kVocab});
    const LastRow<Bf16> rows(kRows, kVocab);
    rows.write_row(problem.logits);
    const std::vector<int64_t> true_label(kRows, problem.true_label[0]), teacher_label(kRows, problem.teacher_label[0]);
    std::vector<LossTerms> terms(kRows);
    MixedCrossEntropyParams<Bf16> params = problem.params(rows.data(), terms.data());
    params.true_label = true_label.data();
    params.teacher_label = teacher_label.data();
    params.num_rows = kRows;
    executor::run_only_last_block(true);
    emulated::mixed_cross_entropy<Bf16>(params, nullptr);
    executor::run_only_last_block(false);
    Outputs outputs;
    append(outputs, GuardedRows<Bf16>(std::vector<Bf16>(rows.row(), rows.row() + kVocab), 0).all());
    append_terms(outputs, {terms.back()});
    CHECK(same_bits(outputs, problem.run()));
    CHECK(terms.front().ce == 0.0f);
  }
#endif
}
