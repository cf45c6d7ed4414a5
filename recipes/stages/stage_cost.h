// What one stage costs, and the formulas that its kind's `cost` is made of.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/model/config.h"
#include "src/model/recompute.h"
#include "src/tensors/kernels/kernel_costs.h"

namespace coppice {

struct Recipe;
struct TrainingOptions;

inline constexpr double kBytesOfFloat = 4;
inline constexpr double kBytesOfBatchToken = 24;      // id, position and label
inline constexpr double kProgramBytes = 350e6;        // LibTorch and its buffers
inline constexpr double kTrainingShareOfGemm = 0.45;  // small fp32 models on two cores (docs/results)
inline constexpr double kForwardShareOfGemm = 0.35;

/// What a stage asks of one model on a device.
struct ModelWork {
  ModelConfig config;
  double parameters = 0;
  int64_t seq_len = 0;
  double read_tokens = 0;  // forward alone
  // of the model that is trained
  int64_t steps = 0, rows = 0;              // optimizer steps, and sequences of one; 0 = it is not
  int64_t micro_rows = 0;                   // sequences of the recipe's micro-batch; 0 = all of a step
  std::optional<Recompute> recompute = {};  // as the recipe says; empty = auto
  std::optional<bool> split_master = {};    // the same of its master
  bool adamw = false, ffn_mask = false;
  bool documents = false;  // kept apart by attention
  Kernel loss = Kernel::label_mix_rows;
  int64_t ids = 0;  // of a token, that the loss reads of its teacher

  bool operator==(const ModelWork&) const = default;
};
/// A model that reads so many tokens in sequences of `seq_len`.
ModelWork reading_work(const ModelConfig& config, int64_t seq_len, double tokens);

struct StageCost {
  std::string name, kind;
  int64_t parameters = 0;  // of the model it leaves or reads; 0 for stages without one
  double tokens = 0, flops = 0;
  int64_t steps = 0;
  double memory_bytes = 0;     // resident peak; coarse
  double host_bytes = 0;       // the part of it that lies on the host wherever the stage computes
  double disk_bytes = 0;       // what stays, plus checkpoints while it runs
  double transient_bytes = 0;  // the part of disk_bytes that goes with the checkpoints
  double seconds = 0;          // at the share of this machine's GEMM rate that it reaches here; 0 = unknown
  double share_of_gemm = kTrainingShareOfGemm;  // that its FLOPs reach
  double uncounted_flops = 0;                   // forward passes that take time and that a stage's own count leaves out
  std::string memory_remedy = "the model's size";  // what would need less
  std::vector<ModelWork> work;     // of all its models, the trained one first; empty: nothing for a device
  bool one_model_at_once = false;  // of them; else they lie side by side
  double device_bytes = 0;         // beside them, where they compute
};

/// What the cost of any stage depends on beside its options.
struct CostBasis {
  const Recipe& recipe;
  double tokens = 0, heldout_tokens = 0, tuning_tokens = 0;  // of the corpus; 0 = not there yet
  bool is_whole = false;                                     // every domain of it is there
  double tokens_of(std::string_view split) const { return split == "tuning" ? tuning_tokens : heldout_tokens; }
};

double model_bytes(const ModelConfig& config);
/// Of the CPU, in fp32: activations kept for the backward pass (residual stream and norms, packed attention, gate, up
/// and hidden) and their gradients; where something is made again, it is there for one layer at a time.
double activation_bytes_per_token(const ModelConfig& config, Recompute recompute = Recompute::none);
/// Steps, FLOPs, memory and disk of training a model of that shape.
void add_training(StageCost& cost, const TrainingOptions& training, const ModelConfig& config);
/// Tokens of a training stage's looks at text that it does not train on: about ten a stage and one at its end.
double look_tokens(const TrainingOptions& training, const CostBasis& basis);

}  // namespace coppice
