// A chat template that a model brings along: read, and rendered for a conversation.
#include <nlohmann/json.hpp>

#include "fuzz/target.h"
#include "src/tasks/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return coppice::fuzz::run(data, size, [](std::string_view bytes) {
    const coppice::Json variables = coppice::Json::parse(R"({"messages": [{"role": "user", "content": " A question.\n"},
        {"role": "assistant", "content": "An answer."}], "add_generation_prompt": true, "tools": null,
        "bos_token": "<s>", "eos_token": "</s>"})");
    coppice::ChatTemplate(bytes, "template").render(variables, {});
  });
}
