#include "src/tensors/executor/shared_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "src/tensors/executor/race_check.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace coppice::executor {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kAlignment = 16;  // of every array, as on a device
constexpr size_t kGap = 64;
constexpr size_t kStaticPart = 128 * 1024;  // kLargestStatic in arrays of a few bytes, gaps included
constexpr size_t kDynamicPart = 228 * 1024;
constexpr int kFill = 0xff;

void fence([[maybe_unused]] const std::byte* start, [[maybe_unused]] size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  __asan_poison_memory_region(start, bytes);
#endif
}

void unfence([[maybe_unused]] const std::byte* start, [[maybe_unused]] size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(start, bytes);
#endif
}

size_t rounded_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

bool is_filled(const std::byte* start, size_t bytes) {
  return std::all_of(start, start + bytes, [](std::byte value) { return value == std::byte{kFill}; });
}

}  // namespace

void SharedMemory::start_block(size_t dynamic_bytes) {
  constexpr size_t kBytes = kStaticPart + kDynamicPart;
  if (map_ == nullptr || kRaceCheck) {  // mapped anew, two blocks' accesses are not taken for those of one
    void* const mapped = ::mmap(map_, kBytes + kPage, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (map_ == nullptr ? 0 : MAP_FIXED), -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    map_ = static_cast<std::byte*>(mapped);
    if (::mprotect(map_ + kBytes, kPage, PROT_NONE) != 0) throw std::bad_alloc();
    used_ = kStaticPart;
  }
  std::byte* const end = map_ + kBytes;
  unfence(map_, kBytes);
  std::memset(map_, kFill, used_);  // the rest still is
  num_arrays_ = used_ = static_bytes_ = 0;
  const size_t room = rounded_up(dynamic_bytes, kAlignment);
  dynamic_ = end - room;
  dynamic_bytes_ = dynamic_bytes;
  dynamic_gap_ = room - dynamic_bytes;
  std::memset(dynamic_, kFill, room);
  fence(map_, static_cast<size_t>(dynamic_ - map_));
  fence(dynamic_ + dynamic_bytes, dynamic_gap_);
}

void* SharedMemory::array(const void* key, size_t bytes, const std::source_location& at) {
  for (size_t i = 0; i < num_arrays_; ++i)
    if (arrays_[i].key == key) return arrays_[i].start;
  const size_t room = rounded_up(bytes, kAlignment) + kGap;
  const size_t most = dynamic_bytes_ <= kMostUnasked ? kLargestStatic : kLargest;  // of both together
  if (static_bytes_ + bytes > kLargestStatic || static_bytes_ + bytes + dynamic_bytes_ > most ||
      used_ + room > kStaticPart || num_arrays_ == arrays_.size())
    return nullptr;
  std::byte* const start = map_ + used_;
  unfence(start, room);
  fence(start + bytes, room - bytes);
  used_ += room;
  static_bytes_ += bytes;
  arrays_[num_arrays_++] = {.key = key, .start = start, .bytes = bytes, .gap = room - bytes, .at = at};
  return start;
}

const SharedMemory::Damage* SharedMemory::damage() {
  for (size_t i = 0; i < num_arrays_; ++i) {
    const Array& array = arrays_[i];
    unfence(array.start, array.bytes + array.gap);
    if (is_filled(array.start + array.bytes, array.gap)) continue;
    damage_ = {.at = &array.at, .bytes = array.bytes};
    return &damage_;
  }
  unfence(dynamic_ + dynamic_bytes_, dynamic_gap_);
  if (is_filled(dynamic_ + dynamic_bytes_, dynamic_gap_)) return nullptr;
  damage_ = {.at = nullptr, .bytes = dynamic_bytes_};
  return &damage_;
}

}  // namespace coppice::executor
