#include "fuzz/target.h"
#include "src/checkpoint/safetensors_header.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static coppice::fuzz::MemoryFile file;
  return coppice::fuzz::run(data, size, [](std::string_view bytes) {
    for (const coppice::SafetensorsEntry& entry : coppice::read_safetensors_header(file.write(bytes)))
      if (entry.begin > entry.end || entry.end > bytes.size()) std::abort();
  });
}
