#include "src/base/metrics.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "src/base/failpoint.h"
#include "tests/caught.h"
#include "tests/child_process.h"
#include "tests/scratch_folder.h"

using namespace coppice;

namespace {

MetricsLine line_of(int64_t step, double loss) {
  MetricsLine line;
  line.add("step", step);
  line.add("loss", loss);
  return line;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("MetricsLine: nine significant digits, order kept, integers whole, non-finite as strings") {
    MetricsLine line;
    line.add("step", int64_t{12});
    line.add("loss", 3.14159265358979);
    line.add("lr", 3e-4);
    line.add("tokens", int64_t{9007199254740993});
    line.add("one", 1.0);
    line.add("nan", std::nan(""));
    line.add("up", std::numeric_limits<double>::infinity());
    line.add("down", -std::numeric_limits<double>::infinity());
    line.add("a\"b", 1e-20);
    CHECK(
        line.to_json() ==
        R"({"step":12,"loss":3.14159265,"lr":0.0003,"tokens":9007199254740993,"one":1,"nan":"nan","up":"inf","down":"-inf","a\"b":1e-20})");
    CHECK(MetricsLine().to_json() == "{}");
  }

  TEST_CASE("MetricsLine: nine digits tell any two floats apart") {
    for (const float x : {0.1f, 1.0f / 3, 16777217.0f, 1e-30f}) {
      MetricsLine line, next;
      line.add("x", static_cast<double>(x));
      next.add("x", static_cast<double>(std::nextafter(x, 1e30f)));
      CHECK(line.to_json() != next.to_json());
    }
  }

  TEST_CASE("metrics: written, read back, non-numbers are NaN or infinite") {
    const ScratchFolder folder;
    CHECK(read_metrics(folder / "metrics.jsonl").empty());
    {
      MetricsWriter writer(folder / "metrics.jsonl", 0);
      writer.append(line_of(1, 2.5));
      writer.append(line_of(2, std::nan("")));
      writer.append(line_of(3, -std::numeric_limits<double>::infinity()));
      writer.sync();
    }
    const auto rows = read_metrics(folder / "metrics.jsonl");
    REQUIRE(rows.size() == 3);
    CHECK(rows[0].at("step") == 1);
    CHECK(rows[0].at("loss") == 2.5);
    CHECK(std::isnan(rows[1].at("loss")));
    CHECK(rows[2].at("loss") == -std::numeric_limits<double>::infinity());
    CHECK(folder.names() == std::vector<std::string>{"metrics.jsonl"});
  }

  TEST_CASE("metrics: a resume keeps the lines up to its step, moves later ones, cuts a torn one") {
    const ScratchFolder folder;
    std::string text;
    for (int step = 1; step <= 5; ++step) text += line_of(step, step).to_json() + "\n";
    spill(folder / "metrics.jsonl", text + "{\"step\":6,\"lo");
    {
      MetricsWriter writer(folder / "metrics.jsonl", 3);
      writer.append(line_of(4, 40));
    }
    CHECK(slurp(folder / "metrics.jsonl") ==
          "{\"step\":1,\"loss\":1}\n{\"step\":2,\"loss\":2}\n{\"step\":3,\"loss\":3}\n{\"step\":4,\"loss\":40}\n");
    CHECK(slurp(folder / "metrics.cut.jsonl") == "{\"step\":4,\"loss\":4}\n{\"step\":5,\"loss\":5}\n");
    { MetricsWriter writer(folder / "metrics.jsonl", 3); }
    CHECK(slurp(folder / "metrics.cut.jsonl") ==
          "{\"step\":4,\"loss\":4}\n{\"step\":5,\"loss\":5}\n{\"step\":4,\"loss\":40}\n");
    CHECK(read_metrics(folder / "metrics.jsonl").size() == 3);
  }

  TEST_CASE("metrics: nothing is rewritten when nothing is to be cut") {
    const ScratchFolder folder;
    spill(folder / "bad_batches.jsonl", "{\"step\":1,\"documents\":[1,2]}\n{\"note\":1}\n");
    const auto before = std::filesystem::last_write_time(folder / "bad_batches.jsonl");
    { MetricsWriter writer(folder / "bad_batches.jsonl", 7); }
    CHECK(std::filesystem::last_write_time(folder / "bad_batches.jsonl") == before);
    { MetricsWriter writer(folder / "bad_batches.jsonl", 0); }
    CHECK(slurp(folder / "bad_batches.jsonl") == "{\"note\":1}\n");
    CHECK(slurp(folder / "bad_batches.cut.jsonl") == "{\"step\":1,\"documents\":[1,2]}\n");
  }

  TEST_CASE("metrics: reading passes over a torn or damaged last line, not over damage in the middle") {
    const ScratchFolder folder;
    const auto path = folder / "metrics.jsonl";
    spill(path, "{\"step\":1}\n{\"step\":2");
    CHECK(read_metrics(path).size() == 1);
    spill(path, "{\"step\":1}\n" + std::string(30, '\0') + "\n");
    CHECK(read_metrics(path).size() == 1);
    { MetricsWriter writer(path, 5); }
    CHECK(slurp(path) == "{\"step\":1}\n");
    spill(path, "{\"step\":1}\nrubbish\n{\"step\":2}\n");
    const auto error = caught([&] { read_metrics(path); });
    CHECK(error.code == 3);
    CHECK(error.says("line 2"));
  }
}

#ifdef COPPICE_WITH_FAILPOINTS
TEST_SUITE("faults") {
  TEST_CASE("a resume killed after any of its system calls loses no line and can be done again") {
    const ScratchFolder folder;
    const auto path = folder / "metrics.jsonl";
    std::string kept, later;
    for (int step = 1; step <= 3; ++step) kept += line_of(step, step).to_json() + "\n";
    for (int step = 4; step <= 6; ++step) later += line_of(step, step).to_json() + "\n";
    for (uint64_t k = 1;; ++k) {
      REQUIRE(k < 100);
      spill(path, kept + later + "{\"st");
      std::filesystem::remove(folder / "metrics.cut.jsonl");
      const int code = run_in_child([&] {
        set_failpoints("", k);
        MetricsWriter writer(path, 3);
      });
      if (code == 0) break;
      const std::string cut = slurp(folder / "metrics.cut.jsonl");
      CHECK((slurp(path).starts_with(kept + later) || (slurp(path) == kept && cut.find(later) != std::string::npos)));
      { MetricsWriter writer(path, 3); }
      CHECK(slurp(path) == kept);
      CHECK(slurp(folder / "metrics.cut.jsonl").find(later) != std::string::npos);
    }
  }
}
#endif
