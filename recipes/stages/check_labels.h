// Stored labels against what a train stage draws, before anything is made of them: every token has its label, and the
// labels stand at their tokens.
#pragma once

#include <string>
#include <vector>

#include "recipes/stages/stages.h"

namespace coppice {

/// One domain's labels, verified against the fingerprint that the label stage's manifest promises.
LabelCache open_labels(const StageContext& context, const std::string& label_stage, const std::string& domain);

/// Walks the order of a reader's samples, which is a pure function of the recipe; labels[d] is domain d of its mixture.
/// UserError::bad_file naming label stage and domain for a token without a label (with coverage "some" a line says how
/// many there are) and for labels that stand one place beside their tokens (src/data/label_alignment.h).
void check_labels(const StageContext& context, const Stage& reader, const std::string& label_stage,
                  const std::vector<const LabelCache*>& labels);
/// The same of a label stage for all of its readers.
void check_labels(const StageContext& context, const std::vector<const Stage*>& readers);

}  // namespace coppice
