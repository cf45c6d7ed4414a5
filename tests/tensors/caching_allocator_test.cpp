#include "src/tensors/caching_allocator.h"

#include <thread>

#include "tests/tensors/compare.h"

using namespace coppice;

// The shared main installs the allocator by start_torch().
#ifndef __SANITIZE_ADDRESS__
TEST_SUITE("unit") {
  TEST_CASE("caching_allocator: a tensor gets the block of the one before it; the system is not asked again") {
    const auto allocate = [] {
      for (int i = 0; i < 10; ++i) {
        const at::Tensor tensor = at::empty({(1 << 20) - 100 * i});
        CHECK(reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 64 == 0);
      }
    };
    allocate();
    const size_t calls = caching_allocator_report().num_system_calls;
    allocate();
    CHECK(caching_allocator_report().num_system_calls == calls);
  }

  TEST_CASE("caching_allocator: live tensors never share memory, whatever their sizes and threads") {
    const auto fill_and_check = [](int seed) {
      std::vector<at::Tensor> tensors;
      for (int i = 0; i < 60; ++i) {
        tensors.push_back(at::full({int64_t{1} << (10 + (i * 7 + seed) % 11)}, seed * 1000 + i));
        if (i % 3 == 0) tensors.erase(tensors.begin());
      }
      bool intact = true;
      for (const at::Tensor& tensor : tensors) intact = intact && tensor.min().equal(tensor.max());
      return intact;
    };
    bool other_intact = false;
    std::thread other([&] { other_intact = fill_and_check(1); });
    CHECK(fill_and_check(2));
    other.join();
    CHECK(other_intact);
  }

  TEST_CASE("caching_allocator: free blocks go back on request") {
    { const at::Tensor large = at::zeros({16 << 20}); }
    CHECK(caching_allocator_report().bytes_free >= size_t{64} << 20);
    release_cached_memory();
    CHECK(caching_allocator_report().bytes_free == 0);
    CHECK(at::ones({1 << 20}).sum().item<float>() == 1 << 20);
  }
}
#endif
