// Pages of crawls (responses of status 200 that are HTML) and the texts that Common Crawl makes of them (conversions).
#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/corpus/sources/reading.h"
#include "src/corpus/sources/source_kinds.h"
#include "src/text/ascii_case.h"
#include "src/text/charset.h"
#include "src/text/http_response.h"
#include "src/text/warc.h"

namespace coppice {

namespace {

constexpr uint64_t kMaxPassedOver = uint64_t{1} << 20;  // bytes lost behind damage, whatever the size of the file

std::string_view without_brackets(std::string_view uri) {
  return uri.size() >= 2 && uri.front() == '<' && uri.back() == '>' ? uri.substr(1, uri.size() - 2) : uri;
}

bool is_html(std::string_view content_type) {
  const std::string_view type = trimmed_ascii(content_type.substr(0, content_type.find(';')));
  return equals_ignoring_case(type, "text/html") || equals_ignoring_case(type, "application/xhtml+xml");
}

/// Types of records and statuses as reasons: those that exist, so that a file cannot make up any number of them.
std::string type_reason(std::string_view type) {
  constexpr std::array<std::string_view, 8> kTypes = {"warcinfo", "response", "request",    "metadata",
                                                      "revisit",  "resource", "conversion", "continuation"};
  const auto known =
      std::ranges::find_if(kTypes, [&](std::string_view name) { return equals_ignoring_case(type, name); });
  return "type " + std::string(known == kTypes.end() ? "unknown" : *known);
}

class WarcSource {
 public:
  explicit WarcSource(SourceReading& reading)
      : reading_(reading),
        reader_(reading.file.path, coding_of(reading.file.path), reading.limits.max_document_bytes),
        is_wet_(reading.file.kind == "wet") {}

  void read() {
    WarcRecord record;
    for (WarcReader::Got got; !reading_.is_hopeless() && (got = reader_.next(record)) != WarcReader::Got::end;) {
      reading_.begin_record();
      reading_.set_bytes_read(reader_.bytes_read());
      if (got == WarcReader::Got::damaged)
        reading_.damage(reader_.damage().starts_with("cut short") ? "cut short" : "damaged record", record.offset,
                        reader_.damage());
      else if (is_wet_)
        read_text(record);
      else
        read_page(record);
    }
    reading_.set_bytes_read(reader_.bytes_read());
    check_loss();
  }

 private:
  /// One damaged place counts as one record, however much is lost there: so bytes are looked at as well.
  void check_loss() const {
    std::error_code error;
    const double bytes = static_cast<double>(std::filesystem::file_size(reading_.file.path, error));
    const double allowed = std::max(static_cast<double>(kMaxPassedOver), reading_.limits.max_bad_share * bytes);
    if (reading_.limits.max_bad_share < 1 && static_cast<double>(reader_.passed_over()) > allowed)
      throw UserError::bad_file(
          reading_.file.path.string(),
          fmt::format("{} bytes behind damage hold no record that could be found; fetch the file again, or let "
                      "max_bad_share = 1 leave them out",
                      reader_.passed_over()));
  }

  void read_text(const WarcRecord& record) {
    if (!equals_ignoring_case(record.headers.find("WARC-Type"), "conversion"))
      return reading_.pass(type_reason(record.headers.find("WARC-Type")));
    if (!starts_ignoring_case(record.headers.find("Content-Type"), "text/plain"))
      return reading_.pass("not text/plain");
    if (record.is_oversized) return damage_long(record);
    if (!simdjson::validate_utf8(record.block))
      return reading_.damage("invalid UTF-8", record.offset, "its text is not valid UTF-8");
    Document document = document_of(record);
    document.text = record.block;
    reading_.take(std::move(document));
  }

  void read_page(const WarcRecord& record) {
    if (!equals_ignoring_case(record.headers.find("WARC-Type"), "response"))
      return reading_.pass(type_reason(record.headers.find("WARC-Type")));
    if (!record.headers.find("WARC-Segment-Number").empty()) return reading_.pass("in segments");
    const std::optional<HttpResponse> response = read_http(record.block);
    if (!response) return reading_.pass("not HTTP");
    if (response->status != 200)
      return reading_.pass(response->status >= 100 && response->status < 600
                               ? fmt::format("status {}", response->status)
                               : "status unknown");
    std::string_view type = response->headers.find("Content-Type");
    if (type.empty()) type = record.headers.find("WARC-Identified-Payload-Type");
    if (!is_html(type)) return reading_.pass("not HTML");
    if (record.is_oversized) return damage_long(record);
    const HttpBody body = decode_http(*response, reading_.limits.max_document_bytes);
    if (!body.refused.empty()) return reading_.pass(body.refused);
    if (!body.damage.empty()) return reading_.damage("damaged body", record.offset, body.damage);
    DecodedText decoded = decode_text(body.bytes(), charset_of_page(body.bytes(), type));
    if (decoded.replaced * 10 > decoded.text.size()) return reading_.pass("binary");
    Document document = document_of(record, &*response, decoded.replaced);
    document.text = std::move(decoded.text);
    document.is_page = true;
    reading_.take(std::move(document));
  }

  void damage_long(const WarcRecord& record) {
    reading_.damage(
        "too long", record.offset,
        fmt::format("has {} bytes, at most {} are read", record.length, reading_.limits.max_document_bytes));
  }

  /// Id and metadata; the address of the server is left out.
  Document document_of(const WarcRecord& record, const HttpResponse* response = nullptr, uint64_t replaced = 0) {
    nlohmann::ordered_json metadata;
    const auto add = [&](const char* name, std::string_view value) {
      if (!value.empty()) metadata[name] = value;
    };
    add("url", without_brackets(record.headers.find("WARC-Target-URI")));
    add("date", record.headers.find("WARC-Date"));
    std::string_view digest = record.headers.find("WARC-Payload-Digest");
    if (digest.empty()) digest = record.headers.find("WARC-Block-Digest");
    add("digest", digest);
    add("truncated", record.headers.find("WARC-Truncated"));
    if (response != nullptr) {
      add("x_robots_tag", response->headers.join("X-Robots-Tag"));
      add("tdm_reservation", response->headers.find("TDM-Reservation"));
    }
    if (replaced > 0) metadata["replaced_characters"] = replaced;
    Document document;
    document.id = printable(record.headers.find("WARC-Record-ID"));
    document.line = record.number;
    if (!metadata.empty()) {
      const std::string members = metadata.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
      document.metadata = members.substr(1, members.size() - 2);
    }
    return document;
  }

  SourceReading& reading_;
  WarcReader reader_;
  const bool is_wet_;
};

}  // namespace

void read_warc_source(SourceReading& reading) { WarcSource(reading).read(); }

}  // namespace coppice
