#include "src/base/log.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <pty.h>

#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "src/base/json.h"
#include "tests/scratch_folder.h"

using namespace coppice;

namespace {

/// What `body` prints on standard error when that is a plain file.
std::string printed(const std::function<void()>& body) {
  const ScratchFolder folder;
  const int saved = ::dup(2);
  const int file = ::open((folder / "out").c_str(), O_WRONLY | O_CREAT, 0600);
  ::dup2(file, 2);
  ::close(file);
  body();
  ::dup2(saved, 2);
  ::close(saved);
  return slurp(folder / "out");
}

/// The same when it is a terminal `columns` wide.
std::string printed_on_terminal(unsigned short columns, const std::function<void()>& body) {
  int master = -1, slave = -1;
  const winsize size{.ws_row = 25, .ws_col = columns, .ws_xpixel = 0, .ws_ypixel = 0};
  REQUIRE(::openpty(&master, &slave, nullptr, nullptr, &size) == 0);
  ::setenv("TERM", "xterm", 1);
  const int saved = ::dup(2);
  ::dup2(slave, 2);
  ::close(slave);
  body();
  ::dup2(saved, 2);
  ::close(saved);
  std::string text,
      part(4096,
           '\0');  // a terminal hands its output over in parts; EIO follows the last one, as the other end is closed
  for (ssize_t got; (got = ::read(master, part.data(), part.size())) > 0;)
    text.append(part, 0, static_cast<size_t>(got));
  ::close(master);
  return text;
}

/// What stands on a terminal's last line after `text`: "\r" goes back, "\x1b[K" clears to the end.
std::string last_line(const std::string& text) {
  std::string line;
  size_t column = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\r') {
      column = 0;
    } else if (text[i] == '\n') {
      line.clear();
      column = 0;
    } else if (text.compare(i, 3, "\x1b[K") == 0) {
      line.resize(std::min(line.size(), column));
      i += 2;
    } else {
      line.resize(std::max(line.size(), column + 1));
      line[column++] = text[i];
    }
  }
  return line;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("log: numbers for people") {
    CHECK(format_duration(0.4) == "0:00");
    CHECK(format_duration(41) == "0:41");
    CHECK(format_duration(59.6) == "1:00");
    CHECK(format_duration(12 * 60 + 3) == "12:03");
    CHECK(format_duration(3 * 3600 + 4 * 60 + 5) == "3:04:05");
    CHECK(format_duration(100 * 3600) == "100:00:00");
    CHECK(format_duration(std::nan("")) == "?");
    CHECK(format_duration(-1) == "?");
    CHECK(format_count(0) == "0");
    CHECK(format_count(812) == "812");
    CHECK(format_count(999.4) == "999.4");
    CHECK(format_count(999.6) == "1.0k");
    CHECK(format_count(12345) == "12.3k");
    CHECK(format_count(123456) == "123k");
    CHECK(format_count(999700) == "1.00M");
    CHECK(format_count(1.2e6) == "1.20M");
    CHECK(format_count(6.39e9) == "6.39B");
    CHECK(format_count(9e12) == "9.00T");
    CHECK(format_count(-12345) == "-12.3k");
    CHECK(format_bytes(512) == "512 B");
    CHECK(format_bytes(1023) == "1023 B");
    CHECK(format_bytes(1.2 * 1048576) == "1.2 MiB");
    CHECK(format_bytes(33.0 * 1073741824) == "33.0 GiB");
    CHECK(format_bytes(1048575) == "1.0 MiB");
  }

  TEST_CASE("fit_width: columns of UTF-8, cut with dots") {
    CHECK(fit_width("abcdef", 6) == "abcdef");
    CHECK(fit_width("abcdefg", 6) == "abc...");
    CHECK(fit_width("äöüßéè", 6) == "äöüßéè");
    CHECK(fit_width("äöüßéèx", 6) == "äöü...");
    CHECK(fit_width("abc", 2) == "..");
    CHECK(fit_width("", 5) == "");
  }

  TEST_CASE("log: plain messages, warnings counted, control characters escaped, the file gets the same") {
    const ScratchFolder folder;
    set_log_file(folder / "log.txt");
    set_log_style(LogStyle::plain);
    const int64_t before = num_warnings();
    const std::string text = printed([] {
      log_info("two\nlines \x1b[2J");
      log_warning("careful");
    });
    CHECK(text == "two\nlines \\x1b[2J\nwarning: careful\n");
    CHECK(num_warnings() == before + 1);
    set_log_style(LogStyle::quiet);
    CHECK(printed([] {
            log_info("hidden");
            log_warning("seen");
          }) == "warning: seen\n");
    set_log_style(LogStyle::automatic);
    set_log_file({});
    CHECK(slurp(folder / "log.txt") == text + "hidden\nwarning: seen\n");
  }

  TEST_CASE("log: JSON, one object a line") {
    set_log_style(LogStyle::json);
    const std::string text = printed([] {
      log_warning("a \"b\"\xff");
      Progress progress("core", 4, "step");
      progress.update(4, {{"loss", "3.2"}, {"", "12k tok/s"}});
    });
    set_log_style(LogStyle::automatic);
    const size_t end = text.find('\n');
    const Json message = parse_json(text.substr(0, end), "stderr");
    CHECK(message["event"] == "message");
    CHECK(message["level"] == "warning");
    const Json progress = parse_json(text.substr(end + 1), "stderr");
    CHECK(progress["stage"] == "core");
    CHECK(progress["done"] == 4);
    CHECK(progress["total"] == 4);
    CHECK(progress["notes"] == Json{"loss 3.2", "12k tok/s"});
  }

  TEST_CASE("Progress: elsewhere than on a terminal a line now and then, the last one always") {
    const std::string text = printed([] {
      Progress progress("core", 800, "step");
      for (uint64_t step = 1; step <= 800; ++step) progress.update(step, {{"loss", "3.214"}, {"", "12.3k tok/s"}});
      progress.finish("done in 0:01");
    });
    CHECK(text == "[core] step 800/800  loss 3.214  12.3k tok/s\n[core] done in 0:01\n");
  }

  TEST_CASE("Progress: on a terminal one line rewritten in place, as wide as the terminal, messages above it") {
    const std::string text = printed_on_terminal(40, [] {
      Progress progress("core", 800, "step");
      progress.update(120, {{"loss", "3.214"}, {"", "12.3k tok/s"}, {"", "58% of GEMM"}});
      log_info("saved");
    });
    CHECK(text.starts_with("\r[core] step 120/800  loss 3.214  12....\x1b[K"));
    CHECK(text.find("\r\x1b[Ksaved\r\n\r[core]") != std::string::npos);
    CHECK(text.ends_with("\x1b[K\r\n"));  // the destructor ends the line
    const std::string finished = printed_on_terminal(40, [] {
      Progress progress("core", 800, "step");
      progress.update(120, {});
      progress.finish("over");
    });
    CHECK(finished.ends_with("\r\x1b[K[core] over\r\n"));
    CHECK(last_line(finished).empty());
  }

  TEST_CASE("Progress: the time left comes from this process' own pace") {
    const std::string text = printed_on_terminal(80, [] {
      Progress progress("core", 1000, "step");
      progress.update(900, {});  // 900 steps came from an earlier process
      const double begin = monotonic_s();
      while (monotonic_s() - begin < 0.25) ::usleep(1000);
      progress.update(901, {});  // one step in 0.25 s or more: 99 more take at least 24 s
    });
    CAPTURE(text);
    const size_t found = text.find("[core] step 901/1000  ETA ");
    REQUIRE(found != std::string::npos);
    int minutes = -1, seconds = -1;
    REQUIRE(std::sscanf(text.c_str() + found, "[core] step 901/1000  ETA %d:%d", &minutes, &seconds) == 2);
    CHECK(minutes * 60 + seconds >= 24);
  }
}

TEST_SUITE("faults") {
  TEST_CASE("row 7: a log file that cannot be written is given up once, with a warning") {
    set_log_file("/dev/full");
    set_log_style(LogStyle::plain);
    const std::string text = printed([] {
      log_info("one");
      log_info("two");
    });
    set_log_style(LogStyle::automatic);
    set_log_file({});
    CHECK(text.starts_with("one\nwarning: the log file is given up: /dev/full: "));
    CHECK(text.find("No space left") != std::string::npos);
    CHECK(text.ends_with("\ntwo\n"));
  }
}
