#include "src/base/errors.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cerrno>

#include "tests/caught.h"

using namespace coppice;

TEST_SUITE("unit") {
  TEST_CASE("printable: what can steer a terminal is escaped, the rest stays") {
    CHECK(printable("layers.3.mlp") == "layers.3.mlp");
    CHECK(printable("Größe 木 🌳") == "Größe 木 🌳");
    CHECK(printable("\x1b[2J\a") == "\\x1b[2J\\x07");
    CHECK(printable("a\nb\tc\r\x7f") == "a\\nb\\tc\\x0d\\x7f");
    CHECK(printable("\xc2\x9b"
                    "31m") == "\\u009b31m");  // C1 control sequence introducer
    CHECK(printable("\xe2\x80\xae"
                    "gnp") == "\\u202egnp");        // right-to-left override
    CHECK(printable("\xe2\x80\xa8") == "\\u2028");  // line separator
    CHECK(printable(std::string_view("\0", 1)) == "\\x00");
    CHECK(printable("\xff\xfe") == "\\xff\\xfe");
    CHECK(printable("\xc0\xaf") == "\\xc0\\xaf");                    // overlong '/'
    CHECK(printable("\xed\xa0\x80") == "\\xed\\xa0\\x80");           // surrogate
    CHECK(printable("\xf4\x90\x80\x80") == "\\xf4\\x90\\x80\\x80");  // above U+10FFFF
    CHECK(printable("ab\xe2\x82") == "ab\\xe2\\x82");                // cut off
    CHECK(printable("") == "");
    const std::string once = printable("x\x1b\xff");
    CHECK(printable(once) == once);
    CHECK(printable_lines("a\x1b\nb") == "a\\x1b\nb");
  }

  TEST_CASE("errors: code, place and text") {
    const auto recipe = caught([] { throw UserError::recipe("my.toml:21", "student: got 2, expected 3"); });
    CHECK(recipe.code == 2);
    CHECK(recipe.text == "my.toml:21: student: got 2, expected 3");
    CHECK(caught([] { throw UserError::recipe("", "no recipe"); }).text == "no recipe");
    const auto bad_file = caught([] { throw UserError::bad_file("x\x1b/a.h5", "cut off"); });
    CHECK(bad_file.code == 3);
    CHECK(bad_file.text == "x\\x1b/a.h5: cut off");
    CHECK(caught([] { throw UserError::folder_locked("runs/a", "held"); }).code == 5);
    CHECK(caught([] { throw DivergedError("step 7"); }).code == 6);
    CHECK(caught([] { throw DeviceError::out_of_memory("x"); }).code == 7);
    CHECK(caught([] { throw DeviceError::timed_out("x"); }).code == 9);
    CHECK(caught([] { throw DeviceError::unavailable("x"); }).code == 1);
  }

  TEST_CASE("errors: an internal one names condition, file below the root and line") {
    const int line = __LINE__ + 1;
    const auto check = caught([] { COPPICE_CHECK(1 + 1 == 3, "values 2 and 3"); });
    CHECK(check.code == 1);
    CHECK(check.text == fmt::format("tests/base/errors_test.cpp:{}: 1 + 1 == 3: values 2 and 3", line));
  }

  TEST_CASE("errors: IoError carries the system's text, and free bytes on a full disk") {
    CHECK(caught([] { throw IoError("/tmp/x", "cannot write"); }).text == "/tmp/x: cannot write");
    const auto denied = caught([] { throw IoError("/tmp/x", "cannot write", EACCES); });
    CHECK(denied.code == 4);
    CHECK(denied.text == "/tmp/x: cannot write: Permission denied");
    const auto full = caught([] { throw IoError("/tmp/x", "cannot write 3 MiB", ENOSPC); });
    CHECK(full.says("/tmp/x: cannot write 3 MiB: No space left on device ("));
    CHECK(full.says("iB free)"));
  }
}
