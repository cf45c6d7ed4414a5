// Long lines that several documents share (Lee et al. 2022, "Deduplicating training data makes language models better",
// cut repeated substrings; here whole lines): which places of them are cut. Counts are exact, and 16 bytes a line.
//   <folder>/notes/<file>.lines.<k>   {hash of a long line, record << 32 | its number among those of the document},
//                                     sorted, of some documents
//   <folder>/notes/<file>.chars       code points of each document, how many long lines it has, those of each
//   <folder>/notes/<file>.count       {documents, files of lines}; written last
//   <folder>/groups/lines-...         {document among all << 32 | long line} that is cut
//   <folder>/cuts/<file>              {record << 32 | long line} that is cut, in order
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
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

/// What is cut of a document.
struct DocumentCuts {
  std::vector<uint32_t> lines;  // numbers among its long lines, ascending
  uint32_t long_lines = 0;      // that it has
  double lost = 0;              // share of its code points
};

class LineCuts {
 public:
  LineCuts(const GroupPlace& place, uint32_t file, const ParagraphOptions& options);
  DocumentCuts next();  // of the documents in their order
  [[noreturn]] void damaged(const std::string& what) const { cuts_.damaged(what); }

 private:
  uint32_t next_chars();

  RecordReader cuts_, chars_;
  uint64_t record_ = 0, next_cut_ = 0, next_char_ = 0;
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
/// Whether a line, with its line feed, is one that counts.
bool is_long(std::string_view line, const ParagraphOptions& options);

}  // namespace coppice
