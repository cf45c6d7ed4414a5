// Shared memory of the block that runs: every array of exactly its size, all bytes 0xff (NaN in every float type), with
// gaps between them that must be as they were when the block ends. The dynamic array ends at a page that nobody may
// touch.
#pragma once

#include <array>
#include <cstddef>
#include <source_location>

namespace coppice::executor {

class SharedMemory {
 public:
  static constexpr size_t kLargest = 227 * 1024;  // what a block may have in all, from sm_90 on
  static constexpr size_t kLargestStatic = 48 * 1024;
  static constexpr size_t kMostUnasked = 32 * 1024;  // dynamic bytes that a launch takes without asking the device

  /// Nothing is left of the block before. dynamic_bytes: at most kLargest.
  void start_block(size_t dynamic_bytes);
  /// The array of `key`, made when the block asks for the first time; null where it does not fit.
  void* array(const void* key, size_t bytes, const std::source_location& at);
  void* dynamic() const { return dynamic_; }

  /// Where somebody has written beside an array; null where nobody has.
  struct Damage {
    const std::source_location* at;  // of the array's declaration; null: the dynamic one
    size_t bytes;                    // its size
  };
  const Damage* damage();

 private:
  struct Array {
    const void* key = nullptr;
    std::byte* start = nullptr;
    size_t bytes = 0;
    size_t gap = 0;  // behind it
    std::source_location at;
  };
  std::byte* map_ = nullptr;
  std::byte* dynamic_ = nullptr;
  size_t dynamic_bytes_ = 0, dynamic_gap_ = 0;
  size_t used_ = 0;  // of the bytes for static arrays, gaps included
  size_t static_bytes_ = 0;
  std::array<Array, 32> arrays_{};  // no heap: ThreadSanitizer would see it change hands
  size_t num_arrays_ = 0;
  Damage damage_{};
};

}  // namespace coppice::executor
