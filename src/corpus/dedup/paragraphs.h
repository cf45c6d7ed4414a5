// Long lines that several documents share (Lee et al. 2022, "Deduplicating training data makes language models better",
// cut repeated substrings; here whole lines): which places of them are cut. Counts are exact, and 16 bytes a line.
//   <folder>/notes/<file>.lines.<k>   {hash of a line, record << 32 | line}, sorted, of some documents
//   <folder>/notes/<file>.count       {documents, files of lines}; written last
//   <folder>/groups/lines-...         {document among all << 32 | line} that is cut
//   <folder>/cuts/<file>              {record << 32 | line} that is cut, in order
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string_view>
#include <vector>

#include "src/corpus/dedup/record_file.h"
#include "src/corpus/step.h"

namespace coppice {

struct ParagraphOptions {
  int64_t min_chars = 200;    // code points of a line that counts
  int64_t min_documents = 3;  // that a line is found in when it is cut

  uint64_t owner() const;
};

std::unique_ptr<GroupNotes> note_lines(const GroupPlace& place, uint32_t file, const ParagraphOptions& options);
uint32_t num_line_parts(const GroupPlace& place, const ParagraphOptions& options);
/// Of the places of a line in min_documents documents and more the first stays, by the priority of its source first.
void write_line_part(const GroupPlace& place, const ParagraphOptions& options, uint32_t part);
void settle_lines(const GroupPlace& place, const ParagraphOptions& options);

/// The lines of a file's documents that are cut.
class LineCuts {
 public:
  LineCuts(const GroupPlace& place, uint32_t file, const ParagraphOptions& options);
  /// Numbers of lines, ascending, of a document; asked for by ascending records.
  std::vector<uint64_t> find(uint64_t record);
  [[noreturn]] void damaged(const std::string& what) const { reader_.damaged(what); }

 private:
  RecordReader reader_;
  uint64_t next_ = 0;
};

/// Calls visit(line) for what lies between line feeds, each with its own behind it.
template <class Visit>
void for_each_line(std::string_view text, const Visit& visit) {
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size() - 1) + 1;
    visit(text.substr(begin, end - begin));
    begin = end;
  }
}
/// Code points.
int64_t num_chars(std::string_view text);

}  // namespace coppice
