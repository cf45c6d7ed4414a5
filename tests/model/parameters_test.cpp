// Counts and FLOPs of the published shape: 26 layers, D 3072, 24/8 heads of 128, V 49152, T 4096.
#include "src/model/parameters.h"

#include "tests/tensors/whole_arena.h"  // before any CHECK

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "src/base/errors.h"

using namespace coppice;

namespace {

int64_t count_norms(const ModelConfig& config) {
  int64_t count = 0;
  for (const Parameter& row : parameter_table(config))
    if (row.kind == ParameterKind::norm) count += row.shape[0];
  return count;
}

int64_t count_matrices(const ModelConfig& config) {
  return count_parameters(config) - count_embedding_parameters(config) - count_norms(config);
}

const Parameter& row_of(const std::vector<Parameter>& table, const std::string& name) {
  const auto found = std::ranges::find(table, name, &Parameter::name);
  REQUIRE(found != table.end());
  return *found;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("parameters: the published shapes have the published counts") {
    CHECK(count_matrices(preset("afm-3b", "t")) == 2'586'574'848);
    CHECK(count_matrices(preset("afm-3b-source-23296", "t")) == 6'236'405'760);
    CHECK(count_matrices(preset("afm-3b-source", "t")) == 6'451'101'696);
    CHECK(count_embedding_parameters(preset("afm-3b", "t")) == 150'994'944);
    CHECK(count_norms(preset("afm-3b", "t")) == 26 * (2 * 3072 + 2 * 128) + 3072);
    ModelConfig untied = preset("test", "t");
    const int64_t tied_count = count_parameters(untied);
    untied.tie_word_embeddings = false;
    CHECK(count_parameters(untied) == tied_count + 300 * 32);
    CHECK(count_embedding_parameters(untied) == 2 * 300 * 32);
  }

  TEST_CASE("parameters: FLOPs per token of the published shapes") {
    CHECK(training_flops_per_token(preset("afm-3b", "t"), 4096) == doctest::Approx(18.39e9).epsilon(0.0005));
    CHECK(training_flops_per_token(preset("afm-3b-source-23296", "t"), 4096) ==
          doctest::Approx(40.29e9).epsilon(0.0005));
    CHECK(training_flops_per_token(preset("afm-3b-source", "t"), 4096) == doctest::Approx(41.6e9).epsilon(0.001));
    CHECK(training_flops_per_token(preset("honeycrisp-85m", "t"), 4096) == doctest::Approx(0.963e9).epsilon(0.001));
    // Worked out by hand: demo source, T 256. N_mm = 3 (96 (96 + 64) + 96 96 + 3 96 768) + 96 512 = 786,432; forward =
    // 2 N_mm + 2 3 96 257.
    CHECK(forward_flops_per_token(preset("demo-source", "t"), 256) == 2.0 * 786'432 + 2.0 * 3 * 96 * 257);
  }

  TEST_CASE("parameters: names, shapes and roles of a layer") {
    const std::vector<Parameter> table = parameter_table(preset("demo-source", "t"));
    CHECK(table.size() == 2 + 3 * 11);
    CHECK(table.front().name == "embed_tokens.weight");
    CHECK(table.front().hf_name == "model.embed_tokens.weight");
    CHECK(table.front().gguf_name == "token_embd.weight");
    CHECK(table.back().name == "norm.weight");
    CHECK(table.back().hf_name == "model.norm.weight");
    const Parameter& down = row_of(table, "layers.2.mlp.down_proj.weight");
    CHECK(down.hf_name == "model.layers.2.mlp.down_proj.weight");
    CHECK(down.gguf_name == "blk.2.ffn_down.weight");
    CHECK(down.shape == std::vector<int64_t>{96, 768});
    CHECK((down.axes == std::vector<Axis>{Axis::hidden, Axis::ffn}));
    CHECK(down.layer == 2);
    CHECK(row_of(table, "layers.0.self_attn.k_proj.weight").shape == std::vector<int64_t>{32, 96});
    CHECK(row_of(table, "layers.0.self_attn.k_proj.weight").block == "layers.0.qkv");
    CHECK(row_of(table, "layers.0.mlp.gate_proj.weight").block == "layers.0.mlp.gate_proj.weight");
    for (const Parameter& row : table) CHECK(row.shape.size() == row.axes.size());

    ModelConfig plain = preset("demo-source", "t");
    plain.qk_norm = false;
    plain.tie_word_embeddings = false;
    CHECK(parameter_table(plain).size() == 3 + 3 * 9);
    CHECK(parameter_table(plain).back().hf_name == "lm_head.weight");
    CHECK(parameter_table(plain).back().gguf_name == "output.weight");
  }

  TEST_CASE("parameters: biases of q, k and v are one vector, a block of their own that counts as norms do") {
    ModelConfig config = preset("demo-source", "t");
    const int64_t plain_count = count_parameters(config);
    const double plain_flops = forward_flops_per_token(config, 256);
    config.qkv_bias = true;
    CHECK(count_parameters(config) == plain_count + 3 * (96 + 32 + 32));
    CHECK(forward_flops_per_token(config, 256) == plain_flops);
    const std::vector<Parameter> table = parameter_table(config);
    const Parameter& bias = row_of(table, "layers.1.self_attn.k_proj.bias");
    CHECK(bias.hf_name == "model.layers.1.self_attn.k_proj.bias");
    CHECK(bias.gguf_name == "blk.1.attn_k.bias");
    CHECK(bias.shape == std::vector<int64_t>{32});
    CHECK((bias.axes == std::vector{Axis::kv_heads}));
    CHECK((row_of(table, "layers.1.self_attn.q_proj.bias").axes == std::vector{Axis::heads}));

    config.hidden_size = 1536;  // at which matrices have multiplier 1/2
    ParameterArena arena(arena_layout(config));
    initialise_parameters(config, arena, 1);
    const at::Tensor fused = arena.fused_parameter("layers.1.self_attn.q_proj.bias", "layers.1.self_attn.v_proj.bias");
    CHECK(fused.sizes() == at::IntArrayRef({160}));
    CHECK(fused.count_nonzero().item<int64_t>() == 0);
    const auto& blocks = arena.layout().blocks;
    const auto block = std::ranges::find(blocks, "layers.1.qkv_bias", &ArenaBlock::name);
    REQUIRE(block != blocks.end());
    CHECK(block->size == 160);
    CHECK(block->multiplier == 1.0);
    CHECK((block - 1)->name == "layers.1.qkv");
    CHECK((block - 1)->multiplier == 0.5);
  }

  TEST_CASE("parameters: pruning is slicing every axis with role ffn") {
    ModelConfig wide = preset("test", "t"), narrow = wide;
    narrow.intermediate_size = {32, 7};
    const std::vector<Parameter> before = parameter_table(wide), after = parameter_table(narrow);
    REQUIRE(before.size() == after.size());
    for (size_t i = 0; i < before.size(); ++i)
      for (size_t axis = 0; axis < before[i].shape.size(); ++axis) {
        CHECK(before[i].name == after[i].name);
        const bool sliced = before[i].axes[axis] == Axis::ffn;
        CHECK(after[i].shape[axis] ==
              (sliced ? narrow.intermediate_size[static_cast<size_t>(before[i].layer)] : before[i].shape[axis]));
      }
  }

  TEST_CASE("parameters: the arena's layout keeps fused matrices adjacent and blocks apart") {
    ModelConfig config = preset("test", "t");
    config.hidden_size = 33, config.intermediate_size = {7, 96};  // sizes that no alignment divides
    const ArenaLayout layout = arena_layout(config);
    int64_t end = 0;
    for (const ArenaEntry& entry : layout.entries) {
      CHECK(entry.offset >= end);
      CHECK(entry.offset - end < kArenaAlignment);
      end = entry.offset + entry.size;
    }
    CHECK(layout.size >= end);
    CHECK(layout.size % kArenaAlignment == 0);

    int64_t covered = 0;
    std::set<std::string> names;
    for (const ArenaBlock& block : layout.blocks) {
      covered += block.size;
      CHECK(names.insert(block.name).second);
      if (!block.name.ends_with("up_proj.weight")) CHECK(block.offset % kArenaAlignment == 0);
    }
    CHECK(covered == count_parameters(config));

    const ParameterArena arena(layout);
    CHECK(arena.fused_parameter("layers.0.self_attn.q_proj.weight", "layers.0.self_attn.v_proj.weight").size(0) ==
          (2 + 1 + 1) * 16);
    CHECK(arena.fused_parameter("layers.0.mlp.gate_proj.weight", "layers.0.mlp.up_proj.weight").size(0) == 2 * 7);
    CHECK(layout.blocks[2].name == "layers.0.qkv");
    CHECK(layout.blocks[2].size == 64 * 33);
  }

  TEST_CASE("parameters: units are the embedding, each layer, the last norm with an untied head, without a gap") {
    ModelConfig config = preset("test", "t");
    for (const bool tied : {true, false}) {
      config.tie_word_embeddings = tied;
      const ArenaLayout layout = arena_layout(config);
      REQUIRE(layout.units.size() == 4);
      CHECK(layout.units[0].name == "embed_tokens");
      CHECK(layout.units[2].name == "layers.1");
      CHECK(layout.units[3].name == "norm");
      CHECK(layout.units[0].size == 300 * 32);
      CHECK(layout.units[3].size == (tied ? 32 : 32 + 300 * 32));
      int64_t end = 0;
      for (const ArenaUnit& unit : layout.units) {
        CHECK(unit.offset == end);
        end += unit.size;
      }
      CHECK(end == layout.size);
      CHECK(layout.cell == 2048);
    }
    CHECK(arena_layout(preset("afm-3b", "t")).cell == 4096);  // 2.7e9 parameters are 1.3 million cells of 2048
  }

  TEST_CASE("parameters: units of several shards are padded to equal runs of whole cells, and nothing else moves") {
    ModelConfig config = preset("test", "t");
    config.vocab_size = 515, config.hidden_size = 48, config.head_dim = 16, config.qk_norm = false;
    config.num_attention_heads = 3, config.num_key_value_heads = 1;
    config.num_hidden_layers = 1, config.intermediate_size = {346};
    // 515 x 48 elements, a layer of 56,064, a norm of 48; cells of 2048
    const std::map<int, std::vector<std::pair<int64_t, int64_t>>> wanted = {
        {1, {{0, 24720}, {24720, 56064}, {80784, 48}}},
        {2, {{0, 28672}, {28672, 57344}, {86016, 4096}}},
        {4, {{0, 32768}, {32768, 57344}, {90112, 8192}}}};
    const ArenaLayout plain = arena_layout(config);
    CHECK_THROWS_WITH_AS(owned_range(plain, 1, 0, 2),
                         doctest::Contains("unit layers.0 of 56064 elements is not padded for 2 ranks"), InternalError);
    for (const auto& [shards, units] : wanted) {
      CAPTURE(shards);
      const ArenaLayout layout = arena_layout(config, shards);
      REQUIRE(layout.units.size() == units.size());
      for (size_t u = 0; u < units.size(); ++u)
        CHECK(std::pair(layout.units[u].offset, layout.units[u].size) == units[u]);
      CHECK(layout.size == units.back().first + units.back().second);
      const auto shift = [&](int64_t offset) {  // of the unit that holds this place of the plain layout
        size_t u = 2;
        while (offset < plain.units[u].offset) --u;
        return layout.units[u].offset - plain.units[u].offset;
      };
      for (size_t i = 0; i < plain.entries.size(); ++i)
        CHECK(layout.entries[i].offset == plain.entries[i].offset + shift(plain.entries[i].offset));
      for (size_t i = 0; i < plain.blocks.size(); ++i)
        CHECK(layout.blocks[i].offset == plain.blocks[i].offset + shift(plain.blocks[i].offset));
      CHECK_NOTHROW(ParameterArena{layout});
      int64_t end = 0;
      for (int rank = 0; rank < shards; ++rank) {
        const UnitRange own = owned_range(layout, 1, rank, shards);
        CHECK(own.offset == end);
        CHECK(own.size == units[1].second / shards);
        end += own.size;
      }
      CHECK(end == units[1].second);
    }
  }

  TEST_CASE("parameters: muParam-simple multiplies linear blocks by 768 / D") {
    const ArenaLayout layout = arena_layout(preset("afm-3b", "t"));
    for (const ArenaBlock& block : layout.blocks) {
      const bool linear = block.name.ends_with("qkv") || block.name.find("_proj") != std::string::npos;
      CHECK(block.multiplier == (linear ? 0.25 : 1.0));
    }
    for (const ArenaBlock& block : arena_layout(preset("demo-source", "t")).blocks) CHECK(block.multiplier == 1.0);
  }

  TEST_CASE("parameters: fresh weights have the variances of the method and depend on the seed alone") {
    const ModelConfig config = preset("demo-source", "t");
    ParameterArena arena(arena_layout(config)), again(arena_layout(config)), other(arena_layout(config));
    initialise_parameters(config, arena, 1);
    initialise_parameters(config, again, 1);
    initialise_parameters(config, other, 2);
    CHECK(whole_master(arena).equal(whole_master(again)));
    CHECK_FALSE(whole_master(arena).equal(whole_master(other)));
    CHECK(arena.parameter("layers.1.mlp.up_proj.weight").std().item<double>() ==
          doctest::Approx(1 / std::sqrt(96.0)).epsilon(0.02));
    CHECK(arena.parameter("layers.1.mlp.down_proj.weight").std().item<double>() ==
          doctest::Approx(1 / std::sqrt(768.0)).epsilon(0.02));
    CHECK(arena.parameter("embed_tokens.weight").std().item<double>() ==
          doctest::Approx(1 / std::sqrt(96.0)).epsilon(0.02));
    CHECK(arena.parameter("layers.1.self_attn.k_norm.weight").eq(1).all().item<bool>());
    CHECK_FALSE(arena.parameter("layers.0.mlp.gate_proj.weight").equal(arena.parameter("layers.0.mlp.up_proj.weight")));
  }

  TEST_CASE("parameters: a part of a matrix gets the values that it has in the whole") {
    ModelConfig config = preset("test", "t");
    config.intermediate_size = {93, 41};  // rows of down begin at odd elements, too
    ParameterArena arena(arena_layout(config));
    initialise_parameters(config, arena, 5);
    const std::vector<Parameter> table = parameter_table(config);
    for (size_t row = 0; row < table.size(); ++row) {
      const at::Tensor whole = arena.parameter(row);
      if (table[row].kind == ParameterKind::norm) {
        const at::Tensor part = at::zeros({3});
        initialise_part(table[row], row, part, 0, 7, 5);
        CHECK(part.equal(whole.narrow(0, 7, 3)));
        continue;
      }
      for (const auto& [first_row, rows, first_column, columns] :
           {std::array{0, 16, 0, 32}, {16, 16, 0, 32}, {3, 5, 7, 13}, {1, 1, 31, 1}}) {
        if (first_row + rows > whole.size(0)) continue;  // the smallest have 16 rows
        const at::Tensor part = at::zeros({rows, columns});
        initialise_part(table[row], row, part, first_row, first_column, 5);
        CHECK(part.equal(whole.narrow(0, first_row, rows).narrow(1, first_column, columns)));
      }
      CHECK_THROWS_AS(initialise_part(table[row], row, at::zeros({2, 2}), whole.size(0) - 1, 0, 5), InternalError);
    }
  }

  TEST_CASE("parameters: layers keep their weights when the model grows deeper") {
    ModelConfig shallow = preset("test", "t"), deep = shallow;
    deep.num_hidden_layers = 3, deep.intermediate_size.push_back(96);
    ParameterArena a(arena_layout(shallow)), b(arena_layout(deep));
    initialise_parameters(shallow, a, 5);
    initialise_parameters(deep, b, 5);
    CHECK(a.parameter("layers.1.mlp.down_proj.weight").equal(b.parameter("layers.1.mlp.down_proj.weight")));
  }
}
