// What ends a stage that learns masks, and what it is only warned of.
#include "recipes/stages/mask_watch.h"

#undef CHECK  // c10's, which aborts
#include <doctest/doctest.h>

#include "pruning/mask_options.h"
#include "src/base/errors.h"

using namespace coppice;

TEST_SUITE("unit") {
  TEST_CASE("collapse: unless told otherwise no decision ends the run, and with channels one as good as by chance") {
    for (const std::string& name : axis_names()) {
      CAPTURE(name);
      const CutAxis axis = *find_axis(name);
      CollapseWatch watch("masks", MaskOptions().on_collapse == "stop", axis);
      for (const auto trouble : {CollapseWatch::undecided, CollapseWatch::no_better_than_random, CollapseWatch::early})
        CHECK_NOTHROW(watch.found(trouble, ""));
      CHECK_NOTHROW(watch.found(CollapseWatch::early, "stopped moving"));
      CHECK_THROWS_AS(watch.found(CollapseWatch::undecided, "has not decided"), DivergedError);
      const auto by_chance = [&] { watch.found(CollapseWatch::no_better_than_random, "no better"); };
      if (axis == CutAxis::ffn)
        CHECK_THROWS_AS(by_chance(), DivergedError);
      else
        CHECK_NOTHROW(by_chance());  // of few units one draw may be the best there is
      CollapseWatch goes_on("masks", false, axis);
      for (const auto trouble : {CollapseWatch::undecided, CollapseWatch::no_better_than_random, CollapseWatch::early})
        CHECK_NOTHROW(goes_on.found(trouble, "trouble"));
    }
  }
}
