// From what meets to what goes: exact copies first, then the components of documents that share bands, one by one. In
// memory there are 8 bytes a document and a part of the components at a time.
#pragma once

#include <cstdint>
#include <filesystem>

#include "src/corpus/dedup/notes.h"
#include "src/corpus/step.h"

namespace coppice {

enum class Verify { none, signature, text };

struct SettleOptions {
  NoteOptions notes;
  std::filesystem::path against;  // notes of an older run; may be empty
  Verify verify = Verify::signature;
  bool connected = false;  // whole components go, not only documents that are similar to one that stays
  double min_similarity = 0.7;
};

/// A component of more documents is verified by signatures, also with Verify::text.
inline constexpr size_t kMostCompareTexts = 100;

/// All parts of the groups are there. Writes the decisions about every file of this run (decisions.h), for a later run
/// which documents are left (notes.h), and <folder>/clusters.jsonl.zst, the last to appear:
///   {"cluster": number of its head among all documents, "id", "source"?, "file"?, "kept": true or false,
///   "similarity"?}
/// of every member of a cluster, references too, which have no source and file, in the order of the documents.
/// UserError::recipe when memory_bytes does not hold the documents, or one component, saying what does.
void settle_groups(const GroupPlace& place, const SettleOptions& options);
/// Bytes of memory below which it refuses so many documents.
uint64_t least_settle_memory(uint64_t documents);

}  // namespace coppice
