// Whose attention a run computes with. Each is called by name: none is chosen for us, so that a run can say which it
// was and repeat it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "src/tensors/device.h"

namespace coppice {

/// On a device in bfloat16. repeatable: flash, equal bits in every run (start_torch asks for deterministic algorithms).
/// fast: cuDNN's, whose backward adds up in any order; flash where documents are kept apart.
enum class AttentionMode { repeatable, fast };
/// Of all that follows in this process; repeatable until it is called.
void set_attention_mode(AttentionMode mode);

/// "cpu" (ATen's flash kernel for the CPU, in float32), "plain" (products and a softmax over all scores, in float32: on
/// a device in float32, and in bfloat16 for heads that are no multiple of 8 up to 256), "flash" or "cudnn".
std::string_view attention_backend(const Placement& on, int64_t head_size, bool documents = false);
/// The same for people, with the version that runs of what is not our build's own: "cudnn 9.19.0".
std::string attention_text(const Placement& on, int64_t head_size, bool documents = false);

}  // namespace coppice
