#include "src/corpus/long_qa/make_long_qa.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "src/base/json.h"
#include "src/corpus/run/corpus_rights.h"
#include "src/text/document_metadata.h"
#include "tests/caught.h"
#include "tests/corpus/long_qa/made_text.h"
#include "tests/scratch_folder.h"

using namespace coppice;
using namespace coppice::test;
using Json = nlohmann::json;

namespace {

struct Made {
  LongQaReport report;
  std::vector<Document> documents;
  std::vector<Json> items;  // of the task of the first target
};

Made make(const ScratchFolder& folder, const LongQaOptions& options) {
  Made made{.report = make_long_qa(options, small_tokenizer())};
  for_each_document(made.report.file, [&](Document&& document) { made.documents.push_back(std::move(document)); },
                    {.keep_fields = true});
  std::istringstream lines(slurp(folder / fmt::format("out/tasks/long_qa_{}.jsonl", made.report.lengths[0].target)));
  for (std::string line; std::getline(lines, line);) made.items.push_back(Json::parse(line));
  return made;
}

LongQaOptions options_of(const ScratchFolder& folder, const std::string& lines) {
  return {.inputs = {folder.write("in.jsonl", lines)}, .output = folder / "out", .targets = {2048, 4096}};
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("long_qa: documents of the target's length whose answer is found once, at its span") {
    const ScratchFolder folder("long_qa");
    const Made made = make(folder, options_of(folder, made_lines(0, 60, 3) + made_lines(60, 66, 40)));
    std::map<std::string, size_t> kinds;
    std::set<std::string> ids;
    for (const Document& document : made.documents) {
      CAPTURE(document.id);
      CHECK(ids.insert(document.id).second);
      CHECK(document.source == "long-qa");
      ++kinds[metadata_text(document, "kind")];
      const Json span = *find_metadata(document, "span");
      const std::string answer = document.text.substr(span[0], size_t{span[1]} - size_t{span[0]});
      const size_t question = document.text.rfind("\n\nQuestion: ");
      REQUIRE(question != std::string::npos);
      const std::string context = document.text.substr(0, question);
      CHECK(context.find(answer) == size_t{span[0]});
      CHECK(context.find(answer, size_t{span[0]} + 1) == std::string::npos);
      CHECK(document.text.ends_with("\nAnswer: " + answer));
      const double target = *find_metadata(document, "target");
      const auto tokens = static_cast<double>(small_tokenizer().encode(document.text).size());
      CHECK(tokens < target);
      CHECK(tokens >= 0.98 * target);
      const double depth = *find_metadata(document, "depth");
      CHECK(std::abs(depth - double{span[0]} / static_cast<double>(context.size())) < 0.002);
      CHECK(*find_metadata(document, "stages") == Json({"long"}));
      const Json parts = *find_metadata(document, "documents");
      for (const Json& id : parts) CHECK_FALSE(is_heldout(id.get<std::string>(), 0.1));
    }
    CHECK(kinds.size() == kNumKinds);
    CHECK(std::ranges::any_of(made.documents, [](const Document& document) {
      return document.license == "CC0-1.0 AND (MIT OR Apache-2.0)";
    }));
    size_t questions = 0;
    for (const LongQaReport::Length& length : made.report.lengths) questions += num_questions(length.trained);
    CHECK(questions == made.documents.size());
  }

  TEST_CASE("long_qa: tasks of held-out documents alone, with wrong choices from the context") {
    const ScratchFolder folder("long_qa");
    LongQaOptions options = options_of(folder, made_lines(0, 100, 3));
    options.heldout_share = 0.5;
    options.max_items = 10;
    const Made made = make(folder, options);
    CHECK(made.items.size() == 10);
    CHECK(num_questions(made.report.lengths[0].held_out) == 10);
    for (const Json& item : made.items) {
      const std::string context = item["context"], answer = item["choices"][size_t{item["answer"]}];
      CHECK(context.ends_with("\nAnswer:"));
      CHECK(context.find(answer) != std::string::npos);
      CHECK(item["choices"].size() >= 2);
      CHECK(std::set<Json>(item["choices"].begin(), item["choices"].end()).size() == item["choices"].size());
      CHECK(item["depth"].get<std::string>().starts_with("depth_"));
      for (const Json& choice : item["choices"])
        CHECK(small_tokenizer().encode(context + " " + choice.get<std::string>()).size() < 2048);
      for (const Json& id : item["documents"]) CHECK(is_heldout(id.get<std::string>(), 0.5));
    }
    const std::string yaml = slurp(made.report.lengths[0].task);
    CHECK(yaml.find("test: long_qa_2048.jsonl") != std::string::npos);
    CHECK(yaml.find("subtask_field: depth") != std::string::npos);
  }

  TEST_CASE("long_qa: answers lie at all depths alike, kinds have equal shares") {
    const ScratchFolder folder("long_qa");
    LongQaOptions options = options_of(folder, made_lines(0, 400, 4));
    options.targets = {2048};
    const Made made = make(folder, options);
    const QuestionCounts& counts = made.report.lengths[0].trained;
    const auto total = static_cast<double>(num_questions(counts));
    CHECK(total > 100);
    double chi_square = 0;
    for (size_t depth = 0; depth < kNumDepths; ++depth) {
      double observed = 0;
      for (const auto& row : counts) observed += static_cast<double>(row[depth]);
      chi_square += (observed - total / kNumDepths) * (observed - total / kNumDepths) / (total / kNumDepths);
    }
    CHECK(chi_square < 16.92);  // 95%, 9 degrees of freedom
    for (size_t kind = 0; kind < kNumKinds; ++kind) {
      double observed = 0;
      for (const uint64_t count : counts[kind]) observed += static_cast<double>(count);
      CAPTURE(kQuestionKinds[kind]);
      CHECK(observed > 0.5 * total / kNumKinds);
      CHECK(observed < 1.5 * total / kNumKinds);
    }
  }

  TEST_CASE("long_qa: the same bytes for 1 and 4 threads, others for another seed") {
    const ScratchFolder folder("long_qa");
    LongQaOptions options = options_of(folder, made_lines(0, 90, 4));
    const auto bytes = [&] {
      const LongQaReport report = make_long_qa(options, small_tokenizer());
      return slurp(report.file) + slurp(folder / "out/tasks/long_qa_2048.jsonl");
    };
    const std::string first = bytes();
    options.threads = 4;
    CHECK(bytes() == first);
    options.seed = 2;
    CHECK(bytes() != first);
  }

  TEST_CASE("long_qa: a model may word the questions that a passage answers") {
    const ScratchFolder folder("long_qa");
    LongQaOptions options = options_of(folder, made_lines(0, 200, 4));
    options.targets = {2048};
    size_t worded = 0, refused = 0;
    options.word_question = [&](std::string_view passage, const Question& question) -> std::optional<std::string> {
      CHECK(passage.find(question.answer) != std::string::npos);
      CHECK(passage.size() < 1200);
      if (question.kind == QuestionKind::needle) return ++refused, std::nullopt;
      CHECK(question.kind == QuestionKind::fact);
      return ++worded, "What is hidden?";
    };
    const Made made = make(folder, options);
    CHECK(worded > 0);
    CHECK(refused > 0);
    CHECK(made.report.faults[static_cast<size_t>(Fault::unanswered)] == refused);
    for (const Document& document : made.documents) {
      const std::string kind = metadata_text(document, "kind");
      CHECK(kind != "needle");
      CHECK((document.text.find("Question: What is hidden?\n") != std::string::npos) == (kind == "fact"));
    }
  }

  TEST_CASE("long_qa: hostile documents are left out, the others are asked") {
    const ScratchFolder folder("long_qa");
    const std::string word = R"({"id":"word","text":")" + std::string((size_t{64} << 20) - 100, 'x') + "\"}\n";
    const std::string others = R"({"text":"one"})"
                               "\n"
                               R"({"text":""})"
                               "\n"
                               R"({"text":"\n\n \u0001"})"
                               "\n";
    LongQaOptions options = options_of(folder, word + others + made_lines(0, 60, 3));
    options.targets = {2048};
    const Made made = make(folder, options);
    CHECK(made.report.long_words == 1);
    CHECK(made.report.documents == 63);
    CHECK(!made.documents.empty());
  }

  TEST_CASE(
      "long_qa: documents of sources that are closed to the stage are passed over; rights go on with the others") {
    const ScratchFolder folder("long_qa");
    const auto told = [&](const char* stages_of_a) {
      return seal({{"format", kCorpusSourcesFormat},
                   {"version", 1},
                   {"sources",
                    {{{"name", "a"}, {"license", "MIT"}, {"stages", {stages_of_a}}},
                     {{"name", "b"}, {"license", "CC0-1.0"}, {"stages", Json::array()}}}}});
    };
    folder.write("corpus/sources.json", told("core"));
    folder.write("corpus/documents/a/1.jsonl", made_lines(0, 30, 3));
    folder.write("corpus/documents/b/1.jsonl", made_lines(30, 90, 3));
    LongQaOptions options{.inputs = {folder / "corpus/documents"}, .output = folder / "out", .targets = {2048}};
    const Made made = make(folder, options);
    CHECK(made.report.closed == std::map<std::string, uint64_t>{{"a", 30}});
    CHECK(made.report.documents == 60);
    for (const Document& document : made.documents) {
      const Json parts = *find_metadata(document, "documents");
      for (const Json& id : parts) CHECK(std::stoi(id.get<std::string>().substr(5)) >= 30);
    }
    const std::vector<SourceRights> rights = corpus_rights(made.report.file);
    REQUIRE(rights.size() == 1);
    CHECK(rights[0].source == "long-qa");
    CHECK(rights[0].license == "CC0-1.0");
    CHECK(closed_to(rights, "long") == nullptr);
    CHECK(closed_to(rights, "core") != nullptr);
    CHECK(slurp(folder / "out/sources.json").find(R"("of":[{"license":"CC0-1.0","name":"b","stages":[]}])") !=
          std::string::npos);
    options.inputs = {folder / "corpus/documents/a"};
    const Caught closed = caught([&] { make_long_qa(options, small_tokenizer()); });
    CHECK(closed.code == 2);
    CHECK(closed.says("every document is of a source that is closed to the stage 'long'"));
    folder.write("corpus/sources.json", told("long"));
    CHECK(make_long_qa(options, small_tokenizer()).closed.empty());
  }

  TEST_CASE("long_qa: refusals") {
    const ScratchFolder folder("long_qa");
    LongQaOptions options = options_of(folder, made_lines(0, 3, 1));
    const auto refused = [&] { return caught([&] { make_long_qa(options, small_tokenizer()); }); };
    const Caught few = refused();
    CHECK(few.code == 2);
    CHECK(few.says("--target-tokens: got 2048,4096: 3 documents of"));
    CHECK(few.says("give more documents, or a smaller target"));
    CHECK(folder.names() == std::vector<std::string>{"in.jsonl", "out"});
    CHECK_FALSE(std::filesystem::exists(folder / "out/long-qa.jsonl.zst"));
    options.targets = {2048, 4096, 2048};
    CHECK(refused().says("got 2048 twice"));
    options.targets = {2048};
    options.inputs = {folder / "absent.jsonl"};
    CHECK(refused().code == 3);
  }
}
