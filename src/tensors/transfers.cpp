#include "src/tensors/transfers.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>

#include "src/base/errors.h"

namespace coppice {
namespace {

constexpr int64_t kAlignment = 256;  // bytes, between tensors of one buffer
constexpr size_t kSlots = 3;         // one is filled, one under way, one to spare

at::Tensor pinned_bytes(int64_t size) {
  return at::empty({size}, at::TensorOptions().dtype(at::kByte).pinned_memory(true));
}
at::Tensor device_bytes(int64_t size, at::Device device) {
  return at::empty({size}, at::TensorOptions().dtype(at::kByte).device(device));
}

c10::Stream current_stream_of(at::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
}

/// Tensors end to end in one buffer, each from an aligned place on.
std::vector<int64_t> offsets_of(std::span<at::Tensor* const> tensors) {
  std::vector<int64_t> offsets = {0};  // one more at the end
  for (const at::Tensor* const tensor : tensors) {
    const auto size = static_cast<int64_t>(tensor->nbytes());
    offsets.push_back(offsets.back() + (size + kAlignment - 1) / kAlignment * kAlignment);
  }
  return offsets;
}

/// The part of such a buffer that is, or is to be, `like`: contiguous, and a leaf of its own for autograd.
at::Tensor part_of(const at::Tensor& bytes, int64_t offset, const at::Tensor& like) {
  const at::Tensor part = bytes.narrow(0, offset, static_cast<int64_t>(like.nbytes()));
  return part.view(like.scalar_type()).view(like.sizes()).detach();
}

/// A device's pinned buffers in turn, and the stream that copies from them.
class UploadRing {
 public:
  explicit UploadRing(at::Device device)
      : device_(device), stream_(c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device)) {}

  void send(std::span<at::Tensor* const> tensors) {
    const std::vector<int64_t> offsets = offsets_of(tensors);
    Slot& slot = slots_[next_++ % kSlots];
    slot.copied.synchronize();
    if (!slot.bytes.defined() || slot.bytes.numel() < offsets.back()) slot.bytes = pinned_bytes(offsets.back());
    for (size_t i = 0; i < tensors.size(); ++i) {
      const at::Tensor host = tensors[i]->contiguous();
      if (host.nbytes() > 0)
        std::memcpy(slot.bytes.mutable_data_ptr<uint8_t>() + offsets[i], host.const_data_ptr(), host.nbytes());
    }
    const c10::Stream reader = current_stream_of(device_);
    at::Tensor there;
    {
      const c10::StreamGuard on_own_stream(stream_);  // memory, too: another stream's may still be in use there
      there = device_bytes(offsets.back(), device_);
      there.copy_(slot.bytes.narrow(0, 0, offsets.back()), /*non_blocking=*/true);
    }
    slot.copied.record(stream_);
    slot.copied.block(reader);
    there.record_stream(reader);
    for (size_t i = 0; i < tensors.size(); ++i) *tensors[i] = part_of(there, offsets[i], *tensors[i]);
  }

 private:
  struct Slot {
    at::Tensor bytes;
    c10::Event copied{at::kCUDA};
  };

  at::Device device_;
  c10::Stream stream_;
  std::array<Slot, kSlots> slots_;
  size_t next_ = 0;
};

/// Of the life of the process, like the device's other buffers.
void send_through_ring(std::span<at::Tensor* const> tensors, at::Device device) {
  static std::mutex mutex;
  static auto* const rings = new std::map<at::DeviceIndex, std::unique_ptr<UploadRing>>;
  const std::lock_guard lock(mutex);
  std::unique_ptr<UploadRing>& ring = (*rings)[device.index()];
  if (ring == nullptr) ring = std::make_unique<UploadRing>(device);
  ring->send(tensors);
}

}  // namespace

void send(std::span<at::Tensor* const> tensors, at::Device device) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor*> moved;
  for (at::Tensor* const tensor : tensors)
    if (tensor->defined() && tensor->device() != device) moved.push_back(tensor);
  if (moved.empty()) return;
  if (device.is_cuda()) return send_through_ring(moved, device);
  for (at::Tensor* const tensor : moved) *tensor = tensor->to(device);
}

at::Tensor sent(at::Tensor tensor, at::Device device) {
  send({&tensor}, device);
  return tensor;
}

Fetch::Fetch(std::initializer_list<at::Tensor*> tensors) {
  for (at::Tensor* const tensor : tensors)
    if (tensor->defined() && !tensor->is_cpu()) tensors_.push_back(tensor);
  if (tensors_.empty()) return;
  const at::NoGradGuard no_grad;
  const at::Device device = tensors_.front()->device();
  const std::vector<int64_t> offsets = offsets_of(tensors_);
  const at::Tensor there = device_bytes(offsets.back(), device);
  for (size_t i = 0; i < tensors_.size(); ++i) {
    COPPICE_CHECK(tensors_[i]->device() == device, "tensors that are fetched together lie on one device");
    part_of(there, offsets[i], *tensors_[i]).copy_(*tensors_[i]);
  }
  bytes_ = pinned_bytes(offsets.back());
  bytes_.copy_(there, /*non_blocking=*/true);
  arrived_.emplace(device.type());
  arrived_->record(current_stream_of(device));
}

void Fetch::wait() {
  if (tensors_.empty()) return;
  const at::NoGradGuard no_grad;
  arrived_->synchronize();
  const std::vector<int64_t> offsets = offsets_of(tensors_);
  for (size_t i = 0; i < tensors_.size(); ++i) *tensors_[i] = part_of(bytes_, offsets[i], *tensors_[i]);
  tensors_.clear();
}

}  // namespace coppice
