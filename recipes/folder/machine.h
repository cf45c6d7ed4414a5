// What a run records of the program and of the machine it runs on.
#pragma once

#include "src/base/json.h"
#include "src/tensors/device.h"

namespace coppice {

/// Largest resident memory of this process since the last call (where the system lets it be reset, otherwise since its
/// start); bytes, NaN when unknown.
double take_peak_memory();

/// Memory that this process may still take: what the system has, or less where RLIMIT_AS or a control group says so;
/// bytes.
double available_memory();

/// The first line of a run: its threads and what this machine has for them; a warning where it asks for more.
void log_threads(int recipe_threads, int threads, int processes);

/// {coppice, git, torch, hdf5, compiler, build}: recorded, never compared.
Json versions_json();
/// {cpu, cpu_capability, threads, deterministic}: the host as the run uses it.
Json host_json();
/// The same with gemm_gflops, which is measured.
Json machine_json();
/// Rate of a product of random numbers (GFLOP/s) where a stage computes and in what it computes; on the CPU in fp32
/// with the threads set, whatever is rounded there. Measured once per process and placement: in about a tenth of a
/// second, on a device in less than one and in 400 MiB (fp32: twice that), which its caching allocator keeps.
double gemm_gflops(const Placement& on = {});
/// What MFU is a share of (GFLOP/s): of bf16 on a device of devices.h what its data sheet says, otherwise
/// gemm_gflops().
double peak_gflops(const Placement& on);

}  // namespace coppice
