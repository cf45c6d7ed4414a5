// A float32 master in two halves (src/tensors/kernels/split_master.h) where they lie. On the CPU by loops.
#pragma once

#include <ATen/core/Tensor.h>

namespace coppice {

/// working [n] bfloat16 and, where it is defined, remainder [n] int16 = the halves of master [n] float32; flat and
/// contiguous.
void split_master_into(const at::Tensor& master, const at::Tensor& working, const at::Tensor& remainder);
/// master [n] = what its halves [n] are together; with places [n] int64 those there, of halves of any size.
void join_master_into(const at::Tensor& working, const at::Tensor& remainder, const at::Tensor& master,
                      const at::Tensor& places = {});

}  // namespace coppice
