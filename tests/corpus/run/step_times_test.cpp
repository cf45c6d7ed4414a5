// What a pass says of the time that its steps took.
#include "src/corpus/run/step_times.h"

#include <doctest/doctest.h>

#include "src/corpus/run/document_chain.h"

using namespace coppice;

TEST_SUITE("unit") {
  TEST_CASE("step times: sums over files, in the order of the steps; a step that saw nothing is passed over") {
    StepTimes times;
    times.add({{"extract", 0.5, 1'000}, {"never", 0, 0}, {"quality", 0.4, 500}});
    CHECK(times.text().empty());
    times.add({{"extract", 1.5, 30'000'000}, {"never", 0, 0}, {"quality", 0.6, 18'000'000}});
    times.add({{"extract", 60.0, 32'000'000}, {"never", 0, 0}, {"quality", 1.0, 22'000'000}});
    CHECK(times.text() == "CPU time: extract 1:02 (1.0 MB/s), quality 0:02 (20.0 MB/s)");
  }

  TEST_CASE("step times: a chain counts the text that came to each link, also what one of them removes") {
    struct Shortens : DocumentLook {
      bool look(Document& document, std::span<double> values, bool) override {
        values[0] = document.text.size() < 4;
        document.text.pop_back();
        return true;
      }
    } look;
    const CorpusStep first{.name = "first", .rules = {{.name = "short", .most = 0}}},
        second{.name = "second", .rules = {{.name = "short", .most = 0}}};
    DocumentChain chain({{.step = &first, .look = &look}, {.step = &second, .look = &look}}, {});
    for (const char* text : {"five5", "abc"}) {
      Document document{.text = text};
      chain.look(document, /*all=*/false);
    }
    REQUIRE(chain.times().size() == 2);
    CHECK(chain.times()[0].step == "first");
    CHECK(chain.times()[0].text_bytes == 8);
    CHECK(chain.times()[1].text_bytes == 4);
    CHECK(chain.times()[0].seconds > 0);
  }
}
