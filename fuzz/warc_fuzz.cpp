// A WARC file to pages: its first byte says how it is packed. Records, responses, their encodings and charsets.
#include "src/text/warc.h"

#include "fuzz/target.h"
#include "src/text/charset.h"
#include "src/text/http_response.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return coppice::fuzz::run(data, size, [](std::string_view bytes) {
    using namespace coppice;
    constexpr uint64_t kMaxBytes = uint64_t{1} << 20;
    if (bytes.empty()) return;
    static fuzz::MemoryFile file;
    WarcReader reader(file.write(bytes.substr(1)), static_cast<ByteSource::Coding>(bytes[0] & 1 ? 1 : bytes[0] & 2),
                      kMaxBytes);
    WarcRecord record;
    for (WarcReader::Got got; (got = reader.next(record)) != WarcReader::Got::end;) {
      if (got == WarcReader::Got::damaged) continue;
      const std::optional<HttpResponse> response = read_http(record.block);
      if (!response) continue;
      const HttpBody body = decode_http(*response, kMaxBytes);
      const std::string_view type = response->headers.find("Content-Type");
      decode_text(body.bytes(), charset_of_page(body.bytes(), type));
    }
  });
}
