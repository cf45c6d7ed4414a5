// evaluate: every model on the same held-out windows and multiple-choice tasks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "recipes/language/stage.h"
#include "src/base/option_mark.h"

namespace coppice {

struct EvaluateStage {
  std::vector<std::string> of;
  std::string teacher;  // empty: the first of `of`
  int64_t seq_len = 256;
  std::string split = "heldout";
  int64_t tokens = 0;  // of the split at most, spread over the domains; 0 = all
  int64_t batch_tokens = 8192;
  std::vector<std::string> tasks;  // files of multiple-choice items
  int64_t speed_tokens = 0;        // of a prompt, and as many new ones; 0 = speed is not measured

  template <class Field>
  void visit_fields(Field& field) {
    field("of", of, Mark::decides, "stages whose models are scored");
    field("teacher", teacher, Mark::decides, "whose top-1 agreement is measured; default the first of `of`");
    field("seq_len", seq_len, Mark::decides, "tokens of a window; equal for every model");
    field("split", split, Mark::decides,
          "the text that models are scored on: heldout, or tuning (data.tuning_share), which options are chosen by");
    field("tokens", tokens, Mark::decides, "tokens of the split at most; 0 = all");
    field("batch_tokens", batch_tokens, Mark::rounding, "tokens of one forward pass (memory)");
    field("tasks", tasks, Mark::place, "files of multiple-choice items (.jsonl), scored beside the held-out text");
    field("speed_tokens", speed_tokens, Mark::decides,
          "prefill, decode and memory are measured on so many prompt tokens and as many new ones; 0 = not");
  }
};

Json run_evaluate(StageContext& context);

}  // namespace coppice
