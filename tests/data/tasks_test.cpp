#include "src/data/tasks.h"

#include <doctest/doctest.h>

#include <optional>

#include "src/tokens/tokenizer_training.h"
#include "tests/data/data_files.h"

namespace coppice {

namespace {

constexpr const char* kItem = R"({"context": "The sky is", "choices": ["blue", "loud"], "answer": 0})";

const Tokenizer& tokenizer() {
  static const Tokenizer trained = [] {
    std::istringstream text(slurp(std::filesystem::path(COPPICE_SOURCE_DIR) / "CONTRIBUTING.md") +
                            slurp(std::filesystem::path(COPPICE_SOURCE_DIR) / "README.md"));
    const ScratchFolder folder;
    return Tokenizer::load(folder.write("tokenizer.model", train_tokenizer({.vocab_size = 400}, [&](std::string& line) {
                                          while (std::getline(text, line))
                                            if (!line.empty()) return true;
                                          return false;
                                        })));
  }();
  return trained;
}

std::vector<int64_t> ids_of(std::string_view text) {
  const std::vector<int32_t> ids = tokenizer().encode(text);
  return {ids.begin(), ids.end()};
}

TaskItem item(std::string context, std::string delimiter, std::string choice) {
  return {.context = std::move(context),
          .delimiter = std::move(delimiter),
          .choices = {std::move(choice), "x"},
          .where = "here:1"};
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("read_task: items with and without what is optional, plain and packed") {
    const ScratchFolder folder;
    const std::string text =
        std::string(kItem) + "\n\n" +
        R"({"id": 7, "context": "", "choices": ["\u00e4", "b", "c"], "answer": 2, "delimiter": "", "documents": ["a/b", "c"]})" +
        "\r\n";
    for (const auto& [name, bytes] : {std::pair{"colours.jsonl", text},
                                      {"colours.jsonl.gz", test::gzip_bytes(text)},
                                      {"colours.jsonl.zst", test::zstd_bytes(text)}}) {
      const Task task = read_task(folder.write(name, bytes));
      CHECK(task.name == "colours");
      REQUIRE(task.items.size() == 2);
      CHECK(task.items[0].context == "The sky is");
      CHECK(task.items[0].delimiter == " ");
      CHECK(task.items[0].choices == std::vector<std::string>{"blue", "loud"});
      CHECK(task.items[0].answer == 0);
      CHECK(task.items[0].documents.empty());
      CHECK(task.items[1].where.ends_with(std::string(name) + ":3"));
      CHECK(task.items[1].delimiter == "");
      CHECK(task.items[1].choices[0] == "\u00e4");
      CHECK(task.items[1].answer == 2);
      CHECK(task.items[1].documents == std::vector<std::string>{"a/b", "c"});
    }
  }

  TEST_CASE("read_task: what is wrong is refused with file and line") {
    const ScratchFolder folder;
    const auto refused = [&](const std::string& line, const std::string& part) {
      const auto refusal =
          caught([&] { read_task(folder.write("bad.jsonl", std::string(kItem) + "\n" + line + "\n")); });
      INFO(line << " -> " << refusal.text);
      CHECK(refusal.code == 3);
      CHECK(refusal.says("bad.jsonl:2"));
      CHECK(refusal.says(part));
    };
    refused(R"({"choices": ["a", "b"], "answer": 0})", "context");
    refused(R"({"context": 5, "choices": ["a", "b"], "answer": 0})", "context");
    refused(R"({"context": "c", "answer": 0})", "choices");
    refused(R"({"context": "c", "choices": [], "answer": 0})", "got 0, expected at least 2");
    refused(R"({"context": "c", "choices": ["a"], "answer": 0})", "got 1, expected at least 2");
    refused(R"({"context": "c", "choices": ["a", ""], "answer": 0})", "choices[1]: is empty");
    refused(R"({"context": "c", "choices": ["a", 3], "answer": 0})", "choices[1]: expected a string");
    refused(R"({"context": "c", "choices": ["a", "b"]})", "answer");
    refused(R"({"context": "c", "choices": ["a", "b"], "answer": 2})",
            "got 2, expected the number of a choice, 0 to 1");
    refused(R"({"context": "c", "choices": ["a", "b"], "answer": -1})", "answer");
    refused(R"({"context": "c", "choices": ["a", "b"], "answer": "a"})", "answer");
    refused(R"({"context": "c", "choices": ["a", "b"], "answer": 0, "delimiter": null})", "delimiter");
    refused(R"({"context": "c", "choices": ["a", "b"], "answer": 0, "documents": "d"})", "documents");
    refused("{\"context\": \"\xff\", \"choices\": [\"a\", \"b\"], \"answer\": 0}", "UTF-8");
    refused(R"({"context": "c", "choices": ["a", "b"], "answer": 0} {})", "");
    refused(R"(["context"])", "expected one JSON object");
    CHECK(caught([&] { read_task(folder.write("none.jsonl", "\n \n")); }).says("holds no item"));
    CHECK(caught([&] { read_task(folder.write("none.jsonl", "")); }).code == 3);
    CHECK(caught([&] { read_task(folder.path / "absent.jsonl"); }).says("no such task file"));
    CHECK(caught([&] { read_task(folder.path); }).code == 3);
    CHECK(caught([&] { read_task(folder.write("task.json", kItem)); }).says(".jsonl"));
  }

  TEST_CASE("encode_choice: context and choice are encoded as one text") {
    const TaskItem plain = item("The sky is", " ", "blue and wide");
    const EncodedChoice encoded = encode_choice(tokenizer(), plain, 0);
    std::vector<int64_t> whole = encoded.context;
    whole.insert(whole.end(), encoded.continuation.begin(), encoded.continuation.end());
    CHECK(whole == ids_of("The sky is blue and wide"));
    CHECK(encoded.context.size() == ids_of("The sky is").size());

    // White space at the context's end belongs to the continuation, whoever wrote it.
    for (const TaskItem& same : {item("The sky is ", "", "blue and wide"), item("The sky is", "", " blue and wide")}) {
      CHECK(encode_choice(tokenizer(), same, 0).context == encoded.context);
      CHECK(encode_choice(tokenizer(), same, 0).continuation == encoded.continuation);
    }
    const EncodedChoice spaces = encode_choice(tokenizer(), item("The sky is\u00a0\n\t\u3000", " ", "blue"), 0);
    CHECK(spaces.context == ids_of("The sky is"));
    CHECK(tokenizer().decode({spaces.continuation.begin(), spaces.continuation.end()}) == "\u00a0\n\t\u3000 blue");
  }

  TEST_CASE("encode_choice: without a context the sequence starts with BOS") {
    for (const char* context : {"", " ", "\n\n"}) {
      const EncodedChoice encoded = encode_choice(tokenizer(), item(context, "", "blue"), 0);
      CHECK(encoded.context == std::vector<int64_t>{tokenizer().bos_id().value()});
      CHECK(encoded.continuation == ids_of(std::string(context) + "blue"));
    }
  }

  TEST_CASE("encode_choice: a choice that melts into the context is refused") {
    std::optional<TaskItem> melting;  // a piece whose beginning is a piece as well
    for (const Piece& piece : tokenizer().pieces())
      if (piece.type == PieceType::normal && piece.text.size() == 3 &&
          std::ranges::all_of(piece.text, [](char c) { return c > ' ' && c < 0x7f; }) &&
          ids_of(piece.text).size() == 1 && ids_of(piece.text.substr(0, 2)).size() == 1)
        melting = item(piece.text.substr(0, 2), "", piece.text.substr(2));
    REQUIRE(melting.has_value());
    const auto refusal = caught([&] { encode_choice(tokenizer(), *melting, 0); });
    CHECK(refusal.code == 3);
    CHECK(refusal.says("here:1"));
    CHECK(refusal.says("choices[0]"));
  }
}

}  // namespace coppice
