// Memory of CPU tensors, counted by what was asked for: what a forward pass leaves behind, autograd's share included.
#pragma once

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <map>
#include <mutex>

namespace coppice {

/// While one lives, CPU tensors are counted that are made meanwhile. Not nested.
class LiveBytes {
 public:
  LiveBytes() : under_(c10::GetCPUAllocator()) {
    counter().under = under_;
    c10::SetCPUAllocator(&counter(), kPriority);
  }
  ~LiveBytes() { c10::SetCPUAllocator(under_, kPriority); }
  LiveBytes(const LiveBytes&) = delete;
  LiveBytes& operator=(const LiveBytes&) = delete;

  /// Of those that are alive, of this and of earlier ones.
  int64_t now() const {
    const std::lock_guard lock(counter().mutex);
    return counter().bytes;
  }

 private:
  static constexpr uint8_t kPriority = 200;  // above any that the program installs

  struct Block {
    c10::DataPtr data;
    int64_t bytes;
  };
  struct Counter : c10::Allocator {
    c10::DataPtr allocate(size_t bytes) override {
      c10::DataPtr data = under->allocate(bytes);
      void* const address = data.get();
      if (address == nullptr) return data;
      const std::lock_guard lock(mutex);
      this->bytes += static_cast<int64_t>(bytes);
      blocks.emplace(address, Block{std::move(data), static_cast<int64_t>(bytes)});
      return {address, address, &free, at::kCPU};
    }
    c10::DeleterFnPtr raw_deleter() const override { return &free; }
    void copy_data(void* to, const void* from, size_t count) const override { default_copy_data(to, from, count); }

    std::mutex mutex;
    std::map<void*, Block> blocks;
    int64_t bytes = 0;
    c10::Allocator* under = nullptr;
  };

  static Counter& counter() {
    static Counter* const counter = new Counter;  // never destroyed: tensors outlive who counts them
    return *counter;
  }
  static void free(void* address) {
    const std::lock_guard lock(counter().mutex);
    const auto found = counter().blocks.find(address);
    counter().bytes -= found->second.bytes;
    counter().blocks.erase(found);
  }

  c10::Allocator* under_;
};

}  // namespace coppice
