// Checkpoints of a running stage and saved models: fall back past damage, never start afresh silently, survive a kill
// at every system call.
#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>

#include "src/base/failpoint.h"
#include "src/base/files.h"
#include "src/base/json.h"
#include "src/base/log.h"
#include "src/checkpoint/checkpoint.h"
#include "tests/checkpoint/tiny.h"
#include "tests/tensors/whole_arena.h"

namespace fs = std::filesystem;
using namespace coppice;

namespace {

std::vector<NamedTensor> tensors_of_step(int64_t step) {
  return {{"/model/norm.weight", at::full({300}, static_cast<float>(step))},
          {"/optim/v/norm.weight", at::full({300}, 0.5F * static_cast<float>(step))}};
}

void save(const fs::path& folder, int64_t step) {
  write_checkpoint(folder, step, source_of(tensors_of_step(step)), {{"tokens", 100 * step}});
}

/// Loads the newest checkpoint and checks that its tensors are those of its step; -1 = none.
int64_t load_newest(const fs::path& folder) {
  const auto place = find_newest_checkpoint(folder);
  if (!place) return -1;
  std::vector<NamedTensor> into = tensors_of_step(0);
  const Json manifest = read_checkpoint(*place, into);
  CHECK(manifest["tokens"] == 100 * place->step);
  const std::vector<NamedTensor> expected = tensors_of_step(place->step);
  for (size_t i = 0; i < into.size(); ++i) CHECK(at::equal(into[i].value, expected[i].value));
  return place->step;
}

std::vector<int64_t> steps_in(const fs::path& folder) {
  std::vector<int64_t> steps;
  for (const CheckpointPlace& place : list_checkpoints(folder)) steps.push_back(place.step);
  return steps;
}

/// Damages step 10 beside a whole step 5: it must be passed over, by name, and is put back for the next trial.
void check_falls_back(const fs::path& folder, const std::function<void(const fs::path&)>& damage) {
  const fs::path newest = folder / "step-00000010", aside = folder / ".bad-step-00000010";
  const int64_t warnings = num_warnings();
  damage(newest);
  CHECK(load_newest(folder) == 5);
  CHECK(num_warnings() == warnings + 1);
  CHECK_FALSE(fs::exists(newest));
  REQUIRE(fs::exists(aside));
  fs::rename(aside, newest);
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("checkpoint: the highest step is the newest; other names are no checkpoints") {
    const ScratchFolder scratch;
    CHECK(find_newest_checkpoint(scratch.path / "absent") == std::nullopt);
    CHECK(find_newest_checkpoint(scratch.path) == std::nullopt);
    for (const int64_t step : {5, 100, 20}) save(scratch.path, step);
    for (const char* name : {"step-7", "step-00000200x", "step--0000001", "steps", ".tmp-step-00000300-1"})
      fs::create_directory(scratch.path / name);
    CHECK(steps_in(scratch.path) == std::vector<int64_t>{100, 20, 5});
    CHECK(load_newest(scratch.path) == 100);
  }

  TEST_CASE("checkpoint: its manifest says which tensors are wanted, or refuses it before one is read") {
    const ScratchFolder scratch;
    write_checkpoint(scratch.path, 4,
                     source_of({{"/model/a", at::full({6}, 2.5F)}, {"/mask/scores", at::ones({2, 3})}}),
                     {{"extra", {{"rows", 6}}}});
    const CheckpointPlace place = find_newest_checkpoint(scratch.path).value();
    std::vector<NamedTensor> filled;
    const Json manifest = read_checkpoint(place, [&](const Json& shown, const std::string& where) {
      CHECK(where == (place.folder / "manifest.json").string());
      CHECK(shown["step"] == 4);
      filled = {{"/model/a", at::zeros({shown["extra"]["rows"].get<int64_t>()})}, {"/mask/scores", at::zeros({2, 3})}};
      return filled;
    });
    CHECK(manifest["extra"]["rows"] == 6);
    CHECK(at::equal(filled[0].value, at::full({6}, 2.5F)));
    CHECK(at::equal(filled[1].value, at::ones({2, 3})));

    const auto refuse = [](const Json&, const std::string& where) -> std::vector<NamedTensor> {
      throw UserError::recipe(where, "belongs to other options");
    };
    CHECK_THROWS_WITH_AS(read_checkpoint(place, refuse), doctest::Contains("belongs to other options"), UserError);
    flip_byte(place.folder / "part-00000.h5", 900, 1);  // damage is found, but not before the manifest was shown
    bool shown = false;
    const auto want = [&](const Json&, const std::string&) {
      shown = true;
      return filled;
    };
    CHECK_THROWS_WITH_AS(read_checkpoint(place, want), doctest::Contains("SHA-256"), UserError);
    CHECK(shown);
    CHECK_THROWS_WITH_AS(read_checkpoint({place.folder, 5}, refuse), doctest::Contains("expected 5"), UserError);
  }

  TEST_CASE("checkpoint: a checkpoint that is replaced between its manifest and its tensors is refused") {
    const ScratchFolder scratch;
    save(scratch.path, 5);
    const CheckpointPlace place = find_newest_checkpoint(scratch.path).value();
    CHECK_THROWS_WITH_AS(
        read_checkpoint(place,
                        [&](const Json&, const std::string&) {
                          write_checkpoint(scratch.path, 5, source_of(tensors_of_step(6)), {{"tokens", 1}});
                          return tensors_of_step(0);
                        }),
        doctest::Contains("was replaced while it was read"), UserError);
  }

  TEST_CASE("checkpoint: pruning keeps the newest two at least") {
    const ScratchFolder scratch;
    for (const int64_t step : {5, 10, 15, 20}) save(scratch.path, step);
    prune_checkpoints(scratch.path, 3);
    CHECK(steps_in(scratch.path) == std::vector<int64_t>{20, 15, 10});
    CHECK_THROWS_AS(prune_checkpoints(scratch.path, 1), UserError);
    prune_checkpoints(scratch.path, 2);
    prune_checkpoints(scratch.path, 2);
    CHECK(steps_in(scratch.path) == std::vector<int64_t>{20, 15});
    CHECK(load_newest(scratch.path) == 20);
  }

  TEST_CASE("checkpoint: a model comes back bit for bit, with its config and its identity") {
    const ScratchFolder scratch;
    const fs::path folder = scratch.path / "model";
    const Model model = tiny_model(tiny_config(true, {40, 24}), 3);
    save_model(folder, model, {{"stage", "core"}});
    const LoadedModel loaded = load_model(folder);
    CHECK(loaded.model.config == model.config);
    CHECK(at::equal(whole_master(*loaded.model.arena), whole_master(*model.arena)));
    CHECK(loaded.manifest["stage"] == "core");
    std::string sha256;
    CHECK(load_model_config(folder, &sha256) == model.config);
    CHECK(sha256 == loaded.sha256);
    CHECK(slurp(folder / "manifest.json").ends_with(",\"sha256\":\"" + sha256 + "\"}\n"));
  }

  TEST_CASE("checkpoint: a model in several parts is the same model: embedding, each layer, norm with head") {
    const ScratchFolder scratch;
    const Model model = tiny_model(tiny_config(true, {40, 24}), 3);
    save_model(scratch.path / "model", model, Json::object(), /*part_bytes=*/1);
    const Json manifest = load_model(scratch.path / "model").manifest;
    REQUIRE(manifest["files"].size() == 4);
    const TensorFolder folder(scratch.path / "model", "coppice.model");
    CHECK(folder.part_of("/model/embed_tokens.weight").filename() == "part-00000.h5");
    CHECK(folder.part_of("/model/layers.0.mlp.up_proj.weight").filename() == "part-00001.h5");
    CHECK(folder.part_of("/model/layers.1.mlp.up_proj.weight").filename() == "part-00002.h5");
    CHECK(folder.part_of("/model/norm.weight").filename() == "part-00003.h5");
    CHECK(at::equal(whole_master(*load_model(scratch.path / "model").model.arena), whole_master(*model.arena)));
  }

  TEST_CASE("checkpoint: a config that asks for more than the files hold is refused before memory is") {
    const ScratchFolder scratch;
    const fs::path folder = scratch.path / "model";
    save_model(folder, tiny_model(tiny_config(), 3), Json::object());
    Json manifest = read_json(folder / "manifest.json");
    manifest.erase("sha256");
    manifest["model"]["hidden_size"] = 1 << 20;
    manifest["model"]["vocab_size"] = 1 << 20;
    spill(folder / "manifest.json", seal(manifest));
    CHECK_THROWS_WITH_AS(load_model(folder), doctest::Contains("the files hold"), UserError);
  }
}

TEST_SUITE("faults") {
  TEST_CASE("checkpoint: one byte flipped anywhere in the part, the one before is used") {
    const ScratchFolder scratch;
    const SilentStderr silent;
    for (const int64_t step : {5, 10}) save(scratch.path, step);
    const uint64_t bytes = fs::file_size(scratch.path / "step-00000010" / "part-00000.h5");
    std::mt19937_64 random(14);
    for (int trial = 0; trial < 200; ++trial) {
      const uint64_t offset = random() % bytes;
      const char bits = static_cast<char>(1U << (random() % 8));
      CAPTURE(offset);
      const auto flip = [&](const fs::path& folder) { flip_byte(folder / "part-00000.h5", offset, bits); };
      check_falls_back(scratch.path, flip);
      flip(scratch.path / "step-00000010");
    }
    CHECK(load_newest(scratch.path) == 10);
  }

  TEST_CASE("checkpoint: every byte of the manifest flipped, the one before is used") {
    const ScratchFolder scratch;
    const SilentStderr silent;
    for (const int64_t step : {5, 10}) save(scratch.path, step);
    const uint64_t bytes = fs::file_size(scratch.path / "step-00000010" / "manifest.json");
    for (uint64_t offset = 0; offset < bytes; ++offset) {
      const auto flip = [&](const fs::path& folder) {
        flip_byte(folder / "manifest.json", offset, static_cast<char>(1U << (offset % 8)));
      };
      CAPTURE(offset);
      check_falls_back(scratch.path, flip);
      flip(scratch.path / "step-00000010");
    }
    CHECK(load_newest(scratch.path) == 10);
  }

  TEST_CASE("checkpoint: a part or a whole folder of another step is no checkpoint") {
    const ScratchFolder scratch;
    const SilentStderr silent;
    for (const int64_t step : {3, 5, 10}) save(scratch.path, step);
    check_falls_back(scratch.path, [&](const fs::path& folder) {
      fs::copy_file(scratch.path / "step-00000003/part-00000.h5", folder / "part-00000.h5",
                    fs::copy_options::overwrite_existing);
    });
    check_falls_back(scratch.path, [&](const fs::path& folder) {  // valid in itself, but of step 3
      for (const char* file : {"part-00000.h5", "manifest.json"})
        fs::copy_file(scratch.path / "step-00000003" / file, folder / file, fs::copy_options::overwrite_existing);
    });
    const CheckpointPlace wrong{scratch.path / "step-00000010", 10};
    CHECK_THROWS_WITH_AS(check_checkpoint(wrong), doctest::Contains("holds step 3, expected 10"), UserError);
  }

  TEST_CASE("checkpoint: all bad is exit 3, also at the second start; none is a fresh start") {
    const ScratchFolder scratch;
    const SilentStderr silent;
    for (const int64_t step : {5, 10}) {
      save(scratch.path, step);
      flip_byte(scratch.path / fmt::format("step-{:08}", step) / "part-00000.h5", 900, 1);
    }
    for (int start = 0; start < 2; ++start) {
      try {
        find_newest_checkpoint(scratch.path);
        FAIL("nothing was thrown");
      } catch (const UserError& error) {
        CHECK(error.code() == ExitCode::bad_file);
        CHECK(std::string(error.what()).find("all 2 checkpoints are damaged") != std::string::npos);
      }
    }
    save(scratch.path, 12);
    CHECK(load_newest(scratch.path) == 12);  // a good one beside bad ones is used
  }

  TEST_CASE("checkpoint: one that the system does not hand out is exit 4 and keeps its name") {
    const ScratchFolder scratch;
    const fs::path ckpt = scratch.path / "ckpt";
    const at::Tensor value = at::ones({3});
    write_checkpoint(ckpt, 10, source_of({{"/model/a", value}}), Json::object());
    fs::permissions(ckpt, fs::perms::all);
    const auto try_as_nobody = [&](const fs::path& locked) {
      const fs::perms before = fs::status(locked).permissions();
      fs::permissions(locked, fs::perms::none);
      const int code = run_in_child([&] {
        (void)!::seteuid(65534);  // root may read anything
        find_newest_checkpoint(ckpt);
      });
      fs::permissions(locked, before);
      CHECK(fs::exists(ckpt / "step-00000010/manifest.json"));
      return code;
    };
    CHECK(try_as_nobody(ckpt / "step-00000010/part-00000.h5") == 4);
    CHECK(try_as_nobody(ckpt / "step-00000010/manifest.json") == 4);
    CHECK(try_as_nobody(ckpt / "step-00000010") == 4);
    CHECK(try_as_nobody(ckpt) == 4);  // and no fresh start
  }

  TEST_CASE("checkpoint: an explicit step that is absent or damaged is refused, no substitute") {
    const ScratchFolder scratch;
    for (const int64_t step : {5, 10}) save(scratch.path, step);
    CHECK_THROWS_AS(read_checkpoint({scratch.path / "step-00000007", 7}, tensors_of_step(7)), UserError);
    flip_byte(scratch.path / "step-00000010/part-00000.h5", 2000, 4);
    CHECK_THROWS_AS(read_checkpoint({scratch.path / "step-00000010", 10}, tensors_of_step(10)), UserError);
    CHECK(fs::exists(scratch.path / "step-00000010"));
  }

  TEST_CASE("checkpoint: killed after each system call of a save, the older one loads and nothing is half there") {
    for (const bool redo : {false, true}) {  // redo: step 10 stands already, from before a kill
      const ScratchFolder scratch;
      save(scratch.path, 5);
      int num_kills = 0;
      for (;; ++num_kills) {
        REQUIRE(num_kills < 200);
        if (redo) save(scratch.path, 10);
        const int code = run_in_child([&] {
          set_failpoints("", static_cast<uint64_t>(num_kills) + 1);
          save(scratch.path, 10);
        });
        CAPTURE(num_kills);
        CHECK((code == 0 || code == 128 + SIGKILL));
        const int64_t warnings = num_warnings();
        const int64_t step = load_newest(scratch.path);
        CHECK(num_warnings() == warnings);  // whatever stands under a final name is whole
        CHECK((redo ? step == 10 : (step == 5 || step == 10)));
        remove_temporaries(scratch.path);
        for (const auto& entry : fs::directory_iterator(scratch.path))
          CHECK(entry.path().filename().string().starts_with("step-"));
        fs::remove_all(scratch.path / "step-00000010");
        if (code == 0) break;
      }
      CHECK(num_kills >= 10);  // the save makes at least that many calls, so the kills did happen
    }
  }

  TEST_CASE("checkpoint: killed at each failpoint of save and prune") {
    const ScratchFolder scratch;
    const struct {
      const char* point;
      int64_t newest;
    } cases[] = {
        {"ckpt.before_manifest", 10}, {"ckpt.before_rename", 10}, {"ckpt.after_rename", 15}, {"ckpt.prune", 15}};
    for (const auto& [point, newest] : cases) {
      fs::remove_all(scratch.path);
      for (const int64_t step : {1, 5, 10}) save(scratch.path, step);
      const int code = run_in_child([&, point = point] {
        set_failpoints(std::string(point) + "=abort");
        save(scratch.path, 15);
        prune_checkpoints(scratch.path, 2);
      });
      CAPTURE(point);
      CHECK(code == 128 + SIGKILL);
      remove_temporaries(scratch.path);
      CHECK(load_newest(scratch.path) == newest);
      CHECK(list_checkpoints(scratch.path).size() >= 2);
      for (const CheckpointPlace& place : list_checkpoints(scratch.path)) check_checkpoint(place);
      save(scratch.path, 15);
      prune_checkpoints(scratch.path, 2);
      CHECK(steps_in(scratch.path) == std::vector<int64_t>{15, 10});
    }
  }

  TEST_CASE("checkpoint: a removal that fails is a warning, the run goes on") {
    const ScratchFolder scratch;
    const SilentStderr silent;
    for (const int64_t step : {5, 10, 15}) save(scratch.path, step);
    const int64_t warnings = num_warnings();
    set_failpoints("io.rename=error@1");
    prune_checkpoints(scratch.path, 2);
    set_failpoints("");
    CHECK(num_warnings() == warnings + 1);
    CHECK(steps_in(scratch.path) == std::vector<int64_t>{15, 10, 5});
    prune_checkpoints(scratch.path, 2);
    CHECK(steps_in(scratch.path) == std::vector<int64_t>{15, 10});
  }

  TEST_CASE("checkpoint: the output folder removed during the run makes the next save fail or come back, never crash") {
    const ScratchFolder scratch;
    save(scratch.path / "ckpt", 5);
    fs::remove_all(scratch.path / "ckpt");
    save(scratch.path / "ckpt", 10);  // parents are made again
    CHECK(load_newest(scratch.path / "ckpt") == 10);
    fs::remove_all(scratch.path / "ckpt");
    spill(scratch.path / "ckpt", "a file in the way");
    const SilentStderr silent;
    CHECK_THROWS_AS(save(scratch.path / "ckpt", 15), IoError);
  }
}
