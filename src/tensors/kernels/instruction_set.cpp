#include "src/tensors/kernels/instruction_set.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace coppice {
namespace {

int lanes_of_processor() {
#ifdef COPPICE_X86_64_LEVELS
  if (__builtin_cpu_supports("x86-64-v4")) return 16;
  if (__builtin_cpu_supports("x86-64-v3")) return 8;
#endif
  return 4;
}

/// LibTorch warns of a value that it does not know, and ignores it.
int most_lanes_wanted() {
  const char* capability = std::getenv("ATEN_CPU_CAPABILITY");
  if (capability == nullptr) return 16;
  if (std::string_view(capability) == "default") return 4;
  return std::string_view(capability) == "avx2" ? 8 : 16;
}

}  // namespace

int vector_lanes() {
  static const int lanes = std::min(lanes_of_processor(), most_lanes_wanted());
  return lanes;
}

}  // namespace coppice
