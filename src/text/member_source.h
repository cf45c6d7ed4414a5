// Bytes of a plain, .gz or .zst file, one gzip member or zstd frame after another, that go on behind damage: for files
// whose members stand for themselves, as those of a WARC file do. ByteSource reads files that are whole or nothing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "src/text/byte_source.h"

namespace coppice {

class MemberSource {
 public:
  enum class Event {
    bytes,       // some of a member
    member_end,  // what came since the last one was a whole member, and its checksum holds
    damaged,     // the member is not to be trusted; the next bytes are those of the next one that could be found
    end,
  };
  /// Only regular files. The ratio and window limits of ByteSource; UserError::bad_file for a bomb, IoError when the
  /// system cannot read.
  MemberSource(std::filesystem::path path, ByteSource::Coding coding);
  ~MemberSource();
  /// With Event::bytes a block that is not empty, valid until the next call. A plain file has no members.
  Event next(std::string_view& bytes);
  bool at_member_end() const;         // the next event is member_end, and leaves the last block valid
  const std::string& damage() const;  // what was wrong, after Event::damaged
  /// Where the member that the last bytes came from begins in the file; of a plain file, where those bytes begin.
  uint64_t offset() const;
  uint64_t passed_over() const;  // bytes of the file that were skipped behind damage
  uint64_t bytes_read() const;   // of the file as it lies on disk, so far

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace coppice
