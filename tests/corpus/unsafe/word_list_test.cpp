#include "src/corpus/unsafe/word_list.h"

#include <doctest/doctest.h>

#include "tests/caught.h"
#include "tests/scratch_folder.h"

using namespace coppice;

namespace {

WordHits hits_in(const WordList& list, std::string_view text) {
  WordList::Room room;
  list.find("a text before it porn red fox", room);  // leaves nothing behind
  return list.find(text, room);
}

WordList list_of(const std::vector<std::string>& entries) {
  WordList list;
  for (const std::string& entry : entries) CHECK(list.add(entry));
  return list;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("word_list: whole words of the normal form, not parts of words") {
    const WordList list = list_of({"red", "Grün"});
    const WordHits hits = hits_in(list, "RED, hundred reds; grun! (red)");
    CHECK(hits.words == 5);
    CHECK(hits.found == 3);
    CHECK(hits.covered == 3);
    CHECK(hits.distinct == 2);
    CHECK(hits.rate() == 0.6);
  }

  TEST_CASE("word_list: of entries of several words the longest is found, and the next one behind it") {
    const WordList list = list_of({"red", "red fox", "red fox den", "fox den"});
    CHECK(list.size() == 4);
    const WordHits hits = hits_in(list, "red - fox: den; red fox cub, red den fox");
    CHECK(hits.found == 3);  // red fox den; red fox; red
    CHECK(hits.distinct == 3);
    CHECK(hits.covered == 6);
    CHECK(hits.words == 9);
    CHECK(hits_in(list, "red fox").distinct == 1);
  }

  TEST_CASE("word_list: in scripts without blanks anywhere, elsewhere not") {
    const WordList list = list_of({"色情", "ไทย", "카지노"});
    CHECK(hits_in(list, "这是色情网站").found == 1);
    CHECK(hits_in(list, "这是色情网站").words == 6);
    CHECK(hits_in(list, "色 情").found == 1);
    CHECK(hits_in(list, "情色").found == 0);
    CHECK(hits_in(list, "ภาษาไทยสวย").found == 1);
    CHECK(hits_in(list, "카지노").found == 1);
    CHECK(hits_in(list, "온라인카지노").found == 0);  // Korean has blanks
    CHECK(hits_in(list_of({"web"}), "中文web中文").found == 1);
  }

  TEST_CASE("word_list: an entry that stands twice is one, and one of signs is none") {
    WordList list = list_of({"red fox", "RED  Fox!"});
    CHECK(list.size() == 1);
    CHECK_FALSE(list.add("..."));
    CHECK_FALSE(list.add(""));
  }

  TEST_CASE("word_list: empty and long texts") {
    const WordList list = list_of({"a a a b"});
    CHECK(hits_in(list, "").words == 0);
    CHECK(hits_in(list, "").rate() == 0);
    CHECK(hits_in(list, "a a a").found == 0);
    std::string text;
    for (int i = 0; i < 1000000; ++i) text += "a ";
    CHECK(hits_in(list, text + "b").found == 1);
  }

  TEST_CASE("word_list: files with comments, and what they refuse") {
    const ScratchFolder folder("words");
    const auto one = folder.write("one.txt", "\xEF\xBB\xBF# a list\nred fox # an animal\r\n\n  blue\n"),
               two = folder.write("two.txt", "green");
    CHECK(WordList::read({one, two}).size() == 3);
    CHECK(hits_in(WordList::read({one, two}), "red fox blue green").distinct == 3);
    const auto refusal = [&](const std::string& bytes) {
      return caught([&] { WordList::read({folder.write("bad.txt", bytes)}); });
    };
    CHECK(refusal("a\n!?\n").says("bad.txt:2: '!?' has no word in it"));
    CHECK(refusal("caf\xE9\n").says("is not valid UTF-8"));
    CHECK(refusal("# nothing\n").says("no entries"));
    CHECK(refusal("# nothing\n").code == 3);
    CHECK(caught([&] { WordList::read({folder / "absent.txt"}); }).code == 3);
  }

  TEST_CASE("word_list: the built-in list is a dozen words") {
    CHECK(WordList::built_in().size() == 12);
    CHECK(hits_in(WordList::built_in(), "XXX porn").distinct == 2);
  }
}
