// How long this machine takes for what a compression is made of, measured on the shapes themselves, with the functions
// that its stages call. Weights do not matter to it: fresh ones do.
#pragma once

#include <cstdint>
#include <string>

#include "src/model/config.h"

namespace coppice {

/// The batches of every stage, and what a teacher says of a token.
struct BatchShape {
  int64_t seq_len = 256;
  int64_t micro_batch_tokens = 512;
  int64_t read_batch_tokens = 2048;  // where labels are made and models scored
  int64_t top_k = 64;
};

struct CompressSpeeds {
  // Seconds a token.
  double mask_s = 0;                               // a step of the source under masks: forward and backward
  double label_s = 0;                              // the source forward, with the teacher's choices
  double train_s = 0;                              // a step of the student against them
  double source_s = 0;                             // held-out loss of the source
  double student_s = 0;                            // and of the student
  double source_score_s = 0, student_score_s = 0;  // the same with its calibration, as evaluate scores a window
  // Seconds a step, whatever its tokens: masks from scores and back; the update of the student.
  double mask_step_s = 0, train_step_s = 0;
  double weight_byte_s = 1.25e-10;  // a byte of weights, as a decoder reads all of them for one new token

  double measured_in_s = 0;  // 0 = by FLOPs alone
};

/// Each kind: two timed passes at least, and `each_s` seconds of them, behind one that is not timed. Throws Stopped
/// between two passes.
CompressSpeeds measure_speeds(const ModelConfig& source, const ModelConfig& student, const BatchShape& shape,
                              double each_s);
/// By the FLOPs of the shapes and what share of a GEMM's rate stages reach, as `coppice plan`.
CompressSpeeds estimate_speeds(const ModelConfig& source, const ModelConfig& student, const BatchShape& shape,
                               double gemm_gflops);
/// One line: tokens a second of each kind.
std::string speeds_text(const CompressSpeeds& speeds);

}  // namespace coppice
