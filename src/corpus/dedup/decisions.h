// What is to become of the documents of a file that are in clusters of two and more.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "src/corpus/dedup/record_file.h"

namespace coppice {

struct Decision {
  enum class Kind : uint32_t { head, exact, near, unmeasured };  // the head stays, the others are copies of it
  Kind kind = Kind::head;
  uint64_t record = 0;     // the document within its file
  uint64_t copies = 0;     // of a head: documents of its cluster, itself among them
  float similarity = 0;    // of a near copy to its head
  bool reference = false;  // the head is of an older run
  uint32_t head_file = 0;
  uint64_t head_record = 0;
};

/// `,"similarity":0.91`, or nothing where none was measured or it is a head.
std::string similarity_member(const Decision& decision);

class DecisionWriter {
 public:
  DecisionWriter(const std::filesystem::path& folder, uint32_t file, uint64_t owner);
  void write(const Decision& decision);  // by ascending records
  void commit() { writer_.commit(); }

 private:
  RecordWriter writer_;
};

class DecisionReader {
 public:
  DecisionReader(const std::filesystem::path& folder, uint32_t file, uint64_t owner);
  /// About a document, asked for by ascending records; nothing where it is in no cluster.
  std::optional<Decision> find(uint64_t record);

 private:
  bool read_next();

  RecordReader reader_;
  uint64_t next_ = 0;
  std::optional<Decision> waiting_;
};

}  // namespace coppice
