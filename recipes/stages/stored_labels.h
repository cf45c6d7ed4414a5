// The stored labels of a label stage as others read them: where they lie, what they must match, and, against what a
// train stage draws, whether every token has its label and the labels stand at their tokens.
#pragma once

#include <string>
#include <vector>

#include "recipes/stages/context.h"
#include "src/data/label_cache.h"

namespace coppice {

/// Where a label stage's labels of a domain lie: in its own folder, or in the cache that it was told to use.
std::filesystem::path label_folder(const StageContext& context, const std::string& label_stage,
                                   const std::string& domain);
/// What they must match: what the stage's options, its teacher and the token shards say; of labels from elsewhere
/// teacher and window rule are what they say.
LabelFingerprint label_fingerprint(const StageContext& context, const std::string& label_stage,
                                   const std::string& domain);
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
