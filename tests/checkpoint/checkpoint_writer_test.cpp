// Checkpoints written by a thread beside the one that trains: the bytes of those written in between, of the state as it
// was; one at a time; no error lost; a kill leaves the one before.
#include "src/checkpoint/checkpoint_writer.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <future>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "src/base/failpoint.h"
#include "src/base/files.h"
#include "src/checkpoint/checkpoint.h"
#include "tests/checkpoint/tiny.h"

namespace fs = std::filesystem;
using namespace coppice;

namespace {

/// What a stage trains, and what it adds to a checkpoint.
struct State {
  at::Tensor weight = at::arange(300, at::kFloat).view({20, 15}), slot = at::ones({300}), scores = at::zeros({7});

  void train_a_step() {
    for (const at::Tensor& tensor : {weight, slot, scores}) tensor.mul_(1.25).add_(0.5);
  }
  TensorSource source() const {
    return {.entries = {{"/model/a", {20, 15}, 0}, {"/optim/v/a", {300}, 1}, {"/mask/scores", {7}, kStageUnit}},
            .value = [this](size_t i) {
              return std::array{weight, slot, scores}[i];
            }};
  }
};

/// The state after so many steps.
State state_at(int64_t step) {
  State state;
  for (int64_t i = 0; i < step; ++i) state.train_a_step();
  return state;
}

Json facts_of(int64_t step) { return {{"tokens", 100 * step}}; }

CheckpointWriter::Options in_background(const fs::path& folder) {
  return {.folder = folder, .keep_last = 2, .background = true};
}

std::vector<int64_t> steps_in(const fs::path& folder) {
  std::vector<int64_t> steps;
  for (const CheckpointPlace& place : list_checkpoints(folder)) steps.push_back(place.step);
  return steps;
}

/// The checkpoint is that of the state after its own number of steps.
void check_whole(const CheckpointPlace& place) {
  const State zeros{at::zeros({20, 15}), at::zeros({300}), at::zeros({7})}, expected = state_at(place.step);
  CHECK(read_checkpoint(place, tensors_of(zeros.source()))["tokens"] == 100 * place.step);
  for (size_t i = 0; i < 3; ++i) CHECK(at::equal(zeros.source().value(i), expected.source().value(i)));
}

/// Path below `folder` -> bytes.
std::map<std::string, std::string> files_of(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) files[fs::relative(entry.path(), folder).string()] = slurp(entry.path());
  return files;
}

#ifdef COPPICE_WITH_FAILPOINTS

bool holds_temporary(const fs::path& folder) {
  return std::ranges::any_of(fs::directory_iterator(folder), [](const fs::directory_entry& entry) {
    return entry.path().filename().string().starts_with(".tmp-step-");
  });
}

/// Holds the first thread but its maker's that comes to an I/O call of that name, until let go.
class HeldThread {
 public:
  explicit HeldThread(const std::string& call) {
    set_io_observer([this, call, maker = std::this_thread::get_id()](std::string_view name, const fs::path&) {
      if (name != call || std::this_thread::get_id() == maker || held_.exchange(true)) return;
      there_.set_value();
      gone_.wait();
    });
  }
  ~HeldThread() { set_io_observer({}); }  // no other thread may still write
  void wait_until_there() { arrived_.wait(); }
  void let_go() { go_.set_value(); }

 private:
  std::atomic<bool> held_ = false;
  std::promise<void> there_, go_;
  std::future<void> arrived_ = there_.get_future(), gone_ = go_.get_future();
};

#endif

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("host_snapshot: the values as they were, wherever the borders of its memory fall") {
    for (const uint64_t slab_bytes : {4u, 28u, 1200u, 1u << 20}) {
      CAPTURE(slab_bytes);
      HostSnapshot snapshot(at::kCPU, slab_bytes);
      State state;
      for (int64_t step = 0; step < 3; ++step) {
        REQUIRE(snapshot.make_room(607 * sizeof(float)));
        const TensorSource copies = snapshot.take(state.source());
        state.train_a_step();
        for (size_t i = 0; i < 3; ++i) {
          CHECK(copies.entries[i].name == state.source().entries[i].name);
          CHECK(copies.value(i).is_contiguous());
          CHECK(at::equal(copies.value(i), state_at(step).source().value(i)));
        }
      }
      // less, as once channels have left the model, and nothing at all
      REQUIRE(snapshot.make_room(5 * sizeof(float)));
      const TensorSource fewer =
          snapshot.take(source_of({{"/mask/a", at::arange(5, at::kFloat)}, {"/mask/b", at::empty({0})}}));
      CHECK(at::equal(fewer.value(0), at::arange(5, at::kFloat)));
      CHECK(fewer.value(1).numel() == 0);
    }
    HostSnapshot snapshot(at::kCPU);
    REQUIRE(snapshot.make_room(16));
    const TensorSource wrong{.entries = {{"/model/a", {4}, 0}}, .value = [](size_t) { return at::zeros({2}); }};
    CHECK_THROWS_AS(snapshot.take(wrong), InternalError);
  }

  TEST_CASE("checkpoint_writer: in the background the same bytes as before training goes on, and as many stay") {
    const ScratchFolder scratch;
    for (const bool background : {false, true}) {
      State state;
      CheckpointWriter::Options options = in_background(scratch.path / (background ? "beside" : "between"));
      options.background = background;
      CheckpointWriter writer(options);
      CHECK(writer.saved_step() == -1);
      for (int64_t step = 1; step <= 9; ++step) {
        state.train_a_step();
        writer.check();
        if (step % 3 == 0) writer.save(step, state.source(), facts_of(step));
      }
      if (!background) CHECK(writer.saved_step() == 9);
      writer.wait();
      writer.wait();  // nothing is under way
      CHECK(writer.saved_step() == 9);
      CHECK(writer.take_stall_s() > 0);
      CHECK(writer.take_stall_s() == 0);
    }
    const auto files = files_of(scratch.path / "beside");
    CHECK(files == files_of(scratch.path / "between"));
    CHECK(steps_in(scratch.path / "beside") == std::vector<int64_t>{9, 6});
    for (const CheckpointPlace& place : list_checkpoints(scratch.path / "beside")) check_whole(place);
  }

  TEST_CASE("checkpoint_writer: without memory for a copy it is written before training goes on") {
    const ScratchFolder scratch;
    CheckpointWriter::Options options = in_background(scratch.path);
    options.memory_bytes = 607 * sizeof(float) - 1;
    CheckpointWriter writer(options);
    writer.save(0, State().source(), facts_of(0));
    CHECK(writer.saved_step() == 0);
    options.memory_bytes += 1;
    CheckpointWriter other(options);
    other.save(1, state_at(1).source(), facts_of(1));
    CHECK(other.saved_step() == -1);
    other.wait();
    CHECK(other.saved_step() == 1);
  }
}

#ifdef COPPICE_WITH_FAILPOINTS

TEST_SUITE("faults") {
  TEST_CASE("checkpoint_writer: training goes on while a write is held; the one before stays, removal beside it too") {
    const ScratchFolder scratch;
    for (const int64_t step : {1, 2, 3}) write_checkpoint(scratch.path, step, state_at(step).source(), facts_of(step));
    State state = state_at(5);
    HeldThread held("io.allocate");  // its part has its place on the disk, and no bytes yet
    CheckpointWriter writer(in_background(scratch.path));
    writer.save(5, state.source(), facts_of(5));
    held.wait_until_there();
    for (int step = 0; step < 5; ++step) {
      state.train_a_step();
      writer.check();
    }
    CHECK(writer.saved_step() == -1);
    prune_checkpoints(scratch.path, 2);
    CHECK(steps_in(scratch.path) == std::vector<int64_t>{3, 2});
    CHECK(find_newest_checkpoint(scratch.path)->step == 3);
    CHECK(holds_temporary(scratch.path));
    held.let_go();
    writer.wait();
    CHECK(writer.saved_step() == 5);
    CHECK_FALSE(holds_temporary(scratch.path));
    CHECK(steps_in(scratch.path) == std::vector<int64_t>{5, 3});
    for (const CheckpointPlace& place : list_checkpoints(scratch.path)) check_whole(place);
  }

  TEST_CASE("checkpoint_writer: one write at a time: the next waits for it before it looks at the state") {
    const ScratchFolder scratch;
    set_failpoints("ckpt.before_rename=sleep:0.3");
    CheckpointWriter writer(in_background(scratch.path));
    writer.save(1, state_at(1).source(), facts_of(1));
    const State next = state_at(2);
    TensorSource source = next.source();
    source.value = [&, value = source.value](size_t i) {
      CHECK(steps_in(scratch.path) == std::vector<int64_t>{1});
      return value(i);
    };
    writer.save(2, source, facts_of(2));
    CHECK(writer.saved_step() == 1);
    writer.wait();
    set_failpoints("");
    for (const CheckpointPlace& place : list_checkpoints(scratch.path)) check_whole(place);
  }

  TEST_CASE(
      "checkpoint_writer: what a write failed with is thrown once, by whoever asks next, or is a warning [5, 8]") {
    const char* twice = "ckpt.before_manifest=error@1,ckpt.before_manifest=error@2";  // it is tried once more
    const SilentStderr silent;
    using Ask = std::function<void(CheckpointWriter&)>;
    const Ask asks[] = {[](CheckpointWriter& writer) { writer.wait(); },
                        [](CheckpointWriter& writer) { writer.save(3, state_at(3).source(), facts_of(3)); },
                        [](CheckpointWriter& writer) {
                          for (;;) writer.check();
                        }};
    for (const Ask& ask : asks) {
      const ScratchFolder scratch;
      CheckpointWriter writer(in_background(scratch.path));
      writer.save(1, state_at(1).source(), facts_of(1));
      writer.wait();
      set_failpoints(twice);
      writer.save(2, state_at(2).source(), facts_of(2));
      int code = 0;
      try {
        ask(writer);
      } catch (const IoError& error) {
        code = static_cast<int>(error.code());
      }
      set_failpoints("");
      CHECK(code == 4);
      CHECK(writer.saved_step() == 1);
      CHECK_NOTHROW(writer.wait());
      CHECK(steps_in(scratch.path) == std::vector<int64_t>{1});
      CHECK_FALSE(holds_temporary(scratch.path));
      writer.save(4, state_at(4).source(), facts_of(4));  // the disk has room again
      writer.wait();
      for (const CheckpointPlace& place : list_checkpoints(scratch.path)) check_whole(place);
    }
    const ScratchFolder scratch;
    set_failpoints(twice);
    const int64_t warnings = num_warnings();
    CheckpointWriter(in_background(scratch.path)).save(2, state_at(2).source(), facts_of(2));
    set_failpoints("");
    CHECK(num_warnings() == warnings + 2);  // of the second try, and that the checkpoint was not written
  }

  TEST_CASE("checkpoint_writer: a write that fails once is made again from the copy, whatever training has done") {
    const ScratchFolder scratch;
    const SilentStderr silent;
    State state;
    set_failpoints("ckpt.before_rename=error");
    CheckpointWriter writer(in_background(scratch.path));
    writer.save(0, state.source(), facts_of(0));
    state.train_a_step();
    writer.wait();
    set_failpoints("");
    check_whole(find_newest_checkpoint(scratch.path).value());
  }

  TEST_CASE("checkpoint_writer: killed at each instant of a write in the background, the one before is whole [2, 3]") {
    const auto train = [](const fs::path& folder) {
      State state = state_at(2);
      CheckpointWriter writer(in_background(folder));
      writer.save(2, state.source(), facts_of(2));
      for (int step = 0; step < 20; ++step) state.train_a_step();
      writer.wait();
    };
    int num_kills = 0;
    for (;; ++num_kills) {
      REQUIRE(num_kills < 200);
      CAPTURE(num_kills);
      const ScratchFolder scratch;
      for (const int64_t step : {0, 1}) write_checkpoint(scratch.path, step, state_at(step).source(), facts_of(step));
      const int code = run_in_child([&] {
        set_failpoints("", static_cast<uint64_t>(num_kills) + 1);
        train(scratch.path);
      });
      CHECK((code == 0 || code == 128 + SIGKILL));
      remove_temporaries(scratch.path);
      const std::vector<int64_t> steps = steps_in(scratch.path);
      CHECK(steps.size() >= 2);
      CHECK(steps.back() <= 1);
      for (const CheckpointPlace& place : list_checkpoints(scratch.path)) check_whole(place);
      if (code == 0) break;
    }
    CHECK(num_kills >= 10);
  }
}

#endif
