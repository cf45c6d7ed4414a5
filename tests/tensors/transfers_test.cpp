#include "src/tensors/transfers.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "src/tensors/device_waits.h"
#include "tests/tensors/placements.h"

using namespace coppice;

namespace {

/// Of several element types and odd sizes, one of them empty and one not contiguous.
std::vector<at::Tensor> some_tensors(int64_t seed) {
  return {at::arange(7) * seed,
          at::arange(15, at::kFloat).view({3, 5}).t() + static_cast<double>(seed),
          at::arange(5).remainder(2).to(at::kBool),
          at::empty({0, 4}, at::kInt),
          at::full({}, 0.5, at::kDouble),
          at::full({3}, static_cast<double>(seed), at::kBFloat16)};
}

std::vector<at::Tensor*> addresses(std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor*> result;
  for (at::Tensor& tensor : tensors) result.push_back(&tensor);
  return result;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("send, Fetch: on the host nothing is copied, and what is undefined stays so") {
    const at::Tensor value = at::arange(3);
    at::Tensor same = value, none;
    send({&same, &none}, at::kCPU);
    CHECK(same.is_same(value));
    CHECK_FALSE(none.defined());
    CHECK(sent(value, at::kCPU).is_same(value));
    Fetch fetch({&same, &none});
    fetch.wait();
    fetch.wait();
    CHECK(same.is_same(value));
    CHECK_FALSE(none.defined());
    CHECK(sent(value, at::kMeta).is_meta());  // a device without memory: shapes alone
  }
}

TEST_SUITE("gpu") {
  TEST_CASE("send, Fetch: there and back without a wait, more at once than the ring has buffers") {
    on_each({device_placements().front()}, [](const OpPlacement& on) {
      std::vector<std::vector<at::Tensor>> groups;
      {
        const NoDeviceWaits no_waits;
        for (int64_t seed = 1; seed <= 8; ++seed) {
          std::vector<at::Tensor>& group = groups.emplace_back(some_tensors(seed));
          send(addresses(group), on.device);
          for (const at::Tensor& tensor : group) CHECK(tensor.device() == on.device);
        }
        at::Tensor first = groups.front().front();
        CHECK_THROWS((void)first.max().item<int64_t>());  // that would be one
      }
      for (int64_t seed = 1; seed <= 8; ++seed) {
        std::vector<at::Tensor>& group = groups[static_cast<size_t>(seed - 1)];
        Fetch fetch({&group[0], &group[1], &group[2], &group[3], &group[4], &group[5]});
        fetch.wait();
        const std::vector<at::Tensor> wanted = some_tensors(seed);
        for (size_t i = 0; i < wanted.size(); ++i) {
          CHECK(group[i].is_cpu());
          CHECK((group[i].scalar_type() == wanted[i].scalar_type()));
          CHECK(group[i].equal(wanted[i]));
        }
      }
    });
  }

  TEST_CASE("send: a tensor that was sent is a leaf of its own for autograd") {
    on_each({device_placements().front()}, [](const OpPlacement& on) {
      at::Tensor mask_LF = sent(at::ones({2, 3}), on.device).set_requires_grad(true);
      (mask_LF.unbind(0)[1] * 3).sum().backward();
      at::Tensor grad_LF = mask_LF.grad();
      Fetch fetch({&grad_LF});
      fetch.wait();
      CHECK(grad_LF.sum().item<float>() == 9);
    });
  }
}
