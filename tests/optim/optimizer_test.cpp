// The optimizer over an arena: the golden sequences in fp32 with skips, schedule, options, score group.
#include "src/optim/optimizer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <initializer_list>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "src/base/errors.h"
#include "src/tensors/cuda_devices.h"
#include "src/tensors/execution.h"
#include "src/tensors/executor/executor.h"
#include "tests/distributed/thread_ranks.h"
#include "tests/tensors/whole_arena.h"

using namespace coppice;
using nlohmann::json;

namespace {

using Doubles = std::vector<double>;

json read_golden() { return json::parse(std::ifstream(COPPICE_SOURCE_DIR "/tests/golden/optimizer.json")); }

const Placement kByLoops = {}, kWhole = {.compute = at::kBFloat16},
                kSplit = {.compute = at::kBFloat16, .split_master = true};  // the last two are moved by kernels
const std::vector<Placement> kPlacements = {kByLoops, kWhole, kSplit};

/// An arena with one block per name of `theta0`, blocks 16 elements apart; "norm" is one-dimensional.
ParameterArena make_arena(const json& theta0, const json& multiplier, const Placement& placement = {}) {
  ArenaLayout layout;
  for (const auto& [name, values] : theta0.items()) {
    const auto size = static_cast<int64_t>(values.size());
    const std::vector<int64_t> shape = name == "norm" ? std::vector<int64_t>{size} : std::vector<int64_t>{size, 1};
    layout.entries.push_back({.name = name, .shape = shape, .offset = layout.size, .size = size});
    layout.blocks.push_back({.name = name, .offset = layout.size, .size = size, .multiplier = multiplier[name]});
    layout.size += kArenaAlignment;
  }
  layout.units.push_back({.name = "all", .offset = 0, .size = layout.size});
  ParameterArena arena(layout, placement);
  arena.enable_gradient();
  for (const auto& [name, values] : theta0.items())
    arena.edit_master()[name].copy_(at::tensor(values.get<Doubles>(), at::kDouble).reshape(arena.entry(name).shape));
  return arena;
}

/// Every parameter that the model computes with is its master, rounded where it is a matrix.
bool working_follows(const ParameterArena& arena) {
  const MasterReader master = arena.read_master();
  return std::ranges::all_of(arena.layout().entries, [&](const ArenaEntry& entry) {
    const at::Tensor working = arena.parameter(entry.name).detach();
    return at::equal(working, master[entry.name].to(working.scalar_type()));
  });
}

at::Tensor whole_slot(const Optimizer& optimizer, const ParameterArena& arena, const std::string& slot) {
  return join_entries(arena.layout(), [&](const std::string& name) { return optimizer.slot(slot, name); });
}

/// A parameter's or slot's values as the golden file has them.
at::Tensor doubles(const at::Tensor& values) { return values.detach().flatten().to(at::kDouble); }

OptimizerOptions options_of(const json& hyper, bool adamw) {
  OptimizerOptions options;
  options.optimizer = adamw ? "adamw" : "adastar";
  options.lr = hyper["lr"];
  options.weight_decay = hyper["weight_decay"];
  options.beta_1 = adamw ? hyper["beta_1"] : hyper["beta_m"];
  options.beta_2 = adamw ? hyper["beta_2"] : hyper["beta_v"];
  options.max_grad_norm = hyper["max_norm"];
  options.drop_grad_norm = hyper["drop_norm"];
  options.final_lr_ratio = hyper["alpha"];
  return options;
}

/// Every step of one sequence: v and m to 1e-6 of their size, theta to a few ulps (three times as much where kernels
/// take reciprocals), a skipped step bit for bit.
void check_sequence(const json& sequence, bool adamw, const Placement& placement) {
  const json& hyper = sequence["hyper"];
  const double roundings = placement.compute == at::kFloat ? 1 : 3;
  ParameterArena arena = make_arena(sequence["theta0"], sequence["multiplier"], placement);
  Optimizer optimizer(options_of(hyper, adamw), arena, hyper["warmup"], hyper["total"]);
  for (const json& step : sequence["steps"]) {
    CAPTURE(step["why"].get<std::string>());
    for (const auto& [name, values] : step["grads"].items())
      arena.gradient_of(name).copy_(at::tensor(values.get<Doubles>(), at::kDouble).reshape(arena.entry(name).shape));
    if (step.contains("replace"))
      for (const json& bad : step["replace"])
        arena.gradient_of(bad["block"])
            .flatten()[bad["index"].get<int64_t>()]
            .fill_(bad["value"] == "nan" ? std::nan("") : std::numeric_limits<double>::infinity());
    const at::Tensor theta = whole_master(arena), v = whole_slot(optimizer, arena, "v"),
                     m = whole_slot(optimizer, arena, "m");
    const int64_t t = optimizer.t();

    const StepOutcome outcome = optimizer.step(*alone());
    CHECK(outcome.applied == step["applied"].get<bool>());
    CHECK(optimizer.skipped() == step["skipped"].get<int64_t>());
    if (step["norm"].is_null())
      CHECK(!std::isfinite(outcome.grad_norm));
    else
      CHECK(outcome.grad_norm == doctest::Approx(step["norm"].get<double>()).epsilon(1e-7));
    CHECK(whole_gradient(arena).eq(0).all().item<bool>());
    CHECK(working_follows(arena));
    if (!outcome.applied) {
      CHECK(outcome.lr == 0.0);
      CHECK(optimizer.t() == t);
      CHECK(at::equal(whole_master(arena), theta));
      CHECK(at::equal(whole_slot(optimizer, arena, "v"), v));
      CHECK(at::equal(whole_slot(optimizer, arena, "m"), m));
      continue;
    }
    CHECK(optimizer.t() == step["t"].get<int64_t>());
    CHECK(outcome.lr == doctest::Approx(step["schedule"].get<double>() * hyper["lr"].get<double>()).epsilon(1e-12));
    for (const ArenaBlock& block : arena.layout().blocks) {
      const auto wanted = [&](const char* key) {
        return at::tensor(step[key][block.name].get<Doubles>(), at::kDouble);
      };
      const auto error = [](const at::Tensor& got, const at::Tensor& want) {
        return (got - want).abs().max().item<double>() / (want.abs().max().item<double>() + 1e-30);
      };
      CHECK(error(doubles(optimizer.slot("v", block.name)), wanted("v")) <= roundings * 1e-6);
      CHECK(error(doubles(optimizer.slot("m", block.name)), wanted("m")) <= roundings * 1e-6);
      CHECK(error(doubles(arena.read_master()[block.name]), wanted("theta")) <= roundings * 5e-7);
    }
  }
}

ParameterArena small_arena(const Placement& placement = {}) {
  return make_arena({{"ffn.up", {0.5, -0.25, 1.0, -0.75}}, {"norm", {1.0, 1.0, 0.5}}},
                    {{"ffn.up", 0.25}, {"norm", 1.0}}, placement);
}

// Blocks that cross cells and the runs of ranks: one of two entries, a norm, one of many cells, one of a few elements.
ArenaLayout layout_for(int ranks) {
  ArenaLayout layout{.cell = 64};
  const auto add = [&](const std::string& name, std::vector<int64_t> shape, int64_t size, bool same_block) {
    layout.entries.push_back({.name = name, .shape = std::move(shape), .offset = layout.size, .size = size});
    if (same_block)
      layout.blocks.back().size += size;
    else
      layout.blocks.push_back({.name = name, .offset = layout.size, .size = size, .multiplier = 0.5});
    layout.size += size;
  };
  const auto end_unit = [&](const std::string& name) {
    const int64_t begin = layout.units.empty() ? 0 : layout.units.back().offset + layout.units.back().size,
                  multiple = ranks == 1 ? kArenaAlignment : ranks * layout.cell;
    const int64_t size = (layout.size - begin + multiple - 1) / multiple * multiple;
    layout.units.push_back({.name = name, .offset = begin, .size = size});
    layout.size = begin + size;
  };
  add("q", {30, 7}, 210, false), add("k", {15, 7}, 105, true), add("norm", {7}, 7, false),
      add("up", {90, 7}, 630, false);
  end_unit("layer");
  add("last", {33}, 33, false), add("head", {3, 1}, 3, false);
  end_unit("tail");
  return layout;
}

/// What a few steps leave: the master, the slots, and per step the norm and whether it was applied.
struct Trace {
  at::Tensor master, v, m;
  std::vector<double> norms;
  std::vector<bool> applied;
};

/// Steps of one rank; values are functions of names alone, so that every layout begins with the same ones.
Trace trace_of(const std::string& optimizer_name, Comm& comm, const Placement& placement) {
  ParameterArena arena(layout_for(comm.size()), placement);
  arena.enable_gradient();
  const auto noise = [](const ArenaEntry& entry, uint64_t step) {
    return at::randn(entry.shape,
                     at::make_generator<at::CPUGeneratorImpl>(step * 1000 + entry.name.size() + entry.size));
  };
  {
    const MasterEditor master = arena.edit_master();
    for (const ArenaEntry& entry : arena.layout().entries) master[entry.name].copy_(noise(entry, 0));
  }
  OptimizerOptions options;
  options.optimizer = optimizer_name;
  Optimizer optimizer(options, arena, 1, 10);
  Trace trace;
  for (uint64_t step = 1; step <= 5; ++step) {
    for (const ArenaEntry& entry : arena.layout().entries)
      arena.gradient_of(entry.name).copy_(noise(entry, step) * (step == 3 ? 10.0 : 0.05));  // one is dropped
    StepVote vote(0, placement.device);
    const bool objects = step == 4 && comm.rank() + 1 == comm.size();  // the last rank alone, to another
    vote.count_finite(at::full({2}, objects ? std::nan("") : 1.0));
    const StepOutcome outcome = optimizer.step(comm, vote);
    trace.norms.push_back(outcome.grad_norm);
    trace.applied.push_back(outcome.applied);
    if (whole_gradient(arena).ne(0).any().item<bool>()) throw InternalError("a gradient was left");
    if (!working_follows(arena)) throw InternalError("a working copy was left behind");
  }
  trace.master = whole_master(arena);
  trace.v = whole_slot(optimizer, arena, "v"), trace.m = whole_slot(optimizer, arena, "m");
  return trace;
}

}  // namespace

TEST_SUITE("parity") {
  TEST_CASE("optimizer: two and four ranks that own a part each give the bits of one") {
    for (const auto& [name, placement] : {std::pair{"adastar", kByLoops},
                                          {"adamw", kByLoops},
                                          {"adastar", kWhole},
                                          {"adamw", kWhole},
                                          {"adastar", kSplit},
                                          {"adamw", kSplit}}) {
      CAPTURE(name);
      CAPTURE(dtype_name(placement.compute));
      CAPTURE(placement.split_master);
      const Trace one = trace_of(name, *alone(), placement);
      CHECK(one.applied == std::vector<bool>{true, true, false, false, true});
      CHECK(one.v.ne(0).all().item<bool>());
      for (const int ranks : {2, 4}) {
        CAPTURE(ranks);
        std::vector<Trace> traces(static_cast<size_t>(ranks));
        ThreadRanks::run(
            ranks, [&](Comm& comm) { traces[static_cast<size_t>(comm.rank())] = trace_of(name, comm, placement); });
        at::Tensor v = at::zeros_like(one.v), m = at::zeros_like(one.m), owners = at::zeros_like(one.v);
        for (const Trace& trace : traces) {
          CHECK(trace.norms == one.norms);
          CHECK(trace.applied == one.applied);
          CHECK(trace.master.equal(one.master));
          v += trace.v, m += trace.m, owners += trace.v.ne(0).to(at::kFloat);  // others' slots stay zero
        }
        CHECK(owners.eq(1).all().item<bool>());
        CHECK(v.equal(one.v));
        CHECK(m.equal(one.m));
      }
    }
    ParameterArena unpadded(layout_for(1));
    unpadded.enable_gradient();
    CHECK_THROWS_WITH_AS(ThreadRanks::run(2, [&](Comm& comm) { Optimizer({}, unpadded, 1, 10).step(comm); }),
                         doctest::Contains("is not padded for 2 ranks"), InternalError);
  }
}

TEST_SUITE("golden") {
  TEST_CASE("optimizer: adastar, 17 steps") {
    for (const Placement& placement : kPlacements) check_sequence(read_golden()["adastar"], false, placement);
  }
  TEST_CASE("optimizer: adastar at the start of the real schedule") {
    for (const Placement& placement : kPlacements)
      check_sequence(read_golden()["adastar_three_steps"], false, placement);
  }
  TEST_CASE("optimizer: adamw, 17 steps") {
    for (const Placement& placement : kPlacements) check_sequence(read_golden()["adamw"], true, placement);
  }

  TEST_CASE("optimizer: schedule") {
    const json golden = read_golden()["schedule"];
    CHECK(golden.size() == 2);
    for (const auto& [name, points] : golden.items())
      for (size_t i = 0; i < points["t"].size(); ++i)
        CHECK(schedule_factor(points["t"][i], points["warmup"], points["total"], points["alpha"]) ==
              doctest::Approx(points["value"][i].get<double>()).epsilon(1e-12));
  }
}

TEST_SUITE("unit") {
  TEST_CASE("optimizer: schedules without warm-up, and with nothing else") {
    CHECK(schedule_factor(1, 0, 2, 0.0) == doctest::Approx(0.5));
    CHECK(schedule_factor(2, 0, 2, 0.0) == doctest::Approx(0.0));
    CHECK(schedule_factor(1, 2, 2, 0.1) == 0.5);
    CHECK(schedule_factor(2, 2, 2, 0.1) == 1.0);
    CHECK(schedule_factor(3, 2, 2, 0.1) == 0.1);
  }

  TEST_CASE("optimizer: a zero gradient leaves the decay alone; decay_norms spares the norms") {
    for (const Placement& placement : kPlacements)
      for (const bool decay_norms : {true, false}) {
        ParameterArena arena = small_arena(placement);
        OptimizerOptions options;
        options.weight_decay = 0.125;
        options.decay_norms = decay_norms;
        Optimizer optimizer(options, arena, 0, 1000000);
        optimizer.step(*alone());
        CHECK(arena.parameter("ffn.up")[2].item<double>() == doctest::Approx(0.875).epsilon(1e-6));
        CHECK(arena.parameter("norm")[0].item<double>() == doctest::Approx(decay_norms ? 0.875 : 1.0).epsilon(1e-6));
      }
  }

  TEST_CASE("optimizer: kernels move many units, blocks and pieces as loops do, with equal bits under any schedule") {
    const auto train = [](const std::string& name, const Placement& placement) {
      return trace_of(name, *alone(), placement);
    };
    const auto close = [](const at::Tensor& got, const at::Tensor& want) {
      return (got - want).abs().max().item<double>() <= 2e-6 * want.abs().max().item<double>();
    };
    for (const std::string name : {"adastar", "adamw"}) {
      CAPTURE(name);
      const Trace loops = train(name, kByLoops), kernels = train(name, kWhole);
      CHECK(kernels.applied == loops.applied);
      for (size_t step = 0; step < loops.norms.size(); ++step)
        CHECK(kernels.norms[step] == doctest::Approx(loops.norms[step]).epsilon(1e-12));
      CHECK(close(kernels.master, loops.master));
      CHECK(close(kernels.v, loops.v));
      CHECK(close(kernels.m, loops.m));
      executor::set_schedule({executor::Order::random, 3});
      const Trace again = train(name, kWhole), split = train(name, kSplit);
      executor::set_schedule({});
      const EmulatedFloat32 emulated;
      for (const Trace& other : {again, split, train(name, kByLoops)}) {  // without a working copy, too
        CHECK(other.norms == kernels.norms);
        CHECK(other.master.equal(kernels.master));
        CHECK(other.v.equal(kernels.v));
        CHECK(other.m.equal(kernels.m));
      }
    }
  }

  TEST_CASE("StepVote: the caller's sums are those of all ranks, beside the norm and what was decided") {
    CHECK_NOTHROW(ThreadRanks::run(2, [](Comm& comm) {
      ParameterArena arena(layout_for(2));
      arena.enable_gradient();
      arena.gradient_of("norm").fill_(2.0);
      Optimizer optimizer({}, arena, 1, 10);
      StepVote vote(2);
      vote.sums().copy_(at::tensor({1.5 + comm.rank(), 100.0 * comm.rank()}, at::kDouble));
      const StepOutcome outcome = optimizer.step(comm, vote);
      const at::Tensor wanted = at::tensor({0.0, std::sqrt(28.0), 1.0, 4.0, 100.0}, at::kDouble);
      if (!vote.values.equal(wanted) || !outcome.applied || outcome.grad_norm != std::sqrt(28.0))
        throw InternalError("another vote");
    }));
  }

  TEST_CASE("StepVote: one that lies elsewhere than the arena, or is none, is refused before anything reads it") {
    ParameterArena arena = small_arena();
    arena.enable_gradient();
    Optimizer optimizer({}, arena, 1, 10);
    const auto refused = [&](const at::Tensor& values, const char* why) {
      StepVote vote;
      vote.values = values;
      CHECK_THROWS_WITH(optimizer.step(*alone(), vote), doctest::Contains(why));
    };
    const at::TensorOptions doubles(at::kDouble);
    refused(at::zeros({3}, doubles.device(at::kMeta)), "the vote of the step is on meta");
    refused(at::zeros({3}), "the vote of the step: got float32, expected float64");
    refused(at::zeros({2}, doubles), "a vote without its own places");
    CHECK(optimizer.t() == 0);
  }

  TEST_CASE("optimizer: something not finite elsewhere skips the step") {
    ParameterArena arena = small_arena();
    Optimizer optimizer({}, arena, 1, 10);
    fill_gradient(arena, at::full({32}, 0.01));
    const at::Tensor before = whole_master(arena);
    StepVote vote;
    vote.count_finite({});
    vote.count_finite(at::ones({3}));
    CHECK(vote.values[StepVote::not_finite].item<double>() == 0);
    vote.count_finite(at::full({2, 1}, std::numeric_limits<double>::infinity()));
    CHECK(!optimizer.step(*alone(), vote).applied);
    CHECK(optimizer.skipped() == 1);
    CHECK(optimizer.t() == 0);
    CHECK(at::equal(whole_master(arena), before));
    CHECK(whole_gradient(arena).eq(0).all().item<bool>());
  }

  TEST_CASE("optimizer: k steps, restore, n-k steps equals n steps, whichever way a master is kept before and after") {
    struct Case {
      std::string name;
      Placement straight, before, after;
    };
    for (const auto& [name, placement, before, after] :
         std::initializer_list<Case>{{"adastar", kByLoops, kByLoops, kByLoops},
                                     {"adamw", kByLoops, kByLoops, kByLoops},
                                     {"adastar", kWhole, kWhole, kSplit},
                                     {"adastar", kWhole, kSplit, kWhole},
                                     {"adamw", kWhole, kWhole, kSplit},
                                     {"adamw", kWhole, kSplit, kWhole}}) {
      CAPTURE(name);
      CAPTURE(before.split_master);
      OptimizerOptions options;
      options.optimizer = name;
      const auto gradient_at = [](int64_t step) {
        at::manual_seed(static_cast<uint64_t>(step));
        return at::randn({32}) * 0.1;
      };
      ParameterArena straight = small_arena(placement), begun = small_arena(before), resumed = small_arena(after);
      Optimizer one(options, straight, 3, 10), first_half(options, begun, 3, 10), second_half(options, resumed, 3, 10);
      for (int64_t step = 0; step < 8; ++step) {
        fill_gradient(straight, gradient_at(step));
        one.step(*alone());
      }
      for (int64_t step = 0; step < 5; ++step) {
        fill_gradient(begun, gradient_at(step));
        first_half.step(*alone());
      }
      {
        const MasterReader from = begun.read_master();
        const MasterEditor into = resumed.edit_master();
        for (const ArenaEntry& entry : resumed.layout().entries) into[entry.name].copy_(from[entry.name]);
      }
      for (const std::string& slot : first_half.slot_names())
        for (const ArenaEntry& entry : resumed.layout().entries)
          second_half.slot(slot, entry.name).copy_(first_half.slot(slot, entry.name));
      second_half.restore(first_half.t(), first_half.skipped());
      for (int64_t step = 5; step < 8; ++step) {
        fill_gradient(resumed, gradient_at(step));
        second_half.step(*alone());
      }
      CHECK(at::equal(whole_master(straight), whole_master(resumed)));
      CHECK(second_half.t() == 8);
    }
  }

  TEST_CASE("optimizer: options that make no sense are refused") {
    ParameterArena arena = small_arena();
    const auto make = [&](auto change) {
      OptimizerOptions options;
      change(options);
      Optimizer optimizer(options, arena, 1, 10);
    };
    CHECK_THROWS_AS(make([](OptimizerOptions& o) { o.optimizer = "sgd"; }), UserError);
    CHECK_THROWS_AS(make([](OptimizerOptions& o) { o.lr = 0; }), UserError);
    CHECK_THROWS_AS(make([](OptimizerOptions& o) { o.lr = std::nan(""); }), UserError);
    CHECK_THROWS_AS(make([](OptimizerOptions& o) { o.beta_2 = 1.0; }), UserError);
    CHECK_THROWS_AS(make([](OptimizerOptions& o) { o.final_lr_ratio = 2.0; }), UserError);
    CHECK_NOTHROW(make([](OptimizerOptions&) {}));
    OptimizerOptions options;
    options.beta_1 = 1;
    const auto where = [](const char* key) { return "recipe.toml:7 (" + std::string(key) + ")"; };
    CHECK_THROWS_WITH_AS(check_optimizer_options(options, where),
                         "recipe.toml:7 (beta_1): beta_1: got 1, expected at least 0 and below 1", UserError);
    options = {.optimizer = "adamm"};
    CHECK_THROWS_WITH_AS(
        check_optimizer_options(options, where),
        "recipe.toml:7 (optimizer): optimizer: got 'adamm', expected one of: adastar, adamw; did you mean 'adamw'?",
        UserError);
    CHECK_THROWS_AS(Optimizer({}, arena, 1, 10).slot("w", "norm"), InternalError);
  }

  TEST_CASE("score optimizer: Adam by hand, constant after the warm-up, 0 at the end") {
    // Constant gradients: both averages are debiased to g and g^2, so every step moves by lr * factor * sign g.
    at::Tensor scores = at::zeros({1, 2});
    ScoreOptimizer optimizer(scores, 0.5, 0.9, 0.95, 4, 40);
    const at::Tensor grad = at::tensor({2.0f, -0.01f}).reshape({1, 2}), kept = grad.clone();
    double moved = 0;
    for (int64_t t = 1; t <= 41; ++t) {
      optimizer.step(grad);
      moved += 0.5 * (t < 4    ? static_cast<double>(t) / 4
                      : t > 36 ? std::max(0.0, static_cast<double>(40 - t) / 4)
                               : 1.0);
      CHECK(scores[0][0].item<double>() == doctest::Approx(-moved).epsilon(1e-5));
      CHECK(scores[0][1].item<double>() == doctest::Approx(moved).epsilon(1e-5));
    }
    CHECK(optimizer.t() == 41);
    CHECK(at::equal(grad, kept));
    CHECK(optimizer.first_moment().sizes() == scores.sizes());
    CHECK_THROWS_AS(optimizer.step(at::zeros({2, 1})), InternalError);
  }

  TEST_CASE("score optimizer: resumes bit for bit, moves scores that require gradients") {
    const auto gradient_at = [](int64_t step) {
      at::manual_seed(static_cast<uint64_t>(step));
      return at::randn({3, 50});
    };
    at::Tensor straight = at::zeros({3, 50}).set_requires_grad(true), resumed = at::zeros({3, 50});
    ScoreOptimizer one(straight, 0.1, 0.9, 0.95, 2, 20), first(resumed, 0.1, 0.9, 0.95, 2, 20),
        second(resumed, 0.1, 0.9, 0.95, 2, 20);
    for (int64_t step = 0; step < 10; ++step) one.step(gradient_at(step));
    for (int64_t step = 0; step < 6; ++step) first.step(gradient_at(step));
    second.first_moment().copy_(first.first_moment());
    second.second_moment().copy_(first.second_moment());
    second.restore(first.t());
    for (int64_t step = 6; step < 10; ++step) second.step(gradient_at(step));
    CHECK(at::equal(straight.detach(), resumed));
    CHECK(straight.requires_grad());
  }

  TEST_CASE("gradient_scale divides by live tokens, and by nothing when there is none") {
    CHECK(gradient_scale(8) == 0.125);
    CHECK(gradient_scale(0) == 0.0);
  }
}

TEST_SUITE("gpu") {
  TEST_CASE("optimizer: a split master takes the steps of a whole one, bit for bit: on a device") {
    const at::Device cuda(at::kCUDA, 0);
    if (const std::string why = why_not_here(cuda); !why.empty()) {
      MESSAGE("skipped on cuda:0: " << why);
      CHECK(!why.empty());
      return;
    }
    for (const std::string name : {"adastar", "adamw"}) {
      CAPTURE(name);
      const Trace whole = trace_of(name, *alone(), {.device = cuda, .compute = at::kBFloat16}),
                  split = trace_of(name, *alone(), {.device = cuda, .compute = at::kBFloat16, .split_master = true});
      CHECK(split.norms == whole.norms);
      CHECK(split.applied == whole.applied);
      CHECK(split.master.equal(whole.master));
      CHECK(split.v.equal(whole.v));
      CHECK(split.m.equal(whole.m));
    }
  }
}
