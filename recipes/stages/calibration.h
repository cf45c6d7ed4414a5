// Calibration text: what scores from activations are measured on, and what a cut is refitted on. It is drawn from every
// domain by the weights of [[data.domain]], whatever a stage trains on.
#pragma once

#include <cstdint>
#include <vector>

#include "src/base/json.h"
#include "src/data/loader.h"

namespace coppice {

struct ModelConfig;
struct Recipe;
struct ScoreRow;
struct Stage;
struct StageContext;

inline constexpr int64_t kCalibrationSeqLen = 256;  // tokens of its windows
inline constexpr int64_t kCalibrationRows = 8;      // windows of one batch

std::vector<MixtureEntry> calibration_mixture(const Recipe& recipe);
/// The weights by which it is drawn, for identities.
Json calibration_json(const Recipe& recipe);
/// UserError::recipe where no domain has a weight.
void check_calibration(const Recipe& recipe, const Stage& stage);
/// A sample of training windows, as many as `tokens` ask for.
std::vector<Batch> calibration_batches(const StageContext& context, int64_t tokens);
/// How many tokens those windows hold: whole batches.
int64_t whole_batches(int64_t tokens);
/// FLOPs of a score's passes over such a sample.
double calibration_flops(const ModelConfig& config, const ScoreRow& score, int64_t tokens);

}  // namespace coppice
