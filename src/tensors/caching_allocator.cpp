#include "src/tensors/caching_allocator.h"

#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

namespace coppice {

namespace {

constexpr size_t kSmallest = 32 << 10;  // below: plain malloc, which is quick and warm at these sizes
constexpr size_t kHugePage =
    2 << 20;  // blocks of this size and more are aligned to it, so that the kernel may back them by huge pages
constexpr size_t kRoundTo = 4 << 10;  // block sizes below
constexpr size_t kHeaderBytes = 64;   // in front of the data; keeps its alignment of 64
constexpr size_t kColours =
    16;  // starts differ by some cache lines: equally aligned tensors of one loop would fight for the same sets
constexpr size_t kColourStride = 3 * 64;  // bytes
constexpr size_t kSpare = kHeaderBytes + kColours * kColourStride;
constexpr size_t kKeepAtLeast = 64 << 20;  // free bytes that are never given back unasked

struct Header {
  void* block;
  size_t block_bytes;  // 0: from malloc, not cached
};

size_t round_up(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

class Cache {
 public:
  void* allocate(size_t bytes) {
    if (bytes < kSmallest) return from_malloc(bytes);
    const size_t wanted = bytes + kSpare;
    const size_t block_bytes = round_up(wanted, wanted < kHugePage ? kRoundTo : kHugePage);
    const std::lock_guard lock(mutex_);
    void* block = nullptr;
    size_t taken_bytes = block_bytes;
    const auto fitting = free_.lower_bound(block_bytes);
    if (fitting != free_.end() &&
        fitting->first <= block_bytes + block_bytes / 4) {  // the smallest that fits, at most a quarter wasted
      taken_bytes = fitting->first;
      block = fitting->second;
      free_.erase(fitting);
      report_.bytes_free -= taken_bytes;
    } else {
      if (report_.bytes_free > kKeepAtLeast && report_.bytes_free > report_.bytes_from_system / 2)
        release();  // sizes have changed: another stage
      block = from_system(block_bytes);
      if (block == nullptr) {
        release();
        block = from_system(block_bytes);
      }
      if (block == nullptr) return nullptr;
      report_.bytes_from_system += block_bytes;
      ++report_.num_system_calls;
    }
    const size_t colour = next_colour_++ % kColours;
    return start_data(static_cast<char*>(block) + kHeaderBytes + colour * kColourStride, block, taken_bytes);
  }

  void free(void* data) {
    if (data == nullptr) return;
    const Header header = *(reinterpret_cast<Header*>(data) - 1);
    if (header.block_bytes == 0) {
      std::free(header.block);
      return;
    }
    const std::lock_guard lock(mutex_);
    free_.emplace(header.block_bytes, header.block);
    report_.bytes_free += header.block_bytes;
  }

  void release_free_blocks() {
    const std::lock_guard lock(mutex_);
    release();
  }

  CacheReport report() {
    const std::lock_guard lock(mutex_);
    return report_;
  }

 private:
  static void* start_data(char* data, void* block, size_t block_bytes) {
    *(reinterpret_cast<Header*>(data) - 1) = {block, block_bytes};
    return data;
  }

  static void* from_malloc(size_t bytes) {
    void* block = nullptr;
    if (posix_memalign(&block, 64, bytes + kHeaderBytes) != 0) return nullptr;
    return start_data(static_cast<char*>(block) + kHeaderBytes, block, 0);
  }

  static void* from_system(size_t bytes) {
    const size_t slack = bytes < kHugePage ? 0 : kHugePage;
    void* mapped = mmap(nullptr, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) return nullptr;
    if (slack == 0) return mapped;
    char* const begin = static_cast<char*>(mapped);
    char* const aligned = reinterpret_cast<char*>(round_up(reinterpret_cast<uintptr_t>(begin), kHugePage));
    if (aligned > begin) munmap(begin, aligned - begin);
    if (aligned < begin + slack) munmap(aligned + bytes, begin + slack - aligned);
    madvise(aligned, bytes, MADV_HUGEPAGE);  // a wish: where it is refused, small pages serve
    return aligned;
  }

  void release() {
    for (const auto& [bytes, block] : free_) munmap(block, bytes);
    free_.clear();
    report_.bytes_from_system -= report_.bytes_free;
    report_.bytes_free = 0;
  }

  std::mutex mutex_;
  std::multimap<size_t, void*> free_;  // size -> block
  CacheReport report_;
  size_t next_colour_ = 0;
};

Cache& cache() {
  static Cache* const instance = new Cache;  // never destroyed: tensors of static lifetime may outlive main
  return *instance;
}

void free_data(void* data) { cache().free(data); }

struct CachingAllocator : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    const c10::Device cpu(c10::DeviceType::CPU);
    if (bytes == 0) return {nullptr, nullptr, &free_data, cpu};
    void* data = cache().allocate(bytes);
    TORCH_CHECK_WITH(OutOfMemoryError, data != nullptr, "not enough memory: you tried to allocate ", bytes, " bytes.");
    return {data, data, &free_data, cpu};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_data; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};

}  // namespace

void install_caching_allocator() {
#ifndef __SANITIZE_ADDRESS__  // recycled blocks would hide from it what it looks for
  static CachingAllocator* const allocator = [] {
    auto* installed = new CachingAllocator;
    c10::SetCPUAllocator(installed, /*priority=*/100);
    return installed;
  }();
  (void)allocator;
#endif
}

CacheReport caching_allocator_report() { return cache().report(); }
void release_cached_memory() { cache().release_free_blocks(); }

}  // namespace coppice
