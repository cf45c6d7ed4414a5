// The subjects' inputs, and what they must leave, in double. Torch-free.
#pragma once

#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "tests/executor/outputs.h"
#include "tests/executor/subjects.h"

namespace coppice {

using emulated::Slip;

template <class T>
struct NormProblem {
  static constexpr int64_t kRows = 7, kSize = 512;
  static constexpr float kEps = 1e-5f;
  std::vector<T> residual = numbers<T>(kRows * kSize, 1), grad = numbers<T>(kRows * kSize, 2);
  std::vector<float> weight = numbers<float>(kSize, 3);

  Outputs run(Slip slip) const {
    std::vector<T> x_grad(static_cast<size_t>(kRows * kSize));
    std::vector<float> partial(static_cast<size_t>(emulated::kNormBlocks * kSize)),
        weight_grad(static_cast<size_t>(kSize)), rstd(static_cast<size_t>(kRows));
    emulated::norm_backward<T>({.residual = residual.data(),
                                .weight = weight.data(),
                                .normed_grad = grad.data(),
                                .x_grad = x_grad.data(),
                                .partial = partial.data(),
                                .weight_grad = weight_grad.data(),
                                .rstd = rstd.data(),
                                .num_tokens = kRows,
                                .hidden_size = kSize,
                                .eps = kEps},
                               slip, nullptr);
    Outputs outputs;
    append(outputs, x_grad);
    append(outputs, weight_grad);
    append(outputs, rstd);
    return outputs;
  }

  std::vector<double> reference() const {
    std::vector<double> x_grad, weight_grad(static_cast<size_t>(kSize)), rstds;
    for (size_t n = 0; n < kRows; ++n) {
      const T *x = residual.data() + n * kSize, *g = grad.data() + n * kSize;
      double squares = 0.0, along = 0.0;
      for (size_t d = 0; d < kSize; ++d) squares += double{to_float(x[d])} * to_float(x[d]);
      const double rstd = 1.0 / std::sqrt(squares / kSize + kEps);
      for (size_t d = 0; d < kSize; ++d) along += double{to_float(g[d])} * weight[d] * to_float(x[d]) * rstd;
      for (size_t d = 0; d < kSize; ++d) {
        const double xhat = to_float(x[d]) * rstd;
        x_grad.push_back(rstd * (double{to_float(g[d])} * weight[d] - xhat * along / kSize));
        weight_grad[d] += to_float(g[d]) * xhat;
      }
      rstds.push_back(rstd);
    }
    x_grad.insert(x_grad.end(), weight_grad.begin(), weight_grad.end());
    x_grad.insert(x_grad.end(), rstds.begin(), rstds.end());
    return x_grad;
  }
};

template <class T>
struct LabelProblem {
  static constexpr int64_t kRows = 3, kVocab = 1000;
  static constexpr float kWeight = 0.9f;
  std::vector<T> logits = numbers<T>(kRows * kVocab, 4, 5.0f);
  std::vector<int64_t> label = {0, 999, 17}, teacher = {5, 998, 17};
  int64_t behind = 0;  // elements behind the last row: NaN in logits, 42 in the gradient

  Outputs run(Slip slip) const {
    std::vector<T> padded = logits, grad(static_cast<size_t>(kRows * kVocab), T{});
    for (int64_t i = 0; i < behind; ++i) {
      padded.push_back(numbers<T>(1, 0, std::numeric_limits<float>::quiet_NaN())[0]);
      grad.push_back(numbers<T>(1, 0, 42.0f / number(0, 0))[0]);
    }
    std::vector<float> loss(static_cast<size_t>(kRows));
    emulated::label_rows<T>({.logits = padded.data(),
                             .label = label.data(),
                             .teacher = teacher.data(),
                             .grad = grad.data(),
                             .loss = loss.data(),
                             .num_rows = kRows,
                             .vocab_size = kVocab,
                             .teacher_weight = kWeight},
                            slip, nullptr);
    Outputs outputs(loss);
    append(outputs, grad);
    return outputs;
  }

  std::vector<double> reference() const {
    std::vector<double> losses, grads;
    for (size_t n = 0; n < kRows; ++n) {
      const T* row = logits.data() + n * kVocab;
      double sum = 0.0;
      for (size_t v = 0; v < kVocab; ++v) sum += std::exp(double{to_float(row[v])});
      const auto at = [&](int64_t v) { return double{to_float(row[v])}; };
      const double weight = kWeight;
      losses.push_back(std::log(sum) - (weight * at(teacher[n]) + (1 - weight) * at(label[n])));
      for (int64_t v = 0; v < kVocab; ++v)
        grads.push_back(std::exp(at(v)) / sum - (v == teacher[n] ? weight : 0.0) - (v == label[n] ? 1 - weight : 0.0));
    }
    losses.insert(losses.end(), grads.begin(), grads.end());
    for (int64_t i = 0; i < behind; ++i) losses.push_back(42.0);
    return losses;
  }
};

inline Outputs run_small(Slip slip) {
  const std::vector<float> in = numbers<float>(emulated::kSmallCount + 64, 6);
  Outputs out(static_cast<size_t>(emulated::kSmallCount));
  emulated::small_kernel(in.data(), out.data(), slip, nullptr);
  return out;
}

/// The line of tests/executor/`file` that ends with "// `mark`", 0 where there is none.
inline unsigned line_of(const std::string& file, const std::string& mark) {
  std::ifstream stream(std::string(COPPICE_SOURCE_DIR) + "/tests/executor/" + file);
  unsigned line = 0;
  for (std::string text; std::getline(stream, text);) {
    ++line;
    if (text.ends_with("// " + mark)) return line;
  }
  return 0;
}

}  // namespace coppice
