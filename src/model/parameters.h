// The table of parameters: one row a tensor with our name, its Hugging Face and GGUF names, shape and the role of each
// axis. Import, export, counting, pruning, checkpoints, optimizer blocks and planning all read these rows; nothing here
// allocates.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "src/model/config.h"
#include "src/tensors/arena.h"

namespace coppice {

enum class Axis { vocab, hidden, heads, kv_heads, head_dim, ffn };
enum class ParameterKind { embedding, linear, norm, bias };

struct Parameter {
  std::string name;            // layers.3.mlp.up_proj.weight
  std::string hf_name;         // model.layers.3.mlp.up_proj.weight
  std::string gguf_name;       // blk.3.ffn_up.weight
  std::vector<int64_t> shape;  // row-major [out, in]
  std::vector<Axis> axes;      // one role per axis; `heads` means heads * head_dim rows
  ParameterKind kind = ParameterKind::linear;
  int layer = -1;     // -1: not in a layer
  int64_t unit = 0;   // 0 the embedding, 1 + n layer n, then the final norm with an untied head
  std::string block;  // optimizer block: layers.3.qkv for q, k and v; otherwise its own name
};

/// Rows in arena order: embed_tokens, per layer (input_layernorm, q, k, v, their biases, q_norm, k_norm, o,
/// post_attention_layernorm, gate, up, down), norm, lm_head when untied.
std::vector<Parameter> parameter_table(const ModelConfig& config);

/// Number of parameters; a tied embedding counts once.
int64_t count_parameters(const ModelConfig& config);
int64_t count_embedding_parameters(const ModelConfig& config);

/// FLOPs per token: forward, and training = 3 x forward; causal-exact attention of sequences of seq_len.
double forward_flops_per_token(const ModelConfig& config, int64_t seq_len);
double training_flops_per_token(const ModelConfig& config, int64_t seq_len);

/// Arena order and blocks; multiplier of a block = min(768 / hidden_size, 1) on linear layers, 1 on embedding, norms
/// and biases (muParam-simple). Units: embed_tokens, layers.0 .., norm (with an untied head); for more than one shard
/// each is padded to `shards` equal runs of whole cells.
ArenaLayout arena_layout(const ModelConfig& config, int shards = 1);

/// Fresh weights of a part of row `row` of the table: `part` [rows, columns] (a vector: [columns]) is what the whole
/// parameter has from (first_row, first_column) on. Linear N(0, 1/fan_in), embedding N(0, 1/hidden_size), norms 1,
/// biases 0; a function of (seed, row of the table, element of the whole) alone.
void initialise_part(const Parameter& whole, size_t row, const at::Tensor& part, int64_t first_row,
                     int64_t first_column, uint64_t seed);
/// Fresh weights of a whole model.
void initialise_parameters(const ModelConfig& config, ParameterArena& arena, uint64_t seed);

}  // namespace coppice
