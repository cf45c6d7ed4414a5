#include "src/data/batch_device.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

using namespace coppice;

TEST_SUITE("unit") {
  TEST_CASE("batch: every tensor goes along to a device, and none is copied where it lies there already") {
    for (const bool document_mask : {false, true}) {
      CAPTURE(document_mask);
      Batch batch = make_batch(3, 8, document_mask);
      batch.token_BT.fill_(7);
      if (document_mask) batch.document_BT.copy_(at::arange(8).ge(3));
      const Batch same = on_device(batch, at::kCPU);
      CHECK(same.token_BT.is_same(batch.token_BT));
      CHECK(same.true_label_BT.is_same(batch.true_label_BT));
      const Batch moved = on_device(batch, at::kMeta);  // a device without memory: shapes alone
      CHECK(moved.token_BT.is_meta());
      CHECK(moved.position_BT.is_meta());
      CHECK(moved.true_label_BT.is_meta());
      CHECK(moved.document_BT.defined() == document_mask);
      if (document_mask) CHECK(moved.document_BT.is_meta());
      CHECK(moved.token_BT.sizes() == batch.token_BT.sizes());
      CHECK_FALSE(same.token_order.defined());  // the CPU's loops need none
      CHECK(moved.input().token_order.row_N.is_meta());
      CHECK(moved.input().token_order.row_N.sizes() == at::IntArrayRef({24}));
      CHECK(moved.input().bounds.defined() == document_mask);
      if (document_mask) CHECK(moved.bounds.bound_S.sizes() == at::IntArrayRef({7}));
      CHECK(batch.token_BT.is_cpu());
    }
  }
}
