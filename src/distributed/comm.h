// Ranks that act together: each calls the same collectives in the same order. Sums are made in the order of ranks, so
// that no algorithm, message size or topology changes a bit. A world of one is an implementation like any other.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <span>
#include <utility>

namespace coppice {

/// A collective under way: the tensors may be touched once wait() has returned. Destroying it waits, too, but loses
/// the error of a rank that failed.
class [[nodiscard]] Pending {
 public:
  Pending() = default;  // done already
  explicit Pending(std::function<void()> finish) : finish_(std::move(finish)) {}
  Pending(Pending&& other) noexcept : finish_(std::exchange(other.finish_, nullptr)) {}
  Pending& operator=(Pending&&) = delete;
  ~Pending();
  /// Throws what the collective failed with.
  void wait();

 private:
  std::function<void()> finish_;
};

/// Tensors are contiguous, of one type and of equal sizes on all ranks; `what` names the collective in messages. A part
/// may be this rank's part of `whole`.
class Comm {
 public:
  virtual ~Comm() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// whole [size * n] = the parts [n] of all ranks, in their order.
  virtual Pending all_gather(const at::Tensor& part, const at::Tensor& whole, const char* what) = 0;
  /// part [n] = the sum over ranks, in their order, of this rank's n elements of whole [size * n].
  virtual Pending reduce_scatter(const at::Tensor& whole, const at::Tensor& part, const char* what) = 0;
  /// As all_gather, on rank `to` alone; elsewhere `whole` is not looked at.
  virtual Pending gather(const at::Tensor& part, const at::Tensor& whole, int to, const char* what) = 0;
  /// value = that of rank `from`.
  virtual Pending broadcast(const at::Tensor& value, int from, const char* what) = 0;
};

/// One rank by itself: copies, no threads.
std::unique_ptr<Comm> alone();

/// value = the sum over all ranks, in their order: the same bits everywhere. float32, float64 or int64.
void sum_over(Comm& comm, const at::Tensor& value, const char* what);
void sum_over(Comm& comm, std::span<double> values, const char* what);

}  // namespace coppice
