// Ranks as threads of one process: what Comm promises, written down plainly, so that whatever uses it can be tested
// with several ranks. Every collective checks that all ranks ask for the same one.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <barrier>
#include <exception>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "src/base/errors.h"
#include "src/distributed/comm.h"

namespace coppice {

class ThreadRanks {
 public:
  /// Calls body(comm) once for each of `size` ranks, all at once; throws what the first of them threw.
  static void run(int size, const std::function<void(Comm&)>& body) {
    ThreadRanks ranks(size);
    std::vector<std::exception_ptr> errors(static_cast<size_t>(size));
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size; ++rank)
      threads.emplace_back([&, rank] {
        Member member(ranks, rank);
        try {
          body(member);
        } catch (...) {
          errors[static_cast<size_t>(rank)] = std::current_exception();
          ranks.barrier_.arrive_and_drop();  // the others go on without it
        }
      });
    for (std::thread& thread : threads) thread.join();
    for (const std::exception_ptr& error : errors)
      if (error) std::rethrow_exception(error);
  }

 private:
  explicit ThreadRanks(int size) : size_(size), barrier_(size), call_(static_cast<size_t>(size)) {}

  struct Call {
    std::string what;
    at::Tensor tensor;
  };

  class Member final : public Comm {
   public:
    Member(ThreadRanks& ranks, int rank) : ranks_(ranks), rank_(rank) {}
    int rank() const override { return rank_; }
    int size() const override { return ranks_.size_; }

    Pending all_gather(const at::Tensor& part, const at::Tensor& whole, const char* what) override {
      return exchange(part, "all_gather", what, [this, whole](const std::vector<at::Tensor>& parts) {
        for (int64_t rank = 0; rank < size(); ++rank)
          slice(whole, rank).copy_(parts[static_cast<size_t>(rank)].flatten());
      });
    }
    Pending reduce_scatter(const at::Tensor& whole, const at::Tensor& part, const char* what) override {
      return exchange(whole, "reduce_scatter", what, [this, part](const std::vector<at::Tensor>& wholes) {
        at::Tensor sum = slice(wholes[0], rank_).clone();
        for (size_t rank = 1; rank < wholes.size(); ++rank) sum += slice(wholes[rank], rank_);
        part.copy_(sum.view(part.sizes()));
      });
    }
    Pending gather(const at::Tensor& part, const at::Tensor& whole, int to, const char* what) override {
      return exchange(part, "gather", what, [this, whole, to](const std::vector<at::Tensor>& parts) {
        if (rank_ != to) return;
        for (int64_t rank = 0; rank < size(); ++rank)
          slice(whole, rank).copy_(parts[static_cast<size_t>(rank)].flatten());
      });
    }
    Pending broadcast(const at::Tensor& value, int from, const char* what) override {
      return exchange(value, "broadcast", what, [value, from](const std::vector<at::Tensor>& values) {
        value.copy_(values[static_cast<size_t>(from)]);
      });
    }

   private:
    at::Tensor slice(const at::Tensor& whole, int64_t rank) const {
      const int64_t part = whole.numel() / size();
      return whole.view({-1}).narrow(0, rank * part, part);
    }

    /// Shows `tensor` to all ranks and finishes with copies of everybody's, once all have shown theirs.
    Pending exchange(const at::Tensor& tensor, const std::string& kind, const std::string& what,
                     std::function<void(const std::vector<at::Tensor>&)> finish) {
      return Pending([this, tensor, name = kind + " of " + what, finish = std::move(finish)] {
        const at::NoGradGuard no_grad;
        ranks_.call_[static_cast<size_t>(rank_)] = {name, tensor.clone()};  // `finish` may write what it reads
        ranks_.barrier_.arrive_and_wait();
        std::vector<at::Tensor> all;
        for (const Call& call : ranks_.call_) {
          if (call.what != name)
            throw InternalError("rank " + std::to_string(rank_) + " is at " + name + ", another one at " + call.what);
          if (call.tensor.sizes() != tensor.sizes()) throw InternalError(name + ": sizes differ over ranks");
          all.push_back(call.tensor);
        }
        finish(all);
        ranks_.barrier_.arrive_and_wait();  // nobody shows the next before all have read this one
      });
    }

    ThreadRanks& ranks_;
    int rank_;
  };

  int size_;
  std::barrier<> barrier_;
  std::vector<Call> call_;
};

}  // namespace coppice
