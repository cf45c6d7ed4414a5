// A whole file mapped for reading: what is large and read by many processes lies in memory once.
#pragma once

#include <filesystem>
#include <string_view>

namespace coppice {

class MappedFile {
 public:
  /// UserError::bad_file for a file that is missing, empty or no regular file.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  std::string_view bytes() const { return bytes_; }

 private:
  std::string_view bytes_;
};

}  // namespace coppice
