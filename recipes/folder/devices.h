// Devices that a plan knows without having one, and a run by their names: what they hold and how fast they are, each
// number with its source.
#pragma once

#include <span>
#include <string_view>

#include "src/tensors/kernels/kernel_costs.h"

namespace coppice {

/// FLOP/s of an attention kernel, causal, heads of 128, counted as 2 T (T + 1) H K forward and 2.5 times that backward.
struct AttentionRate {
  double seq_len, forward, backward;
};

struct DeviceRow {
  const char* name;                                 // of --device
  const char* title;                                // as its maker calls it
  std::string_view cuda_name;                       // as its driver calls it
  double bytes;                                     // of memory that a process can take
  double dense_flops;                               // a second, bf16, of the data sheet: what MFU is a share of
  double gemm_flops;                                // a second, of a large product of random numbers
  DeviceRates rates;                                // of elementwise kernels
  std::span<const AttentionRate> fast, repeatable;  // by seq_len, ascending
  const char* source;
};

std::span<const DeviceRow> device_rows();
/// nullptr when there is none of that name.
const DeviceRow* find_device_row(std::string_view name);
/// The row of a device that is there; nullptr for any other, of which there may be near relations that are slower.
const DeviceRow* find_row_of_device(std::string_view cuda_name);

}  // namespace coppice
