// A folder of its own for each test, gone with it; whole files in and out.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace coppice {

inline std::string slurp(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// Overwrites the file, or makes it and its folders.
inline void spill(const std::filesystem::path& path, std::string_view bytes) {
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

struct ScratchFolder {
  const std::filesystem::path path;

  explicit ScratchFolder(std::string_view name = "test") : path(next_path(name)) {
    std::filesystem::remove_all(path);
    std::filesystem::create_directories(path);
  }
  ~ScratchFolder() {
    std::error_code error;
    std::filesystem::remove_all(path, error);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  std::filesystem::path operator/(std::string_view name) const { return path / name; }
  std::filesystem::path write(const std::string& name, std::string_view bytes) const {
    spill(path / name, bytes);
    return path / name;
  }
  /// Of what lies in it, sorted.
  std::vector<std::string> names() const {
    std::vector<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(path)) found.push_back(entry.path().filename());
    std::sort(found.begin(), found.end());
    return found;
  }

 private:
  static std::filesystem::path next_path(std::string_view name) {
    static int count = 0;
    return std::filesystem::temp_directory_path() /
           ("coppice-" + std::string(name) + "-" + std::to_string(::getpid()) + "-" + std::to_string(count++));
  }
};

}  // namespace coppice
