#include "src/corpus/classify/mapped_file.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "src/base/errors.h"
#include "src/base/input_file.h"

namespace coppice {

MappedFile::MappedFile(const std::filesystem::path& path) {
  struct Closer {
    int descriptor;
    ~Closer() { ::close(descriptor); }
  } file{open_for_reading(path)};
  struct stat info = {};
  if (::fstat(file.descriptor, &info) != 0) throw_unreadable(path, "cannot be looked at", errno);
  const auto size = static_cast<size_t>(info.st_size);
  if (size == 0) throw UserError::bad_file(path.native(), "is empty");
  void* mapping = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.descriptor, 0);
  if (mapping == MAP_FAILED) throw_unreadable(path, "cannot be mapped", errno);
  bytes_ = {static_cast<const char*>(mapping), size};
}

MappedFile::~MappedFile() { ::munmap(const_cast<char*>(bytes_.data()), bytes_.size()); }

}  // namespace coppice
