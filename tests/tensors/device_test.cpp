#include "src/tensors/device.h"

#include <doctest/doctest.h>

#include "src/base/errors.h"
#include "src/tensors/cuda_devices.h"
#include "tests/child_process.h"

using namespace coppice;

TEST_SUITE("unit") {
  TEST_CASE("find_device, device_name: names of devices there and back") {
    CHECK(find_device("cpu") == at::Device(at::kCPU));
    CHECK(find_device("cuda") == at::Device(at::kCUDA, 0));
    CHECK(find_device("cuda:0") == at::Device(at::kCUDA, 0));
    CHECK(find_device("cuda:17") == at::Device(at::kCUDA, 17));
    for (const char* name :
         {"", "CPU", "cpu:0", "cuda:", "cuda:x", "cuda:1x", "cuda:-1", "cuda:128", "cuda:300", "tpu", "mps", "cuda:0 "})
      CHECK_MESSAGE(!find_device(name).has_value(), name);
    for (const char* name : {"cpu", "cuda:0", "cuda:127"}) CHECK(device_name(*find_device(name)) == name);
  }

  TEST_CASE("dtype_name: the spelling of recipes") {
    CHECK(dtype_name(at::kFloat) == "float32");
    CHECK(dtype_name(at::kBFloat16) == "bfloat16");
    CHECK(dtype_name(at::kDouble) == "float64");
  }

  TEST_CASE("check_available: what this build cannot compute on is refused with a sentence") {
    CHECK(why_unavailable(at::kCPU) == "");
    CHECK_NOTHROW(check_available(at::kCPU, "x"));
    CHECK(why_unavailable(at::kMPS) == "coppice computes on cpu and cuda alone");
    if (!built_with_cuda())
      CHECK_THROWS_WITH_AS(check_available(at::Device(at::kCUDA, 3), "x_ND"),
                           "x_ND is on cuda:3, but this build has no CUDA kernels", DeviceError);
  }

  TEST_CASE("why_not_here: what this machine lacks, by the number of its devices") {
    CHECK(why_not_here(at::kCPU) == "");
    CHECK(why_not_here(at::kMPS) == why_unavailable(at::kMPS));
    const int devices = num_cuda_devices();
    CHECK(has_cuda_device() == (devices > 0));
    if (!built_with_cuda()) CHECK(why_not_here(at::kCUDA) == "this build has no CUDA kernels");
    CHECK(why_not_here(at::Device(at::kCUDA, 0)).empty() == (devices > 0));
    const std::string last = "the last is cuda:" + std::to_string(devices - 1);
    CHECK((why_not_here(at::Device(at::kCUDA, 127)).find(last) != std::string::npos) == (devices > 0));
    CHECK_FALSE(why_not_here(at::Device(at::kCUDA, 127)).empty());
    CHECK_THROWS_WITH_AS(memory_of(at::Device(at::kCUDA, 127)), why_not_here(at::Device(at::kCUDA, 127)).c_str(),
                         DeviceError);
    if (devices > 0) CHECK(memory_of(at::Device(at::kCUDA, 0)) > int64_t{1} << 30);
  }

  TEST_CASE("leave_cuda_to_children: who forks does not ask the driver, its children do") {
    const auto asks = [] { (void)num_cuda_devices(); };
    const int internal = static_cast<int>(ExitCode::internal);
    CHECK(run_in_child([&] {
            leave_cuda_to_children();
            asks();
          }) == internal);
    CHECK(run_in_child([&] {
            leave_cuda_to_children();
            (void)why_not_here(at::Device(at::kCUDA, 0));
          }) == internal);
    CHECK(run_in_child([&] {
            leave_cuda_to_children();
            (void)why_not_here(at::kCPU);  // asks nobody
            if (run_in_child(asks) != 0) throw std::runtime_error("a child must not ask");
          }) == 0);
  }
}
