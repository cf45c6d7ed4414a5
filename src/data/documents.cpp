// Reading a corpus: JSONL (plain, gzip, zstd) through simdjson on-demand, text files as one document each, folders in sorted order.
#include "src/data/documents.h"

#include <fmt/format.h>
#include <simdjson.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <vector>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/input_file.h"
#include "src/base/log.h"
#include "src/data/byte_source.h"

namespace coppice {

namespace {

namespace fs = std::filesystem;
namespace ondemand = simdjson::ondemand;

constexpr int kMaxDepth = 64;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

enum class Kind { text, jsonl, jsonl_gz, jsonl_zst, other };

Kind kind_of(const fs::path& path) {
  const std::string name = path.filename().string();
  if (name.ends_with(".txt")) return Kind::text;
  if (name.ends_with(".jsonl")) return Kind::jsonl;
  if (name.ends_with(".jsonl.gz")) return Kind::jsonl_gz;
  if (name.ends_with(".jsonl.zst")) return Kind::jsonl_zst;
  return Kind::other;
}

/// Walks a value that is not kept, so that its syntax and depth are checked as well (on-demand parsing looks at nothing it is not asked for).
void check_value(ondemand::value value, int depth) {
  if (depth > kMaxDepth) throw simdjson::simdjson_error(simdjson::DEPTH_ERROR);
  switch (value.type()) {
    case ondemand::json_type::array:
      for (ondemand::value element : value.get_array()) check_value(element, depth + 1);
      break;
    case ondemand::json_type::object:
      for (auto field : value.get_object()) {
        (void)std::string_view(field.unescaped_key());
        check_value(field.value(), depth + 1);
      }
      break;
    case ondemand::json_type::number:
      (void)double(value.get_double());  // of any size: it is not kept
      break;
    case ondemand::json_type::string:
      (void)std::string_view(value.get_string());
      break;
    case ondemand::json_type::boolean:
      (void)bool(value.get_bool());
      break;
    case ondemand::json_type::null:
      if (!value.is_null()) throw simdjson::simdjson_error(simdjson::INCORRECT_TYPE);
      break;
  }
}

class Problem : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

void set_once(bool& seen, const char* name) {
  if (seen) throw Problem(fmt::format("\"{}\" occurs twice", name));
  seen = true;
}

std::string string_of(ondemand::value value, const char* name) {
  if (value.type() != ondemand::json_type::string) throw Problem(fmt::format("\"{}\" is no string", name));
  return std::string(std::string_view(value.get_string()));
}

Document parse_record(ondemand::parser& parser, std::string_view line) {
  ondemand::document json = parser.iterate(line.data(), line.size(), line.size() + LineReader::kPadding);
  if (json.type() != ondemand::json_type::object) throw Problem("expected one JSON object on the line");
  Document document;
  bool has_text = false, has_id = false, has_source = false, has_metadata = false;
  for (auto field : json.get_object()) {
    const std::string key{std::string_view(field.unescaped_key())};
    ondemand::value value = field.value();
    if (key == "text") {
      set_once(has_text, "text");
      document.text = string_of(value, "text");
    } else if (key == "id") {
      set_once(has_id, "id");
      if (value.type() == ondemand::json_type::number) {
        document.id = std::to_string(int64_t(value.get_int64()));
      } else {
        document.id = string_of(value, "id");
      }
    } else if (key == "source") {
      set_once(has_source, "source");
      document.source = string_of(value, "source");
    } else if (key == "metadata" && value.type() == ondemand::json_type::object) {
      set_once(has_metadata, "metadata");
      for (auto entry : value.get_object()) {
        const std::string_view name = entry.unescaped_key();
        ondemand::value inner = entry.value();
        if (name == "license" && inner.type() == ondemand::json_type::string) {
          document.license = string_of(inner, "license");
        } else {
          check_value(inner, 3);
        }
      }
    } else {
      check_value(value, 2);
    }
  }
  if (json.current_location().error() != simdjson::OUT_OF_BOUNDS) throw Problem("text after the JSON object");
  if (!has_text) throw Problem("no field \"text\"");
  return document;
}

class CorpusReader {
 public:
  CorpusReader(const std::function<void(Document&&)>& visit, uint64_t* bytes_read) : visit_(visit), bytes_read_(bytes_read) {}

  void read(const fs::path& path, const std::string& relative) {
    switch (kind_of(path)) {
      case Kind::text:
        return read_text(path, relative);
      case Kind::jsonl:
        return read_jsonl(path, relative, ByteSource::Coding::plain);
      case Kind::jsonl_gz:
        return read_jsonl(path, relative, ByteSource::Coding::gzip);
      case Kind::jsonl_zst:
        return read_jsonl(path, relative, ByteSource::Coding::zstd);
      case Kind::other:
        throw UserError::bad_file(path.string(), "expected a folder or a file ending in .jsonl, .jsonl.zst, .jsonl.gz or .txt");
    }
  }

  uint64_t num_documents() const { return num_documents_; }

 private:
  void emit(Document&& document, const std::string& relative, uint64_t record) {
    if (document.text.empty()) return;  // holds no token
    if (document.id.empty()) document.id = fmt::format("{}#{}", relative, record);
    if (document.source.empty()) document.source = relative;
    ++num_documents_;
    visit_(std::move(document));
  }

  void read_text(const fs::path& path, const std::string& relative) {
    Document document;
    document.text = read_file(path, kMaxDocumentBytes);
    if (bytes_read_ != nullptr) *bytes_read_ += document.text.size();
    if (document.text.starts_with(kByteOrderMark)) document.text.erase(0, kByteOrderMark.size());
    if (!simdjson::validate_utf8(document.text)) throw UserError::bad_file(path.string(), "record 1: the text is not valid UTF-8");
    emit(std::move(document), relative, 1);
  }

  void read_jsonl(const fs::path& path, const std::string& relative, ByteSource::Coding coding) {
    LineReader lines(path, coding, kMaxDocumentBytes);
    std::string_view line;
    const uint64_t before = bytes_read_ == nullptr ? 0 : *bytes_read_;
    uint64_t record = 0;
    while (lines.next(line)) {
      if (bytes_read_ != nullptr) *bytes_read_ = before + lines.bytes_read();
      if (lines.line_number() == 1 && line.starts_with(kByteOrderMark)) line.remove_prefix(kByteOrderMark.size());
      if (line.find_first_not_of(" \t") == std::string_view::npos) continue;
      ++record;
      Document document;
      try {
        document = parse_record(parser_, line);
      } catch (const simdjson::simdjson_error& error) {
        throw UserError::bad_file(path.string(), fmt::format("record {} (line {}): bad JSON: {}", record, lines.line_number(), error.what()));
      } catch (const Problem& problem) {
        throw UserError::bad_file(path.string(), fmt::format("record {} (line {}): {}", record, lines.line_number(), problem.what()));
      }
      emit(std::move(document), relative, record);
    }
  }

  const std::function<void(Document&&)>& visit_;
  uint64_t* bytes_read_;
  ondemand::parser parser_;
  uint64_t num_documents_ = 0;
};

}  // namespace

std::vector<std::string> corpus_files(const fs::path& folder, size_t* num_left_out) {
  std::vector<std::string> names;
  size_t others = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    std::error_code unknown;
    const fs::file_type type = entry->status(unknown).type();
    if (type == fs::file_type::directory) continue;
    const bool has_ending = kind_of(entry->path()) != Kind::other;
    if (has_ending && (type == fs::file_type::none || type == fs::file_type::not_found))
      throw UserError::bad_file(entry->path().string(), unknown ? unknown.message() : "a link that leads nowhere");
    if (!has_ending || type != fs::file_type::regular) {  // a FIFO of such a name would hang its reader
      ++others;
      continue;
    }
    names.push_back(entry->path().lexically_relative(folder).generic_string());
  }
  if (error) throw UserError::bad_file(folder.string(), "cannot list the folder: " + error.message());
  std::sort(names.begin(), names.end());
  if (num_left_out != nullptr) *num_left_out = others;
  return names;
}

uint64_t stored_bytes(const fs::path& path) {
  const auto bytes_of = [](const fs::path& file) {
    std::error_code error;
    const uint64_t bytes = fs::file_size(file, error);
    if (error) throw UserError::bad_file(file.string(), error.message());
    return bytes;
  };
  std::error_code error;
  if (!fs::is_directory(path, error)) return bytes_of(path);
  uint64_t bytes = 0;
  for (const std::string& name : corpus_files(path)) bytes += bytes_of(path / name);
  return bytes;
}

uint64_t for_each_document(const fs::path& path, const std::function<void(Document&&)>& visit, uint64_t* bytes_read) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (error || !fs::exists(status)) throw UserError::bad_file(path.string(), "no such file or folder" + searched_from(path));
  CorpusReader reader(visit, bytes_read);
  if (!fs::is_directory(status)) {
    reader.read(path, path.filename().string());
  } else {
    size_t num_left_out = 0;
    const std::vector<std::string> names = corpus_files(path, &num_left_out);
    if (num_left_out > 0) log_warning(fmt::format("{}: {} files are no .jsonl, .jsonl.zst, .jsonl.gz or .txt and were left out", path.string(), num_left_out));
    for (const std::string& name : names) reader.read(path / name, name);
  }
  if (reader.num_documents() == 0) throw UserError::bad_file(path.string(), "holds no document with text");
  return reader.num_documents();
}

uint64_t document_hash(std::string_view id) { return XXH3_64bits(id.data(), id.size()); }

uint64_t sample_hash(std::string_view id) { return XXH3_64bits_withSeed(id.data(), id.size(), 0x73616d706c65); }  // "sample"

bool is_heldout(std::string_view id, double heldout_share) { return static_cast<double>(document_hash(id) >> 11) * 0x1p-53 < heldout_share; }

}  // namespace coppice
