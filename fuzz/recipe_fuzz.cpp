// A recipe's text to tables with the origin of each value; what the keys mean is checked above.
#include "fuzz/target.h"
#include "src/cli/options.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static coppice::fuzz::MemoryFile file;
  return coppice::fuzz::run(data, size, [](std::string_view bytes) {
    coppice::RecipeSource source = coppice::RecipeSource::load(file.write(bytes), {}, {});
    source.resolved(/*origins=*/true);
    source.root().finish();
  });
}
