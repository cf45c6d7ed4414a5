#include "src/corpus/long_qa/questions.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <unordered_map>

#include "src/corpus/long_qa/draws.h"
#include "src/corpus/long_qa/facts.h"
#include "src/corpus/long_qa/wordings.h"
#include "src/text/ascii_case.h"
#include "src/text/words/words.h"

namespace coppice {
namespace {

constexpr size_t kTries = 8, kWrongChoices = 3, kNeedles = 4;
constexpr size_t kMinSentence = 30, kMaxSentence = 400;  // bytes, of those that questions quote
constexpr size_t kMinSentenceWords = 5, kOpeningWords = 6;
constexpr size_t kMinPairWord = 4;     // bytes of each word of a pair that names a document
constexpr size_t kOrderDistance = 50;  // two sentences lie a fiftieth of the context apart at least
constexpr std::string_view kBlank = "____";

std::string word_question(std::string_view wording, std::string_view first, std::string_view second = {}) {
  return fmt::format(fmt::runtime(wording), first, second);
}

/// Runs of white space as one blank: a question quotes a sentence of several lines on one.
std::string on_one_line(std::string_view text) {
  std::string line;
  for (const char c : text)
    if (kAsciiBlanks.find(c) == std::string_view::npos)
      line += c;
    else if (!line.empty() && line.back() != ' ')
      line += ' ';
  return line;
}

size_t num_words(std::string_view sentence) {
  return static_cast<size_t>(std::ranges::count(on_one_line(sentence), ' ')) + 1;
}

/// What is left of a sentence that was cut in the wrong place begins with a sign.
bool begins_well(char first) {
  return std::isalnum(static_cast<unsigned char>(first)) != 0 || (first & 0x80) != 0 || first == '"' || first == '\'';
}

/// The first words, as they stand; all of a sentence that has no more.
std::string_view opening(std::string_view sentence) {
  size_t words = 0;
  for (size_t at = 0; at < sentence.size(); ++at)
    if (kAsciiBlanks.find(sentence[at]) != std::string_view::npos && ++words == kOpeningWords)
      return sentence.substr(0, at);
  return sentence;
}

/// Where an answer would stand, and which one it is of its kind.
struct Place {
  size_t begin;
  size_t number;
};

/// A pair of neighbouring words that one document alone holds, several times.
struct WordPair {
  size_t document;
  std::string words;
};

class QuestionFinder {
 public:
  QuestionFinder(const QaContext& context, uint64_t seed, FaultCounts& faults)
      : context_(context),
        text_(context.text),
        expected_(context.expected_bytes()),
        usable_(context.usable_bytes()),
        outline_(outline_of(text_)),
        draws_(seed, context.id),
        faults_(faults) {
    for (size_t i = 0; i < outline_.sentences.size(); ++i) {
      const ByteSpan& span = outline_.sentences[i];
      if (span.end > usable_) break;
      if (span.size() >= kMinSentence && span.size() <= kMaxSentence && begins_well(text_[span.begin]) &&
          num_words(span.of(text_)) >= kMinSentenceWords)
        quotable_.push_back(i);
    }
  }

  Candidates find() {
    struct Row {
      QuestionKind kind;
      std::vector<Place> (QuestionFinder::*places)();
      std::optional<Question> (QuestionFinder::*ask)(size_t number);
    };
    constexpr Row kRows[] = {
        {QuestionKind::fact, &QuestionFinder::sentences, &QuestionFinder::ask_fact},
        {QuestionKind::section, &QuestionFinder::sections, &QuestionFinder::ask_section},
        {QuestionKind::order, &QuestionFinder::sentences, &QuestionFinder::ask_order},
        {QuestionKind::list, &QuestionFinder::lists, &QuestionFinder::ask_list},
        {QuestionKind::document, &QuestionFinder::documents, &QuestionFinder::ask_document},
        {QuestionKind::needle, &QuestionFinder::sentences, &QuestionFinder::ask_needle},
    };
    Candidates found;
    for (const Row& row : kRows) {
      std::array<std::vector<size_t>, kNumDepths> numbers;
      for (const Place& place : (this->*row.places)())
        if (place.begin < std::min(expected_, usable_))
          numbers[place.begin * kNumDepths / expected_].push_back(place.number);
      for (size_t depth = 0; depth < kNumDepths; ++depth)
        found[static_cast<size_t>(row.kind)][depth] =
            first_sound(numbers[depth], [&](size_t number) { return (this->*row.ask)(number); });
    }
    return found;
  }

 private:
  std::string_view sentence(size_t i) const { return outline_.sentences[i].of(text_); }

  template <class Ask>
  std::optional<Question> first_sound(std::vector<size_t>& numbers, const Ask& ask) {
    draws_.shuffle(numbers, kTries);
    for (size_t i = 0; i < std::min(kTries, numbers.size()); ++i) {
      std::optional<Question> question = ask(numbers[i]);
      if (!question) continue;
      const Fault fault = check_question(with_insertions(text_, *question), *question);
      if (fault == Fault::none) return question;
      ++faults_[static_cast<size_t>(fault)];
    }
    return std::nullopt;
  }

  std::string wording(const Wordings& wordings, std::string_view first, std::string_view second = {}) {
    return word_question(wordings[draws_.below(wordings.size())], first, second);
  }

  /// Drawn from `pool`: texts that neither hold the answer nor stand in it or in the question.
  void add_wrong(Question& question, std::vector<std::string_view> pool) {
    draws_.shuffle(pool, pool.size());
    for (const std::string_view text : pool) {
      if (question.wrong.size() == kWrongChoices) return;
      if (text.find(question.answer) == std::string_view::npos && question.answer.find(text) == std::string::npos &&
          question.text.find(text) == std::string::npos &&
          std::ranges::find(question.wrong, text) == question.wrong.end())
        question.wrong.emplace_back(text);
    }
  }

  std::vector<Place> sentences() {
    std::vector<Place> places;
    for (const size_t i : quotable_) places.push_back({outline_.sentences[i].begin, i});
    return places;
  }

  std::optional<Question> ask_fact(size_t number) {
    const std::string_view whole = sentence(number);
    const std::vector<Fact> facts = find_facts(whole);
    if (facts.empty()) return std::nullopt;
    const Fact fact = draws_.one_of(facts);
    Question question{.kind = QuestionKind::fact, .answer = std::string(fact.span.of(whole))};
    std::string cut(whole);
    cut.replace(fact.span.begin, fact.span.size(), kBlank);
    question.text = wording(kFactWordings, on_one_line(cut));
    add_wrong(question, facts_of(fact.type));
    return question;
  }

  /// All of one type in the quotable sentences; found once.
  const std::vector<std::string_view>& facts_of(FactType type) {
    if (facts_.empty()) {
      facts_.resize(3);
      for (const size_t i : quotable_)
        for (const Fact& fact : find_facts(sentence(i)))
          if (!is_stop_words(fact.span.of(sentence(i))))
            facts_[static_cast<size_t>(fact.type)].push_back(fact.span.of(sentence(i)));
    }
    return facts_[static_cast<size_t>(type)];
  }

  std::vector<Place> sections() {
    std::vector<Place> places;
    for (size_t i = 0; i < outline_.sections.size(); ++i)
      if (outline_.sentences[outline_.sections[i].sentence].end <= usable_)
        places.push_back({outline_.sections[i].title.begin, i});
    return places;
  }

  std::optional<Question> ask_section(size_t number) {
    const Section& section = outline_.sections[number];
    const std::string title(section.title.of(text_));
    Question question{.kind = QuestionKind::section};
    std::vector<std::string_view> pool;
    const bool asks_sentence = draws_.below(2) == 0;
    for (const Section& other : outline_.sections)
      pool.push_back(asks_sentence ? sentence(other.sentence) : other.title.of(text_));
    if (asks_sentence) {
      const std::string_view first = sentence(section.sentence);
      if (first.size() < kMinSentence || first.size() > kMaxSentence) return std::nullopt;
      question.answer = first;
      question.anchors = {title};
      question.text = wording(kFirstSentenceWordings, title);
    } else {
      const std::string_view said = sentence(section.sentence + draws_.below(section.end - section.sentence));
      if (said.size() < kMinSentence || said.size() > kMaxSentence) return std::nullopt;
      question.answer = title;
      question.anchors = {std::string(said)};
      question.text = wording(kWhichSectionWordings, on_one_line(said));
    }
    add_wrong(question, std::move(pool));
    if (asks_sentence) {  // too few sections
      pool.clear();
      for (const size_t i : quotable_) pool.push_back(sentence(i));
      add_wrong(question, std::move(pool));
    }
    return question;
  }

  std::optional<Question> ask_order(size_t number) {
    const size_t least = outline_.sentences[number].end + text_.size() / kOrderDistance;
    const auto later =
        std::ranges::lower_bound(quotable_, least, {}, [&](size_t i) { return outline_.sentences[i].begin; });
    const auto choices = static_cast<size_t>(quotable_.end() - later);
    if (choices == 0) return std::nullopt;
    const std::string_view first = sentence(number);
    const std::string_view second = sentence(*(later + static_cast<std::ptrdiff_t>(draws_.below(choices))));
    Question question{.kind = QuestionKind::order, .answer = std::string(first), .wrong = {std::string(second)}};
    std::array<std::string_view, 2> named = {opening(first), opening(second)};
    question.anchors = {std::string(named[0]), std::string(named[1])};
    if (draws_.below(2) == 1) std::swap(named[0], named[1]);
    question.text = wording(kOrderWordings, on_one_line(named[0]), on_one_line(named[1]));
    return question;
  }

  std::vector<Place> lists() {
    std::vector<Place> places;
    for (size_t i = 0; i < outline_.lists.size(); ++i)
      if (outline_.lists[i].items.end <= usable_) places.push_back({outline_.lists[i].items.begin, i});
    return places;
  }

  std::optional<Question> ask_list(size_t number) {
    const ItemList& list = outline_.lists[number];
    const std::string title(list.title.of(text_));
    Question question{.kind = QuestionKind::list, .answer = std::string(list.items.of(text_)), .anchors = {title}};
    question.text = wording(kListWordings, title);
    std::vector<std::string_view> pool;
    for (const ItemList& other : outline_.lists) pool.push_back(other.items.of(text_));
    add_wrong(question, std::move(pool));
    while (question.wrong.size() < kWrongChoices &&
           outline_.sentences.size() >= list.count) {  // as long as it, no list
      std::string made;
      const size_t first = draws_.below(outline_.sentences.size() - list.count + 1);
      for (size_t i = first; i < first + list.count; ++i)
        made += fmt::format("{}- {}", made.empty() ? "" : "\n", on_one_line(opening(sentence(i))));
      question.wrong.push_back(std::move(made));
    }
    return question;
  }

  std::vector<Place> documents() {
    std::vector<Place> places;
    if (context_.headings.size() < 2) return places;
    find_pairs();
    for (size_t i = 0; i < pairs_.size(); ++i) places.push_back({context_.headings[pairs_[i].document].begin, i});
    return places;
  }

  /// Of the pairs that occur several times in one document and in no other, those of each document that occur least.
  void find_pairs() {
    struct Found {
      size_t document, count;
      std::string_view words;
    };
    std::unordered_map<std::string, Found> found;
    std::vector<std::string_view> words;
    WordSplitter splitter(WordRule::peeled);
    for (size_t d = 0; d < context_.headings.size(); ++d) {
      const size_t begin = context_.headings[d].end;
      const size_t end = d + 1 < context_.headings.size() ? context_.headings[d + 1].begin : text_.size();
      splitter.split(text_.substr(begin, end - begin), words);
      for (size_t i = 0; i + 1 < words.size(); ++i) {
        const std::string_view pair(words[i].data(), static_cast<size_t>(words[i + 1].end() - words[i].data()));
        if (pair.size() != words[i].size() + 1 + words[i + 1].size() || !names_something(words[i]) ||
            !names_something(words[i + 1]))
          continue;
        const auto [place, is_new] = found.try_emplace(lower_ascii(pair), Found{d, 1, pair});
        if (is_new) continue;
        if (place->second.document != d) place->second.document = context_.headings.size();  // of several
        ++place->second.count;
      }
    }
    std::vector<size_t> least(context_.headings.size() + 1, SIZE_MAX);
    const auto is_shared = [](const Found& one) { return one.count >= 2; };
    for (const auto& [pair, one] : found)
      if (is_shared(one)) least[one.document] = std::min(least[one.document], one.count);
    std::vector<Found> rarest;
    for (const auto& [pair, one] : found)
      if (one.document < context_.headings.size() && is_shared(one) && one.count == least[one.document])
        rarest.push_back(one);
    std::ranges::sort(rarest, {}, [](const Found& one) { return one.words.data(); });  // the map has no order
    for (const Found& one : rarest) pairs_.push_back({one.document, std::string(one.words)});
  }

  static bool names_something(std::string_view word) {
    return word.size() >= kMinPairWord && !is_stop_word(word) && std::ranges::all_of(word, [](char c) {
             return (lower_ascii(c) >= 'a' && lower_ascii(c) <= 'z') || (c & 0x80);
           });
  }

  std::optional<Question> ask_document(size_t number) {
    const WordPair& pair = pairs_[number];
    Question question{.kind = QuestionKind::document,
                      .text = wording(kDocumentWordings, pair.words),
                      .answer = std::string(context_.headings[pair.document].of(text_))};
    std::vector<std::string_view> pool;
    for (const ByteSpan& heading : context_.headings) pool.push_back(heading.of(text_));
    add_wrong(question, std::move(pool));
    return question;
  }

  /// Four names with a number each stand in the text; one is asked for, the numbers of the others are the wrong
  /// choices.
  std::optional<Question> ask_needle(size_t number) {
    if (quotable_.size() < 2) return std::nullopt;
    const size_t w = draws_.below(kNeedleWordings.size());
    Question question{.kind = QuestionKind::needle};
    for (size_t i = 0; i < kNeedles; ++i) {
      const std::string name = made_up_name();
      const std::string value = std::to_string(1'000'000 + draws_.below(9'000'000));
      const size_t behind = i == 0 ? number : draws_.one_of(quotable_);
      question.insertions.emplace_back(outline_.sentences[behind].end,
                                       " " + word_question(kNeedleStatements[w], name, value));
      if (i > 0) {
        question.wrong.push_back(value);
        continue;
      }
      question.answer = value;
      question.text = word_question(kNeedleWordings[w], name);
      question.anchors = {name};
    }
    std::ranges::stable_sort(question.insertions, {}, &std::pair<size_t, std::string>::first);
    return question;
  }

  std::string made_up_name() {
    constexpr std::string_view kConsonants = "bdfgklmnprstvz", kVowels = "aeiou";
    std::string name;
    for (int i = 0; i < 4; ++i) {
      name += kConsonants[draws_.below(kConsonants.size())];
      name += kVowels[draws_.below(kVowels.size())];
    }
    name[0] = static_cast<char>(name[0] - 'a' + 'A');
    return name;
  }

  const QaContext& context_;
  std::string_view text_;
  size_t expected_, usable_;  // bytes
  Outline outline_;
  Draws draws_;
  FaultCounts& faults_;
  std::vector<size_t> quotable_;                      // sentences that may be asked for
  std::vector<std::vector<std::string_view>> facts_;  // by type
  std::vector<WordPair> pairs_;
};

}  // namespace

std::string with_insertions(std::string_view text, const Question& question) {
  std::string whole;
  size_t done = 0;
  for (const auto& [place, inserted] : question.insertions) {
    whole.append(text.substr(done, place - done)).append(inserted);
    done = place;
  }
  return whole.append(text.substr(done));
}

size_t count_up_to_two(std::string_view text, std::string_view part) {
  const auto find_from = [&](const char* at) {  // in linear time, whatever the text
    const size_t left = text.size() - static_cast<size_t>(at - text.data());
    return static_cast<const char*>(memmem(at, left, part.data(), part.size()));
  };
  const char* first = find_from(text.data());
  if (first == nullptr) return 0;
  return find_from(first + 1) == nullptr ? 1 : 2;
}

Fault check_question(std::string_view text, const Question& question) {
  if (question.kind == QuestionKind::fact && is_stop_words(question.answer)) return Fault::stop_words;
  const size_t count = count_up_to_two(text, question.answer);
  if (count != 1) return count == 0 ? Fault::absent : Fault::repeated;
  if (lower_ascii(question.text).find(lower_ascii(question.answer)) != std::string::npos) return Fault::in_question;
  for (const std::string& anchor : question.anchors)
    if (count_up_to_two(text, anchor) != 1) return Fault::ambiguous;
  return question.wrong.empty() ? Fault::no_choices : Fault::none;
}

Candidates find_questions(const QaContext& context, uint64_t seed, FaultCounts& faults) {
  return QuestionFinder(context, seed, faults).find();
}

}  // namespace coppice
