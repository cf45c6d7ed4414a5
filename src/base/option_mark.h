// What becomes of an option: each line of a visit_fields() says it, field(name, value, mark, help).
#pragma once

namespace coppice {

enum class Mark {
  decides,   // the result: part of the identity of what it is an option of
  cadence,   // when to look, save, print or give up: changes no weight
  rounding,  // how the work is split: the last bits at most
  place,     // a path, or the name of something else that has an identity of its own
};

}  // namespace coppice
