// The gradient of a step does not depend on how its batch is split into micro-batches: the quiet mistake against it, a
// mean of each micro-batch's mean, leaves every loss curve looking right. Part of the self-test (student/self_test.h).
#pragma once

#include <string>

#include "student/self_test.h"

namespace coppice {

/// The gradient of at most four row prefixes, 128 tokens in all and with unequal numbers of live labels, in one
/// micro-batch, in two and in four; under a document mask also cut at the ends of documents. Gradients of weights and
/// masks are compared by the norms of their entries and by random projections, so that no second one is held. Returns
/// the largest difference relative to the gradient's norm; InternalError above 1e-5. Weights stay as they are, the
/// arena's gradient is zero before and after. 0 for a model without a gradient.
double check_split(const Model& model, const TestBatch& test, const DecoderMasks& masks, const HeadLoss& loss);

}  // namespace coppice
