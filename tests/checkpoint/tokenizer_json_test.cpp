// tokenizer.json against the rules worked out by hand; equality of ids with other programs is tested in tests/parity.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "src/base/json.h"
#include "src/checkpoint/hf_export.h"
#include "src/checkpoint/hf_import.h"
#include "src/checkpoint/tokenizer_json.h"
#include "tests/checkpoint/tiny.h"
#include "tests/tokens/byte_level_models.h"
#include "tests/tokens/tokenizer_models.h"

using namespace coppice;

namespace {

/// The rows that can be loaded, each with its tokenizer.
struct Row {
  test::TokenizerCase from;
  Tokenizer tokenizer;
};
std::vector<Row> loaded_table(const std::filesystem::path& folder) {
  std::vector<Row> rows;
  for (const test::TokenizerCase& row : test::tokenizer_table(tiny_tokenizer(folder).pieces())) {
    if (!row.load_refusal.empty()) continue;
    spill(folder / (row.name + ".model"), row.file.bytes());
    rows.push_back({row, Tokenizer::load(folder / (row.name + ".model"))});
  }
  return rows;
}

/// No piece, id or name that is not there: "" or a number below 0 anywhere in the file.
bool names_nothing(const Json& json) {
  if (json.is_string()) return json.get<std::string>().empty();
  if (json.is_number_integer()) return json < 0;
  if (json.is_structured())
    for (const Json& part : json)
      if (names_nothing(part)) return true;
  return false;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("tokenizer_json: structure") {
    const ScratchFolder scratch;
    const Tokenizer tokenizer = tiny_tokenizer(scratch.path);
    const Json json = parse_json(tokenizer_json(tokenizer, /*add_bos=*/false), "tokenizer.json");
    CHECK(json["version"] == "1.0");
    CHECK(json["normalizer"] == Json::parse(R"({"type":"Replace","pattern":{"String":" "},"content":"▁"})"));
    for (const char* key : {"truncation", "padding", "pre_tokenizer", "post_processor"}) CHECK(json.at(key).is_null());
    CHECK(
        json["decoder"] ==
        Json::parse(
            R"({"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"}]})"));
    REQUIRE(json["added_tokens"].size() == 4);
    CHECK(
        json["added_tokens"][1] ==
        Json::parse(
            R"({"id":1,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true})"));
    const Json& model = json["model"];
    CHECK(model["type"] == "BPE");
    CHECK(model["byte_fallback"] == true);
    CHECK(model["fuse_unk"] == true);
    CHECK(model["ignore_merges"] == false);
    CHECK(model["unk_token"] == "<unk>");
    CHECK(model["vocab"].size() == 512);
    for (size_t id = 0; id < tokenizer.pieces().size(); ++id) CHECK(model["vocab"][tokenizer.pieces()[id].text] == id);
  }

  TEST_CASE("tokenizer_json: merges join two normal pieces into a normal piece, in id order, none twice") {
    const ScratchFolder scratch;
    const Tokenizer tokenizer = tiny_tokenizer(scratch.path);
    const Json json = parse_json(tokenizer_json(tokenizer, false), "tokenizer.json");
    const Json &vocab = json["model"]["vocab"], &merges = json["model"]["merges"];
    REQUIRE(merges.size() > 100);
    std::set<Json> seen;
    int64_t last = -1;
    for (const Json& merge : merges) {
      CHECK(seen.insert(merge).second);
      const int64_t id = vocab.at(merge[0].get<std::string>() + merge[1].get<std::string>());
      CHECK(id >= last);
      last = id;
      for (const int64_t part : {id, vocab.at(merge[0].get<std::string>()).get<int64_t>(),
                                 vocab.at(merge[1].get<std::string>()).get<int64_t>()})
        CHECK(tokenizer.pieces()[static_cast<size_t>(part)].type == PieceType::normal);
    }
  }

  TEST_CASE("tokenizer_json: BOS comes from the post-processor alone") {
    const ScratchFolder scratch;
    const Tokenizer tokenizer = tiny_tokenizer(scratch.path);
    const Json processor = parse_json(tokenizer_json(tokenizer, /*add_bos=*/true), "tokenizer.json")["post_processor"];
    CHECK(processor == Json::parse(R"({"type":"TemplateProcessing",
        "single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],
        "pair":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"B","type_id":0}}],
        "special_tokens":{"<s>":{"id":"<s>","ids":[1],"tokens":["<s>"]}}})"));
  }

  TEST_CASE("tokenizer_json: a vocabulary in which a control piece splits into two pieces is refused") {
    const ScratchFolder scratch;
    check_exportable(tiny_tokenizer(scratch.path), "tokenizer");
    // Another piece of two letters renamed to "<s" in the model's bytes: field 1, length 2.
    std::string bytes = tiny_tokenizer_bytes();
    const Tokenizer tiny = tiny_tokenizer(scratch.path);
    for (const Piece& piece : tiny.pieces()) {
      if (piece.text.size() != 2 || piece.type != PieceType::normal ||
          static_cast<unsigned char>(piece.text[0]) >= 0x80)
        continue;
      bytes.replace(bytes.find("\x0a\x02" + piece.text), 4, "\x0a\x02<s");
      break;
    }
    REQUIRE(bytes != tiny_tokenizer_bytes());
    spill(scratch.path / "html.model", bytes);
    const Tokenizer html = Tokenizer::load(scratch.path / "html.model");
    try {
      check_exportable(html, "tokenizer");
      FAIL("nothing was thrown");
    } catch (const UserError& error) {
      CHECK(error.code() == ExitCode::recipe);
      CHECK(std::string(error.what()).find("'<s>' splits into the pieces '<s' and '>'") != std::string::npos);
    }
  }

  TEST_CASE(
      "tokenizer_json: what a row of odd tokenizers cannot be written as is refused, all others hold every piece and "
      "special") {
    const ScratchFolder scratch;
    size_t num_refused = 0;
    for (const auto& [row, tokenizer] : loaded_table(scratch.path)) {
      INFO(row.name);
      if (!row.export_refusal.empty()) {
        ++num_refused;
        try {
          check_exportable(tokenizer, "given.toml:7");
          FAIL("nothing was thrown");
        } catch (const UserError& error) {
          CHECK(error.code() == ExitCode::recipe);
          CHECK(std::string(error.what()).starts_with("given.toml:7"));
          CHECK(std::string(error.what()).find(row.export_refusal) != std::string::npos);
        }
        continue;
      }
      check_exportable(tokenizer, "given.toml:7");
      const Json json = parse_json(tokenizer_json(tokenizer, /*add_bos=*/false), "tokenizer.json");
      CHECK(json["model"]["unk_token"] == tokenizer.pieces()[static_cast<size_t>(tokenizer.unk_id().value())].text);
      for (size_t id = 0; id < tokenizer.pieces().size(); ++id)
        CHECK(json["model"]["vocab"].at(tokenizer.pieces()[id].text) == id);
      for (const Json& token : json["added_tokens"]) {
        const Piece& piece = tokenizer.pieces().at(token["id"].get<size_t>());
        CHECK(token["content"] == piece.text);
        CHECK(token["special"] == (piece.type != PieceType::user_defined));
        CHECK(token["normalized"] == (piece.type == PieceType::user_defined));
      }
      CHECK(json["decoder"]["decoders"].size() == (tokenizer.has_dummy_prefix() ? 4 : 3));
    }
    CHECK(num_refused == 2);
  }

  TEST_CASE(
      "tokenizer_json: a dummy prefix is put before every text, but not before the names of user-defined pieces") {
    const ScratchFolder scratch;
    for (const auto& [row, tokenizer] : loaded_table(scratch.path)) {
      const Json normalizer = row.export_refusal.empty()
                                  ? parse_json(tokenizer_json(tokenizer, false), "tokenizer.json")["normalizer"]
                                  : Json();
      if (row.name == "llama")
        CHECK(normalizer == Json::parse(R"({"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},
            {"type":"Replace","pattern":{"String":" "},"content":"▁"}]})"));
      if (row.name == "user_defined_and_prefix") {
        CHECK(normalizer["normalizers"][1]["pattern"]["Regex"] ==
              "\\A(?!(?:<\\|im_start\\|>|\\[INST\\]|▁▁|\n\n|of)?\\z)");
        CHECK(piece_without_prefix(tokenizer) == "<|im_start|>");
      } else {
        CHECK(piece_without_prefix(tokenizer) == "");
      }
    }
  }

  TEST_CASE("tokenizer_json: BOS that is wanted and not there is refused") {
    const ScratchFolder scratch;
    for (const auto& [row, tokenizer] : loaded_table(scratch.path))
      if (row.export_refusal.empty() && row.name == "no_bos")
        CHECK_THROWS_AS(check_exportable(tokenizer, "tokenizer", /*add_bos=*/true), UserError);
  }

  TEST_CASE("export_hf: folders with odd tokenizers name only what is there, and are read again") {
    const ScratchFolder scratch;
    for (const auto& [row, tokenizer] : loaded_table(scratch.path)) {
      if (!row.export_refusal.empty()) continue;
      INFO(row.name);
      const std::filesystem::path folder = scratch.path / ("hf-" + row.name);
      ModelConfig config = tiny_config();
      config.vocab_size = tokenizer.vocab_size();
      CHECK(export_hf(folder, tiny_model(config, 3), tokenizer, "f32").max_logit_difference < 1e-4);
      const Json shape = read_json(folder / "config.json"), generation = read_json(folder / "generation_config.json"),
                 names = read_json(folder / "tokenizer_config.json");
      for (const Json& json : {shape, generation, names}) CHECK(!names_nothing(json));
      const auto check_special = [&](const char* name, std::optional<int64_t> id) {
        const std::string key = std::string(name) + "_token";
        CHECK(shape.at(key + "_id") == (id ? Json(*id) : Json()));
        CHECK(generation.at(key + "_id") == (id ? Json(*id) : Json()));
        CHECK(names.at(key) == (id ? Json(tokenizer.pieces()[static_cast<size_t>(*id)].text) : Json()));
      };
      check_special("bos", tokenizer.bos_id());
      check_special("eos", tokenizer.eos_id());
      check_special("pad", tokenizer.pad_id());
      CHECK(Tokenizer::load(folder / "tokenizer.model").fingerprint() == tokenizer.fingerprint());
      CHECK(import_hf(folder).config.vocab_size == tokenizer.vocab_size());
    }
  }

  TEST_CASE("tokenizer_json: a byte-level tokenizer keeps its own text, and an export says what it has") {
    const ScratchFolder scratch;
    Json json = test::byte_level_json();
    json["added_tokens"].push_back(test::added_token(265, "<|begin_of_text|>", true));
    scratch.write("own/tokenizer_config.json", R"({"pad_token":"<|endoftext|>"})");
    const Tokenizer tokenizer = Tokenizer::load(scratch.write("own/tokenizer.json", json.dump(3)));
    check_exportable(tokenizer, "formats", /*add_bos=*/true);
    CHECK(tokenizer_json(tokenizer, /*add_bos=*/false) == json.dump(3));
    CHECK(piece_without_prefix(tokenizer).empty());
    ModelConfig config = tiny_config();
    config.vocab_size = tokenizer.vocab_size();
    const std::filesystem::path folder = scratch / "hf";
    CHECK(export_hf(folder, tiny_model(config, 3), tokenizer, "f32").max_logit_difference < 1e-4);
    CHECK(slurp(folder / "tokenizer.json") == json.dump(3));
    CHECK_FALSE(std::filesystem::exists(folder / "tokenizer.model"));
    const Json names = read_json(folder / "tokenizer_config.json");
    CHECK(names["tokenizer_class"] == "PreTrainedTokenizerFast");
    CHECK(names["eos_token"] == "<|endoftext|>");
    CHECK(names["bos_token"] == "<|begin_of_text|>");
    CHECK(names["pad_token"] == "<|endoftext|>");
    CHECK(names["unk_token"].is_null());
    CHECK_FALSE(names.contains("add_bos_token"));
    CHECK(names["clean_up_tokenization_spaces"] == false);
    const Tokenizer again = Tokenizer::load(folder / "tokenizer.json");
    CHECK(again.fingerprint() == tokenizer.fingerprint());
    CHECK(again.pad_id() == 264);
    CHECK(import_hf(folder).config.vocab_size == 266);
  }
}
