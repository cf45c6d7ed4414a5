// A map step looks at one document at a time: it keeps it, changes it in place, or drops it and says why.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "src/text/documents.h"

namespace coppice {

struct Decision {
  enum class Kind { keep, change, drop };
  Kind kind = Kind::keep;
  Removal removal;  // of a drop

  static Decision keep() { return {}; }
  static Decision change() { return {.kind = Kind::change}; }
  static Decision drop(std::string rule, std::optional<double> value = {}, std::optional<double> threshold = {}) {
    return {.kind = Kind::drop, .removal = {std::move(rule), value, threshold}};
  }
};

/// May hold what it needs to remember of the documents of one output file; it sees them in their order.
using MapStep = std::function<Decision(Document& document)>;

}  // namespace coppice
