// WARC files as they are found: packed by record and at once, cut, damaged, with lengths that lie.
#include "src/text/warc.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <tuple>

#include "src/text/http_response.h"
#include "tests/caught.h"
#include "tests/scratch_folder.h"
#include "tests/text/packed.h"

namespace coppice {

using test::gzip_bytes;
using test::zstd_bytes;
using Coding = ByteSource::Coding;

namespace {

std::string record(int number, const std::string& block, const std::string& type = "response", int64_t length = -1) {
  return fmt::format(
      "WARC/1.0\r\nWARC-Type: {}\r\nWARC-Record-ID: <urn:uuid:{}>\r\nContent-Length: {}\r\n\r\n{}\r\n\r\n", type,
      number, length < 0 ? static_cast<int64_t>(block.size()) : length, block);
}

/// What a reader finds: blocks of records, reasons of damage behind a '!'.
std::vector<std::string> found_in(const std::filesystem::path& path, Coding coding, uint64_t limit = 1 << 20,
                                  std::vector<uint64_t>* offsets = nullptr) {
  WarcReader reader(path, coding, limit);
  std::vector<std::string> found;
  WarcRecord record;
  for (WarcReader::Got got; (got = reader.next(record)) != WarcReader::Got::end;) {
    found.push_back(got == WarcReader::Got::record
                        ? std::string(record.is_oversized ? record.block.substr(0, 4) : record.block)
                        : "!" + reader.damage());
    CHECK(record.number == found.size());
    if (offsets != nullptr) offsets->push_back(record.offset);
  }
  return found;
}

using Found = std::vector<std::string>;

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("warc: the same records from every way of packing, with their places") {
    const ScratchFolder folder;
    const std::string a = record(1, "one"), b = record(2, ""), c = record(3, std::string(700000, 'c') + "\r\n\r\n");
    const Found expected = {"one", "", std::string(700000, 'c') + "\r\n\r\n"};
    std::vector<uint64_t> offsets;
    CHECK(found_in(folder.write("x.warc", a + b + c), Coding::plain, 1 << 20, &offsets) == expected);
    CHECK(offsets == std::vector<uint64_t>{0, a.size(), a.size() + b.size()});
    offsets.clear();
    CHECK(found_in(folder.write("x.warc.gz", gzip_bytes(a) + gzip_bytes(b) + gzip_bytes(c)), Coding::gzip, 1 << 20,
                   &offsets) == expected);
    CHECK(offsets == std::vector<uint64_t>{0, gzip_bytes(a).size(), gzip_bytes(a).size() + gzip_bytes(b).size()});
    offsets.clear();
    CHECK(found_in(folder.write("x.warc.zst", zstd_bytes(a) + zstd_bytes(b) + zstd_bytes(c)), Coding::zstd, 1 << 20,
                   &offsets) == expected);
    CHECK(offsets == std::vector<uint64_t>{0, zstd_bytes(a).size(), zstd_bytes(a).size() + zstd_bytes(b).size()});
    CHECK(found_in(folder.write("y.warc.gz", gzip_bytes(a + b + c)), Coding::gzip) == expected);
    CHECK(found_in(folder.write("y.warc.zst", zstd_bytes(a + b + c)), Coding::zstd) == expected);
    CHECK(found_in(folder.write("z.warc.gz", gzip_bytes(a.substr(0, 9)) + gzip_bytes(a.substr(9) + b) + gzip_bytes("") +
                                                 gzip_bytes(c) + std::string(512, '\0')),
                   Coding::gzip) == expected);
  }

  TEST_CASE("warc: members and records larger than what is unpacked at once") {
    const ScratchFolder folder;
    std::string noise(3 << 20, '\0');  // does not shrink, so that its member is longer than the look ahead
    uint32_t state = 1;
    for (char& c : noise) c = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
    const std::string large(9 << 20, 'x');
    const std::string bytes =
        gzip_bytes(record(1, noise)) + gzip_bytes(record(2, large)) + gzip_bytes(record(3, "end"));
    CHECK(found_in(folder.write("x.warc.gz", bytes), Coding::gzip, 64 << 20) == Found{noise, large, "end"});
  }

  TEST_CASE("warc: heads with single line feeds, folded lines, names in any case, no blank lines behind a record") {
    const ScratchFolder folder;
    const auto path =
        folder.write("x.warc",
                     "WARC/0.17\nwarc-type: response\nWARC-Target-URI : <http://a.example/\n b>\nno colon\n"
                     "content-LENGTH: 3\n\nabcWARC/1.1\r\nContent-Length: 1\r\n\r\nd");
    WarcReader reader(path, Coding::plain);
    WarcRecord record;
    REQUIRE(reader.next(record) == WarcReader::Got::record);
    CHECK(record.block == "abc");
    CHECK(record.headers.find("WARC-Type") == "response");
    CHECK(record.headers.find("warc-target-uri") == "<http://a.example/\n b>");
    CHECK(record.headers.find("no colon").empty());
    REQUIRE(reader.next(record) == WarcReader::Got::record);
    CHECK(record.block == "d");
    CHECK(reader.next(record) == WarcReader::Got::end);
    CHECK(reader.next(record) == WarcReader::Got::end);
  }

  TEST_CASE("warc: a last record that is cut short is counted once, those before it stay") {
    const ScratchFolder folder;
    const std::string a = record(1, "one"), b = record(2, std::string(3000, 'b'));
    const Found expected = {"one", "!cut short: the file ends inside the record"};
    CHECK(found_in(folder.write("x.warc", (a + b).substr(0, a.size() + 500)), Coding::plain) == expected);
    CHECK(found_in(folder.write("x.warc", (a + b).substr(0, a.size() + 12)), Coding::plain) == expected);
    CHECK(found_in(folder.write("x.warc", a + "WAR"), Coding::plain) == Found{"one", "!no record begins there"});
    const std::string packed = gzip_bytes(a) + gzip_bytes(b);
    for (const size_t bytes : {packed.size() - 1, packed.size() - 9, gzip_bytes(a).size() + 13})
      CHECK(found_in(folder.write("x.warc.gz", packed.substr(0, bytes)), Coding::gzip) ==
            Found{"one", "!cut short: the file ends inside its gzip data"});
    const std::string frames = zstd_bytes(a) + zstd_bytes(b);
    CHECK(found_in(folder.write("x.warc.zst", frames.substr(0, frames.size() - 3)), Coding::zstd) ==
          Found{"one", "!cut short: the file ends inside its zstd data"});
    std::string many;
    for (int i = 0; i < 9; ++i) many += record(i, std::string(300000, static_cast<char>('a' + i)));
    const std::string whole = gzip_bytes(many);
    const Found cut = found_in(folder.write("y.warc.gz", whole.substr(0, whole.size() / 2)), Coding::gzip);
    REQUIRE(cut.size() >= 3);
    CHECK(cut.front() == std::string(300000, 'a'));
    CHECK(cut.back() == "!cut short: the file ends inside its gzip data");
  }

  TEST_CASE("warc: behind a damaged member or frame the next one is read") {
    const ScratchFolder folder;
    const std::string a = record(1, "one"), b = record(2, "damaged by a flipped bit"), c = record(3, "three");
    std::string member = gzip_bytes(b);
    member[member.size() - 6] ^= 1;  // its checksum
    CHECK(found_in(folder.write("x.warc.gz", gzip_bytes(a) + member + gzip_bytes(c)), Coding::gzip) ==
          Found{"one", "!damaged gzip data: incorrect data check", "three"});
    member = gzip_bytes(b);
    member[30] ^= 0x55;
    const Found found = found_in(folder.write("x.warc.gz", gzip_bytes(a) + member + gzip_bytes(c)), Coding::gzip);
    REQUIRE(found.size() == 3);
    CHECK(found[1].starts_with("!damaged gzip data"));
    CHECK(found[2] == "three");
    CHECK(found_in(folder.write("x.warc.gz", gzip_bytes(a) + "no member" + gzip_bytes(c)), Coding::gzip) ==
          Found{"one", "!what stands there is no gzip member", "three"});
    std::string frame = zstd_bytes(b);
    frame[0] ^= 1;
    CHECK(found_in(folder.write("x.warc.zst", zstd_bytes(a) + frame + zstd_bytes(c)), Coding::zstd) ==
          Found{"one", "!what stands there is no zstd frame", "three"});
  }

  TEST_CASE("warc: a Content-Length that lies costs its own record and no other") {
    const ScratchFolder folder;
    const std::string a = record(1, "one"), c = record(3, "three"), d = record(4, "four");
    CHECK(found_in(folder.write("x.warc", a + record(2, "too short", "response", 4) + c), Coding::plain) ==
          Found{"one", "!Content-Length is 4, but the record goes on behind that", "three"});
    const Found lost = found_in(folder.write("x.warc", a + record(2, "long", "response", 30) + c + d), Coding::plain);
    CHECK(lost == Found{"one", "!Content-Length is 30, but another record begins after 8 bytes", "three", "four"});
    CHECK(found_in(
              folder.write("x.warc.gz", gzip_bytes(a) + gzip_bytes(record(2, "long", "response", 30)) + gzip_bytes(c)),
              Coding::gzip) ==
          Found{"one", "!Content-Length is 30, but its gzip member or zstd frame ends after 8 bytes", "three"});
    CHECK(found_in(folder.write("x.warc", record(2, "wget", "response", 5) + c), Coding::plain) ==
          Found{"wget\r", "three"});  // a length that takes in one line end too many
    CHECK(found_in(folder.write("x.warc", a + "WARC/1.0\r\nContent-Length: -1\r\n\r\n\r\n\r\n" + c), Coding::plain) ==
          Found{"one", "!Content-Length: got '-1', expected a number of bytes", "three"});
    CHECK(found_in(folder.write("x.warc", a + "WARC/1.0\r\nWARC-Type: response\r\n\r\n\r\n\r\n" + c), Coding::plain) ==
          Found{"one", "!Content-Length: got '', expected a number of bytes", "three"});
    CHECK(found_in(folder.write("x.warc", "\r\nrubbish\r\n" + a + "rubbish\n" + c), Coding::plain) ==
          Found{"!no record begins there", "one", "!no record begins there", "three"});
    CHECK(found_in(folder.write("x.warc", a + "WARC/1.0\r\n" + std::string(2 << 20, 'x') + "\r\n" + c),
                   Coding::plain) == Found{"one", "!its head is longer than 1048576 bytes", "three"});
    CHECK(found_in(folder.write("x.warc", ""), Coding::plain).empty());
  }

  TEST_CASE("warc: records over the limit are passed over, their beginning is shown") {
    const ScratchFolder folder;
    const std::string bytes = record(1, std::string(200000, 'l')) + record(2, "two");
    CHECK(found_in(folder.write("x.warc", bytes), Coding::plain, 1000) == Found{"llll", "two"});
    CHECK(found_in(folder.write("x.warc.gz", gzip_bytes(bytes)), Coding::gzip, 1000) == Found{"llll", "two"});
    CHECK(found_in(folder.write("z.warc", record(1, "llllong") + record(2, "two")), Coding::plain, 5) ==
          Found{"llll", "two"});
    const auto path = folder.write("y.warc", record(1, std::string(200000, 'l'), "response", 1000000));
    CHECK(found_in(path, Coding::plain, 1000) == Found{"llll", "!cut short: the file ends inside the record"});
    WarcReader reader(path, Coding::plain, 1000);
    WarcRecord record;
    while (reader.next(record) != WarcReader::Got::end) {
    }
    CHECK(reader.bytes_read() == std::filesystem::file_size(path));
  }

  TEST_CASE("warc: a .zst with a dictionary in front, and a table of seek points behind") {
    const ScratchFolder folder;
    const std::string dictionary(2000, 'd'), text = record(1, dictionary + "end");
    ZSTD_CCtx* context = ZSTD_createCCtx();
    ZSTD_CCtx_loadDictionary(context, dictionary.data(), dictionary.size());
    std::string packed(ZSTD_compressBound(text.size()), '\0');
    packed.resize(ZSTD_compress2(context, packed.data(), packed.size(), text.data(), text.size()));
    ZSTD_freeCCtx(context);
    const auto skippable = [](char type, const std::string& bytes) {
      std::string frame = {type, '\x2A', '\x4D', '\x18'};
      for (int i = 0; i < 4; ++i) frame += static_cast<char>(bytes.size() >> (8 * i));
      return frame + bytes;
    };
    for (const std::string& stored : {dictionary, zstd_bytes(dictionary)})
      CHECK(found_in(folder.write("x.warc.zst", skippable('\x5D', stored) + packed + skippable('\x5E', "table")),
                     Coding::zstd) == Found{dictionary + "end"});
    const Caught cut =
        caught([&] { found_in(folder.write("x.warc.zst", "\x5D\x2A\x4D\x18\xFF\xFF\xFF\x7F..."), Coding::zstd); });
    CHECK(cut.code == 3);
    CHECK(cut.says("its zstd dictionary of 2147483647 bytes is cut short or too large"));
  }

  TEST_CASE("warc: a bomb is refused") {
    const ScratchFolder folder;
    std::string packed(100000, '\0');
    ZSTD_CCtx* context = ZSTD_createCCtx();
    const std::string zeros(200 << 20, '\0');
    packed.resize(ZSTD_compressCCtx(context, packed.data(), packed.size(), zeros.data(), zeros.size(), 1));
    ZSTD_freeCCtx(context);
    const Caught bomb = caught([&] { found_in(folder.write("x.warc.zst", packed), Coding::zstd); });
    CHECK(bomb.code == 3);
    CHECK(bomb.says("refused as a decompression bomb"));
  }
}

namespace {

std::string body_of(const std::string& headers, const std::string& body, uint64_t limit = 1 << 22) {
  const std::string block = "HTTP/1.1 200 OK\r\n" + headers + "\r\n" + body;
  const std::optional<HttpResponse> response = read_http(block);
  REQUIRE(response.has_value());
  const HttpBody decoded = decode_http(*response, limit);
  if (!decoded.damage.empty()) return "!" + decoded.damage;
  if (!decoded.refused.empty()) return "?" + decoded.refused;
  return std::string(decoded.bytes());
}

std::string deflated(const std::string& text, int window) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, window, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("http: status lines and heads as servers write them") {
    const auto status = [](std::string_view block) { return read_http(block) ? read_http(block)->status : -1; };
    CHECK(status("HTTP/1.1 200 OK\r\n\r\n") == 200);
    CHECK(status("HTTP/1.0 404\n\n") == 404);
    CHECK(status("HTTP/2 200\r\n") == 200);
    CHECK(status("http/1.1  301 Moved\r\n\r\n") == 301);
    CHECK(status("HTTP/1.1 twohundred\r\n\r\n") == -1);
    CHECK(status("HTTP/1.1") == -1);
    CHECK(status("<html>") == -1);
    const auto response = read_http("HTTP/1.1 200 OK\nX : 1\r\nrubbish\nx: 2\n \t\r\nbody\r\n\r\nmore");
    REQUIRE(response.has_value());
    CHECK(response->headers.join("X") == "1; 2");
    CHECK(response->body == "body\r\n\r\nmore");
    CHECK(read_http("HTTP/1.1 200 OK\r\nA: b\r\n")->body.empty());
    CHECK(read_http("HTTP/1.1 200 OK\r\nA: b")->headers.find("a") == "b");
  }

  TEST_CASE("http: chunks, where there are some") {
    const std::string chunked = "Transfer-Encoding: chunked\r\n";
    CHECK(body_of(chunked, "4\r\n<a>b\r\n00a;x=y\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n") == "<a>b0123456789");
    CHECK(body_of(chunked, "<html>taken apart already</html>") == "<html>taken apart already</html>");
    CHECK(body_of(chunked, "A\r\n01234") == "01234");  // cut short
    CHECK(body_of(chunked, "4\r\n<a>b\r\n1") == "<a>b");
    CHECK(body_of(chunked, "4\r\n<a>b\r\nxyz\r\n") == "!damaged chunks");
    CHECK(body_of(chunked, "FFFFFFFFFFFFFFFF\r\nabc") == "abc");
    CHECK(body_of(chunked, "") == "");
    CHECK(body_of("", "4\r\nabcd\r\n0\r\n\r\n") == "4\r\nabcd\r\n0\r\n\r\n");
  }

  TEST_CASE("http: content encodings, where they are there") {
    const std::string text = "<p>" + std::string(5000, 'x') + "</p>";
    CHECK(body_of("Content-Encoding: gzip\r\n", gzip_bytes(text)) == text);
    CHECK(body_of("Content-Encoding: X-GZIP\r\n", gzip_bytes(text)) == text);
    CHECK(body_of("Content-Encoding: gzip\r\n", text) == text);
    CHECK(body_of("X-Crawler-Content-Encoding: gzip\r\n", text) == text);
    CHECK(body_of("Content-Encoding: deflate\r\n", deflated(text, 15)) == text);
    CHECK(body_of("Content-Encoding: deflate\r\n", deflated(text, -15)) == text);
    CHECK(body_of("Content-Encoding: deflate\r\n", text) == text);
    CHECK(body_of("Content-Encoding: zstd\r\n", zstd_bytes(text)) == text);
    CHECK(body_of("Content-Encoding: deflate, gzip\r\n", gzip_bytes(deflated(text, 15))) == text);
    CHECK(body_of("Content-Encoding: br\r\n", "\x1B\x2F packed") == "?content-encoding br");
    CHECK(body_of("Content-Encoding: br\r\n", "  " + text) == "  " + text);
    CHECK(body_of("Content-Encoding: utf-8\r\n", text) == text);
    std::string words;
    for (int i = 0; i < 2000; ++i) words += fmt::format("<p>{}</p>", i * 7919 % 10007);
    const std::string cut = body_of("Content-Encoding: gzip\r\n", gzip_bytes(words).substr(0, 4000));
    CHECK(cut.size() > 1000);
    CHECK(words.starts_with(cut));
    std::string damaged = gzip_bytes(text);
    damaged[damaged.size() - 6] ^= 1;
    CHECK(body_of("Content-Encoding: gzip\r\n", damaged) == "!damaged content-encoding");
    CHECK(body_of("Content-Encoding: zstd\r\n", std::string("\x28\xB5\x2F\xFD\x20\x05\x07\0\0x", 10)) ==
          "!damaged content-encoding");
    CHECK(body_of("Content-Encoding: gzip, gzip, gzip, gzip, gzip\r\n", text) == "!too many content-encodings");
    CHECK(body_of("Content-Encoding: gzip\r\n", gzip_bytes(std::string(5 << 20, ' '))) == "!longer than 4194304 bytes");
    CHECK(body_of("Content-Encoding: zstd\r\n", zstd_bytes(std::string(3 << 20, ' '))) == "!decompression bomb");
    const size_t half = gzip_bytes(text).size() / 2;
    const std::string packed = gzip_bytes(text);
    CHECK(body_of("Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
                  fmt::format("{:x}\r\n{}\r\n{:X}\r\n{}\r\n0\r\n\r\n", half, packed.substr(0, half),
                              packed.size() - half, packed.substr(half))) == text);
  }
}

}  // namespace coppice
