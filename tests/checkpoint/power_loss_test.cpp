// Power fails after each system call of a save: what a disk holds that kept no more than what was synced loads as the
// old or the new checkpoint.
#include <ATen/ATen.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "src/base/failpoint.h"
#include "src/checkpoint/checkpoint.h"
#include "tests/checkpoint/tiny.h"

#ifdef COPPICE_WITH_FAILPOINTS

namespace fs = std::filesystem;
using namespace coppice;

namespace {

/// What the disk surely holds: a file's bytes as of its last fsync, a folder's entries as of its last fsync.
class SyncedDisk {
 public:
  /// All that is below `root` now counts as synced.
  explicit SyncedDisk(fs::path root) : root_(std::move(root)), root_inode_(keep(root_)) {
    sync_folder(root_);
    for (const auto& entry : fs::recursive_directory_iterator(root_))
      entry.is_directory() ? sync_folder(entry.path()) : sync_file(entry.path());
  }
  ~SyncedDisk() {
    for (const int descriptor : kept_) ::close(descriptor);
  }
  SyncedDisk(const SyncedDisk&) = delete;

  void note(std::string_view call, const fs::path& path) {
    if (call == "io.fsync") sync_file(path);
    if (call == "io.fsync_folder") sync_folder(path);
  }

  /// The disk after the power came back. Entries of folders that were not synced may be lost, or may be there before
  /// the bytes of their files.
  enum class Entries { synced, all };
  void restore(const fs::path& target, Entries entries) const {
    entries == Entries::synced ? restore_synced(root_inode_, target) : restore_all(root_, target);
  }

 private:
  struct Entry {
    ino_t inode;
    bool is_folder;
  };

  /// The file's number, which stays its own: a kept descriptor keeps it from being given out again.
  ino_t keep(const fs::path& path) {
    const int descriptor = ::open(path.c_str(), O_PATH | O_CLOEXEC | O_NOFOLLOW);
    REQUIRE(descriptor >= 0);
    kept_.push_back(descriptor);
    struct stat info = {};
    REQUIRE(::fstat(descriptor, &info) == 0);
    return info.st_ino;
  }
  void sync_file(const fs::path& path) { bytes_[keep(path)] = slurp(path); }
  void sync_folder(const fs::path& path) {
    std::map<std::string, Entry> found;
    for (const auto& entry : fs::directory_iterator(path))
      found[entry.path().filename()] = {keep(entry.path()), entry.is_directory()};
    entries_[keep(path)] = std::move(found);
  }
  void restore_file(ino_t inode, const fs::path& target) const {
    const auto found = bytes_.find(inode);
    spill(target, found == bytes_.end() ? "" : found->second);
  }
  void restore_synced(ino_t folder, const fs::path& target) const {
    fs::create_directories(target);
    const auto found = entries_.find(folder);
    if (found == entries_.end()) return;
    for (const auto& [name, entry] : found->second)
      entry.is_folder ? restore_synced(entry.inode, target / name) : restore_file(entry.inode, target / name);
  }
  void restore_all(const fs::path& folder, const fs::path& target) const {
    fs::create_directories(target);
    for (const auto& entry : fs::directory_iterator(folder)) {
      struct stat info = {};
      REQUIRE(::lstat(entry.path().c_str(), &info) == 0);
      entry.is_directory() ? restore_all(entry.path(), target / entry.path().filename())
                           : restore_file(info.st_ino, target / entry.path().filename());
    }
  }

  std::vector<int> kept_;
  std::map<ino_t, std::string> bytes_;
  std::map<ino_t, std::map<std::string, Entry>> entries_;
  fs::path root_;
  ino_t root_inode_;
};

constexpr uint64_t kSmallPart = 100;  // three parts: two units, and what is the stage's own

void save(const fs::path& ckpt, int64_t step, float value, uint64_t part_bytes = kPartBytes) {
  const std::vector<TensorSource::Entry> entries = {{"/model/a", {300}, 0},
                                                    {"/model/layers.0.b", {40}, 1},
                                                    {"/optim/v/layers.0.b", {40}, 1},
                                                    {"/mask/scores", {5}, kStageUnit}};
  write_checkpoint(ckpt, step,
                   {.entries = entries, .value = [&](size_t i) { return at::full(entries[i].shape, value); }},
                   Json::object(), part_bytes);
}

/// The one value of all tensors of a checkpoint.
float value_of(const CheckpointPlace& place) {
  const std::vector<NamedTensor> into = {{"/model/a", at::zeros({300})},
                                         {"/model/layers.0.b", at::zeros({40})},
                                         {"/optim/v/layers.0.b", at::zeros({40})},
                                         {"/mask/scores", at::zeros({5})}};
  read_checkpoint(place, into);
  for (const NamedTensor& tensor : into) CHECK(tensor.value.eq(into[0].value[0]).all().item<bool>());
  return into[0].value[299].item<float>();
}

/// The value of the newest checkpoint after the power came back; nothing may be half there under a final name.
float value_after_power_loss(const SyncedDisk& disk, SyncedDisk::Entries entries) {
  const ScratchFolder image;
  const fs::path ckpt = image.path / "ckpt";
  disk.restore(ckpt, entries);
  for (const CheckpointPlace& place : list_checkpoints(ckpt)) {
    INFO(place.folder.filename().string());
    CHECK_NOTHROW(check_checkpoint(place));
  }
  const auto newest = find_newest_checkpoint(ckpt);
  REQUIRE(newest);
  return value_of(*newest);
}

/// Runs `work` with the power failing after each of its calls; the values that were found. At the end the new one must
/// be safe.
std::set<float> values_during(const fs::path& ckpt, const std::function<void()>& work) {
  SyncedDisk disk(ckpt);
  std::set<float> values;
  int calls = 0;
  set_io_observer([&](std::string_view call, const fs::path& path) {
    ++calls;
    CAPTURE(std::string(call));
    CAPTURE(calls);
    disk.note(call, path);
    for (const auto entries : {SyncedDisk::Entries::synced, SyncedDisk::Entries::all})
      values.insert(value_after_power_loss(disk, entries));
  });
  work();
  set_io_observer({});
  CHECK(calls >= 6);
  CHECK(value_after_power_loss(disk, SyncedDisk::Entries::synced) == *values.rbegin());
  return values;
}

}  // namespace

TEST_SUITE("faults") {
  TEST_CASE("checkpoint: power lost after each call of a save, a replacement and a removal [4]") {
    const ScratchFolder scratch;
    const fs::path ckpt = scratch.path / "ckpt";
    save(ckpt, 10, 1);
    save(ckpt, 20, 2);
    CHECK((values_during(ckpt, [&] { save(ckpt, 30, 3); }) == std::set<float>{2, 3}));
    CHECK((values_during(ckpt, [&] { save(ckpt, 30, 4); }) == std::set<float>{3, 4}));  // the same step again
    CHECK((values_during(ckpt, [&] {
             prune_checkpoints(ckpt, 2);
             save(ckpt, 40, 5);
           }) == std::set<float>{4, 5}));
  }

  TEST_CASE("checkpoint: power lost within and between the parts of a save, a replacement and a removal [4]") {
    const ScratchFolder scratch;
    const fs::path ckpt = scratch.path / "ckpt";
    save(ckpt, 10, 1, kSmallPart);
    save(ckpt, 20, 2, kSmallPart);
    CHECK(check_checkpoint({ckpt / "step-00000020", 20})["files"].size() == 3);
    CHECK((values_during(ckpt, [&] { save(ckpt, 30, 3, kSmallPart); }) == std::set<float>{2, 3}));
    CHECK((values_during(ckpt, [&] { save(ckpt, 30, 4); }) == std::set<float>{3, 4}));  // one part over three
    CHECK((values_during(ckpt, [&] { save(ckpt, 30, 5, kSmallPart); }) == std::set<float>{4, 5}));
    CHECK((values_during(ckpt, [&] {
             prune_checkpoints(ckpt, 2);
             save(ckpt, 40, 6, kSmallPart);
           }) == std::set<float>{5, 6}));
  }

  TEST_CASE("checkpoint: the first one of a run is safe as well, with the folders made for it [4]") {
    const ScratchFolder scratch, image;
    SyncedDisk disk(scratch.path);
    set_io_observer([&](std::string_view call, const fs::path& path) { disk.note(call, path); });
    save(scratch.path / "run/dense/ckpt", 10, 1);
    set_io_observer({});
    disk.restore(image.path, SyncedDisk::Entries::synced);
    CHECK(find_newest_checkpoint(image.path / "run/dense/ckpt").has_value());
  }

  TEST_CASE("checkpoint: EIO at each call of a save: written again; twice: exit 4 and the old one stays [8, 9, 10]") {
    for (const char* point :
         {"io.mkdir", "io.open", "io.allocate", "io.write", "io.fsync", "io.close", "io.fsync_folder", "io.rename"}) {
      CAPTURE(point);
      int fired = 0;
      for (int hit = 1;; ++hit) {
        const ScratchFolder scratch;
        const fs::path ckpt = scratch.path / "ckpt";
        save(ckpt, 10, 1);
        const auto load = [&] { return value_of(find_newest_checkpoint(ckpt).value()); };
        const int64_t warnings = num_warnings();
        const SilentStderr silent;
        set_failpoints(fmt::format("{}=error@{}", point, hit));
        save(ckpt, 20, 2);
        set_failpoints("");
        CHECK(load() == 2);
        if (num_warnings() == warnings) break;  // there are fewer calls
        ++fired;
        set_failpoints(fmt::format("{}=error@{},{}=error@{}", point, hit, point,
                                   hit + 1));  // the second is the first of its kind in the second try
        int code = 0;
        try {
          save(ckpt, 30, 3);
        } catch (const IoError& error) {
          code = static_cast<int>(error.code());
        }
        set_failpoints("");
        if (hit == 1) CHECK(code == 4);
        CHECK(load() == (code == 4 && list_checkpoints(ckpt).front().step != 30 ? 2 : 3));
        for (const auto& entry : fs::directory_iterator(ckpt))
          CHECK(entry.path().filename().string().starts_with("step-"));
        REQUIRE(hit < 50);
      }
      CHECK(fired >= 1);
    }
  }
}

#endif
