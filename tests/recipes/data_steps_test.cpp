// `coppice data extract` into a folder, stopped by a signal: exit 75, and the same command finishes.
#include <doctest/doctest.h>

#include "tests/recipes/program.h"

using namespace coppice::test;

#ifdef COPPICE_WITH_FAILPOINTS

TEST_SUITE("faults") {
  TEST_CASE("data extract: a signal ends it with 75 between two documents, the next run has the same files") {
    const Scratch scratch("data_steps");
    for (int i = 0; i < 20; ++i)
      spill(scratch.path / "in" / (std::to_string(i) + ".txt"), std::string(300, static_cast<char>('a' + i)));
    const auto extract_into = [](const std::string& folder) {
      return std::vector<std::string>{"data", "extract", "--source", "s", "--output", folder, "in"};
    };
    // Held up long enough, in the middle of a file behind the first, for the signal to come.
    Process process = start(scratch.path, extract_into("out"), [] {
      setenv("COPPICE_FAILPOINTS", "io.rename=sleep:5@6", 1);
      setenv("OMP_NUM_THREADS", "1", 1);  // a file behind another
    });
    const fs::path first = scratch.path / "out/documents/s/0.txt.jsonl.zst";
    while (!fs::exists(first) && !process.poll()) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    process.send(SIGTERM);
    const Outcome stopped = process.wait();
    CHECK(stopped.code == 75);
    CHECK(stopped.err.find("of 20 files, which are kept; run again to go on") != std::string::npos);

    const Outcome whole = run(scratch.path, extract_into("whole")), resumed = run(scratch.path, extract_into("out"));
    CHECK(resumed.code == 0);
    CHECK(resumed.err.find("were finished before") != std::string::npos);
    CHECK(resumed.out == whole.out);
    size_t files = 0;
    for (const auto& entry : fs::recursive_directory_iterator(scratch.path / "whole")) {
      if (!entry.is_regular_file() || entry.path().filename() == ".lock") continue;
      ++files;
      const fs::path same = scratch.path / "out" / fs::relative(entry.path(), scratch.path / "whole");
      CHECK_MESSAGE(slurp(same) == slurp(entry.path()), same);
    }
    CHECK(files == 28);  // documents of each; sources.json, SOURCES.md, inputs.json, report.*, stats/extract.json
  }
}

#endif
