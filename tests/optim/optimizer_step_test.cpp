// The update kernel: the double reference against the golden sequences (tests/golden/optimizer.json, made by
// make_vectors.py), the quick path against the reference on blocks of every awkward size, and the oracles of the update
// rule.
#include "src/tensors/kernels/optimizer_step.h"

#include <doctest/doctest.h>
#include <omp.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

using namespace coppice;
using nlohmann::json;

namespace {

using Doubles = std::vector<double>;
using Floats = std::vector<float>;

constexpr int64_t kCell = 2048;

/// The phases of an AdaStar step on all pieces, as one rank walks them.
void adastar_step(OptimizerStepParams params, std::vector<OptimizerBlock> blocks,
                  const std::vector<OptimizerPiece>& pieces) {
  std::vector<double> sums(pieces.size());
  params.blocks = blocks;
  adastar_second_moments_cpu(params, pieces, sums);
  clip_blocks(blocks, pieces, sums);
  adastar_move_cpu(params, pieces);
}

/// Each block is one entry.
std::vector<OptimizerPiece> pieces_of(const std::vector<OptimizerBlock>& blocks) {
  std::vector<OptimizerPiece> pieces;
  for (size_t b = 0; b < blocks.size(); ++b)
    append_pieces(pieces, blocks[b].offset, blocks[b].size, kCell, static_cast<int64_t>(b), static_cast<int64_t>(b));
  return pieces;
}

double square_sum(const float* gradient, const std::vector<OptimizerPiece>& pieces) {
  std::vector<double> sums(pieces.size());
  square_sums_cpu(gradient, pieces, sums);
  double total = 0;
  for (const EntrySum& entry : entry_sums(pieces, sums)) total += entry.sum;
  return total;
}

/// State of both ways over the same blocks; the float side sits in one buffer with a margin that nobody may touch.
struct Twins {
  static constexpr int64_t kMargin = 5;
  static constexpr float kSentinel = -77.5f;

  explicit Twins(const std::vector<int64_t>& sizes, uint32_t seed) : generator(seed) {
    int64_t end = kMargin;
    for (size_t b = 0; b < sizes.size(); ++b) {
      blocks.push_back({.offset = end,
                        .size = sizes[b],
                        .move = 0.01 / static_cast<double>(b + 1),
                        .decay = 3e-3 * static_cast<double>(b % 2)});
      end += sizes[b] + kMargin;
    }
    theta.assign(end, kSentinel), gradient = v = m = theta;
    for (const OptimizerBlock& block : blocks)
      for (int64_t i = block.offset; i < block.offset + block.size; ++i)
        theta[i] = normal(generator), v[i] = m[i] = 0.0f;
    theta64 = {theta.begin(), theta.end()}, v64 = {v.begin(), v.end()}, m64 = {m.begin(), m.end()};
  }

  void draw_gradient(float scale) {
    for (const OptimizerBlock& block : blocks)
      for (int64_t i = block.offset; i < block.offset + block.size; ++i) gradient[i] = scale * normal(generator);
    gradient64 = {gradient.begin(), gradient.end()};
  }

  void step(bool adamw, double clip) {
    ++t;
    const OptimizerStepReference reference{.theta = theta64.data(),
                                           .gradient = gradient64.data(),
                                           .v = v64.data(),
                                           .m = m64.data(),
                                           .blocks = blocks,
                                           .clip = clip,
                                           .beta_1 = 0.9,
                                           .beta_2 = 0.95,
                                           .t = t};
    const OptimizerStepParams quick{.theta = theta.data(),
                                    .gradient = gradient.data(),
                                    .v = v.data(),
                                    .m = m.data(),
                                    .blocks = blocks,
                                    .clip = clip,
                                    .beta_1 = 0.9,
                                    .beta_2 = 0.95,
                                    .t = t};
    adamw ? adamw_step_reference(reference) : adastar_step_reference(reference);
    adamw ? adamw_move_cpu(quick, pieces_of(blocks)) : adastar_step(quick, blocks, pieces_of(blocks));
  }

  /// Largest difference over the blocks, relative to the largest value; infinite with a NaN.
  double error(const Floats& got, const Doubles& wanted) const {
    double worst = 0, largest = 1e-30;
    for (const OptimizerBlock& block : blocks)
      for (int64_t i = block.offset; i < block.offset + block.size; ++i) {
        const double distance = std::abs(got[i] - wanted[i]);
        if (std::isnan(distance)) return std::numeric_limits<double>::infinity();
        worst = std::max(worst, distance), largest = std::max(largest, std::abs(wanted[i]));
      }
    return worst / largest;
  }

  bool margins_intact() const {
    std::vector<bool> inside(theta.size(), false);
    for (const OptimizerBlock& block : blocks) std::fill_n(inside.begin() + block.offset, block.size, true);
    for (size_t i = 0; i < theta.size(); ++i)
      if (!inside[i] && (theta[i] != kSentinel || gradient[i] != kSentinel || v[i] != kSentinel || m[i] != kSentinel))
        return false;
    return true;
  }

  bool gradient_zeroed() const {
    for (const OptimizerBlock& block : blocks)
      for (int64_t i = block.offset; i < block.offset + block.size; ++i)
        if (gradient[i] != 0.0f) return false;
    return true;
  }

  std::vector<OptimizerBlock> blocks;
  Floats theta, gradient, v, m;
  Doubles theta64, gradient64, v64, m64;
  int64_t t = 0;
  std::mt19937 generator;
  std::normal_distribution<float> normal;
};

/// One golden sequence through the double reference: theta, v and m after every applied step to 1e-12.
void check_sequence(const json& sequence, bool adamw) {
  const json& hyper = sequence["hyper"];
  Doubles theta, v, m, gradient;
  std::vector<OptimizerBlock> blocks;
  const auto concatenate = [](const json& by_name) {
    Doubles all;
    for (const auto& [name, values] : by_name.items())
      for (const json& value : values) all.push_back(value.get<double>());
    return all;
  };
  for (const auto& [name, values] : sequence["theta0"].items()) {
    blocks.push_back({.offset = static_cast<int64_t>(theta.size()), .size = static_cast<int64_t>(values.size())});
    for (const json& value : values) theta.push_back(value.get<double>());
  }
  v = m = Doubles(theta.size(), 0.0);
  for (const json& step : sequence["steps"]) {
    if (!step["applied"].get<bool>()) continue;
    gradient = concatenate(step["grads"]);
    size_t b = 0;
    for (const auto& [name, multiplier] : sequence["multiplier"].items()) {
      blocks[b].move = step["schedule"].get<double>() * hyper["lr"].get<double>() * multiplier.get<double>();
      blocks[b++].decay = step["schedule"].get<double>() * hyper["weight_decay"].get<double>();
    }
    const OptimizerStepReference params{.theta = theta.data(),
                                        .gradient = gradient.data(),
                                        .v = v.data(),
                                        .m = m.data(),
                                        .blocks = blocks,
                                        .clip = step["clip"],
                                        .beta_1 = adamw ? hyper["beta_1"] : hyper["beta_m"],
                                        .beta_2 = adamw ? hyper["beta_2"] : hyper["beta_v"],
                                        .t = step["t"]};
    adamw ? adamw_step_reference(params) : adastar_step_reference(params);
    const auto check = [&](const Doubles& got, const Doubles& wanted) {
      REQUIRE(got.size() == wanted.size());
      for (size_t i = 0; i < got.size(); ++i)
        CHECK(std::abs(got[i] - wanted[i]) <= 1e-12 * std::max(1.0, std::abs(wanted[i])));
    };
    CAPTURE(step["t"].get<int64_t>());
    check(theta, concatenate(step["theta"]));
    check(v, concatenate(step["v"]));
    check(m, concatenate(step["m"]));
  }
}

}  // namespace

TEST_SUITE("golden") {
  TEST_CASE("optimizer_step: the reference walks the golden sequences") {
    const json golden = json::parse(std::ifstream(COPPICE_SOURCE_DIR "/tests/golden/optimizer.json"));
    CHECK(golden["adastar"]["steps"].size() == 17);
    CHECK(golden["adamw"]["steps"].size() == 17);
    check_sequence(golden["adastar"], false);
    check_sequence(golden["adastar_three_steps"], false);
    check_sequence(golden["adamw"], true);
  }
}

TEST_SUITE("parity") {
  TEST_CASE("optimizer_step: the quick path agrees with the reference on blocks of every size") {
    // Around a vector, a sum of 512, several cells of 2048; small blocks in one cell; one block of many.
    const std::vector<int64_t> sizes{1, 3, 15, 16, 17, 511, 513, 8191, 8192, 8193, 70001, 2, 300007, 33};
    for (const bool adamw : {false, true}) {
      Twins twins(sizes, 11);
      for (const float scale : {0.1f, 1e-3f, 3.0f, 0.5f, 1e-6f, 2.0f}) {
        twins.draw_gradient(scale);
        twins.step(adamw, scale > 1.0f ? 0.37 : 1.0);
        CAPTURE(adamw);
        CAPTURE(twins.t);
        CHECK(twins.error(twins.v, twins.v64) <= 1e-6);
        CHECK(twins.error(twins.m, twins.m64) <= 1e-6);
        CHECK(twins.error(twins.theta, twins.theta64) <= 1e-6);
        CHECK(twins.margins_intact());
        CHECK(twins.gradient_zeroed());
      }
    }
  }

  TEST_CASE("optimizer_step: one thread and many give the same bits") {
    const int threads = omp_get_max_threads();
    const auto run = [&](int count, bool adamw) {
      omp_set_num_threads(count);
      Twins twins({100003, 5, 400000, 77}, 5);
      std::vector<double> sums;
      for (int turn = 0; turn < 3; ++turn) {
        twins.draw_gradient(0.1f);
        sums.push_back(square_sum(twins.gradient.data(), pieces_of(twins.blocks)));
        twins.step(adamw, 1.0);
      }
      omp_set_num_threads(threads);
      return std::tuple{twins.theta, twins.v, twins.m, sums};
    };
    for (const bool adamw : {false, true}) {
      const auto one = run(1, adamw);
      CHECK(run(2, adamw) == one);
      CHECK(run(3, adamw) == one);
    }
  }
}

TEST_SUITE("unit") {
  TEST_CASE("append_pieces: an entry is cut at the cells of its unit, whatever begins where") {
    std::vector<OptimizerPiece> pieces;
    append_pieces(pieces, 5, 14, 8, 3, 2);   // elements 5 .. 18: cells end at 8, 16
    append_pieces(pieces, 19, 5, 8, 4, 2);   // 19 .. 23: up to the end of a cell
    append_pieces(pieces, 24, 16, 8, 5, 3);  // two whole cells
    const std::vector<std::array<int64_t, 4>> wanted = {{5, 3, 3, 2},  {8, 8, 3, 2},  {16, 3, 3, 2},
                                                        {19, 5, 4, 2}, {24, 8, 5, 3}, {32, 8, 5, 3}};
    REQUIRE(pieces.size() == wanted.size());
    for (size_t p = 0; p < pieces.size(); ++p) {
      CHECK(std::array{pieces[p].offset, pieces[p].size, pieces[p].entry, pieces[p].block} == wanted[p]);
      CHECK(pieces[p].index == static_cast<int64_t>(p));
    }
    const auto count = [](int64_t offset, int64_t size) {
      std::vector<OptimizerPiece> cut;
      append_pieces(cut, offset, size, 2048, 0, 0);
      return cut.size();
    };
    // a layer of D 48, F 346: norm, q, k, v, o, norm, gate, up, down; behind an embedding of 515 rows
    CHECK(count(0, 24720) == 13);
    const std::vector<std::array<int64_t, 3>> layer = {{0, 48, 1},       {48, 2304, 2},     {2352, 768, 1},
                                                       {3120, 768, 1},   {3888, 2304, 3},   {6192, 48, 1},
                                                       {6240, 16608, 9}, {22848, 16608, 9}, {39456, 16608, 9}};
    for (const auto& [offset, size, cells] : layer) CHECK(count(offset, size) == static_cast<size_t>(cells));
  }

  TEST_CASE("entry_sums, clip_blocks: pieces in their order, entries in theirs") {
    std::vector<OptimizerPiece> pieces;
    append_pieces(pieces, 0, 3, 1, 0, 0);
    append_pieces(pieces, 3, 3, 1, 1, 0);
    append_pieces(pieces, 6, 1, 1, 2, 1);
    // 2^53 + 1 + 1 is 2^53 in double from the left; another entry begins anew
    const std::vector<double> sums{0x1p53, 1, 1, 1, 1, 0x1p53, 0.25};
    const std::vector<EntrySum> entries = entry_sums(pieces, sums);
    REQUIRE(entries.size() == 3);
    CHECK(entries[0].sum == 0x1p53);
    CHECK(entries[1].sum == 0x1p53 + 2);
    CHECK(entries[2].sum == 0.25);
    CHECK(entries[1].block == 0);
    CHECK(entries[2].block == 1);

    std::vector<OptimizerBlock> blocks{{.offset = 0, .size = 6}, {.offset = 6, .size = 1, .shrink = 7}};
    clip_blocks(blocks, pieces, std::vector<double>{24, 24, 48, 0, 100, 20, 0.25});
    CHECK(blocks[0].shrink == 6.0);  // sqrt(216 / 6)
    CHECK(blocks[1].shrink == 1.0);  // never below
    clip_blocks(blocks, std::span(pieces).first(6), std::vector<double>{6, 6, 6, 6, 0, 0, 9});
    CHECK(blocks[0].shrink == 2.0);
    CHECK(blocks[1].shrink == 1.0);  // its pieces were not asked for
  }

  TEST_CASE("square_sums: pieces only, any size of value, not finite exactly when an entry is not") {
    Twins twins({3, 20000, 7}, 1);
    std::fill(twins.gradient.begin(), twins.gradient.end(), std::nanf(""));  // also between the blocks
    for (const OptimizerBlock& block : twins.blocks)
      std::fill_n(twins.gradient.begin() + block.offset, block.size, 0.0f);
    const auto sum = [&] { return square_sum(twins.gradient.data(), pieces_of(twins.blocks)); };
    float& last = twins.gradient[twins.blocks[2].offset + 6];
    CHECK(sum() == 0.0);
    twins.gradient[twins.blocks[0].offset] = 60.0f, last = 80.0f;
    CHECK(sum() == 10000.0);
    twins.gradient[twins.blocks[0].offset] = 3e38f;
    CHECK(std::isfinite(sum()));
    last = std::numeric_limits<float>::infinity();
    CHECK(!std::isfinite(sum()));
    last = std::nanf("");
    CHECK(!std::isfinite(sum()));
  }

  TEST_CASE("adastar: constant gradient gives m = (1 - 0.95^t) sign g") {
    const std::vector<OptimizerBlock> blocks{{.offset = 0, .size = 2, .move = 1.0, .decay = 0.0}};
    Floats theta{0.0f, 0.0f}, v{0.0f, 0.0f}, m{0.0f, 0.0f}, gradient(2);
    double moved = 0;
    for (int64_t t = 1; t <= 12; ++t) {
      gradient = {0.3f, -0.02f};
      adastar_step({.theta = theta.data(),
                    .gradient = gradient.data(),
                    .v = v.data(),
                    .m = m.data(),
                    .beta_1 = 0.95,
                    .beta_2 = 0.95,
                    .t = t},
                   blocks, pieces_of(blocks));
      const double wanted = 1.0 - std::pow(0.95, static_cast<double>(t));
      moved += wanted;
      CHECK(m[0] == doctest::Approx(wanted).epsilon(1e-6));
      CHECK(m[1] == doctest::Approx(-wanted).epsilon(1e-6));
      CHECK(theta[0] == doctest::Approx(-moved).epsilon(1e-6));
    }
  }

  TEST_CASE("adastar: a common factor on all gradients changes nothing, a burst is held to rms 1") {
    Twins plain({64}, 3), scaled({64}, 3);
    for (int turn = 0; turn < 4; ++turn) {
      plain.draw_gradient(0.01f), scaled.draw_gradient(0.01f);
      for (float& g : scaled.gradient) g *= 0.0009765625f;
      plain.step(false, 1.0), scaled.step(false, 1.0);
    }
    CHECK(plain.error(scaled.m, plain.m64) <= 1e-6);

    // v remembers 1e-3, then 0.3 arrives: u = g / sqrt(v / bias) is near sqrt(20 bias) = several, and its rms is cut
    // to 1.
    const std::vector<OptimizerBlock> blocks{{.offset = 0, .size = 4, .move = 0.0, .decay = 0.0}};
    Floats theta(4, 0.0f), v(4, 0.0f), m(4, 0.0f), gradient;
    for (int64_t t = 1; t <= 20; ++t) {
      gradient.assign(4, 1e-3f);
      adastar_step({.theta = theta.data(),
                    .gradient = gradient.data(),
                    .v = v.data(),
                    .m = m.data(),
                    .beta_1 = 0.0,
                    .beta_2 = 0.95,
                    .t = t},
                   blocks, pieces_of(blocks));
    }
    CHECK(m[0] == doctest::Approx(1.0).epsilon(1e-5));
    gradient = {0.3f, 0.3f, -0.3f, 0.3f};
    adastar_step({.theta = theta.data(),
                  .gradient = gradient.data(),
                  .v = v.data(),
                  .m = m.data(),
                  .beta_1 = 0.0,
                  .beta_2 = 0.95,
                  .t = 21},
                 blocks, pieces_of(blocks));
    CHECK(m[0] == doctest::Approx(1.0).epsilon(1e-5));
    CHECK(m[2] == doctest::Approx(-1.0).epsilon(1e-5));
  }
}
