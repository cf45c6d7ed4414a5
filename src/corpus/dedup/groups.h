// Which documents meet: equal hashes of what was noted, by parts of the hashes that know nothing of one another.
// <folder>/groups/:
//   exact-<part>-of-<parts>   {the copy that stays, a copy} for the exact copies of a text
//   bands-<part>-of-<parts>   {the first, a document} of those that share a band, the first with itself at the start
// as pairs of u32 numbers among all documents.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>

#include "src/corpus/dedup/notes.h"
#include "src/corpus/step.h"

namespace coppice {

using DocumentPair = std::array<uint32_t, 2>;

/// How many parts there are: as many as memory asks for.
struct GroupParts {
  uint32_t exact = 1, bands = 1;
};
GroupParts group_parts(const GroupPlace& place, const NotedDocuments& documents, const SignatureShape& shape);

/// Part `part` of exact + bands. Of exact copies a reference stays, else the one of the smallest priority, keep value
/// and number, in this order.
void write_group_part(const GroupPlace& place, const NotedDocuments& documents, const GroupParts& parts, uint32_t part,
                      uint64_t owner);

/// Calls visit(pairs of a block) over a kind's parts, in order.
template <class Visit>
void for_each_pair(const GroupPlace& place, const char* kind, uint32_t parts, uint64_t owner, uint64_t documents,
                   const Visit& visit);

std::filesystem::path group_path(const GroupPlace& place, const char* kind, uint32_t part, uint32_t parts);

template <class Visit>
void for_each_pair(const GroupPlace& place, const char* kind, uint32_t parts, uint64_t owner, uint64_t documents,
                   const Visit& visit) {
  std::vector<DocumentPair> block;
  for (uint32_t part = 0; part < parts; ++part) {
    RecordReader reader(group_path(place, kind, part, parts), sizeof(DocumentPair), owner);
    for (uint64_t done = 0; done < reader.count(); done += block.size()) {
      block.resize(std::min<uint64_t>(8192, reader.count() - done));
      reader.read(done, block.size(), block.data());
      for (const DocumentPair& pair : block) {
        if (pair[0] >= documents || pair[1] >= documents) reader.damaged("a document that is not there");
        visit(pair);
      }
    }
  }
}

}  // namespace coppice
