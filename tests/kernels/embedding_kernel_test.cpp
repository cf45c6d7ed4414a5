#include "src/tensors/kernels/embedding.h"

#include <doctest/doctest.h>

#include <set>

#include "tests/executor/outputs.h"
#include "tests/kernels/every_schedule.h"
#include "tests/kernels/sparse_rows.h"
#include "tests/kernels/table_bytes.h"

using namespace coppice;

namespace {

struct Shape {
  int64_t num_tokens;
  int64_t vocab_size;
  int64_t hidden_size;
  int64_t padding;
};

/// Half of them the last of the vocabulary, the others any.
std::vector<int64_t> tokens_of(const Shape& shape) {
  std::vector<int64_t> tokens;
  for (int64_t n = 0; n < shape.num_tokens; ++n)
    tokens.push_back(n % 2 == 0 ? shape.vocab_size - 1 : n * 7919 % shape.vocab_size);
  return tokens;
}

/// A kernel is asked for T and, with the same numbers, its reference for float.
template <class T, class Run>
Outputs forward(const Shape& shape, const Run& run) {
  const auto tokens = tokens_of(shape);
  const auto table = rows_of_numbers<T>(shape.vocab_size, shape.hidden_size, shape.padding, 1);
  auto out = guarded<T>(shape.num_tokens * shape.hidden_size);
  run(EmbeddingParams<T>{.token = tokens.data(),
                         .table = table.data(),
                         .out = out.data(),
                         .num_tokens = shape.num_tokens,
                         .hidden_size = shape.hidden_size,
                         .table_row_stride = shape.hidden_size + shape.padding});
  Outputs outputs;
  append(outputs, out);
  return outputs;
}

/// `num_empty` empty pieces stand behind both lists.
template <class T, class Run>
Outputs backward(const Shape& shape, const Run& run, int64_t num_empty = 0) {
  const auto tokens = tokens_of(shape);
  EmbeddingOrder order;
  make_embedding_order(tokens, order);
  for (auto* const list : {&order.pieces, &order.long_tokens})
    list->resize(list->size() + static_cast<size_t>(num_empty));
  const auto out_grad = rows_of_numbers<T>(shape.num_tokens, shape.hidden_size, shape.padding, 2);
  auto table_grad = rows_of_numbers<float>(shape.vocab_size, shape.hidden_size, 0, 3);
  table_grad.resize(table_grad.size() + 16, 42.0f);
  auto partial = guarded<float>(order.num_partials * shape.hidden_size);
  run(EmbeddingBackwardParams<T>{.token = tokens.data(),
                                 .row = order.row.data(),
                                 .pieces = order.pieces.data(),
                                 .long_tokens = order.long_tokens.data(),
                                 .partial = partial.data(),
                                 .out_grad = out_grad.data(),
                                 .table_grad = table_grad.data(),
                                 .num_tokens = shape.num_tokens,
                                 .num_pieces = std::ssize(order.pieces),
                                 .num_long_tokens = std::ssize(order.long_tokens),
                                 .hidden_size = shape.hidden_size,
                                 .out_grad_row_stride = shape.hidden_size + shape.padding});
  Outputs outputs;
  append(outputs, table_grad);
  partial.erase(partial.begin(), partial.end() - 16);  // what lies behind it
  append(outputs, partial);
  return outputs;
}

template <class T>
void check_shape(const Shape& shape) {
  CAPTURE(shape.num_tokens);
  CAPTURE(shape.hidden_size);
  CAPTURE(shape.padding);
  check_every_schedule<T>([&]<class Element>(const auto& run) { return forward<Element>(shape, run); },
                          emulated::embedding<T>, embedding_reference);
  check_every_schedule<T>([&]<class Element>(const auto& run) { return backward<Element>(shape, run); },
                          emulated::embedding_backward<T>, embedding_backward_reference);
}

}  // namespace

TEST_SUITE("kernel") {
  TEST_CASE("embedding: equals the reference with equal bits under every schedule") {
    for (const Shape& shape : std::initializer_list<Shape>{{1, 1, 1, 0},
                                                           {7, 5, 31, 2},
                                                           {300, 11, 33, 0},
                                                           {128, 3, 64, 8},
                                                           {130, 9, 264, 0},
                                                           {0, 3, 8, 0},
                                                           {9, 4, 3072, 0},
                                                           {131, 2, 520, 3},
                                                           {5, 3, 4104, 0}}) {
      if (kUnderRaceCheck && shape.hidden_size > 100) continue;
      check_shape<float>(shape);
      check_shape<Bf16>(shape);
    }
  }

  TEST_CASE("embedding: empty pieces behind the lists change nothing") {
    const Shape shape{300, 11, 40, 0};
    const auto kernel = [](const auto& params) { emulated::embedding_backward<Bf16>(params, nullptr); };
    CHECK(same_bits(backward<Bf16>(shape, kernel, 5), backward<Bf16>(shape, kernel)));
  }

  TEST_CASE("embedding: the quick path agrees with the reference") {
    const Shape shape{300, 11, 257, 3};
    const auto as_double = [](const Outputs& outputs) { return std::vector<double>(outputs.begin(), outputs.end()); };
    CHECK(same_bits(forward<float>(shape, [](const auto& params) { embedding_cpu(params); }),
                    forward<float>(shape, [](const auto& params) { embedding_reference(params); })));
    CHECK(error_of(backward<float>(shape, [](const auto& params) { embedding_backward_cpu(params); }),
                   as_double(backward<float>(
                       shape, [](const auto& params) { embedding_backward_reference(params); }))) < 2e-6);
  }

  TEST_CASE("embedding: the order of a few tokens, by hand") {
    EmbeddingOrder order;
    make_embedding_order(std::vector<int64_t>{4, 0, 4, 4, 2, 0, 4}, order);
    CHECK(order.row == std::vector<int32_t>{1, 5, 4, 0, 2, 3, 6});
    CHECK(order.pieces == std::vector<EmbeddingPiece>{{0, 0, 2, -1}, {2, 2, 3, -1}, {4, 3, 7, -1}});
    CHECK(order.long_tokens.empty());
    CHECK(order.num_partials == 0);
    // 64 of one are one piece; 65 and 130 are more, joined from partial sums. What was there before is gone.
    std::vector<int64_t> tokens(64, 9);
    tokens.insert(tokens.end(), 65, 5);
    tokens.insert(tokens.end(), 130, 7);
    make_embedding_order(tokens, order);
    CHECK(order.row.front() == 64);
    CHECK(order.row.back() == 63);
    CHECK(order.pieces ==
          std::vector<EmbeddingPiece>{
              {5, 0, 64, 0}, {5, 64, 65, 1}, {7, 65, 129, 2}, {7, 129, 193, 3}, {7, 193, 195, 4}, {9, 195, 259, -1}});
    CHECK(order.long_tokens == std::vector<EmbeddingPiece>{{5, 0, 2, -1}, {7, 2, 5, -1}});
    CHECK(order.num_partials == 5);
    make_embedding_order({}, order);
    CHECK((order.row.empty() && order.pieces.empty() && order.long_tokens.empty() && order.num_partials == 0));
  }

  TEST_CASE("embedding: bytes of a token, of a distinct token and of the pieces of a long one") {
    constexpr int64_t kTokens = 200, kSize = kUnderRaceCheck ? 8 : 264;
    const Shape shape{kTokens, 7, kSize, 0};
    const auto tokens = tokens_of(shape);
    EmbeddingOrder order;
    make_embedding_order(tokens, order);
    const auto distinct = static_cast<int64_t>(std::set<int64_t>(tokens.begin(), tokens.end()).size());
    REQUIRE(distinct == 7);
    REQUIRE(order.num_partials == 2);
    const KernelShape costs{
        .rows = kTokens, .hidden_size = kSize, .distinct_tokens = distinct, .long_pieces = order.num_partials};
    check_table_bytes(Kernel::embedding, costs, [&] {
      forward<Bf16>(shape, [](const auto& params) { emulated::embedding<Bf16>(params, nullptr); });
    });
    check_table_bytes(Kernel::embedding_backward, costs, [&] {
      backward<Bf16>(shape, [](const auto& params) { emulated::embedding_backward<Bf16>(params, nullptr); });
    });
  }

#ifndef COPPICE_RACE_CHECK  // too wide for it
  TEST_CASE("embedding: the last of more than 2^31 elements, in the table and in the text") {
    constexpr int64_t kTokens = 1'000'000, kVocab = 1'000'000, kSize = 3072;
    static_assert(kTokens * kSize > int64_t{1} << 31);
    std::vector<int64_t> tokens(kTokens);
    tokens.back() = kVocab - 1;
    EmbeddingOrder order;
    make_embedding_order(tokens, order);
    const auto row = rows_of_numbers<Bf16>(1, kSize, 0, 1);
    SparseRows<Bf16> table(kVocab * kSize), out(kTokens * kSize), out_grad(kTokens * kSize);
    SparseRows<float> table_grad(kVocab * kSize), partial(order.num_partials * kSize);
    table.write((kVocab - 1) * kSize, row);
    out_grad.write((kTokens - 1) * kSize, row);
    executor::run_only_last_block(true);
    const int forward_error = emulated::embedding<Bf16>({.token = tokens.data(),
                                                         .table = table.data(),
                                                         .out = out.data(),
                                                         .num_tokens = kTokens,
                                                         .hidden_size = kSize,
                                                         .table_row_stride = kSize},
                                                        nullptr);
    const int backward_error = emulated::embedding_backward<Bf16>({.row = order.row.data(),
                                                                   .pieces = order.pieces.data(),
                                                                   .long_tokens = order.long_tokens.data(),
                                                                   .partial = partial.data(),
                                                                   .out_grad = out_grad.data(),
                                                                   .table_grad = table_grad.data(),
                                                                   .num_tokens = kTokens,
                                                                   .num_pieces = std::ssize(order.pieces),
                                                                   .num_long_tokens = std::ssize(order.long_tokens),
                                                                   .hidden_size = kSize,
                                                                   .out_grad_row_stride = kSize},
                                                                  nullptr);
    executor::run_only_last_block(false);
    REQUIRE((forward_error == 0 && backward_error == 0));
    Outputs expected, left;
    append(expected, row);
    append(left, out.read((kTokens - 1) * kSize, kSize));
    CHECK(same_bits(left, expected));
    CHECK(same_bits(table_grad.read((kVocab - 1) * kSize, kSize), expected));
  }
#endif
}
