// A frozen model as a teacher that reads each batch itself.
#pragma once

#include "src/data/teacher_signal.h"
#include "src/model/decoder.h"

namespace coppice {

/// What the model says of a batch: its first choices, its k most probable ids, draws, or its hidden states and output
/// table; and, where the request names layers, what leaves them. Tokens whose logits are not finite have no choice, and
/// are faults.
TeacherSignal live_signal(const Model& model, const Batch& batch, const SignalRequest& request);

}  // namespace coppice
