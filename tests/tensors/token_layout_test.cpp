#include "src/tensors/token_layout.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <vector>

#include "src/tensors/kernels/embedding.h"

using namespace coppice;

TEST_SUITE("unit") {
  TEST_CASE("make_token_order: the host's order as tensors") {
    std::vector<int64_t> tokens(70, 3);
    tokens[5] = 1, tokens[69] = 0;
    EmbeddingOrder expected;
    make_embedding_order(tokens, expected);
    const TokenOrder order = make_token_order(at::tensor(tokens, at::kLong).view({2, 35}));
    CHECK(order.defined());
    CHECK(at::equal(order.row_N, at::tensor(expected.row, at::kInt)));
    CHECK(order.piece_X4.sizes() == at::IntArrayRef({4, 4}));  // 0, 1, and 68 times 3 in two pieces
    CHECK(order.num_partials == 2);
    for (size_t i = 0; i < expected.pieces.size(); ++i) {
      const EmbeddingPiece& piece = expected.pieces[i];
      CHECK(at::equal(order.piece_X4[static_cast<int64_t>(i)],
                      at::tensor({piece.token, piece.begin, piece.end, piece.partial}, at::kInt)));
    }
    CHECK(at::equal(order.long_token_X4, at::tensor({3, 0, 2, -1}, at::kInt).unsqueeze(0)));
    CHECK_FALSE(TokenOrder().defined());
    CHECK(make_token_order(at::empty({0}, at::kLong)).piece_X4.sizes() == at::IntArrayRef({0, 4}));
  }

  TEST_CASE("make_document_bounds: documents begin where the number changes, and with every row") {
    const at::Tensor document_BT = at::tensor({0, 0, 0, 1, 1, 1, 1, 1, 0, 1, 2, 2}, at::kInt).view({3, 4});
    const DocumentBounds bounds = make_document_bounds(document_BT);
    CHECK(at::equal(bounds.bound_S, at::tensor({0, 3, 4, 8, 9, 10, 12}, at::kInt)));
    CHECK(bounds.longest == 4);
    CHECK(at::equal(make_document_bounds(at::zeros({1, 5}, at::kInt)).bound_S, at::tensor({0, 5}, at::kInt)));
  }
}
