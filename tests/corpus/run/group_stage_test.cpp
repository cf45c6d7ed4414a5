// Tasks that meet between two passes.
#include "src/corpus/run/group_stage.h"

#include <doctest/doctest.h>
#include <signal.h>

#include "src/base/failpoint.h"
#include "src/base/file_lock.h"
#include "tests/child_process.h"
#include "tests/corpus/run/small_corpus.h"

namespace coppice {

using namespace test;

TEST_SUITE("unit") {
  TEST_CASE("group stage: a task that waits for decisions takes over when the one that makes them is killed") {
    const SmallCorpus corpus;
    corpus.add("a/1.jsonl", {"one two", "one two"});
    corpus.add("b/1.jsonl", {"two three"});
    const CorpusSettings settings = corpus.settings("{ kind = \"same\" }\n", "threads = 1");
    const int code = run_in_child([&] {
      set_failpoints("corpus.before_settle=abort");
      run_corpus(settings, corpus.request("out"));
    });
    REQUIRE(code == 128 + SIGKILL);
    const std::vector<SourceFile> files = list_source_files(settings.sources);
    const std::vector<Pass> passes = cut_into_passes(settings.steps);
    const CorpusFolder folder(corpus.scratch / "out", corpus_identity(settings, files, false), passes.size());
    const std::vector<GroupFiles> groups = make_group_places(settings, files, passes, folder);
    const fs::path mark = folder.mark(settings.steps[0], "settled");
    std::unique_ptr<FileLock> of_other = FileLock::try_take(mark.parent_path() / ".lock");
    REQUIRE(of_other != nullptr);
    int waited = 0;
    settle_groups(settings, passes[1], folder, groups, {0, 1},
                  [&](const std::string&, size_t total, const std::function<size_t()>& done) {
                    while (done() < total) {
                      REQUIRE(++waited == 1);
                      CHECK_FALSE(fs::exists(mark));
                      of_other.reset();  // killed
                    }
                  });
    CHECK(waited == 1);
    CHECK(fs::exists(mark));
  }
}

}  // namespace coppice
