#include "src/checkpoint/gguf_tensors.h"

namespace coppice {

bool is_rotated(const Parameter& parameter) {
  return parameter.gguf_name.find(".attn_q.") != std::string::npos ||
         parameter.gguf_name.find(".attn_k.") != std::string::npos;
}

MatrixSize matrix_size(const std::vector<int64_t>& shape) {
  return {.rows = shape[0], .columns = shape.size() > 1 ? shape[1] : 1};
}

}  // namespace coppice
