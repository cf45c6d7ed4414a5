// tokenizer.json against the rules worked out by hand; equality of ids with other programs is tested in tests/parity.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "src/base/json.h"
#include "src/checkpoint/hf_export.h"
#include "tests/checkpoint/scratch.h"

using namespace coppice;

TEST_SUITE("unit") {
  TEST_CASE("tokenizer_json: structure") {
    const ScratchFolder scratch;
    const Tokenizer tokenizer = tiny_tokenizer(scratch.path());
    const Json json = parse_json(tokenizer_json(tokenizer, /*add_bos=*/false), "tokenizer.json");
    CHECK(json["version"] == "1.0");
    CHECK(json["normalizer"] == Json::parse(R"({"type":"Replace","pattern":{"String":" "},"content":"▁"})"));
    for (const char* key : {"truncation", "padding", "pre_tokenizer", "post_processor"}) CHECK(json.at(key).is_null());
    CHECK(json["decoder"] ==
          Json::parse(R"({"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"}]})"));
    REQUIRE(json["added_tokens"].size() == 4);
    CHECK(json["added_tokens"][1] ==
          Json::parse(R"({"id":1,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true})"));
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
    const Tokenizer tokenizer = tiny_tokenizer(scratch.path());
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
      for (const int64_t part : {id, vocab.at(merge[0].get<std::string>()).get<int64_t>(), vocab.at(merge[1].get<std::string>()).get<int64_t>()})
        CHECK(tokenizer.pieces()[static_cast<size_t>(part)].type == PieceType::normal);
    }
  }

  TEST_CASE("tokenizer_json: BOS comes from the post-processor alone") {
    const ScratchFolder scratch;
    const Tokenizer tokenizer = tiny_tokenizer(scratch.path());
    const Json processor = parse_json(tokenizer_json(tokenizer, /*add_bos=*/true), "tokenizer.json")["post_processor"];
    CHECK(processor == Json::parse(R"({"type":"TemplateProcessing",
        "single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],
        "pair":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"B","type_id":0}}],
        "special_tokens":{"<s>":{"id":"<s>","ids":[1],"tokens":["<s>"]}}})"));
  }

  TEST_CASE("tokenizer_json: a vocabulary in which a control piece splits into two pieces is refused") {
    const ScratchFolder scratch;
    check_control_pieces(tiny_tokenizer(scratch.path()));
    // Another piece of two letters renamed to "<s" in the model's bytes: field 1, length 2.
    std::string bytes = tiny_tokenizer_bytes();
    const Tokenizer tiny = tiny_tokenizer(scratch.path());
    for (const Piece& piece : tiny.pieces()) {
      if (piece.text.size() != 2 || piece.type != PieceType::normal || static_cast<unsigned char>(piece.text[0]) >= 0x80) continue;
      bytes.replace(bytes.find("\x0a\x02" + piece.text), 4, "\x0a\x02<s");
      break;
    }
    REQUIRE(bytes != tiny_tokenizer_bytes());
    spill(scratch.path() / "html.model", bytes);
    const Tokenizer html = Tokenizer::load(scratch.path() / "html.model");
    try {
      check_control_pieces(html);
      FAIL("nothing was thrown");
    } catch (const UserError& error) {
      CHECK(error.code() == ExitCode::recipe);
      CHECK(std::string(error.what()).find("'<s>' splits into the pieces '<s' and '>'") != std::string::npos);
    }
  }
}
