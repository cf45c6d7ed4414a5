#include "recipes/stages/mask_watch.h"

#include <fmt/format.h>

#include <string_view>
#include <utility>

#include "pruning/mask_budget.h"
#include "pruning/scores.h"
#include "src/base/errors.h"
#include "src/base/log.h"

namespace coppice {

OtherChoices::OtherChoices(const Model& source, const std::vector<Batch>& batches, uint64_t seed, CutAxis axis) {
  for (const char* name : {"magnitude", "activation", "random"})
    choices.push_back(
        {name, find_score(name, "").compute({.model = &source, .batches = batches, .seed = seed, .axis = axis})});
}

at::Tensor OtherChoices::hard(const char* name, const std::vector<int64_t>& widths) const {
  for (const Choice& choice : choices)
    if (std::string_view(choice.name) == name) return hard_top_k(choice.scores_LF, widths);
  throw InternalError(std::string("no choice ") + name);
}

CollapseWatch::CollapseWatch(std::string stage, bool stops, CutAxis axis)
    : stage_(std::move(stage)), stops_{stops, stops && axis == CutAxis::ffn, false} {}

void CollapseWatch::found(Trouble trouble, const std::string& reason) {
  if (reason.empty()) return;
  if (stops_[trouble])
    throw DivergedError(fmt::format("stage '{}': {} (on_collapse = \"warn\" goes on)", stage_, reason));
  if (!warned_[trouble]) log_warning(fmt::format("stage '{}': {}", stage_, reason));
  warned_[trouble] = true;
}

}  // namespace coppice
