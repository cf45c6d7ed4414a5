// A fastText model, then a text by it.
#include "fuzz/target.h"
#include "src/corpus/classify/fasttext_model.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return coppice::fuzz::run(data, size, [](std::string_view bytes) {
    const coppice::FastTextModel model(bytes, "input");
    coppice::FastTextModel::Room room;
    float sum = 0;
    for (const std::string_view text : {std::string_view("a b \xC3\xA9 a </s> b"), bytes.substr(0, 4096)})
      for (const float probability : model.predict(text, room)) sum += probability;
    [[maybe_unused]] volatile float kept = sum;
  });
}
