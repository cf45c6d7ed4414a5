// Header, shape, names, tokenizer tables and settings; every byte of every tensor must lie in the file.
#include "fuzz/target.h"
#include "src/checkpoint/gguf_config.h"
#include "src/checkpoint/gguf_file.h"
#include "src/checkpoint/gguf_metadata.h"

namespace {

/// What one reader refuses another may take.
template <class Read>
void attempt(const Read& read) {
  try {
    read();
  } catch (const coppice::UserError&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return coppice::fuzz::run(data, size, [](std::string_view bytes) {
    const coppice::GgufFile file(std::as_bytes(std::span(bytes)), "input");
    unsigned sum = 0;
    for (const coppice::GgufTensor& tensor : file.tensors())
      for (const std::byte byte : file.bytes_of(tensor)) sum += static_cast<unsigned>(byte);
    [[maybe_unused]] volatile unsigned kept = sum;
    attempt([&] { read_gguf_shape(file); });
    attempt([&] { read_gguf_general(file); });
    attempt([&] { read_gguf_vocabulary(file); });
    attempt([&] { read_gguf_settings(file); });
    attempt([&] { tokenizer_from_gguf(read_gguf_vocabulary(file), "input"); });
  });
}
