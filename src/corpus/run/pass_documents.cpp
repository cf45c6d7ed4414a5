// A record is u32 number, u8 flags (1 page, 2 licence of its source), u64 line, u32 scores, then texts, each u32 bytes
// and the bytes: id, source, text, license, file, fields, metadata; each score is a text and f64. The last record is
// u32 0xFFFFFFFF, u64 count. All little-endian.
#include "src/corpus/run/pass_documents.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <utility>

#include "src/base/errors.h"
#include "src/text/byte_source.h"

namespace coppice {
namespace {

static_assert(std::endian::native == std::endian::little);
constexpr uint32_t kEnd = 0xFFFFFFFF;
enum Flag : uint8_t { kPage = 1, kSourceLicense = 2 };

template <class Number>
void put(std::string& record, Number number) {
  record.append(reinterpret_cast<const char*>(&number), sizeof number);
}

void put_text(std::string& record, const std::string& text) {
  COPPICE_CHECK(text.size() < kEnd, "a member of a document of 4 GiB");
  put(record, static_cast<uint32_t>(text.size()));
  record += text;
}

class RecordBytes {
 public:
  explicit RecordBytes(const std::filesystem::path& path)
      : path_(path), source_(path, ByteSource::Coding::zstd, ByteSource::Ratio::any) {}

  template <class Number>
  Number number() {
    Number number;
    copy(reinterpret_cast<char*>(&number), sizeof number);
    return number;
  }
  std::string text() {
    std::string text(number<uint32_t>(), '\0');
    copy(text.data(), text.size());
    return text;
  }
  uint64_t bytes_read() const { return source_.bytes_read(); }
  void expect_end() {
    if (!block_.empty() || !(block_ = source_.next()).empty()) fail("goes on behind its end");
  }
  [[noreturn]] void fail(const char* why) const { throw UserError::bad_file(path_.string(), why); }

 private:
  void copy(char* out, size_t bytes) {
    while (bytes > 0) {
      if (block_.empty() && (block_ = source_.next()).empty()) fail("ends inside a document");
      const size_t part = std::min(bytes, block_.size());
      std::memcpy(out, block_.data(), part);
      out += part;
      bytes -= part;
      block_.remove_prefix(part);
    }
  }

  std::filesystem::path path_;
  ByteSource source_;
  std::string_view block_;
};

}  // namespace

void PassWriter::write(uint32_t number, const Document& document) {
  record_.clear();
  put(record_, number);
  put(record_,
      static_cast<uint8_t>((document.is_page ? kPage : 0) | (document.is_source_license ? kSourceLicense : 0)));
  put(record_, document.line);
  put(record_, static_cast<uint32_t>(document.scores.size()));
  for (const std::string* text : {&document.id, &document.source, &document.text, &document.license})
    put_text(record_, *text);
  put_text(record_, document.file ? *document.file : "");
  for (const std::string* text : {&document.fields, &document.metadata}) put_text(record_, *text);
  for (const Score& score : document.scores) {
    put_text(record_, score.name);
    put(record_, score.value);
  }
  sink_.write(record_);
  ++count_;
}

void PassWriter::commit() {
  record_.clear();
  put(record_, kEnd);
  put(record_, count_);
  sink_.write(record_);
  sink_.commit();
}

void read_pass(const std::filesystem::path& path, const std::function<void(uint32_t, Document&&)>& take,
               uint64_t* bytes_read) {
  RecordBytes bytes(path);
  std::shared_ptr<const std::string> file;  // shared by the documents behind one another
  uint64_t count = 0;
  for (uint32_t number; (number = bytes.number<uint32_t>()) != kEnd; ++count) {
    Document document;
    const auto flags = bytes.number<uint8_t>();
    document.is_page = (flags & kPage) != 0;
    document.is_source_license = (flags & kSourceLicense) != 0;
    document.line = bytes.number<uint64_t>();
    document.scores.resize(bytes.number<uint32_t>());
    for (std::string* text : {&document.id, &document.source, &document.text, &document.license}) *text = bytes.text();
    if (std::string name = bytes.text(); !file || *file != name) file = std::make_shared<std::string>(std::move(name));
    document.file = file;
    for (std::string* text : {&document.fields, &document.metadata}) *text = bytes.text();
    for (Score& score : document.scores) {
      score.name = bytes.text();
      score.value = bytes.number<double>();
    }
    take(number, std::move(document));
    if (bytes_read != nullptr) *bytes_read = bytes.bytes_read();
  }
  if (bytes.number<uint64_t>() != count) bytes.fail("lacks documents");
  bytes.expect_end();
}

}  // namespace coppice
