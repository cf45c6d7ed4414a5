#include "student/split_check.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "src/base/errors.h"
#include "src/base/random.h"
#include "src/optim/optimizer.h"

namespace coppice {
namespace {

constexpr int64_t kRows = 4, kTokens = 128;
constexpr double kTolerance = 1e-5;        // of the gradient's norm, in float32
constexpr double kNarrowTolerance = 4e-2;  // in bfloat16: what one product rounds otherwise, all that follow do
constexpr double kTeacherWeight = 0.5;     // at most: a student that agrees with its teacher keeps a gradient

/// A row of a micro-batch: tokens [first, first + length) of a batch, its rows put end to end.
struct Piece {
  int64_t first = 0, length = 0;
};
/// Micro-batches of one step.
using Split = std::vector<std::vector<Piece>>;

/// Beginnings of rows; of few rows also what follows.
std::vector<Piece> row_prefixes(const Batch& batch) {
  const int64_t rows = batch.token_BT.size(0), seq_len = batch.token_BT.size(1);
  const int64_t length = std::min({seq_len, kTokens / kRows, std::max<int64_t>(1, rows * seq_len / kRows)});
  std::vector<Piece> pieces;
  for (int64_t column = 0; column + length <= seq_len; column += length)
    for (int64_t row = 0; row < rows && std::ssize(pieces) < kRows; ++row)
      pieces.push_back({row * seq_len + column, length});
  return pieces;
}

/// `count` micro-batches, as equal as can be.
Split split_evenly(const std::vector<Piece>& pieces, int64_t count) {
  Split split;
  for (int64_t i = 0; i < count; ++i)
    split.emplace_back(pieces.begin() + std::ssize(pieces) * i / count,
                       pieces.begin() + std::ssize(pieces) * (i + 1) / count);
  return split;
}

/// A micro-batch a piece, each document in a row of its own.
Split split_at_documents(const std::vector<Piece>& pieces, const std::vector<int32_t>& segment_end) {
  Split split;
  for (const Piece& piece : pieces) {
    std::vector<Piece>& rows = split.emplace_back();
    const int64_t end = piece.first + piece.length;
    for (int64_t begin = piece.first; begin < end;) {
      const int64_t stop = std::min<int64_t>(end, *std::ranges::upper_bound(segment_end, begin));
      rows.push_back({begin, stop - begin});
      begin = stop;
    }
  }
  return split;
}

/// Labels that leave the gradient its size whatever the model knows: not the next token. The i-th piece keeps 1 / 2^i
/// of them, so that a mean of each micro-batch would show.
at::Tensor unequal_labels(const Batch& batch, const std::vector<Piece>& pieces, int64_t vocab) {
  const at::Tensor token_N = batch.token_BT.reshape({-1}), label_N = at::full_like(token_N, kIgnoredLabel);
  for (size_t i = 0; i < pieces.size(); ++i) {
    const int64_t live = std::max<int64_t>(1, pieces[i].length >> i);
    label_N.narrow(0, pieces[i].first, live).copy_((token_N.narrow(0, pieces[i].first, live) + 1).remainder(vocab));
  }
  return label_N;
}

/// The micro-batch of these pieces, padded on the right to the longest with ignored labels.
TestBatch cut(const TestBatch& from, const at::Tensor& label_N, const std::vector<Piece>& pieces) {
  const auto rows = std::ssize(pieces);
  const int64_t length = std::ranges::max(pieces, {}, &Piece::length).length;
  at::Tensor place_N = at::empty({rows * length}, at::kLong), padding_N = at::zeros({rows * length}, at::kBool);
  for (int64_t row = 0; row < rows; ++row) {
    const auto [first, count] = pieces[static_cast<size_t>(row)];
    place_N.narrow(0, row * length, length).copy_((at::arange(length) + first).clamp_max(first + count - 1));
    padding_N.narrow(0, row * length + count, length - count).fill_(true);
  }
  place_N = place_N.to(label_N.device()), padding_N = padding_N.to(label_N.device());
  const auto taken = [&](const at::Tensor& value_N) { return value_N.index_select(0, place_N); };
  const auto rows_of = [&](const at::Tensor& value_BT) {
    return value_BT.defined() ? taken(value_BT.reshape({-1})).view({rows, length}) : value_BT;
  };
  const at::Tensor true_label_N = taken(label_N).masked_fill_(padding_N, kIgnoredLabel);
  TestBatch part{.batch = {.token_BT = rows_of(from.batch.token_BT),
                           .position_BT = rows_of(from.batch.position_BT),
                           .document_BT = rows_of(from.batch.document_BT),
                           .true_label_BT = true_label_N.view({rows, length}),
                           .num_live = true_label_N.ge(0).sum().item<int64_t>(),
                           .ids_below = from.batch.ids_below,
                           .largest_position = from.batch.largest_position},
                 .targets = from.targets};
  for (Targets& target : part.targets) {
    for (at::Tensor* tensor : {&target.teacher_label_N, &target.top.id_NK, &target.top.logp_NK, &target.top.tail_logp_N,
                               &target.teacher_hidden_NE})
      if (tensor->defined()) *tensor = taken(*tensor);
    for (at::Tensor& layer_ND : target.teacher_layer_ND) layer_ND = taken(layer_ND);
    target.true_label_N = true_label_N;
    target.teacher_weight = std::min(target.teacher_weight, kTeacherWeight);
    target.labels_below = 0;
  }
  return part;
}

/// A gradient's entries by norm and by projections on random signs: of two gradients that differ by d, the squares of
/// the projections' differences add up to |d|^2 in the mean.
class GradientPrint {
 public:
  void add(const std::string& name, const at::Tensor& gradient) {
    const at::Tensor flat = gradient.detach().reshape({-1});
    const int64_t blocks = flat.numel() / kBlock, rest = flat.numel() % kBlock;
    const at::Tensor signs_BK = signs_of_block().to(flat.device());
    std::vector<at::Tensor> sums_BK;  // of blocks: in float32, so few terms each
    if (blocks > 0) sums_BK.push_back(flat.narrow(0, 0, blocks * kBlock).view({blocks, kBlock}).mm(signs_BK));
    if (rest > 0) sums_BK.push_back(flat.narrow(0, blocks * kBlock, rest).unsqueeze(0).mm(signs_BK.narrow(0, 0, rest)));
    const at::Tensor sum_BK = at::cat(sums_BK).to(at::kCPU, at::kDouble);
    double* sum = sum_BK.mutable_data_ptr<double>();
    Entry entry{.name = name, .norm = at::linalg_vector_norm(flat, 2, std::nullopt, false, at::kDouble).item<double>()};
    for (int64_t b = 0; b < sum_BK.size(0); ++b) {
      const auto bits = philox4x32({static_cast<uint32_t>(b), static_cast<uint32_t>(entries_.size()), 1, 0}, kKey);
      for (size_t k = 0; k < kProjections; ++k) entry.projection[k] += (bits[k] & 1U) != 0 ? *sum++ : -*sum++;
    }
    entries_.push_back(entry);
  }

  double norm() const {
    double square = 0;
    for (const Entry& entry : entries_) square += entry.norm * entry.norm;
    return std::sqrt(square);
  }

  /// Estimate of |this - other|, and the entry that has most of it.
  struct Difference {
    double norm = 0;
    std::string most;
  };
  Difference difference(const GradientPrint& other) const {
    double norms = 0, projections = 0, most = -1;
    Difference result;
    for (size_t e = 0; e < entries_.size(); ++e) {
      const double norm = entries_[e].norm - other.entries_[e].norm;
      double square = 0;
      for (size_t k = 0; k < kProjections; ++k)
        square += std::pow(entries_[e].projection[k] - other.entries_[e].projection[k], 2) / kProjections;
      norms += norm * norm;
      projections += square;
      if (std::max(square, norm * norm) > most) {
        most = std::max(square, norm * norm);
        result.most = entries_[e].name;
      }
    }
    result.norm = std::sqrt(std::max(norms, projections));
    return result;
  }

 private:
  static constexpr int64_t kBlock = 1024;
  static constexpr size_t kProjections = 2;
  static constexpr std::array<uint32_t, 2> kKey{0x5eed, 0x511e};
  struct Entry {
    std::string name;
    double norm = 0;
    std::array<double, kProjections> projection{};
  };

  /// [kBlock, kProjections] of -1 and 1; every block then gets signs of its own.
  static const at::Tensor& signs_of_block() {
    static const at::Tensor kSigns = [] {
      const at::Tensor signs = at::empty({kBlock, static_cast<int64_t>(kProjections)});
      float* sign = signs.mutable_data_ptr<float>();
      for (int64_t i = 0; i < kBlock; ++i) {
        const auto bits = philox4x32({static_cast<uint32_t>(i), 0, 0, 0}, kKey);
        for (size_t k = 0; k < kProjections; ++k) *sign++ = (bits[k] & 1U) != 0 ? 1.0f : -1.0f;
      }
      return signs;
    }();
    return kSigns;
  }

  std::vector<Entry> entries_;
};

/// The step's own path: accumulate_gradient with the scale of all its live tokens.
GradientPrint gradient_of(const Model& model, const TestBatch& test, const at::Tensor& label_N, const Split& split,
                          const DecoderMasks& masks, const HeadLoss& loss) {
  std::vector<Batch> batches;
  std::vector<std::vector<Targets>> targets;
  int64_t live = 0;
  for (const std::vector<Piece>& pieces : split) {
    TestBatch part = cut(test, label_N, pieces);
    live += part.batch.num_live;
    batches.push_back(std::move(part.batch));
    targets.push_back(std::move(part.targets));
  }
  DecoderMasks leaves;
  for (const auto member : {&DecoderMasks::multiplier_F, &DecoderMasks::multiplier_G})
    for (const at::Tensor& mask : masks.*member) (leaves.*member).push_back(mask.detach().clone().requires_grad_());
  accumulate_gradient(
      model, batches, [&](const Batch& batch) { return targets[static_cast<size_t>(&batch - batches.data())]; }, leaves,
      gradient_scale(live), loss);
  GradientPrint print;
  for (const ArenaEntry& entry : model.arena->layout().entries)
    print.add(entry.name, model.arena->gradient_of(entry.name));
  for (size_t layer = 0; layer < leaves.multiplier_F.size(); ++layer)
    print.add(fmt::format("the mask of layer {}", layer), leaves.multiplier_F[layer].grad());
  for (size_t layer = 0; layer < leaves.multiplier_G.size(); ++layer)
    print.add(fmt::format("the mask of layer {}'s heads", layer), leaves.multiplier_G[layer].grad());
  model.arena->zero_gradient();
  return print;
}

}  // namespace

double check_split(const Model& model, const TestBatch& test, const DecoderMasks& masks, const HeadLoss& loss) {
  if (!model.arena->has_gradient()) return 0;
  for (const ArenaEntry& entry : model.arena->layout().entries)
    COPPICE_CHECK(!model.arena->gradient_of(entry.name).any().item<bool>(),
                  fmt::format("the self-test found a gradient under way in {}", entry.name));
  const at::AutoGradMode with_gradient(true);
  const std::vector<Piece> pieces = row_prefixes(test.batch);
  const at::Tensor label_N = unequal_labels(test.batch, pieces, model.config.vocab_size);
  const auto run = [&](const Split& split) { return gradient_of(model, test, label_N, split, masks, loss); };
  std::vector<Split> splits;
  for (const int64_t count : {2, 4})
    if (count <= std::ssize(pieces)) splits.push_back(split_evenly(pieces, count));
  if (!test.batch.segment_end.empty()) splits.push_back(split_at_documents(pieces, test.batch.segment_end));

  const double tolerance = model.arena->placement().compute == at::kBFloat16 ? kNarrowTolerance : kTolerance;
  const GradientPrint whole = run({pieces});
  double largest = 0;
  for (const Split& split : splits) {
    const auto [difference, most] = whole.difference(run(split));
    if (!(difference <= tolerance * whole.norm()))
      throw InternalError(
          fmt::format("loss self-test: the gradient depends on how a batch is split: in {} micro-batches it differs by "
                      "{:.2g} of its norm {:.3g} from that in one, most in {}",
                      split.size(), difference / whole.norm(), whole.norm(), most));
    largest = std::max(largest, whole.norm() > 0 ? difference / whole.norm() : 0.0);
  }
  return largest;
}

}  // namespace coppice
