// Documents: what the corpus is made of, read from .jsonl, .jsonl.zst, .jsonl.gz, .txt or a folder of them; written as JSONL.zst.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace coppice {

struct Document {
  std::string id;       // stable: kept from the input or <relative path>#<record number>
  std::string source;   // where it came from
  std::string text;     // valid UTF-8
  std::string license;  // metadata.license; may be empty
};

inline constexpr uint64_t kMaxDocumentBytes = uint64_t{64} << 20;

/// Calls `visit` for every document of a file or folder (recursive, files in sorted order; other endings are left out with a warning). A .jsonl line is
/// {"text", "id"?, "source"?, "metadata"?: {"license"?}}; a .txt file is one document, blank lines and all; an empty text is no document. UserError::bad_file
/// naming file and record for: missing or empty input, no document, invalid UTF-8 or JSON, a line above 64 MB, a decompression ratio above 1000. Returns the
/// number of documents. `bytes_read`, where given, grows up to stored_bytes(path) on the way.
uint64_t for_each_document(const std::filesystem::path& path, const std::function<void(Document&&)>& visit, uint64_t* bytes_read = nullptr);

/// The files below a folder that for_each_document reads: relative, in generic form, in its order. `num_left_out`, where given: how many it does not read.
/// UserError::bad_file for a folder that cannot be listed and a link that leads nowhere.
std::vector<std::string> corpus_files(const std::filesystem::path& folder, size_t* num_left_out = nullptr);
/// Of a corpus file, or of all files that are read below a folder, as they lie on disk.
uint64_t stored_bytes(const std::filesystem::path& path);

/// Writes documents as JSONL.zst {"id","source","text","metadata":{"license"}}; commit() renames into place.
class DocumentWriter {
 public:
  explicit DocumentWriter(std::filesystem::path path);
  ~DocumentWriter();
  void write(const Document& document);
  void commit();
  uint64_t text_bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Body text of an HTML page through libgumbo: scripts, styles, navigation dropped, blocks separated by newlines, title first; depth limited.
/// UserError::bad_file naming `path` for a page of more than 64 MB or with thousands of elements open at once.
std::string html_to_text(std::string_view html, const std::filesystem::path& path = "HTML");

/// XXH3-64 of a document id: the key of the held-out split and of token shards.
uint64_t document_hash(std::string_view id);
/// A second hash of the id, for samples: what is kept by it holds the same share of held-out documents as the whole.
uint64_t sample_hash(std::string_view id);
/// Held-out by id hash alone: the same documents for every recipe with the same share (a share in [0, 1)).
bool is_heldout(std::string_view id, double heldout_share);

}  // namespace coppice
