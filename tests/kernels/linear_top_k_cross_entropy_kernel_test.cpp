// Both losses over a row's k ids: with the rest as one bucket, and decoupled.
#include "src/tensors/kernels/linear_top_k_cross_entropy.h"

#include <doctest/doctest.h>

#include "src/tensors/kernels/decoupled_top_k.h"
#include "tests/kernels/every_schedule.h"
#include "tests/kernels/guarded_rows.h"
#include "tests/kernels/last_row.h"
#include "tests/kernels/table_bytes.h"

using namespace coppice;

namespace {

/// What a row's gradient is multiplied by: its values are no small numbers beside 1, its differences no large ones.
double gradient_scale(int64_t num_vocab) { return num_vocab < 1000 ? 4 : 64; }
constexpr float kNothing = -std::numeric_limits<float>::infinity();

struct Shape {
  int64_t num_rows;
  int64_t num_vocab;
  int64_t k;
  bool decoupled = false;
  TopKSettings settings = {.teacher_weight = 0.9, .temperature = 2.0, .z_loss = 1e-3};
  int64_t shift = 0;  // elements that the logits start behind a pack's place
  bool gradient = true;
  bool argmax = true;
  bool cross_entropy = false;
  bool drawn = false;  // shares of draws, as of labels that are drawn: no tails, and ids only up to the middle
};

/// Row 0: k ids with a tail. Row 1: ignored. Row 2: no teacher. Row 3: shares that leave no tail, the last id missing.
/// Row 4: the true label is the first id. Row 5: the student has next to nothing outside S. Row 6: the teacher's shares
/// of S are all 0.
template <class T>
struct Problem {
  Shape shape;
  std::vector<T> logits;
  std::vector<int64_t> true_label, id;
  std::vector<float> log_q, tail;

  explicit Problem(const Shape& given) : shape(given) {
    const int64_t vocab = shape.num_vocab, k = shape.k;
    logits = numbers<T>(shape.num_rows * vocab, 1, 6.0f);
    for (int64_t n = 0; n < shape.num_rows; ++n) {
      const bool has_tail = n != 3 && k < vocab && !shape.drawn;
      double sum = has_tail ? 0.5 : 0.0;
      for (int64_t i = 0; i < k; ++i) {
        id.push_back((n * 57 + i * 7 + vocab - 3) % vocab);  // different ones, where 7 does not divide the vocabulary
        if ((n == 3 && i == k - 1 && k > 1) || (shape.drawn && i > k / 2)) id.back() = -1;
        if (id.back() >= 0) sum += std::exp(3.0 * number(n * k + i, 2));
        if (n == 5 && id.back() >= 0)
          logits[static_cast<size_t>(n * vocab + id.back())] = element<T>(40.0f + 2.0f * number(i, 3));
      }
      for (int64_t i = 0; i < k; ++i)
        log_q.push_back(n == 6 ? kNothing : static_cast<float>(3.0 * number(n * k + i, 2) - std::log(sum)));
      tail.push_back(!has_tail ? kNothing : n == 6 ? 0.0f : static_cast<float>(std::log(0.5 / sum)));
      true_label.push_back(n == 1 ? kIgnoredLabel : n == 4 ? id[static_cast<size_t>(n * k)] : (n * 131 + 1) % vocab);
      if (n == 2) id[static_cast<size_t>(n * k)] = -1;
    }
  }

  TopKCrossEntropyParams<T> params(T* in, LossTerms* terms) const {
    return {.logits = in,
            .true_label = true_label.data(),
            .top_id = id.data(),
            .top_logp = log_q.data(),
            .tail_logp = tail.data(),
            .terms = terms,
            .num_rows = shape.num_rows,
            .num_vocab = shape.num_vocab,
            .k = shape.k,
            .settings = shape.settings,
            .scale = gradient_scale(shape.num_vocab),
            .write_gradient = shape.gradient,
            .argmax = shape.argmax,
            .cross_entropy = shape.cross_entropy};
  }

  static int launch(bool decoupled, const TopKCrossEntropyParams<T>& params) {
    return decoupled ? emulated::decoupled_top_k<T>(params, nullptr)
                     : emulated::top_k_cross_entropy<T>(params, nullptr);
  }

  Outputs run() const {
    GuardedRows<T> rows(logits, shape.shift);
    std::vector<LossTerms> terms(static_cast<size_t>(shape.num_rows), LossTerms{-1, -1, -1, -1});
    REQUIRE(launch(shape.decoupled, params(rows.data(), terms.data())) == 0);
    Outputs outputs;
    if (shape.gradient) append(outputs, rows.all());
    append_terms(outputs, terms);
    return outputs;
  }

  Outputs reference() const {
    Outputs terms, outputs;
    std::vector<double> gradients;
    for (int64_t n = 0; n < shape.num_rows; ++n) {
      const auto i = static_cast<size_t>(n);
      const std::vector<double> row = doubles_of(logits.data() + n * shape.num_vocab, shape.num_vocab),
                                row_log_q = doubles_of(log_q.data() + n * shape.k, shape.k);
      const std::span<const int64_t> row_id(id.data() + n * shape.k, static_cast<size_t>(shape.k));
      std::vector<double> gradient(row.size());
      LossRow expected = (shape.decoupled ? decoupled_top_k_reference : top_k_cross_entropy_reference)(
          row, true_label[i], row_id, row_log_q, tail[i], shape.settings, gradient);
      if (shape.cross_entropy && n != 1 && n != 2) expected.kd += entropy(n);
      append_reference(terms, expected, n != 1, shape.argmax, true_label[i]);
      for (const double value : gradient) gradients.push_back(value * gradient_scale(shape.num_vocab));
    }
    if (shape.gradient) outputs = GuardedRows<T>(logits, shape.shift).around(gradients);
    outputs.insert(outputs.end(), terms.begin(), terms.end());
    return outputs;
  }

 private:
  double entropy(int64_t n) const {
    double sum = std::isinf(tail[static_cast<size_t>(n)])
                     ? 0.0
                     : -std::exp(double{tail[static_cast<size_t>(n)]}) * tail[static_cast<size_t>(n)];
    for (int64_t i = n * shape.k; i < (n + 1) * shape.k; ++i)
      if (id[static_cast<size_t>(i)] >= 0 && !std::isinf(log_q[static_cast<size_t>(i)]))
        sum -= std::exp(double{log_q[static_cast<size_t>(i)]}) * log_q[static_cast<size_t>(i)];
    return shape.settings.temperature * shape.settings.temperature * sum;
  }
};

template <class T>
void check_shape(const Shape& shape) {
  CAPTURE(shape.num_rows);
  CAPTURE(shape.num_vocab);
  CAPTURE(shape.k);
  CAPTURE(shape.decoupled);
  CAPTURE(shape.settings.temperature);
  const Problem<T> problem(shape);
  check_every_schedule<T>([&] { return problem.run(); }, problem.reference());
}

template <class T>
void check_bytes(const Shape& shape, int64_t reads_of_row) {
  const Problem<T> problem(shape);
  executor::reset_counts();
  problem.run();
  const int64_t vocab = shape.num_vocab, k = shape.k, element = sizeof(T);
  CHECK(executor::counts().bytes_loaded == shape.num_rows * (reads_of_row * vocab + k + 1) * element);
  CHECK(executor::counts().bytes_stored ==
        shape.num_rows * (shape.gradient ? (vocab + 2 * k) * element + 16 : k * element + 16));
}

template <class T>
void check_table() {
  constexpr int64_t kIds = 64, kPack = 16 / sizeof(T), kWidest = (kHeldBytes - 4 * kIds) / sizeof(T);
  for (const int64_t vocab : {int64_t{256}, int64_t{257}, int64_t{49'152}, kWidest, kWidest + kPack}) {
    if (kUnderRaceCheck && vocab > 300) continue;
    CAPTURE(vocab);
    for (const bool decoupled : {false, true}) {
      const Problem<T> problem({.num_rows = 1, .num_vocab = vocab, .k = kIds, .decoupled = decoupled});
      check_table_bytes(Kernel::top_k_rows, {.rows = 1, .vocab_size = vocab, .ids = kIds, .element_bytes = sizeof(T)},
                        [&] { problem.run(); });
    }
  }
}

}  // namespace

TEST_SUITE("kernel") {
  TEST_CASE("top_k_cross_entropy, decoupled_top_k: equal the references with equal bits under every schedule") {
    const TopKSettings untempered{.teacher_weight = 0.9, .temperature = 1.0, .z_loss = 1e-3},
        sharp{.teacher_weight = 1.0, .temperature = 0.7, .z_loss = 0.0};
    for (const bool decoupled : {false, true})
      for (Shape shape : std::initializer_list<Shape>{
               {.num_rows = 1, .num_vocab = 1, .k = 1},
               {.num_rows = 7, .num_vocab = 32, .k = 4},
               {.num_rows = 7, .num_vocab = 31, .k = 1, .settings = untempered},
               {.num_rows = 7, .num_vocab = 257, .k = 9, .settings = sharp},
               {.num_rows = 7, .num_vocab = 264, .k = 64, .settings = untempered},
               {.num_rows = 7, .num_vocab = 264, .k = 40, .shift = 1, .argmax = false},
               {.num_rows = 7, .num_vocab = 264, .k = 5, .gradient = false},
               {.num_rows = 1, .num_vocab = 49'152, .k = 64},
               {.num_rows = 1, .num_vocab = 128'256, .k = 32, .settings = untempered, .argmax = false}}) {
        if (kUnderRaceCheck && shape.num_vocab > 300) continue;
        shape.decoupled = decoupled;
        check_shape<float>(shape);
        check_shape<Bf16>(shape);
      }
  }

  TEST_CASE("top_k_cross_entropy: without the teacher's entropy, shares of draws; more ids than threads; all ids") {
    const TopKSettings untempered{.teacher_weight = 0.9, .temperature = 1.0, .z_loss = 1e-3};
    for (Shape shape : std::initializer_list<Shape>{
             {.num_rows = 7, .num_vocab = 264, .k = 12},
             {.num_rows = 7, .num_vocab = 257, .k = 16, .settings = untempered, .drawn = true},
             {.num_rows = 7, .num_vocab = 264, .k = 16, .drawn = true},
             {.num_rows = 7, .num_vocab = 264, .k = 16, .settings = untempered, .gradient = false, .drawn = true}}) {
      shape.cross_entropy = true;
      check_shape<float>(shape);
      check_shape<Bf16>(shape);
    }
    check_shape<float>({.num_rows = 2, .num_vocab = 264, .k = 200});
    const Shape all_ids{.num_rows = 1, .num_vocab = 24, .k = 24};
    for (const bool decoupled : {false, true}) {
      Shape shape = all_ids;
      shape.decoupled = decoupled;
      check_shape<float>(shape);
    }
  }

  TEST_CASE("top_k_cross_entropy: bytes of a row") {
    check_table<float>();
    check_table<Bf16>();
    check_bytes<Bf16>({.num_rows = 1, .num_vocab = 256, .k = 8, .gradient = false}, 1);
    check_bytes<float>({.num_rows = 1, .num_vocab = 257, .k = 8}, 2);
  }

#ifndef COPPICE_RACE_CHECK  // too wide for it
  TEST_CASE("top_k_cross_entropy: the last of 50,000 rows of 49,152") {
    constexpr int64_t kRows = 50'000, kVocab = 49'152, kIds = 2;
    static_assert(kRows * kVocab > int64_t{1} << 31);
    for (const bool decoupled : {false, true}) {
      const Problem<Bf16> problem({.num_rows = 1, .num_vocab = kVocab, .k = kIds, .decoupled = decoupled});
      const LastRow<Bf16> rows(kRows, kVocab);
      rows.write_row(problem.logits);
      const std::vector<int64_t> true_label(kRows, problem.true_label[0]);
      std::vector<int64_t> id(kRows * kIds, -1);
      std::vector<float> log_q(kRows * kIds), tail(kRows, problem.tail[0]);
      std::copy(problem.id.begin(), problem.id.end(), id.end() - kIds);
      std::copy(problem.log_q.begin(), problem.log_q.end(), log_q.end() - kIds);
      std::vector<LossTerms> terms(kRows);
      TopKCrossEntropyParams<Bf16> params = problem.params(rows.data(), terms.data());
      params.true_label = true_label.data();
      params.top_id = id.data();
      params.top_logp = log_q.data();
      params.tail_logp = tail.data();
      params.num_rows = kRows;
      executor::run_only_last_block(true);
      Problem<Bf16>::launch(decoupled, params);
      executor::run_only_last_block(false);
      Outputs outputs;
      append(outputs, GuardedRows<Bf16>(std::vector<Bf16>(rows.row(), rows.row() + kVocab), 0).all());
      append_terms(outputs, {terms.back()});
      CHECK(same_bits(outputs, problem.run()));
      CHECK(terms.front().ce == 0.0f);
    }
  }
#endif
}
