// Speed: what is timed is what generate() writes; the stage's figures, exported files and llamacpp.json come together
// in the report.
#include "recipes/stages/measure_speed.h"

#include <doctest/doctest.h>

#include <cmath>

#include "recipes/run/collect_report.h"
#include "src/base/errors.h"
#include "src/model/generate.h"
#include "src/model/parameters.h"
#include "tests/recipes/program.h"

using namespace coppice;
using namespace coppice::test;
using nlohmann::json;

namespace {

json spread(double median) { return {{"median", median}, {"low", 0.9 * median}, {"high", 1.1 * median}}; }

json measured_file(const std::string& path, int bytes, double decode) {
  return {{"path", path},
          {"bytes", bytes},
          {"type", "F32"},
          {"prefill_tokens_per_s", spread(10 * decode)},
          {"decode_tokens_per_s", spread(decode)},
          {"peak_bytes", 3000000}};
}

json llamacpp(const json& files) {
  return {{"format", "coppice.llamacpp"},
          {"version", 1},
          {"threads", 2},
          {"prompt_tokens", 64},
          {"tokens", 64},
          {"repeats", 5},
          {"files", files}};
}

/// Rows of report.json that a program measured, or of files nobody did (program "").
json speeds_of(const fs::path& root, const std::string& program) {
  json rows = json::array();
  for (const json& row : json::parse(slurp(root / "report.json")).value("speeds", json::array()))
    if (row.value("program", "") == program) rows.push_back(row);
  return rows;
}

json check_of(const fs::path& root, const std::string& name) {
  const json report = json::parse(slurp(root / "report.json"));
  for (const json& check : report.at("checks"))
    if (check.at("name") == name) return check;
  return nullptr;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("time_generation: adds what generate() adds to the same prompt, ends of text included") {
    const ModelConfig config{.vocab_size = 37,
                             .hidden_size = 32,
                             .num_hidden_layers = 2,
                             .num_attention_heads = 2,
                             .num_key_value_heads = 1,
                             .head_dim = 16,
                             .intermediate_size = {64, 48},
                             .max_position_embeddings = 64};
    const Model model = make_model(config);
    initialise_parameters(config, *model.arena, 3);
    std::vector<int64_t> prompt;
    for (int64_t i = 0; i < 9; ++i) prompt.push_back((100 + i) % 37);
    std::vector<int64_t> expected;  // token by token, each after the whole text so far
    for (std::vector<int64_t> text = prompt; expected.size() < 12; text.push_back(expected.back()))
      expected.push_back(generate(model, text, -1, {.max_new_tokens = 1}).at(0));
    const TimedGeneration timed = time_generation(model, 9, 12);
    CHECK(timed.added == expected);
    for (const double seconds : {timed.prefill_s, timed.decode_s}) {
      CHECK(std::isfinite(seconds));
      CHECK(seconds > 0);
    }
    CHECK_THROWS_AS(time_generation(model, 9, 1), InternalError);
  }
}

TEST_SUITE("recipe") {
  TEST_CASE("speed: a stage measures it, llamacpp.json adds to it, and what does not fit is said and left out") {
    const Scratch scratch("speed");
    write_run(scratch.path, "small.toml");
    const Outcome outcome = run(scratch.path, {"--quiet", "run", "small.toml", "--set", "scores.speed_tokens=6",
                                               "--set", "release.formats=[\"hf\", \"gguf\"]"});
    REQUIRE_MESSAGE(outcome.code == 0, outcome.err);
    const fs::path root = scratch.path / "runs/small";

    const json models = json::parse(slurp(root / "scores/manifest.json")).at("results").at("models");
    const json rows = speeds_of(root, "coppice");
    REQUIRE(rows.size() == 2);
    REQUIRE(models.size() == 2);
    for (size_t i = 0; i < 2; ++i) {
      const json& speed = models[i].at("speed");
      CHECK(speed.at("prompt_tokens") == 6);
      CHECK(speed.at("turns") == kSpeedTurns);
      CHECK(speed.at("parameter_bytes").get<double>() == 4 * models[i].at("parameters").get<double>());
      for (const char* key : {"prefill_tokens_per_s", "decode_tokens_per_s"}) {
        CHECK(speed.at(key).at("low").get<double>() > 0);
        CHECK(speed.at(key).at("low").get<double>() <= speed.at(key).at("median").get<double>());
        CHECK(speed.at(key).at("median").get<double>() <= speed.at(key).at("high").get<double>());
        CHECK(rows[i].at(key) == speed.at(key).at("median"));
      }
      CHECK(rows[i].at("model") == models[i].at("name"));
      CHECK(rows[i].at("parameter_bytes") == speed.at("parameter_bytes"));
    }
    const json files = speeds_of(root, "");
    REQUIRE(files.size() == 2);
    const fs::path gguf = root / "release/gguf/small-pruned-F32.gguf";
    const auto bytes = static_cast<int>(fs::file_size(gguf));
    uint64_t folder_bytes = 0;
    for (const auto& entry : fs::directory_iterator(root / "release/hf")) folder_bytes += entry.file_size();
    CHECK(files[0] ==
          json{{"model", "pruned"}, {"file", "small-pruned-F32.gguf"}, {"type", "F32"}, {"file_bytes", bytes}});
    CHECK(files[1] ==
          json{{"model", "pruned"}, {"file", "Hugging Face folder"}, {"type", "F32"}, {"file_bytes", folder_bytes}});

    spill(root / "llamacpp.json", llamacpp({measured_file("elsewhere/small-pruned-F32.gguf", bytes, 20),
                                            measured_file("release/gguf/small-pruned-F32.gguf", bytes - 1, 30),
                                            measured_file("release/gguf/unknown.gguf", bytes, 30)})
                                      .dump());
    write_report(root);
    const json llama = speeds_of(root, "llama.cpp");
    REQUIRE(llama.size() == 1);
    CHECK(llama[0] == json{{"model", "pruned"},
                           {"program", "llama.cpp"},
                           {"file", "small-pruned-F32.gguf"},
                           {"type", "F32"},
                           {"conditions", "a prompt of 64 tokens, 64 new ones, 5 turns, 2 threads"},
                           {"file_bytes", bytes},
                           {"prefill_tokens_per_s", 200.0},
                           {"prefill_tokens_per_s_range", {0.9 * 200.0, 1.1 * 200.0}},
                           {"decode_tokens_per_s", 20.0},
                           {"decode_tokens_per_s_range", {0.9 * 20.0, 1.1 * 20.0}},
                           {"peak_bytes", 3000000}});
    CHECK(speeds_of(root, "") == json::array({files[1]}));
    CHECK(check_of(root, "llamacpp.json: small-pruned-F32.gguf").at("text") ==
          "the file of this run has another size: measure it again");
    CHECK(check_of(root, "llamacpp.json: unknown.gguf").at("text") == "no file of this run has this name");
  }

  TEST_CASE("speed: a llamacpp.json of another shape is a failed check, and the report goes on without it") {
    const Scratch scratch("foreign_speed");
    write_run(scratch.path, "small.toml");
    const Outcome outcome = run(scratch.path, {"--quiet", "run", "small.toml", "--set", "release.formats=\"gguf\""});
    REQUIRE_MESSAGE(outcome.code == 0, outcome.err);
    const fs::path root = scratch.path / "runs/small";
    const std::string without = slurp(root / "report.html");
    CHECK_FALSE(json::parse(slurp(root / "report.json")).contains("speeds"));
    const auto bytes = static_cast<int>(fs::file_size(root / "release/gguf/small-pruned-F32.gguf"));
    const json good = llamacpp(json::array({measured_file("gguf/small-pruned-F32.gguf", bytes, 20)}));
    const auto changed = [&](const std::string& pointer, const json& value) {
      json other = good;
      other[json::json_pointer(pointer)] = value;
      return other.dump();
    };
    const struct {
      std::string text, words;
    } cases[] = {
        {"", "parse error"},
        {"[]", "expected format coppice.llamacpp"},
        {changed("/format", 3), "expected format coppice.llamacpp"},
        {changed("/version", 2), "version 2, expected 1"},
        {changed("/threads", -1), "\"threads\""},
        {changed("/files", 3), "\"files\""},
        {changed("/files/0", 3), "files: expected objects"},
        {changed("/files/0/path", std::string(300, 'x')), "path: 300 bytes of text, expected 1 to 200"},
        {changed("/files/0/bytes", 1.5), "\"bytes\""},
        {changed("/files/0/decode_tokens_per_s", 20), "\"decode_tokens_per_s\""},
        {changed("/files/0/decode_tokens_per_s/low", 21), "low 21, median 20, high 22 are not in order"},
        {changed("/files/0/decode_tokens_per_s/median", 0), "median: got 0, expected above 0"},
        {changed("/files/0/peak_bytes", "much"), "\"peak_bytes\""},
        {std::string(2 << 20, ' '), "bytes"},
    };
    for (const auto& [text, words] : cases) {
      spill(root / "llamacpp.json", text);
      write_report(root);
      const json check = check_of(root, "llamacpp.json");
      INFO(words << ": " << check.dump());
      REQUIRE(check.is_object());
      CHECK(check.at("passed") == false);
      CHECK(check.at("text").get<std::string>().find(words) != std::string::npos);
      CHECK(check.at("text").get<std::string>().find(scratch.path.string()) == std::string::npos);
      CHECK(speeds_of(root, "").empty());
    }
    fs::remove(root / "llamacpp.json");
    write_report(root);
    CHECK(slurp(root / "report.html") == without);
    spill(root / "llamacpp.json", good.dump());
    CHECK(run(scratch.path, {"report", "runs/small"}).code == 0);
    CHECK(speeds_of(root, "llama.cpp").size() == 1);
    CHECK(check_of(root, "llamacpp.json").is_null());
  }
}
