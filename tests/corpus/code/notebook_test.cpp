// Notebooks as text.
#include "src/corpus/code/notebook.h"

#include <doctest/doctest.h>

using namespace coppice;

TEST_SUITE("unit") {
  TEST_CASE("notebooks: code and Markdown cells in their order, outputs left out") {
    const auto notebook = read_notebook(R"({"cells": [
      {"cell_type": "markdown", "source": ["# Title\n", "Text"], "metadata": {}},
      {"cell_type": "code", "source": "import a\nb()\n", "outputs": [{"text": ["42"]}]},
      {"cell_type": "raw", "source": "no"}, {"cell_type": "code", "source": []}, 7, {"cell_type": "code", "source": [1, "c"]}],
      "metadata": {"kernelspec": {"language": "R"}, "language_info": {"name": "python"}}, "nbformat": 4})");
    REQUIRE(notebook);
    CHECK(notebook->text == "# Title\nText\n\nimport a\nb()\n\nc\n");
    CHECK(notebook->language == "python");
  }

  TEST_CASE("notebooks: format 3, and what names no language") {
    const auto notebook = read_notebook(
        R"({"worksheets": [{"cells": [{"cell_type": "code", "input": ["a\n", "b"]}]}, 1], "nbformat": 3})");
    REQUIRE(notebook);
    CHECK(notebook->text == "a\nb\n");
    CHECK(notebook->language == "");
  }

  TEST_CASE("notebooks: what is none, too deep or too large") {
    for (const char* text : {"", "no", "[]", "{}", "{\"cells\": 1}", "{\"cells\": [", "{\"cells\": [], \"cells\": []}"})
      CHECK_FALSE_MESSAGE(read_notebook(text), text);
    const std::string deep(100000, '[');
    CHECK_FALSE(read_notebook(deep));
    CHECK_FALSE(read_notebook("{\"cells\": [" + deep));
    const std::string head = "{\"cells\": [{\"cell_type\": \"code\", \"source\": \"", tail = "\"}]}";
    CHECK(read_notebook(head + std::string(1 << 20, 'a') + tail)->text.size() == (1 << 20) + 1);
    CHECK_FALSE(read_notebook(head + std::string(kMaxNotebookBytes, 'a') + tail));
  }
}
