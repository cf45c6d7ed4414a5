// Runs our kernels on the host: every thread of a block is a fiber, barriers and warp operations mean what they mean on
// a device, blocks run one after the other. A .cu knows nothing of this header (it includes
// src/tensors/kernels/cuda_dialect.h); tests and the rehearsal set here how it runs. Torch-free.
// The model of threads as fibers is that of ROCm's HIP-CPU.
#pragma once

#include <cstdint>
#include <source_location>
#include <stdexcept>
#include <string>

namespace coppice::executor {

/// Who runs next. in_turn: the next ready thread; eager: whoever was released last, so that a warp runs ahead until a
/// barrier stops it; both the other way round; random: in every block another mixture of fair, eager and any.
enum class Order { in_turn, in_turn_backwards, eager, eager_backwards, random };

struct Schedule {
  Order order = Order::in_turn;
  uint64_t seed = 0;  // of random, and of the noise of approximate functions
};

/// How launches run from now on. With math_noise every approximate function is off by up to its documented error, by
/// the same amount for the same argument.
void set_schedule(const Schedule& schedule, bool math_noise = false);

/// What launches have done since reset_counts(): bytes are those of load_pack, store_pack and copy_pack.
struct Counts {
  int64_t launches = 0;
  int64_t switches = 0;
  int64_t bytes_loaded = 0;
  int64_t bytes_stored = 0;
};
Counts counts();
void reset_counts();

/// Whether launches run their last block and no other: full shapes over address space that nobody has touched.
void run_only_last_block(bool only);

/// What a device would answer with undefined behaviour, a hang or a refused launch; the text begins with file:line of
/// the kernel. Thrown by the launch, after which nothing of it is left.
struct Fault : std::runtime_error {
  Fault(const std::source_location& at, const std::string& message);
  std::string file;
  unsigned line = 0;
};

}  // namespace coppice::executor
