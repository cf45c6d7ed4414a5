// Who may include whom (never upwards; folders on one line do not know each other), held by reading every #include
// "..." line of the tree.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <string>

namespace {

namespace fs = std::filesystem;

const std::map<std::string, int> kLevels = {
    {"src/base", 0},          {"src/tensors/executor", 0},
    {"src/text", 1},          {"src/tokens", 1},
    {"src/tensors", 1},       {"recipes/report", 1},  // what draws knows of nothing else
    {"src/distributed", 2},   {"src/tasks", 2},
    {"src/model", 3},         {"src/data", 3},
    {"src/evaluate", 4},      {"src/optim", 4},
    {"src/checkpoint", 5},    {"src/cli", 5},
    {"teacher", 6},           {"student", 6},
    {"pruning", 6},           {"src/corpus", 6},
    {"recipes/language", 7},  {"recipes/folder", 8},
    {"recipes/stages", 9},    {"recipes/run", 10},
    {"recipes/ablation", 11}, {"recipes/compress", 11},
    {"recipes/bench", 11},    {"recipes/commands", 12},
    {"recipes", 13}};

/// The folder of the table above that holds a path, the innermost one; "" when there is none.
std::string layer_of(const std::string& path) {
  std::string innermost;
  for (const auto& [folder, level] : kLevels)
    if (path.starts_with(folder + "/") && folder.size() > innermost.size()) innermost = folder;
  return innermost;
}

/// Why `file` must not contain `line`; empty when it may.
std::string objection(const std::string& file, const std::string& line) {
  static const std::regex include_line(R"(^\s*#\s*include\s*"([^"]*)\".*)");
  std::smatch match;
  if (!std::regex_match(line, match, include_line)) return "";
  const std::string from = layer_of(file), to = layer_of(match[1]);
  if (to.empty()) return "include paths start at the root";
  if (from == to || kLevels.at(from) > kLevels.at(to)) return "";
  return from + " must not know " + to;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("layers: the rule refuses upwards, sideways and relative includes") {
    CHECK(objection("src/base/json.cpp", "#include \"src/base/json.h\"") == "");
    CHECK(objection("recipes/main.cpp", "  #  include \"src/base/json.h\"  // why") == "");
    CHECK(objection("student/loss.cpp", "#include <ATen/ATen.h>") == "");
    CHECK(objection("src/tensors/kernels/a.cu", "#include \"src/tensors/shape.h\"") == "");
    CHECK(objection("src/tensors/kernels/cuda_dialect.h", "#include \"src/tensors/executor/dialect.h\"") == "");
    CHECK(objection("src/tensors/executor/block.cpp", "#include \"src/tensors/kernels/bf16.h\"") ==
          "src/tensors/executor must not know src/tensors");
    CHECK(objection("src/base/json.cpp", "#include \"src/tensors/shape.h\"") == "src/base must not know src/tensors");
    CHECK(objection("src/data/loader.h", "#include \"src/model/config.h\"") == "src/data must not know src/model");
    CHECK(objection("src/tokens/tokenizer.h", "#include \"src/text/documents.h\"") ==
          "src/tokens must not know src/text");
    CHECK(objection("student/loss.cpp", "#include \"teacher/label.h\"") == "student must not know teacher");
    CHECK(objection("src/cli/options.cpp", "#include \"src/checkpoint/checkpoint.h\"") ==
          "src/cli must not know src/checkpoint");
    CHECK(objection("pruning/plan.cpp", "#include \"recipes/language/recipe.h\"") ==
          "pruning must not know recipes/language");
    CHECK(objection("src/base/json.cpp", "#include \"json.h\"") == "include paths start at the root");
    CHECK(objection("src/base/json.cpp", "#include \"tests/scratch_folder.h\"") == "include paths start at the root");
  }

  TEST_CASE("layers: every include of the tree goes down") {
    const fs::path root = COPPICE_SOURCE_DIR;
    int num_files = 0, num_includes = 0;
    for (const char* top : {"src", "teacher", "student", "pruning", "recipes"}) {
      for (const auto& entry : fs::recursive_directory_iterator(root / top)) {
        const std::string extension = entry.path().extension();
        if (extension != ".h" && extension != ".cpp" && extension != ".cu") continue;
        const std::string file = fs::relative(entry.path(), root).generic_string();
        REQUIRE_MESSAGE(layer_of(file) != "", file << " lies in a folder without a place in the order");
        ++num_files;
        std::ifstream stream(entry.path());
        for (std::string line; std::getline(stream, line);) {
          num_includes += line.find("#include \"") != std::string::npos;
          const std::string why = objection(file, line);
          CHECK_MESSAGE(why.empty(), file << ": " << line << ": " << why);
        }
      }
    }
    CHECK(num_files > 50);  // the walk saw the tree
    CHECK(num_includes > 100);
  }
}
