// What the fuzz targets share. A parser may refuse its input with a UserError and do nothing else: any other exception,
// a crash, a hang or a sanitizer's word is a finding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "src/base/errors.h"

namespace coppice::fuzz {

/// Calls parse(bytes); what it returns is thrown away.
template <class Parse>
int run(const uint8_t* data, size_t size, const Parse& parse) {
  try {
    parse(std::string_view(reinterpret_cast<const char*>(data), size));
  } catch (const UserError&) {
  }
  return 0;
}

/// A file in memory under a path, for parsers that open what they read: written anew for each input.
class MemoryFile {
 public:
  MemoryFile();
  const std::string& write(std::string_view bytes);  // the path

 private:
  int descriptor_;
  std::string path_;
};

}  // namespace coppice::fuzz
