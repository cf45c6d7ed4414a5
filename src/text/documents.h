// Documents: what the corpus is made of, read from JSON and text files or a folder of them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace coppice {

/// Why a document goes: the rule, and what decided where the rule measures something.
struct Removal {
  std::string rule;
  std::optional<double> value = {}, threshold = {};
  std::string details = {};  // more members of its record, without braces: `"kept_id":"a","similarity":0.91`
};

/// What a step has measured of a document.
struct Score {
  std::string name;
  double value = 0;
};

struct Document {
  std::string id;       // stable: kept from the input or <relative path>#<record number>
  std::string source;   // where it came from
  std::string text;     // valid UTF-8
  std::string license;  // metadata.license; may be empty
  // Where it was read: the file, relative to the corpus folder, and the line it begins on (0: the file is the
  // document).
  std::shared_ptr<const std::string> file = nullptr;
  uint64_t line = 0;
  bool is_page = false;            // the text is HTML as it was fetched: nothing but a step that extracts reads it
  bool is_source_license = false;  // `license` is its source's, by which documents go that name none themselves
  // With CorpusOptions::keep_fields: members of the line, and of its "metadata", that nothing here knows, as they stand
  // there and in their order, ready to be written again: `"url":"https://...","n":1e400`.
  std::string fields, metadata;
  std::vector<Score> scores;     // metadata.scores
  std::vector<Removal> removed;  // why it goes; empty: it stays
};

inline constexpr uint64_t kMaxDocumentBytes = uint64_t{64} << 20;
inline constexpr const char* kCorpusEndings = ".jsonl, .ndjson, .json (each also with .gz or .zst behind it) or .txt";

struct CorpusOptions {
  std::string text_key = "text";         // the field that holds the text
  std::string text_option = "text_key";  // what named it, for messages
  int64_t max_bad = -1;  // bad records of a file that are left out; -1: the larger of 100 and 0.1%, and no text file in
                         // another encoding
  bool keep_fields = false;  // of lines, for whoever writes the documents again
};

/// Records of one file (or text files of one folder) that are no documents.
struct BadRecords {
  std::string file;
  uint64_t bad = 0, records = 0;
  std::vector<std::string> first;  // file:line: reason; ten at most
};

/// What there was in a corpus besides documents.
struct CorpusReport {
  uint64_t documents = 0;
  uint64_t empty = 0;                    // records whose text is ""
  std::vector<std::string> other_files;  // below the folder, not read
  uint64_t json_files = 0;               // read, in which text_key counts
  std::vector<BadRecords> bad;           // only files that have some
  uint64_t num_bad() const;
};

/// Calls `visit` for every document of a file or folder (recursive, files in sorted order). Endings in capitals are the
/// same.
///   .jsonl, .ndjson    one object a line: {"text", "id"?, "source"?, "metadata"?: {"license"?}}
///   .json              one array of such objects, or one a line
///   .txt               one document, blank lines and all
/// A byte order mark at the start is passed over. Bad records (no JSON, no text, invalid UTF-8, nested deeper than 64,
/// longer than 64 MB) are left out and reported, as many as options.max_bad lets a file have. UserError::bad_file
/// naming file and first records for more, for no document at all, for a file in another encoding, for a torn array, a
/// damaged or cut off .gz or .zst, a decompression ratio above 1000. `bytes_read`, where given, grows up to
/// stored_bytes(path) on the way.
CorpusReport for_each_document(const std::filesystem::path& path, const std::function<void(Document&&)>& visit,
                               const CorpusOptions& options = {}, uint64_t* bytes_read = nullptr);
/// Warnings for what a person should know of the report.
void log_corpus_report(const std::filesystem::path& path, const CorpusReport& report, const CorpusOptions& options);

/// The files below a folder that for_each_document reads: relative, in generic form, in its order; a .json that is one
/// object over several lines is none. Of a corpus (documents_folder) those of its documents. `left_out`, where given:
/// those that it does not read. UserError::bad_file for a folder that cannot be listed and a link that leads nowhere.
std::vector<std::string> corpus_files(const std::filesystem::path& folder,
                                      std::vector<std::string>* left_out = nullptr);
/// Of a corpus file, or of all files that are read below a folder, as they lie on disk.
uint64_t stored_bytes(const std::filesystem::path& path);

/// XXH3-64 of the text without white space at its ends: equal texts have equal hashes.
uint64_t text_hash(std::string_view text);
/// XXH3-64 of a document id: the key of the held-out split and of token shards.
uint64_t document_hash(std::string_view id);
/// A second hash of the id, for samples: what is kept by it holds the same share of held-out documents as the whole.
uint64_t sample_hash(std::string_view id);
/// Held-out by id hash alone: the same documents for every recipe with the same share (a share in [0, 1)).
bool is_heldout(std::string_view id, double heldout_share);
/// For tuning by id hash alone, from the other end of the hashes: whatever its share, no recipe holds such a document
/// out while both shares are below 0.5.
bool is_tuning(std::string_view id, double tuning_share);

}  // namespace coppice
