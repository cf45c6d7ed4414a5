// The front matter of a model card: YAML, behind bounds of ours.
#include "fuzz/target.h"
#include "src/checkpoint/model_card.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return coppice::fuzz::run(
      data, size, [](std::string_view bytes) { coppice::model_card_text(coppice::parse_model_card(bytes, "input")); });
}
