#include "src/checkpoint/host_snapshot.h"

#include <ATen/core/CachingHostAllocator.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "src/base/errors.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

/// A run of elements within one slab.
struct Run {
  size_t slab;
  int64_t begin, size;
};

/// Where elements [begin, begin + size) of a snapshot lie.
std::vector<Run> runs_of(int64_t begin, int64_t size, int64_t slab_size) {
  std::vector<Run> runs;
  for (const int64_t end = begin + size; begin < end; begin += runs.back().size)
    runs.push_back({.slab = static_cast<size_t>(begin / slab_size),
                    .begin = begin % slab_size,
                    .size = std::min(end - begin, slab_size - begin % slab_size)});
  return runs;
}

/// The elements in one tensor: a view where they lie in one slab. No operation of torch's copies them, which would
/// start threads of its own for a thread that only writes.
at::Tensor assembled(const std::vector<at::Tensor>& slabs, const std::vector<Run>& runs,
                     const std::vector<int64_t>& shape) {
  if (runs.size() == 1) return slabs[runs[0].slab].narrow(0, runs[0].begin, runs[0].size).view(shape);
  at::Tensor whole = at::empty(shape, at::kFloat);
  float* into = whole.mutable_data_ptr<float>();
  for (const Run& run : runs) {
    const float* const from = slabs[run.slab].const_data_ptr<float>() + run.begin;
    std::memcpy(into, from, static_cast<size_t>(run.size) * sizeof(float));
    into += run.size;
  }
  return whole;
}

}  // namespace

HostSnapshot::HostSnapshot(at::Device device, uint64_t slab_bytes)
    : device_(device), slab_size_(static_cast<int64_t>(slab_bytes / sizeof(float))) {}

HostSnapshot::~HostSnapshot() {
  if (!slabs_.empty()) release();
}

void HostSnapshot::release() {
  slabs_.clear();
  if (device_.is_cpu()) return;
  try {  // pinned memory would stay with the process
    c10::impl::VirtualGuardImpl(device_.type()).getStream(device_).synchronize();  // for what is to be found unused
    at::getHostAllocator(device_.type())->empty_cache();
  } catch (const c10::Error&) {  // of a device that has failed, and whose error is under way
  }
}

bool HostSnapshot::make_room(uint64_t bytes) {
  const auto size = static_cast<int64_t>(bytes / sizeof(float));
  const at::TensorOptions options = at::TensorOptions().dtype(at::kFloat).pinned_memory(!device_.is_cpu());
  slabs_.resize(static_cast<size_t>((size + slab_size_ - 1) / slab_size_));
  try {
    int64_t left = size;
    for (at::Tensor& slab : slabs_) {
      const int64_t wanted = std::min(left, slab_size_);
      if (!slab.defined() || slab.numel() < wanted) {
        slab = at::Tensor();  // first: both may be more than there is
        slab = at::empty({wanted}, options);
      }
      left -= wanted;
    }
    return true;
  } catch (const c10::Error&) {
    release();
    return false;
  }
}

TensorSource HostSnapshot::take(const TensorSource& source) {
  const at::NoGradGuard no_grad;
  TensorSource copies{.entries = source.entries};
  std::vector<std::vector<Run>> places;
  int64_t end = 0;
  for (size_t i = 0; i < source.entries.size(); ++i) {
    const TensorSource::Entry& entry = source.entries[i];
    const at::Tensor value = source.value(i);
    check_tensor(entry.name, value);
    COPPICE_CHECK(value.sizes() == entry.shape, fmt::format("{}: got {}, {} was announced", entry.name,
                                                            shape_text(value.sizes()), shape_text(entry.shape)));
    places.push_back(runs_of(end, value.numel(), slab_size_));
    const at::Tensor flat = value.view(-1);
    int64_t done = 0;
    for (const Run& run : places.back()) {
      slabs_[run.slab].narrow(0, run.begin, run.size).copy_(flat.narrow(0, done, run.size), /*non_blocking=*/true);
      done += run.size;
    }
    end += value.numel();
  }
  if (!device_.is_cpu()) c10::impl::VirtualGuardImpl(device_.type()).getStream(device_).synchronize();
  copies.value = [slabs = slabs_, places = std::move(places), entries = source.entries](size_t i) {
    return assembled(slabs, places[i], entries[i].shape);
  };
  return copies;
}

}  // namespace coppice
