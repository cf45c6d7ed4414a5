#include "recipes/stages/context.h"

#include <nlohmann/json.hpp>

namespace coppice {

Json model_facts(const StageContext& context) {
  return {{"stage", {{"name", context.stage.name}, {"kind", context.stage.kind}}},
          {"fingerprint", context.fingerprint},
          {"tokenizer_sha256", context.data.tokenizer->fingerprint()}};
}

}  // namespace coppice
