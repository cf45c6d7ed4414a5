// Tensors between host and device without a wait for the device: up through a ring of pinned buffers on a stream of
// their own, down in one copy that is waited for once. Where all of it lies on the host anyway nothing is copied.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <vector>

namespace coppice {

/// Puts host tensors where they lie on `device`, with the same values; undefined ones stay, and those that are there
/// already. On CUDA all of them travel in one copy, which waits for nothing but the copy three calls before; what is
/// enqueued on the current stream from here on finds them there.
void send(std::span<at::Tensor* const> tensors, at::Device device);
inline void send(std::initializer_list<at::Tensor*> tensors, at::Device device) {
  send(std::span(tensors.begin(), tensors.size()), device);
}
/// The same of one.
at::Tensor sent(at::Tensor tensor, at::Device device);

/// Tensors of a device on their way to the host. Between the two calls the host may do something else.
class Fetch {
 public:
  /// Enqueues one copy of them all behind what the current stream has been given so far; the tensors (not what they
  /// refer to) must outlive this. Undefined ones stay, and those of the host.
  explicit Fetch(std::initializer_list<at::Tensor*> tensors);
  Fetch(const Fetch&) = delete;
  Fetch& operator=(const Fetch&) = delete;
  /// Waits for the copy, and puts host tensors in place of those of the device.
  void wait();

 private:
  std::vector<at::Tensor*> tensors_;  // of the device
  at::Tensor bytes_;                  // pinned
  std::optional<c10::Event> arrived_;
};

}  // namespace coppice
