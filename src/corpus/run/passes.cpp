#include "src/corpus/run/passes.h"

namespace coppice {

std::vector<Pass> cut_into_passes(const std::vector<CorpusStep>& steps) {
  std::vector<Pass> passes(1);
  const auto open_next = [&] { passes.push_back({.decided = passes.back().noted}); };
  for (size_t i = 0; i < steps.size(); ++i) {
    if (steps[i].by_group() != nullptr) {
      if (const auto& noted = passes.back().noted; !noted.empty() && steps[noted.back()].by_group()->changes_texts())
        open_next();
      passes.back().noted.push_back(i);
    } else {
      if (!passes.back().noted.empty()) open_next();
      passes.back().mapped.push_back(i);
    }
  }
  if (!passes.back().noted.empty()) open_next();
  return passes;
}

}  // namespace coppice
