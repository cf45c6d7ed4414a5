// Which encoding a page is in, and what becomes of its bytes.
#include "src/text/charset.h"

#include <doctest/doctest.h>

#include "src/text/tag_scanner.h"

using namespace coppice;

namespace {

std::string page(std::string_view bytes, std::string_view content_type = "text/html") {
  return decode_text(bytes, charset_of_page(bytes, content_type)).text;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("charset: labels of the WHATWG standard") {
    CHECK(std::string(charset_of_label("latin1")) == "CP1252");
    CHECK(std::string(charset_of_label(" ISO-8859-1\n")) == "CP1252");
    CHECK(std::string(charset_of_label("Shift_JIS")) == "CP932");
    CHECK(std::string(charset_of_label("gb2312")) == "GB18030");
    CHECK(std::string(charset_of_label("utf8")) == "UTF-8");
    CHECK(std::string(charset_of_label("866")) == "CP866");            // the first of the table
    CHECK(std::string(charset_of_label("x-x-big5")) == "BIG5-HKSCS");  // the last one
    CHECK(charset_of_label("iso-2022-kr") == nullptr);
    CHECK(charset_of_label("hz-gb-2312") == nullptr);
    CHECK(charset_of_label("") == nullptr);
  }

  TEST_CASE("charset: every label can be converted") {
    for (const char* label :
         {"866",        "latin2", "latin3",      "latin4",      "iso-8859-5",  "iso-8859-6",     "iso-8859-7",
          "iso-8859-8", "latin6", "iso-8859-13", "iso-8859-14", "iso-8859-15", "iso-8859-16",    "koi8-r",
          "koi8-u",     "mac",    "tis-620",     "cp1250",      "cp1251",      "cp1252",         "cp1253",
          "cp1254",     "cp1255", "cp1256",      "cp1257",      "cp1258",      "x-mac-cyrillic", "gbk",
          "big5",       "euc-jp", "iso-2022-jp", "sjis",        "euc-kr",      "utf-8"})
      CHECK_MESSAGE(decode_text("<p>x</p>", charset_of_label(label)).text == "<p>x</p>", label);
    CHECK(decode_text(std::string_view("\0x", 2), charset_of_label("utf-16be")).text == "x");
    CHECK(decode_text(std::string_view("x\0", 2), charset_of_label("utf-16")).text == "x");
  }

  TEST_CASE("charset: of a Content-Type") {
    CHECK(charset_of_content_type("text/html; charset=UTF-8") == "UTF-8");
    CHECK(charset_of_content_type("text/html;CharSet = \"koi8-r\"; x=y") == "koi8-r");
    CHECK(charset_of_content_type("text/html; charset='latin1'") == "latin1");
    CHECK(charset_of_content_type("text/html; charset=gbk;q=1") == "gbk");
    CHECK(charset_of_content_type("text/html; charset") == "");
    CHECK(charset_of_content_type("text/html; charset=\"") == "");
    CHECK(charset_of_content_type("text/html; xcharset charset=big5") == "big5");
  }

  TEST_CASE("charset: of the page itself") {
    const auto of = [](std::string_view bytes) {
      const char* charset = charset_of_markup(bytes);
      return std::string(charset == nullptr ? "" : charset);
    };
    CHECK(of("<meta charset=koi8-r>") == "KOI8-R");
    CHECK(of("<META name='x' CHARSET = \"Shift_JIS\" />") == "CP932");
    CHECK(of("<meta content='text/html; charset=gb2312' http-equiv=Content-Type>") == "GB18030");
    CHECK(of("<meta name=description content='charset=gb2312'>") == "");
    CHECK(of("<!-- <meta charset=koi8-r> --><meta charset=big5>") == "BIG5-HKSCS");
    CHECK(of("<script>'<meta charset=koi8-r>'</script><meta charset=nonsense><meta charset=euc-kr>") == "UHC");
    CHECK(of("<meta charset=utf-16>") == "UTF-8");
    CHECK(of("<?xml version='1.0' encoding='windows-1251'?><html>") == "CP1251");
    CHECK(of("<?xml version='1.0' encoding='?><meta charset=koi8-r>") == "KOI8-R");
    CHECK(of(std::string(5000, ' ') + "<meta charset=koi8-r>") == "");
    CHECK(of("<meta charset") == "");
    CHECK(of("<meta charset=") == "");
    CHECK(of("<meta charset='koi8-r") == "KOI8-R");
  }

  TEST_CASE("charset: what decides about a page") {
    CHECK(page("na\xEFve") == "na\xC3\xAFve");      // CP1252
    CHECK(page("na\xC3\xAFve") == "na\xC3\xAFve");  // UTF-8
    CHECK(page("\xCF\xF0\xE8", "text/html; charset=windows-1251") == "\xD0\x9F\xD1\x80\xD0\xB8");
    CHECK(page("<meta charset=koi8-r>\xF0", "text/html; charset=cp1251") == "<meta charset=koi8-r>\xD1\x80");
    CHECK(page("<meta charset=koi8-r>\xF0", "text/html; charset=none") == "<meta charset=koi8-r>\xD0\x9F");
    CHECK(page("\xEF\xBB\xBF\xC3\xA9", "text/html; charset=latin1") == "\xC3\xA9");
    CHECK(page("\xC3\xA9", "text/html; charset=latin1") == "\xC3\xA9");  // a server's wrong default
    CHECK(page(std::string_view("\xFF\xFE\xE9\0", 4)) == "\xC3\xA9");
    CHECK(page(std::string_view("\xFE\xFF\0\xE9", 4)) == "\xC3\xA9");
    CHECK(page("\x93\xFA\x96\x7B", "text/html; charset=shift_jis") == "\xE6\x97\xA5\xE6\x9C\xAC");
    CHECK(page("\x1B$BF|K\\\x1B(B.", "text/html; charset=iso-2022-jp") == "\xE6\x97\xA5\xE6\x9C\xAC.");
    CHECK(page("<meta charset=gbk>\x81\x30\x81\x30") == "<meta charset=gbk>\xC2\x80");  // four bytes of GB 18030
    CHECK(page("") == "");
  }

  TEST_CASE("charset: U+FFFD for what means nothing, counted") {
    const auto utf8 = [](std::string_view bytes) { return decode_text(bytes, "UTF-8"); };
    const std::string r = "\xEF\xBF\xBD";
    CHECK(utf8("a\xFF"
               "b")
              .text == "a" + r + "b");
    CHECK(utf8("a\xFF"
               "b")
              .replaced == 1);
    CHECK(utf8("\xE2\x82").text == r);  // one character cut short
    CHECK(utf8("\xE2\x28\xA1").text == r + "(" + r);
    CHECK(utf8("\xF0\x9F\x98").text == r);
    CHECK(utf8("\xF0\x80\x80\x80").text == r + r + r + r);  // overlong
    CHECK(utf8("\xED\xA0\x80").text == r + r + r);          // half of a surrogate pair
    CHECK(utf8("\xC3").replaced == 1);
    CHECK(utf8("\xC3\xA9").replaced == 0);
    const DecodedText cut = decode_text("\x93\xFA\x96", "CP932");
    CHECK(cut.text == "\xE6\x97\xA5" + r);
    CHECK(cut.replaced == 1);
    CHECK(decode_text(std::string_view("\x00\xD8x\0y", 5), "UTF-16LE").text == r + "x" + r);
    CHECK(decode_text(std::string(200000, '\xE9'), "CP1252").text.size() == 400000);
  }

  TEST_CASE("tags: attributes in every quoting, comments and scripts passed over, nothing that is not closed") {
    TagScanner tags(
        "<!DOCTYPE html><!--><b>--><A HREF=x/y title = 'a > b' checked/><script src=s>if (a<b) '<i>'</SCRIPT >"
        "</p x=y>< q><1><img alt=\"");
    MarkupTag tag;
    REQUIRE(tags.next(tag));
    CHECK(tag.name == "b");
    REQUIRE(tags.next(tag));
    CHECK(tag.is("a"));
    CHECK(tag.find("href") == "x/y");
    CHECK(tag.find("TITLE") == "a > b");
    CHECK(tag.find("checked") == "");
    CHECK_FALSE(tag.find("b").has_value());
    REQUIRE(tags.next(tag));
    CHECK(tag.find("src") == "s");
    REQUIRE(tags.next(tag));
    CHECK(tag.is("/script"));
    REQUIRE(tags.next(tag));
    CHECK(tag.name == "/p");
    REQUIRE(tags.next(tag));
    CHECK(tag.find("alt") == "");
    CHECK_FALSE(tags.next(tag));
  }
}
