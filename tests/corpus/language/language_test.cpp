#include "src/corpus/language/language.h"

#include <doctest/doctest.h>

#include <string>

using namespace coppice;

namespace {

constexpr const char* kEnglish =
    "The committee met on Tuesday to discuss how the new library should be paid for, and nobody left before midnight. ";
constexpr const char* kGerman =
    "Der Ausschuss tagte am Dienstag, um zu besprechen, wie die neue Bibliothek bezahlt werden soll, und niemand "
    "ging. ";
constexpr const char* kSpanish =
    "El comité se reunió el martes para discutir cómo se debería pagar la nueva biblioteca y nadie se fue temprano. ";
constexpr const char* kKorean =
    "위원회는 화요일에 모여 새 도서관의 비용을 어떻게 마련할지 논의했으며 아무도 일찍 떠나지 않았다. ";
constexpr const char* kJapanese = "委員会は火曜日に集まり、新しい図書館の費用をどうやって払うかを話し合いました。";

std::string repeated(const char* text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("language: five languages, short and long") {
    for (const int times : {1, 100}) {
      CHECK(detect_language(repeated(kEnglish, times)).code == "en");
      CHECK(detect_language(repeated(kGerman, times)).code == "de");
      CHECK(detect_language(repeated(kSpanish, times)).code == "es");
      CHECK(detect_language(repeated(kKorean, times)).code == "ko");
      CHECK(detect_language(repeated(kJapanese, times)).code == "ja");
    }
    CHECK(detect_language(kEnglish).share >= 0.95);
  }

  TEST_CASE("language: begin, middle and end are read, and the share is theirs") {
    const Language mixed = detect_language(repeated(kEnglish, 60) + repeated(kGerman, 100) + repeated(kEnglish, 60));
    CHECK(mixed.code == "en");
    CHECK(mixed.share > 0.55);
    CHECK(mixed.share < 0.78);
  }

  TEST_CASE("language: slices that tell nothing are no end of it") {
    const std::string figures = repeated("12.5 | 33.1 | 0x1F | 99 ; ", 200);
    const Language language = detect_language(figures + repeated(kGerman, 30) + figures + figures + figures);
    CHECK(language.code == "de");
    CHECK(language.share > 0.9);
  }

  TEST_CASE("language: no text, no letters, and any bytes at the ends of slices") {
    CHECK(detect_language("").code == "un");
    CHECK(detect_language("").share == 0);
    CHECK(detect_language("1234 5678 --- 90").share == 0);
    for (size_t bytes = 3070; bytes < 3090; ++bytes) {  // slices cut within characters
      const std::string text = std::string(bytes % 3, ' ') + repeated(kJapanese, 60);
      CHECK(detect_language(text).code == "ja");
    }
  }

  TEST_CASE("language: codes that may be asked for") {
    for (const char* code : {"en", "de", "zh", "zh-Hant", "he", "jv", "un"}) CHECK(is_language_code(code));
    for (const char* code : {"english", "EN", "iw", "", "qq"}) CHECK_FALSE(is_language_code(code));
  }
}
