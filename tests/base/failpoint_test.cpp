#include "src/base/failpoint.h"

#include <doctest/doctest.h>
#include <signal.h>

#include "tests/caught.h"
#include "tests/child_process.h"

using namespace coppice;

#ifdef COPPICE_WITH_FAILPOINTS

TEST_SUITE("unit") {
  TEST_CASE("failpoint: fires on its hit only, actions by name") {
    CHECK_FALSE(COPPICE_FAILPOINT("t.one"));
    set_failpoints("t.one=nan@2,t.two=error,t.three=sleep:0.001@1,t.one=nan@3");
    CHECK_FALSE(COPPICE_FAILPOINT("t.one"));
    CHECK(COPPICE_FAILPOINT("t.one"));
    CHECK(COPPICE_FAILPOINT("t.one"));
    CHECK_FALSE(COPPICE_FAILPOINT("t.one"));
    CHECK_FALSE(COPPICE_FAILPOINT("t.other"));
    CHECK_FALSE(COPPICE_FAILPOINT("t.three"));
    const auto error = caught([] { COPPICE_FAILPOINT("t.two"); });
    CHECK(error.code == 4);
    CHECK(error.says("t.two"));
    CHECK_FALSE(COPPICE_FAILPOINT("t.two"));  // fired
    set_failpoints("");
    CHECK_FALSE(COPPICE_FAILPOINT("t.one"));
  }

  TEST_CASE("failpoint: abort is SIGKILL, at once") {
    CHECK(run_in_child([] {
            set_failpoints("t.kill=abort@3");
            for (int i = 0; i < 10; ++i) {
              if (i == 3) ::_exit(50);  // the third hit comes before
              COPPICE_FAILPOINT("t.kill");
            }
          }) == 128 + SIGKILL);
  }

  TEST_CASE("failpoint: a wrong spec is a usage error") {
    for (const char* spec : {"x", "=abort", "x=", "x=explode", "x=abort@0", "x=abort@", "x=abort@1x",
                             "x=sleep:", "x=sleep:-1", "a=nan,,b=nan"}) {
      CAPTURE(spec);
      CHECK(caught([&] { set_failpoints(spec); }).code == 2);
    }
    set_failpoints("");
  }
}

#else

TEST_SUITE("unit") {
  TEST_CASE("failpoint: compiled out") { CHECK_FALSE(COPPICE_FAILPOINT("any")); }
}

#endif
