// Files that survive: the ordinary behaviour, then the rows of the fault matrix that belong to the I/O layer itself.
#include "src/base/files.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>

#include <thread>

#include "src/base/failpoint.h"
#include "tests/caught.h"
#include "tests/child_process.h"
#include "tests/scratch_folder.h"

using namespace coppice;

namespace {

namespace fs = std::filesystem;

std::string pattern(size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>((i * 2654435761u) >> 13);
  return bytes;
}

/// In a child: a small tmpfs of its own at `folder`, seen by nobody else. False without the right to mount.
bool mount_tmpfs(const fs::path& folder, const char* options, unsigned long flags = 0) {
  if (::unshare(CLONE_NEWNS) != 0) return false;
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
  return ::mount("tmpfs", folder.c_str(), "tmpfs", flags, options) == 0;
}
constexpr int kNoMount = 42;

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("sha256: FIPS 180-4 examples, whole, in parts and from a file") {
    CHECK(sha256_hex("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(sha256_hex("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    const std::string million(1'000'000, 'a');
    const std::string expected = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
    CHECK(sha256_hex(million) == expected);
    Sha256 parts;
    for (size_t at = 0; at < million.size(); at += 12345) parts.update(std::string_view(million).substr(at, 12345));
    CHECK(parts.hex() == expected);
    const ScratchFolder folder;
    spill(folder / "a", million + million);
    CHECK(sha256_file(folder / "a") == sha256_hex(million + million));
    CHECK(caught([&] { sha256_file(folder / "none"); }).code == 3);
    CHECK(caught([&] { sha256_file(folder.path); }).code == 3);
  }

  TEST_CASE("read_file: whole files up to the limit, nothing else") {
    const ScratchFolder folder;
    const std::string bytes = pattern(100'000);
    spill(folder / "a", bytes);
    spill(folder / "empty", "");
    CHECK(read_file(folder / "a") == bytes);
    CHECK(read_file(folder / "a", 100'000) == bytes);
    CHECK(read_file(folder / "empty", 0).empty());
    const auto large = caught([&] { read_file(folder / "a", 99'999); });
    CHECK(large.code == 3);
    CHECK(large.says("100000 bytes"));
    CHECK(large.says("at most 99999"));
    CHECK(caught([&] { read_file(folder / "none"); }).says("No such file"));
    CHECK(caught([&] { read_file(folder.path); }).says("not a regular file"));
    REQUIRE(::mkfifo((folder / "fifo").c_str(), 0600) == 0);
    CHECK(caught([&] { read_file(folder / "fifo"); }).says("not a regular file"));  // and does not hang
    CHECK(read_file("/proc/self/status").starts_with("Name:"));                     // claims 0 bytes, has more
    CHECK(caught([] { read_file("/proc/self/status", 10); }).code == 3);
  }

  TEST_CASE("write_file_atomically: replaces, leaves nothing temporary") {
    const ScratchFolder folder;
    const std::string bytes = pattern(3'000'000);
    write_file_atomically(folder / "a", "old");
    write_file_atomically(folder / "a", bytes);
    CHECK(slurp(folder / "a") == bytes);
    CHECK(folder.names() == std::vector<std::string>{"a"});
    const std::string beside = fmt::format("x/.tmp-name-{}.", ::getpid());
    CHECK(temporary_path("x/name").native().starts_with(beside));
    CHECK(temporary_path("x/name").native().size() == beside.size() + 8);
    CHECK(temporary_path("x/name/") == temporary_path("x/name"));
    CHECK("x" / temporary_path("name") == temporary_path("x/name"));
  }

  TEST_CASE("OutputFile: create, allocate, write_at, existing, append, truncate") {
    const ScratchFolder folder;
    const std::string bytes = pattern(10'000);
    {
      OutputFile file(folder / "a", OutputFile::Mode::create);
      file.allocate(20'000);
      file.write_at(10'000, std::as_bytes(std::span(bytes)));
      file.write_at(0, std::as_bytes(std::span(bytes)));
      file.sync();
      file.close();
      CHECK(caught([&] { file.close(); }).code == 1);
    }
    CHECK(slurp(folder / "a") == bytes + bytes);
    {
      OutputFile file(folder / "a", OutputFile::Mode::existing);
      file.write("end");
      file.write_at(1, std::as_bytes(std::span("XYZ", 3)));
    }
    CHECK(slurp(folder / "a").substr(0, 4) == bytes.substr(0, 1) + "XYZ");
    CHECK(slurp(folder / "a").ends_with(bytes.substr(9'000) + "end"));
    {
      OutputFile file(folder / "a", OutputFile::Mode::append);
      file.truncate(2);
      file.write("++");
    }
    CHECK(slurp(folder / "a") == bytes.substr(0, 1) + "X++");
    CHECK(caught([&] { OutputFile(folder / "none", OutputFile::Mode::existing); }).code == 4);
    fs::create_symlink(folder / "a", folder / "link");
    CHECK(caught([&] { OutputFile(folder / "link", OutputFile::Mode::create); }).code == 4);  // never through a link
    CHECK(fs::file_size(folder / "a") == 4);
  }

  TEST_CASE("folders: made, renamed into place, temporaries removed, writable or refused") {
    const ScratchFolder folder;
    make_folder(folder / "x/y");
    make_folder(folder / "x/y");
    CHECK(fs::is_directory(folder / "x/y"));
    spill(folder / "file", "1");
    CHECK(caught([&] { make_folder(folder / "file"); }).code == 4);
    CHECK(caught([&] { make_folder(folder / "file/below"); }).code == 4);
    make_folder(folder / ".tmp-step-1");
    spill(folder / ".tmp-step-1/part", "1");
    spill(folder / ".tmp-other-77", "1");
    commit_rename(folder / ".tmp-step-1", folder / "step");
    CHECK(slurp(folder / "step/part") == "1");
    make_folder(folder / ".tmp-step-2");
    CHECK(caught([&] { commit_rename(folder / ".tmp-step-2", folder / "step"); }).code ==
          4);  // a second commit under one name
    remove_temporaries(folder.path);
    remove_temporaries(folder / "absent");
    CHECK(folder.names() == std::vector<std::string>{"file", "step", "x"});
    check_writable(folder.path);
    check_writable(folder / "not/yet/there");
    CHECK(folder.names() == std::vector<std::string>{"file", "step", "x"});
    CHECK(caught([&] { check_writable("/proc"); }).code == 4);
    CHECK(free_bytes(folder / "not/yet/there") > 0);
  }

  TEST_CASE("check_leaf_name: only names that stay in their folder") {
    for (const char* good : {"part-00000.h5", "a..b", "...", "Größe", " "})
      CHECK(caught([&] { check_leaf_name(good, "m"); }).code == 0);
    CHECK(caught([] { check_leaf_name(std::string(255, 'x'), "m"); }).code == 0);
    for (const char* bad : {"", ".", "..", "../x", "/etc/passwd", "a/b", "a\nb", "\x1b[2J", "\xff"}) {
      CAPTURE(bad);
      CHECK(caught([&] { check_leaf_name(bad, "m.json"); }).code == 3);
    }
    CHECK(caught([] { check_leaf_name(std::string(256, 'x'), "m"); }).code == 3);
    CHECK(caught([] { check_leaf_name(std::string_view("a\0b", 3), "m"); }).code == 3);
  }

  TEST_CASE("FolderLock: the second process is refused and told who holds it") {
    const ScratchFolder folder;
    {
      const FolderLock lock(folder.path);
      const auto second =
          caught([&] { FolderLock again(folder.path); });  // flock belongs to the open file, so one process will do
      CHECK(second.code == 5);
      CHECK(second.says(fmt::format("process {} on host ", ::getpid())));
      CHECK(second.says(folder.path.native()));
      CHECK(run_in_child([&] { FolderLock again(folder.path); }) == 5);
    }
    CHECK(run_in_child([&] { FolderLock again(folder.path); }) == 0);
    CHECK(caught([&] { FolderLock none(folder / "absent"); }).code == 4);
  }
}

TEST_SUITE("faults") {
  TEST_CASE("row 29: a lock dies with its process") {
    const ScratchFolder folder;
    int ready[2];
    REQUIRE(::pipe(ready) == 0);
    const pid_t holder = start_child([&] {
      const FolderLock lock(folder.path);
      (void)!::write(ready[1], "x", 1);
      for (;;) ::pause();
    });
    char byte = 0;
    REQUIRE(::read(ready[0], &byte, 1) == 1);
    const auto refused = caught([&] { FolderLock lock(folder.path); });
    CHECK(refused.code == 5);
    CHECK(refused.says(fmt::format("process {} ", holder)));
    ::kill(holder, SIGKILL);
    CHECK(wait_for(holder) == 128 + SIGKILL);
    CHECK(caught([&] { FolderLock lock(folder.path); }).code == 0);
    ::close(ready[0]);
    ::close(ready[1]);
  }

  TEST_CASE("row 6: a file-size limit is a clean refusal, the old file stays whole") {
    const ScratchFolder folder;
    write_file_atomically(folder / "a", "old");
    const int code = run_in_child([&] {
      ::signal(SIGXFSZ, SIG_IGN);
      const rlimit limit{.rlim_cur = 64 << 10, .rlim_max = 64 << 10};
      ::setrlimit(RLIMIT_FSIZE, &limit);
      write_file_atomically(folder / "a", pattern(1 << 20));
    });
    CHECK(code == 4);
    CHECK(slurp(folder / "a") == "old");
    CHECK(folder.names() == std::vector<std::string>{"a"});
  }

  TEST_CASE("row 5: a full disk stops at the reservation and while writing, with bytes needed and free") {
    const ScratchFolder folder;
    const int code = run_in_child([&] {
      if (!mount_tmpfs(folder.path, "size=1m")) ::_exit(kNoMount);
      write_file_atomically(folder / "a", "old");
      OutputFile file(folder / "big", OutputFile::Mode::create);
      const auto reserve = caught([&] { file.allocate(8 << 20); });
      if (reserve.code != 4 || !reserve.says("8.0 MiB (8388608 bytes)") || !reserve.says("No space left") ||
          !reserve.says("free)"))
        ::_exit(1);
      file.truncate(0);
      const auto write = caught([&] { write_file_atomically(folder / "a", pattern(8 << 20)); });
      if (write.code != 4 || !write.says("No space left") || slurp(folder / "a") != "old" ||
          fs::exists(temporary_path(folder / "a")))
        ::_exit(2);
      write_file_atomically(folder / "a", pattern(1 << 19));  // there is room for this one
    });
    if (code == kNoMount) {
      MESSAGE("skipped: no right to mount");
      return;
    }
    CHECK(code == 0);
  }

  TEST_CASE("row 12: a read-only folder is refused, for root too") {
    const ScratchFolder folder;
    const int code = run_in_child([&] {
      if (!mount_tmpfs(folder.path, "size=1m", MS_RDONLY)) ::_exit(kNoMount);
      check_writable(folder / "runs/demo");
    });
    if (code == kNoMount) {
      MESSAGE("skipped: no right to mount");
      return;
    }
    CHECK(code == 4);
  }

  TEST_CASE("a file that the system does not hand out is exit 4: nothing is known against the file") {
    const ScratchFolder folder;
    spill(folder / "a", "1");
#ifndef __SANITIZE_ADDRESS__  // which needs descriptors for its own checks
    const auto without_descriptors = [&](const std::function<void()>& body) {
      return run_in_child([&] {
        const rlimit limit{.rlim_cur = 0, .rlim_max = 0};
        ::setrlimit(RLIMIT_NOFILE, &limit);
        body();
      });
    };
    CHECK(without_descriptors([&] { read_file(folder / "a"); }) == 4);
    CHECK(without_descriptors([&] { sha256_file(folder / "a"); }) == 4);
#endif
    CHECK(caught([&] { sha256_file(folder / "none"); }).code == 3);
    CHECK(caught([&] { read_file(folder / "a/b"); }).code == 3);  // no folder on the way
  }

  TEST_CASE("row 13: a folder that is gone is exit 4") {
    const ScratchFolder folder;
    CHECK(caught([&] { write_file_atomically(folder / "gone/a", "x"); }).code == 4);
    CHECK(caught([&] { sync_folder(folder / "gone"); }).code == 4);
  }

  TEST_CASE("row 11: short writes and EINTR, signals at 1 kHz into a pipe that drains slowly") {
    const ScratchFolder folder;
    const fs::path pipe = folder / "pipe";
    REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
    const std::string bytes = pattern(3 << 20);
    const pid_t writer = start_child([&] {
      struct sigaction action = {};
      action.sa_handler = [](int) {};
      ::sigaction(SIGALRM, &action, nullptr);  // no SA_RESTART: blocked writes are interrupted
      const itimerval every_ms{.it_interval = {0, 1000}, .it_value = {0, 1000}};
      ::setitimer(ITIMER_REAL, &every_ms, nullptr);
      OutputFile file(pipe, OutputFile::Mode::existing);
      file.write(bytes);
      file.close();
    });
    std::string got;
    const int descriptor = ::open(pipe.c_str(), O_RDONLY);
    std::string buffer(48 << 10, '\0');
    for (ssize_t n; (n = ::read(descriptor, buffer.data(), buffer.size())) > 0;) {
      got.append(buffer, 0, static_cast<size_t>(n));
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    ::close(descriptor);
    CHECK(wait_for(writer) == 0);
    CHECK(got == bytes);
  }

#ifdef COPPICE_WITH_FAILPOINTS
  TEST_CASE("rows 9 and 10: a call that fails once leaves the old file, the next try writes everything again") {
    const ScratchFolder folder;
    write_file_atomically(folder / "a", "old");
    for (const char* point : {"io.open", "io.write", "io.fsync", "io.close", "io.rename"}) {
      CAPTURE(point);
      set_failpoints(fmt::format("{}=error", point));
      CHECK(caught([&] { write_file_atomically(folder / "a", "new"); }).code == 4);
      CHECK(slurp(folder / "a") == "old");
      CHECK(folder.names() == std::vector<std::string>{"a"});
      write_file_atomically(folder / "a", "new");  // the point fires once
      CHECK(slurp(folder / "a") == "new");
      set_failpoints("");
      write_file_atomically(folder / "a", "old");
    }
    set_failpoints("io.remove=error,io.mkdir=error,io.allocate=error,io.fsync_folder=error");
    CHECK(caught([&] { make_folder(folder / "b"); }).code == 4);
    spill(folder / ".tmp-x-1", "");
    CHECK(caught([&] { remove_temporaries(folder.path); }).code == 4);
    CHECK(caught([&] { OutputFile(folder / "c", OutputFile::Mode::create).allocate(10); }).code == 4);
    CHECK(caught([&] { sync_folder(folder.path); }).code == 4);
    set_failpoints("");
  }

  TEST_CASE(
      "row 2: killed after the k-th system call of a save, for every k, a final name is old or new, never in between") {
    const ScratchFolder folder;
    const std::string old_bytes = "old", new_bytes = pattern(300'000);
    int kills = 0, old_left = 0;
    for (uint64_t k = 1;; ++k) {
      REQUIRE(k < 100);
      write_file_atomically(folder / "a", old_bytes);
      const int code = run_in_child([&] {
        set_failpoints("", k);
        write_file_atomically(folder / "a", new_bytes);
      });
      const std::string left = slurp(folder / "a");
      if (code == 0) {
        CHECK(left == new_bytes);
        break;
      }
      CHECK(code == 128 + SIGKILL);
      ++kills;
      CHECK((left == old_bytes || left == new_bytes));
      old_left += left == old_bytes;
      remove_temporaries(folder.path);
      CHECK(folder.names() == std::vector<std::string>{"a"});
    }
    CHECK(kills >= 6);             // open, write, fsync, close, rename, fsync of the folder
    CHECK(old_left == kills - 2);  // new from the rename on
  }
#endif
}
