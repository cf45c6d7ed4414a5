#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz/target.h"

namespace coppice::fuzz {

MemoryFile::MemoryFile()
    : descriptor_(::memfd_create("input", 0)), path_(fmt::format("/proc/self/fd/{}", descriptor_)) {}

const std::string& MemoryFile::write(std::string_view bytes) {
  const bool good = ::ftruncate(descriptor_, 0) == 0 &&
                    ::pwrite(descriptor_, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size());
  if (!good) std::abort();
  return path_;
}

}  // namespace coppice::fuzz
