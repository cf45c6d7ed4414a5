// The error that is expected.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "src/base/errors.h"

namespace coppice {

/// Exit code and text of an error.
struct Caught {
  int code = 0;
  std::string text;
  bool says(std::string_view part) const { return text.find(part) != std::string::npos; }
};

/// The error that `body` throws; code 0 when it throws none.
inline Caught caught(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return {static_cast<int>(error.code()), error.what()};
  }
  return {};
}

}  // namespace coppice
