// The tokenizer is made, and text goes through it and back.
#include "fuzz/target.h"
#include "src/tokens/tokenizer_json_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return coppice::fuzz::run(data, size, [](std::string_view bytes) {
    const coppice::SpecialTokens specials{.bos = {}, .eos = {.names = {"<eos>"}, .id = 0}, .pad = {}};
    const coppice::Tokenizer tokenizer(coppice::read_tokenizer_json(std::string(bytes), specials, "input"));
    tokenizer.decode(tokenizer.encode("Some 12 words,\n don't \xC3\xA9 <eos>"));
  });
}
