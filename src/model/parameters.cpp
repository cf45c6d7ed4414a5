// One function writes the rows of the parameter table; counting, the arena's layout and fresh weights walk them.
#include "src/model/parameters.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "src/base/errors.h"
#include "src/base/random.h"

namespace coppice {
namespace {

constexpr double kBaseWidth = 768;               // muParam-simple: the width at which linear layers have multiplier 1
constexpr int64_t kMaxCells = int64_t{1} << 20;  // sums of all cells are 8 MiB

struct Row {
  const char* name;  // {} is the layer number
  const char* gguf_name;
  std::vector<int64_t> shape;
  std::vector<Axis> axes;
  ParameterKind kind;
  const char* block;  // nullptr: a block of its own
};

int64_t size_of(const Parameter& parameter) {
  int64_t size = 1;
  for (const int64_t axis : parameter.shape) size *= axis;
  return size;
}

// Multiply-adds per token of all matrices; the tied table counts once, as the head (the lookup costs none).
double matrix_weights(const ModelConfig& config) {
  const double hidden = static_cast<double>(config.hidden_size);
  const double query = static_cast<double>(config.num_attention_heads * config.head_dim),
               key = static_cast<double>(config.num_key_value_heads * config.head_dim);
  double weights = hidden * static_cast<double>(config.vocab_size);
  for (const int64_t ffn : config.intermediate_size)
    weights += hidden * (query + 2 * key) + query * hidden + 3 * hidden * static_cast<double>(ffn);
  return weights;
}

int64_t round_up(int64_t size, int64_t multiple) { return (size + multiple - 1) / multiple * multiple; }

std::string unit_name(const Parameter& parameter) {
  if (parameter.layer >= 0) return fmt::format("layers.{}", parameter.layer);
  return parameter.unit == 0 ? "embed_tokens" : "norm";
}

/// 2048 elements, doubled until the units have at most 2^20 cells: a function of the model alone.
int64_t cell_of(const ArenaLayout& layout) {
  int64_t cell = ArenaLayout{}.cell;
  const auto num_cells = [&] {
    return std::accumulate(layout.units.begin(), layout.units.end(), int64_t{0},
                           [&](int64_t sum, const ArenaUnit& unit) { return sum + round_up(unit.size, cell) / cell; });
  };
  while (num_cells() > kMaxCells) cell *= 2;
  return cell;
}

/// Moves units apart until the size of each is a multiple.
void pad_units(ArenaLayout& layout, int64_t multiple) {
  auto entry = layout.entries.begin();
  auto block = layout.blocks.begin();
  int64_t end = 0;
  for (ArenaUnit& unit : layout.units) {
    const int64_t old_end = unit.offset + unit.size, shift = end - unit.offset;
    for (; entry != layout.entries.end() && entry->offset < old_end; ++entry) entry->offset += shift;
    for (; block != layout.blocks.end() && block->offset < old_end; ++block) block->offset += shift;
    unit.offset = end;
    unit.size = round_up(unit.size, multiple);
    end += unit.size;
  }
  layout.size = end;
}

}  // namespace

std::vector<Parameter> parameter_table(const ModelConfig& config) {
  const int64_t D = config.hidden_size, V = config.vocab_size,
                K = config.head_dim;  // letters as in ops.h; Q and P: rows of q, and of k and v
  const int64_t Q = config.num_attention_heads * K, P = config.num_key_value_heads * K;
  using enum Axis;
  using enum ParameterKind;

  std::vector<Parameter> table;
  const auto add = [&](const Row& row, int layer) {
    const auto numbered = [&](const char* text) {
      return layer < 0 ? std::string(text) : fmt::format(fmt::runtime(text), layer);
    };
    const std::string name = numbered(row.name);
    table.push_back({.name = name,
                     .hf_name = name.starts_with("lm_head") ? name : "model." + name,
                     .gguf_name = numbered(row.gguf_name),
                     .shape = row.shape,
                     .axes = row.axes,
                     .kind = row.kind,
                     .layer = layer,
                     .unit = layer >= 0      ? layer + 1
                             : table.empty() ? 0
                                             : config.num_hidden_layers + 1,
                     .block = row.block == nullptr ? name : numbered(row.block)});
  };

  add({"embed_tokens.weight", "token_embd.weight", {V, D}, {vocab, hidden}, embedding, nullptr}, -1);
  for (int layer = 0; layer < config.num_hidden_layers; ++layer) {
    const int64_t F = config.intermediate_size.at(static_cast<size_t>(layer));
    add({"layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", {D}, {hidden}, norm, nullptr}, layer);
    add({"layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight", {Q, D}, {heads, hidden}, linear, "layers.{}.qkv"},
        layer);
    add({"layers.{}.self_attn.k_proj.weight",
         "blk.{}.attn_k.weight",
         {P, D},
         {kv_heads, hidden},
         linear,
         "layers.{}.qkv"},
        layer);
    add({"layers.{}.self_attn.v_proj.weight",
         "blk.{}.attn_v.weight",
         {P, D},
         {kv_heads, hidden},
         linear,
         "layers.{}.qkv"},
        layer);
    if (config.qkv_bias) {
      add({"layers.{}.self_attn.q_proj.bias", "blk.{}.attn_q.bias", {Q}, {heads}, bias, "layers.{}.qkv_bias"}, layer);
      add({"layers.{}.self_attn.k_proj.bias", "blk.{}.attn_k.bias", {P}, {kv_heads}, bias, "layers.{}.qkv_bias"},
          layer);
      add({"layers.{}.self_attn.v_proj.bias", "blk.{}.attn_v.bias", {P}, {kv_heads}, bias, "layers.{}.qkv_bias"},
          layer);
    }
    if (config.qk_norm) {
      add({"layers.{}.self_attn.q_norm.weight", "blk.{}.attn_q_norm.weight", {K}, {head_dim}, norm, nullptr}, layer);
      add({"layers.{}.self_attn.k_norm.weight", "blk.{}.attn_k_norm.weight", {K}, {head_dim}, norm, nullptr}, layer);
    }
    add({"layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight", {D, Q}, {hidden, heads}, linear, nullptr},
        layer);
    add({"layers.{}.post_attention_layernorm.weight", "blk.{}.ffn_norm.weight", {D}, {hidden}, norm, nullptr}, layer);
    add({"layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight", {F, D}, {ffn, hidden}, linear, nullptr}, layer);
    add({"layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight", {F, D}, {ffn, hidden}, linear, nullptr}, layer);
    add({"layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight", {D, F}, {hidden, ffn}, linear, nullptr}, layer);
  }
  add({"norm.weight", "output_norm.weight", {D}, {hidden}, norm, nullptr}, -1);
  if (!config.tie_word_embeddings)
    add({"lm_head.weight", "output.weight", {V, D}, {vocab, hidden}, embedding, nullptr}, -1);
  return table;
}

int64_t count_parameters(const ModelConfig& config) {
  int64_t count = 0;
  for (const Parameter& parameter : parameter_table(config)) count += size_of(parameter);
  return count;
}

int64_t count_embedding_parameters(const ModelConfig& config) {
  return config.vocab_size * config.hidden_size * (config.tie_word_embeddings ? 1 : 2);
}

double forward_flops_per_token(const ModelConfig& config, int64_t seq_len) {
  const double scores = 2.0 *
                        static_cast<double>(config.num_hidden_layers * config.num_attention_heads * config.head_dim) *
                        static_cast<double>(seq_len + 1);
  return 2.0 * matrix_weights(config) + scores;
}

double training_flops_per_token(const ModelConfig& config, int64_t seq_len) {
  return 3.0 * forward_flops_per_token(config, seq_len);
}

ArenaLayout arena_layout(const ModelConfig& config, int shards) {
  const double multiplier = std::min(kBaseWidth / static_cast<double>(config.hidden_size), 1.0);
  ArenaLayout layout;
  for (const Parameter& parameter : parameter_table(config)) {
    const int64_t size = size_of(parameter);
    const bool same_block = !layout.blocks.empty() && layout.blocks.back().name == parameter.block;
    // up_proj is a block of its own and yet follows gate_proj without padding: the two are read as one matrix.
    const bool fused = same_block || parameter.name.ends_with(".up_proj.weight");
    if (!fused) layout.size = round_up(layout.size, kArenaAlignment);
    if (std::ssize(layout.units) == parameter.unit)
      layout.units.push_back({.name = unit_name(parameter), .offset = layout.size});
    layout.entries.push_back({.name = parameter.name, .shape = parameter.shape, .offset = layout.size, .size = size});
    if (same_block) {
      layout.blocks.back().size += size;
    } else {
      layout.blocks.push_back({.name = parameter.block,
                               .offset = layout.size,
                               .size = size,
                               .multiplier = parameter.kind == ParameterKind::linear ? multiplier : 1.0});
    }
    layout.size += size;
  }
  layout.size = round_up(layout.size, kArenaAlignment);
  for (size_t unit = 0; unit < layout.units.size(); ++unit)
    layout.units[unit].size =
        (unit + 1 < layout.units.size() ? layout.units[unit + 1].offset : layout.size) - layout.units[unit].offset;
  layout.cell = cell_of(layout);
  if (shards > 1) pad_units(layout, shards * layout.cell);
  return layout;
}

void initialise_part(const Parameter& whole, size_t row, const at::Tensor& part, int64_t first_row,
                     int64_t first_column, uint64_t seed) {
  COPPICE_CHECK(part.is_cpu() && part.is_contiguous() && part.dim() == static_cast<int64_t>(whole.shape.size()),
                whole.name + ": a contiguous part on the CPU expected");
  const std::span<float> out(part.mutable_data_ptr<float>(), static_cast<size_t>(part.numel()));
  if (whole.shape.size() == 1) {
    std::ranges::fill(out, whole.kind == ParameterKind::norm ? 1.0f : 0.0f);
    return;
  }
  const int64_t columns = part.size(1);
  COPPICE_CHECK(first_row + part.size(0) <= whole.shape[0] && first_column + columns <= whole.shape[1],
                whole.name + ": a part that reaches beyond the whole");
  // fan_in is the last axis, and for the embedding the last axis is the hidden size
  const double std = 1.0 / std::sqrt(static_cast<double>(whole.shape.back()));
  for (int64_t r = 0; r < part.size(0); ++r)
    fill_normal(out.subspan(static_cast<size_t>(r * columns), static_cast<size_t>(columns)), std, seed, Purpose::init,
                row, static_cast<uint64_t>((first_row + r) * whole.shape[1] + first_column));
}

void initialise_parameters(const ModelConfig& config, ParameterArena& arena, uint64_t seed) {
  const std::vector<Parameter> table = parameter_table(config);
  COPPICE_CHECK(table.size() == arena.layout().entries.size(),
                fmt::format("{} rows for an arena of {} entries", table.size(), arena.layout().entries.size()));
  const MasterEditor master = arena.edit_master();
  for (size_t row = 0; row < table.size(); ++row) {
    const ArenaEntry& entry = arena.layout().entries[row];
    COPPICE_CHECK(entry.name == table[row].name && entry.size == size_of(table[row]),
                  entry.name + " against " + table[row].name);
    const at::Tensor into = master[entry.name], host = into.is_cpu() ? into : at::empty(into.sizes(), at::kFloat);
    initialise_part(table[row], row, host, 0, 0, seed);
    if (!host.is_same(into)) into.copy_(host);
  }
}

}  // namespace coppice
