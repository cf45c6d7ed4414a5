// The shared main of all test programs that know torch: fixed threads, 77 when the gpu suite is asked for without a
// device, and what tests/run_cases.h holds every program to.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <string_view>

#include "src/base/hdf5.h"
#include "src/base/threads.h"
#include "src/tensors/cuda_devices.h"
#include "src/tensors/shape.h"
#include "tests/run_cases.h"

COPPICE_BOUND_SPINNING;

int main(int argc, char** argv) {
  coppice::start_hdf5();
  coppice::start_torch(2);
  for (int i = 1; i < argc; ++i)
    if (std::string_view(argv[i]) == "--test-suite=gpu" && coppice::num_cuda_devices() == 0) {
      std::puts("skipped: no CUDA device");
      return 77;
    }
  return coppice::run_cases(argc, argv);
}
