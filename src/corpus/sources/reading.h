// What the readers of all kinds share: counting records, naming documents, refusing a file that is damaged too much.
#pragma once

#include <string>
#include <string_view>

#include "src/corpus/sources/source.h"

namespace coppice {

class SourceReading {
 public:
  SourceReading(const SourceFile& file, const SourceOptions& source, const ReadLimits& limits,
                const std::function<void(Document&&)>& take, uint64_t* bytes_read);

  const SourceFile& file;
  const SourceOptions& source;
  const ReadLimits& limits;

  void begin_record() { ++report_.records; }
  /// The record at hand holds no document.
  void pass(const std::string& reason) { ++report_.passed[reason]; }
  /// The record at hand is damaged. `place`: its line or offset; `detail` says more than the reason.
  void damage(const std::string& reason, uint64_t place, std::string_view detail);
  /// The document of the record at hand: gets id, source and licence where it has none, beside its text either.
  void take(Document&& document);
  void set_bytes_read(uint64_t bytes);
  /// Whatever follows, the file will be refused.
  bool is_hopeless() const;
  /// UserError::bad_file for too many damaged records; `all` of several is too many as well.
  SourceReport finish(bool refuse_all_damaged);

 private:
  const std::function<void(Document&&)>& take_;
  uint64_t* bytes_read_;
  const uint64_t bytes_before_;
  const std::shared_ptr<const std::string> name_;
  uint64_t num_bad_ = 0;
  SourceReport report_;
};

/// One reader a kind; each leaves the counting of the end to finish().
void read_json_source(SourceReading& reading);
void read_warc_source(SourceReading& reading);  // and wet
void read_parquet_source(SourceReading& reading);
/// html, text, code: the file, or every member of the bundle, is a document.
void read_file_source(SourceReading& reading);

}  // namespace coppice
