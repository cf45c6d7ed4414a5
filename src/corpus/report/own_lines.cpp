#include "src/corpus/report/own_lines.h"

#include <string>

#include "src/base/errors.h"
#include "src/text/byte_source.h"

namespace coppice {

void for_each_own_line(const std::filesystem::path& path,
                       const std::function<void(std::string_view line, uint64_t number)>& take) {
  ByteSource source(path, ByteSource::Coding::zstd, ByteSource::Ratio::any);
  std::string line;
  uint64_t number = 0;
  for (std::string_view block = source.next(); !block.empty(); block = source.next()) {
    for (size_t end = block.find('\n'); end != std::string_view::npos; end = block.find('\n')) {
      line.append(block.substr(0, end));
      block.remove_prefix(end + 1);
      const size_t bytes = line.size();
      line.append(LineReader::kPadding, '\0');
      take(std::string_view(line).substr(0, bytes), ++number);
      line.clear();
    }
    line.append(block);
  }
  if (!line.empty()) throw UserError::bad_file(path.string(), "ends inside a line");
}

}  // namespace coppice
