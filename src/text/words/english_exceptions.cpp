#include "src/text/words/english_exceptions.h"

#include <initializer_list>
#include <set>
#include <string_view>

namespace coppice {
namespace {

using Words = std::initializer_list<std::string_view>;

// clang-format off
// Verbs that take "not"; those of the second list also `'ve` behind it.
constexpr std::string_view kVerbs[] = {
    "ai", "are", "is", "was", "were", "have", "has", "dare",
    "ca", "could", "do", "does", "did", "had", "may", "might", "must", "need", "ought", "sha", "should", "wo", "would"};
constexpr size_t kFirstLongVerb = 8;

// One word each, whatever signs they begin and end with.
constexpr std::string_view kWholes[] = {
    "'S", "'s", "\u2018S", "\u2018s", "and/or", "w/o", "'re", "'d", "'Cause", "'cause", "'cos", "'Cos", "'coz", "'Coz",
    "'cuz", "'Cuz", "'bout", "ma'am", "Ma'am", "o'clock", "O'clock", "lovin'", "Lovin'", "havin'", "Havin'", "doin'",
    "Doin'", "goin'", "Goin'", "nothin'", "Nothin'", "nuthin'", "Nuthin'", "ol'", "Ol'", "somethin'", "Somethin'",
    "'em", "'ll", "'nuff", "'", "''", "\\\")", "<space>", "\\t", "\\n", "\u2014", "C++",
    // months, states, titles, companies
    "Jan.", "Feb.", "Mar.", "Apr.", "Jun.", "Jul.", "Aug.", "Sep.", "Sept.", "Oct.", "Nov.", "Dec.",
    "Ak.", "Ala.", "Ariz.", "Ark.", "Calif.", "Colo.", "Conn.", "Del.", "Fla.", "Ga.", "Ia.", "Id.", "Ill.", "Ind.",
    "Kan.", "Kans.", "Ky.", "La.", "Mass.", "Md.", "Mich.", "Minn.", "Miss.", "Mo.", "Mont.", "N.C.", "N.D.", "N.H.",
    "N.J.", "N.M.", "N.Y.", "Neb.", "Nebr.", "Nev.", "Okla.", "Ore.", "Pa.", "S.C.", "Tenn.", "Va.", "Wash.", "Wis.",
    "D.C.", "Adm.", "Dr.", "Gen.", "Gov.", "Jr.", "Messrs.", "Mr.", "Mrs.", "Ms.", "Mt.", "Ph.D.", "Prof.", "Rep.",
    "Rev.", "Sen.", "St.", "Bros.", "co.", "Co.", "Corp.", "Inc.", "Ltd.",
    "a.m.", "p.m.", "e.g.", "E.g.", "E.G.", "i.e.", "I.e.", "I.E.", "vs.", "v.s.", "ä.", "ö.", "ü.",
    // emoticons
    ":)", ":-)", ":))", ":-))", ":)))", ":-)))", "(:", "(-:", "=)", "(=", ":]", ":-]", "[:", "[-:", "[=", "=]", ":o)",
    "(o:", ":}", ":-}", "8)", "8-)", "(-8", ";)", ";-)", "(;", "(-;", ":(", ":-(", ":((", ":-((", ":(((", ":-(((",
    "):", ")-:", "=(", ">:(", ":')", ":'-)", ":'(", ":'-(", ":/", ":-/", "=/", "=|", ":|", ":-|", "]=", "=[", ":1",
    ":P", ":-P", ":p", ":-p", ":O", ":-O", ":o", ":-o", ":0", ":-0", ":()", ">:o", ":*", ":-*", ":3", ":-3", "=3",
    ":>", ":->", ":X", ":-X", ":x", ":-x", ":D", ":-D", ";D", ";-D", "=D", "xD", "XD", "xDD", "XDD", "8D", "8-D",
    "^_^", "^__^", "^___^", ">.<", ">.>", "<.<", "._.", ";_;", "-_-", "-__-", "v.v", "V.V", "v_v", "V_V", "o_o",
    "o_O", "O_o", "O_O", "0_o", "o_0", "0_0", "o.O", "O.o", "O.O", "o.o", "0.0", "o.0", "0.o", "@_@", "<3", "<33",
    "<333", "</3", "(^_^)", "(-_-)", "(._.)", "(>_<)", "(*_*)", "(¬_¬)", "ಠ_ಠ", "ಠ︵ಠ", "(ಠ_ಠ)", "¯\\(ツ)/¯",
    "(╯°□°）╯︵┻━┻", "><(((*>"};

constexpr std::string_view kCut[] = {
    "y' all", "y all", "how 'd 'y", "How 'd 'y", "not 've", "not ve", "Not 've", "Not ve", "can not", "Can not",
    "gon na", "Gon na", "got ta", "Got ta", "let 's", "Let 's", "c'm on", "C'm on"};

// Contractions without their apostrophe that are words as well.
constexpr std::string_view kWords[] = {"I ll", "i ll", "It s", "it s", "He ll", "he ll", "She ll", "she ll", "She d",
                                       "she d", "we re", "We re", "We ll", "we ll", "Who re", "who re"};
// clang-format on

std::string capitalised(std::string_view word) {
  std::string title(word);
  title[0] = static_cast<char>(title[0] - 'a' + 'A');
  return title;
}

}  // namespace

std::vector<std::string> english_exceptions() {
  std::set<std::string> found;
  /// A word, and capitalised, before each ending; and without the apostrophes.
  const auto add = [&](std::string_view word, Words endings) {
    for (const std::string& begin : {std::string(word), capitalised(word)})
      for (const std::string_view ending : endings) {
        std::string bare = begin + std::string(ending);
        found.insert(bare);
        std::erase(bare, '\'');
        found.insert(bare);
      }
  };
  add("i", {" 'm", " 'm a"});
  for (const char* pronoun : {"i", "you", "he", "she", "it", "we", "they"})
    add(pronoun, {" 'll", " 'll 've", " 'd", " 'd 've"});
  for (const char* pronoun : {"i", "you", "we", "they"}) add(pronoun, {" 've"});
  for (const char* pronoun : {"you", "we", "they"}) add(pronoun, {" 're"});
  for (const char* pronoun : {"he", "she", "it"}) add(pronoun, {" 's"});
  for (const char* word : {"who", "what", "when", "where", "why", "how", "there", "that", "this", "these", "those"})
    add(word, {" 'll", " 'll 've", " 'd", " 'd 've"});
  for (const char* word : {"who", "what", "when", "where", "why", "how", "there", "that", "this"}) add(word, {" 's"});
  for (const char* word : {"who", "what", "when", "where", "why", "how", "there", "these", "those"})
    add(word, {" 're", " 've"});
  for (size_t i = 0; i < std::size(kVerbs); ++i) {
    add(kVerbs[i], {" n't"});
    if (i >= kFirstLongVerb) add(kVerbs[i], {" n't 've"});
  }
  for (const char* verb : {"could", "might", "must", "should", "would"}) add(verb, {" 've"});
  for (int hour = 1; hour <= 12; ++hour)
    for (const char* half : {" a.m.", " am", " p.m.", " pm"}) found.insert(std::to_string(hour) + half);
  for (char letter = 'a'; letter <= 'z'; ++letter) found.insert({letter, '.'});
  for (const char letter : {'c', 'f', 'k', 'C', 'F', 'K'}) found.insert(std::string("° ") + letter + " .");
  found.insert(std::begin(kCut), std::end(kCut));
  found.insert(std::begin(kWholes), std::end(kWholes));
  for (const std::string_view word : kWords) found.erase(std::string(word));

  std::vector<std::string> all(found.begin(), found.end());
  for (const std::string& straight : found) {
    std::string curly;
    for (const char byte : straight) curly += byte == '\'' ? std::string("\u2019") : std::string(1, byte);
    if (curly != straight && !found.contains(curly)) all.push_back(curly);
  }
  return all;
}

}  // namespace coppice
