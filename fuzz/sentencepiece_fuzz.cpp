// The walk that stands before the library: what it lets pass is what the library would read.
#include "fuzz/target.h"
#include "src/tokens/sentencepiece_walk.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return coppice::fuzz::run(data, size,
                            [](std::string_view bytes) { coppice::walk_sentencepiece_model(bytes, "input"); });
}
