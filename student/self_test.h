// A loss that is wrong trains quietly: before step 0 it tests itself on the stage's own first batches.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "student/targets.h"

namespace coppice {

/// A micro-batch and its targets, one a teacher.
struct TestBatch {
  Batch batch;
  std::vector<Targets> targets;
  bool labels_in_place =
      false;  // known: judged on more of them (src/data/label_alignment.h), or made from this very batch
};
inline constexpr int64_t kEnoughLabels =
    200;  // live labels; with fewer their agreement is too noisy to judge their alignment
struct SelfTestReport {
  std::vector<double> agreement;  // of each teacher's first choice with the true label; empty without a teacher
  int64_t compared = 0;           // labels that the agreement was counted on
  bool labels_in_place = false;   // was known
  double split_difference = 0;    // largest between gradients of one batch split in several ways, relative
  double seconds = 0;
};
/// Losses that test themselves before step 0, in under a second or the time of a step: on a few rows, a few logit
/// chunks and the first ids of the vocabulary. For this stage's targets, and for every loss with made-up ones: sums and
/// gradients equal the formula in double, chunks of logits and parts of a batch add up to the whole, ignored rows have
/// zero gradient, weights 0 and 1 reduce to the pure losses, a student that is its own teacher pays nothing and pays
/// when the labels are moved by one (hidden-state losses too, but for sample), the gradient of many draws meets that of
/// the divergence within its error, several teachers count by their shares; true labels are the next token and the
/// teacher's fit their own column best (judged on all `batches` together, from kEnoughLabels labels on, unless their
/// place is known). And the gradient of a step, masks' too, does not depend on how its batch is split into
/// micro-batches (student/split_check.h): the arena's gradient is zero before and after. Throws InternalError naming
/// the broken property. `loss` is what is tested.
SelfTestReport self_test_loss(const Model& model, std::span<const TestBatch> batches, const HeadLoss& loss = head_loss,
                              const DecoderMasks& masks = {});
/// On one micro-batch with one teacher or none: the agreement, -1 without.
double self_test_loss(const Model& model, const Batch& batch, const Targets& targets, const HeadLoss& loss = head_loss,
                      const DecoderMasks& masks = {});
/// `the loss passed its self-test in 0.31 s; teacher and true label agree on 41.2% of 512 tokens`
std::string self_test_text(const SelfTestReport& report);

}  // namespace coppice
