#include "src/tensors/kernels/launch.h"
#include "src/tensors/optimizer_phase.h"

namespace coppice {

void run_optimizer_phase(OptimizerPhase phase, const OptimizerKernelParams& params, const at::Tensor& where) {
  switch (phase) {
    case OptimizerPhase::square_sums:
      COPPICE_LAUNCH(where, optimizer_square_sums, params);
      return;
    case OptimizerPhase::vote:
      COPPICE_LAUNCH(where, optimizer_vote, params);
      return;
    case OptimizerPhase::adastar_square_sums:
      COPPICE_LAUNCH(where, adastar_square_sums, params);
      return;
    case OptimizerPhase::adastar_inverse_rms:
      COPPICE_LAUNCH(where, adastar_inverse_rms, params);
      return;
    case OptimizerPhase::adastar_move:
      COPPICE_LAUNCH(where, adastar_move, params);
      return;
    case OptimizerPhase::adamw_move:
      COPPICE_LAUNCH(where, adamw_move, params);
      return;
  }
}

}  // namespace coppice
