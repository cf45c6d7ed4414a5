#include "src/corpus/long_qa/questions.h"

#include <doctest/doctest.h>

#include <numeric>

#include "tests/corpus/long_qa/made_text.h"

using namespace coppice;
using namespace coppice::test;

namespace {

/// Documents of two sections each, joined.
QaContext joined_context() {
  QaContext found;
  ContextMaker maker(4096, false, [&](QaContext&& context) { found = std::move(context); });
  for (int i = 0; found.text.empty(); ++i)
    maker.add(cut_document({.id = fmt::format("made-{}", i), .text = made_text(i, 2)}, small_tokenizer()));
  return found;
}

Question asked(QuestionKind kind, std::string text, std::string answer) {
  return {.kind = kind, .text = std::move(text), .answer = std::move(answer), .wrong = {"no"}};
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("questions: every kind, at its depth, with an answer that is found once") {
    const QaContext context = joined_context();
    FaultCounts faults = {};
    const Candidates candidates = find_questions(context, 1, faults);
    for (size_t kind = 0; kind < kNumKinds; ++kind) {
      CAPTURE(kQuestionKinds[kind]);
      size_t found = 0;
      for (size_t depth = 0; depth < kNumDepths; ++depth) {
        const std::optional<Question>& question = candidates[kind][depth];
        if (!question) continue;
        ++found;
        const std::string text = with_insertions(context.text, *question);
        CHECK(question->kind == static_cast<QuestionKind>(kind));
        CHECK(count_up_to_two(text, question->answer) == 1);
        CHECK(question->text.find(question->answer) == std::string::npos);
        CHECK(question->text.find('{') == std::string::npos);
        CHECK(std::ranges::count(question->wrong, question->answer) == 0);
        if (question->kind != QuestionKind::needle) {
          const size_t place = text.find(question->answer) * kNumDepths / context.expected_bytes();
          CHECK(place >= depth);
          CHECK(place <= depth + 1);  // a fact stands in the sentence that begins there
        }
      }
      CHECK(found >= (kind == static_cast<size_t>(QuestionKind::document) ? 2 : 5));
    }
  }

  TEST_CASE("questions: what each kind asks for") {
    const QaContext context = joined_context();
    FaultCounts faults = {};
    const Candidates candidates = find_questions(context, 2, faults);
    const auto each = [&](QuestionKind kind, const auto& check) {
      for (const std::optional<Question>& question : candidates[static_cast<size_t>(kind)])
        if (question) check(*question);
    };
    each(QuestionKind::fact, [&](const Question& question) { CHECK(question.text.find("____") != std::string::npos); });
    each(QuestionKind::order, [&](const Question& question) {
      REQUIRE(question.wrong.size() == 1);
      CHECK(context.text.find(question.answer) < context.text.find(question.wrong[0]));
    });
    each(QuestionKind::list, [&](const Question& question) {
      CHECK(std::ranges::count(question.answer, '\n') == 2);
      CHECK(question.text.find("What they bought in part") != std::string::npos);
    });
    each(QuestionKind::document, [&](const Question& question) {
      const size_t quote = question.text.find('"') + 1;
      const std::string pair = question.text.substr(quote, question.text.find('"', quote) - quote);
      CHECK(std::ranges::count(pair, ' ') == 1);
      const size_t heading = context.text.find(question.answer), next = context.text.find("Document ", heading + 1);
      CHECK(context.text.find(pair) > heading);
      CHECK(context.text.rfind(pair) < next);
      CHECK(context.text.find(pair) < context.text.rfind(pair));
    });
    each(QuestionKind::needle, [&](const Question& question) {
      CHECK(question.insertions.size() == 4);
      CHECK(question.wrong.size() == 3);
      CHECK(context.text.find(question.answer) == std::string::npos);
      const std::string text = with_insertions(context.text, question);
      for (const std::string& number : question.wrong) CHECK(count_up_to_two(text, number) == 1);
    });
  }

  TEST_CASE("questions: a function of seed and id") {
    QaContext context = joined_context();
    FaultCounts faults = {};
    const auto texts = [&](uint64_t seed) {
      std::string all;
      for (const auto& row : find_questions(context, seed, faults))
        for (const auto& question : row) all += question ? question->text + question->answer + "\n" : "\n";
      return all;
    };
    const std::string first = texts(1);
    CHECK(texts(1) == first);
    CHECK(texts(2) != first);
    context.id += "x";
    CHECK(texts(1) != first);
  }

  TEST_CASE("questions: why a candidate goes") {
    const std::string text = "The Ash stood there. The Oak fell in 1887. The Ash grew. They of it.";
    CHECK(check_question(text, asked(QuestionKind::fact, "When?", "1887")) == Fault::none);
    CHECK(check_question(text, asked(QuestionKind::fact, "What?", "Elm")) == Fault::absent);
    CHECK(check_question(text, asked(QuestionKind::fact, "What?", "Ash")) == Fault::repeated);
    CHECK(check_question(text, asked(QuestionKind::fact, "Did the OAK fall?", "Oak")) == Fault::in_question);
    CHECK(check_question(text, asked(QuestionKind::fact, "Who?", "They")) == Fault::stop_words);
    CHECK(check_question(text, asked(QuestionKind::section, "Who?", "They")) == Fault::none);
    Question question = asked(QuestionKind::section, "What fell?", "Oak");
    question.anchors = {"The Ash"};
    CHECK(check_question(text, question) == Fault::ambiguous);
    question.anchors.clear();
    question.wrong.clear();
    CHECK(check_question(text, question) == Fault::no_choices);
    CHECK(count_up_to_two("aaa", "aa") == 2);
    CHECK(count_up_to_two("", "a") == 0);
  }

  TEST_CASE("questions: contexts without form give none") {
    for (const std::string& text : {std::string("word"), std::string(20'000, '\n'), std::string("- x\n- y\n- z\n")}) {
      const QaContext context{.id = "x", .text = text, .target = 1024, .tokens = 1100};
      FaultCounts faults = {};
      for (const auto& row : find_questions(context, 1, faults))
        CHECK(std::ranges::none_of(row, [](const auto& question) { return question.has_value(); }));
    }
  }
}
