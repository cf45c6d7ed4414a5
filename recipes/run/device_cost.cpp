#include "recipes/run/device_cost.h"

#include <algorithm>
#include <cmath>

namespace coppice {
namespace {

constexpr double kMiB = 1024.0 * 1024, kBf16 = 2, kFloat = 4;
constexpr double kWholeMaster = 18;           // bytes a parameter: master 4, working copy 2, gradient 4, two slots 8
constexpr double kSplitMaster = 16;           // working copy and remainder 4, gradient 4, two slots 8
constexpr double kSnapshot = 12;              // master and two slots, fp32
constexpr double kReadMaster = 6;             // a model that is only read: master and working copy
constexpr double kChunkBytes = 256 * kMiB;    // of logits that exist at once
constexpr double kContextBytes = 800 * kMiB;  // driver, kernels' code, library handles, cuBLAS workspace: assumed
constexpr double kReadTokens = 8192;          // of a batch that is only read
// Of the rate of a product of 8192 cubed: assumed. 95% is the goal for wide products, 88% what is thought of width 768.
constexpr double kWideShare = 0.95, kNarrowShare = 0.88;
constexpr double kNarrow = 1024;
constexpr double kSmallHead = 64, kSmallHeadShare = 0.75;  // heads of 64 reach less of attention's rate
constexpr double kLaunches = 28, kLaunchSeconds = 5e-6;    // of a layer, both ways
constexpr double kPiece = 2048;                            // parameters of one sum of the optimizer
constexpr int64_t kBlocks = 9;                             // of the optimizer, in a layer

struct Widths {
  double hidden, query, key_value, packed, heads, vocab, layers;
  explicit Widths(const ModelConfig& config)
      : hidden(static_cast<double>(config.hidden_size)),
        query(static_cast<double>(config.num_attention_heads * config.head_dim)),
        key_value(static_cast<double>(config.num_key_value_heads * config.head_dim)),
        packed(query + 2 * key_value),
        heads(static_cast<double>(config.num_attention_heads)),
        vocab(static_cast<double>(config.vocab_size)),
        layers(static_cast<double>(config.num_hidden_layers)) {}
};

double widest(const ModelConfig& config) { return static_cast<double>(std::ranges::max(config.intermediate_size)); }

/// Bytes a token that one layer keeps.
double layer_bytes(const ModelConfig& config, double ffn, Recompute recompute) {
  const Widths w(config);
  if (recompute == Recompute::layer) return kBf16 * w.hidden + kFloat;
  double kept = 2 * w.hidden + w.packed + w.query + w.key_value + w.query;  // values stay in the packed projection
  if (recompute == Recompute::elementwise) kept += 2 * ffn;
  if (recompute == Recompute::none) kept += 2 * w.hidden + 3 * ffn;
  return kBf16 * kept + kFloat * (2 + w.heads);
}

/// The forward pass of one layer keeps nothing: its input, what is projected, what the heads give, gate, up and hidden.
double passing_bytes(const ModelConfig& config) {
  const Widths w(config);
  return kBf16 * (3 * w.hidden + 2 * w.packed + w.query + 3 * widest(config));
}

/// Gradients of one layer's activations, what is made again of it, and the hidden states behind the last.
double backward_bytes(const ModelConfig& config, Recompute recompute) {
  const Widths w(config);
  double bytes = kBf16 * (4 * widest(config) + 6 * w.hidden + w.packed);
  if (recompute == Recompute::elementwise) bytes += kBf16 * (w.hidden + widest(config));
  if (recompute == Recompute::gate_up) bytes += kBf16 * (w.hidden + 3 * widest(config));
  if (recompute == Recompute::layer) bytes += layer_bytes(config, widest(config), Recompute::none);
  return bytes;
}

/// Bytes of the logits of `tokens` rows, `element` each, a chunk at a time.
double chunk_bytes(double tokens, double vocab, double element) {
  return std::min(tokens * vocab * element, kChunkBytes);
}

/// Seconds of products of so many rows with weights [out, in].
class Products {
 public:
  Products(const DeviceRow& device, double rows) : device_(device), rows_(rows) {}
  double forward(double in, double out) const {
    return seconds(in, out, kBf16 * (rows_ * in + rows_ * out + in * out));
  }
  /// The input's gradient, and the weight's, which is added to in fp32.
  double backward(double in, double out) const {
    return forward(in, out) + seconds(in, out, kBf16 * (rows_ * in + rows_ * out) + 2 * kFloat * in * out);
  }

 private:
  double seconds(double in, double out, double bytes) const {
    const double share = std::min(in, out) > kNarrow ? kWideShare : kNarrowShare;
    return std::max(2 * rows_ * in * out / (device_.gemm_flops * share), bytes / device_.rates.bytes);
  }
  const DeviceRow& device_;
  double rows_;
};

/// Seconds of the products of one layer.
struct LayerProducts {
  double forward = 0, backward = 0, gate_up = 0, down = 0;
  LayerProducts(const Widths& w, double ffn, const Products& products) {
    const struct {
      double in, out;
    } matrices[] = {{w.hidden, w.packed}, {w.query, w.hidden}, {w.hidden, 2 * ffn}, {ffn, w.hidden}};
    for (const auto& [in, out] : matrices) forward += products.forward(in, out), backward += products.backward(in, out);
    gate_up = products.forward(w.hidden, 2 * ffn);
    down = products.forward(ffn, w.hidden);
  }
};

AttentionRate rate_at(std::span<const AttentionRate> rates, double seq_len) {
  const auto above = std::ranges::find_if(rates, [&](const AttentionRate& rate) { return rate.seq_len >= seq_len; });
  if (above == rates.begin()) return rates.front();
  if (above == rates.end()) return rates.back();
  const AttentionRate& below = *std::prev(above);
  const double share = std::log2(seq_len / below.seq_len) / std::log2(above->seq_len / below.seq_len);
  return {seq_len, std::lerp(below.forward, above->forward, share), std::lerp(below.backward, above->backward, share)};
}

/// Seconds a token and layer.
struct AttentionTime {
  double forward, backward;
  AttentionTime(const ModelConfig& config, int64_t seq_len, const DeviceRow& device, AttentionMode attention) {
    const auto length = static_cast<double>(seq_len);
    const AttentionRate rate = rate_at(attention == AttentionMode::fast ? device.fast : device.repeatable, length);
    const double share = static_cast<double>(config.head_dim) > kSmallHead ? 1 : kSmallHeadShare;
    const double flops = 2 * Widths(config).query * (length + 1);
    forward = flops / (rate.forward * share);
    backward = 2.5 * flops / (rate.backward * share);
  }
};

/// Seconds of elementwise kernels on so many rows.
class Kernels {
 public:
  Kernels(const ModelWork& work, const DeviceRow& device, double rows)
      : device_(device), shape_(kernel_shape(work, static_cast<int64_t>(rows))) {}
  double operator()(Kernel kernel) const { return predicted_seconds(cost_of(kernel), shape_, device_.rates); }
  double layer_forward(int64_t ffn) {
    shape_.ffn_size = ffn;
    return 2 * (*this)(Kernel::residual_rms_norm) + (*this)(Kernel::qk_norm_rope) + (*this)(Kernel::swiglu);
  }
  double layer_backward(int64_t ffn) {
    shape_.ffn_size = ffn;
    return 2 * (*this)(Kernel::residual_rms_norm_backward) + (*this)(Kernel::qk_norm_rope_backward) +
           (*this)(Kernel::swiglu_backward);
  }
  /// Outputs of both norms and the FFN's hidden values, those by the pass that makes gradients of gate and up or by one
  /// of their own.
  double again(int64_t ffn, bool beside_gradients) {
    shape_.ffn_size = ffn;
    const double hidden = beside_gradients
                              ? (*this)(Kernel::swiglu_backward_with_hidden) - (*this)(Kernel::swiglu_backward)
                              : (*this)(Kernel::swiglu);
    return 2 * (*this)(Kernel::residual_rms_norm) + hidden;
  }

 private:
  const DeviceRow& device_;
  KernelShape shape_;
};

double optimizer_seconds(const ModelWork& work, bool split_master, const DeviceRow& device) {
  const KernelShape shape = kernel_shape(work, 0);
  const auto seconds = [&](Kernel kernel) { return predicted_seconds(cost_of(kernel), shape, device.rates); };
  const double norm = seconds(Kernel::optimizer_square_sums);
  if (work.adamw) return norm + seconds(split_master ? Kernel::adamw_move_split : Kernel::adamw_move);
  return norm + seconds(Kernel::adastar_square_sums) +
         seconds(split_master ? Kernel::adastar_move_split : Kernel::adastar_move);
}

}  // namespace

KernelShape kernel_shape(const ModelWork& work, int64_t rows) {
  const ModelConfig& config = work.config;
  return {.rows = rows,
          .hidden_size = config.hidden_size,
          .query_size = config.num_attention_heads * config.head_dim,
          .key_value_size = config.num_key_value_heads * config.head_dim,
          .head_size = config.head_dim,
          .ffn_size = std::ranges::max(config.intermediate_size),
          .vocab_size = config.vocab_size,
          .ids = work.ids,
          .distinct_tokens = std::min(rows, config.vocab_size),
          .parameters = static_cast<int64_t>(work.parameters),
          .pieces = static_cast<int64_t>(work.parameters / kPiece),
          .blocks = kBlocks * config.num_hidden_layers,
          .ffn_mask = work.ffn_mask};
}

double linear_seconds(double rows, double in, double out, const DeviceRow& device) {
  const Products products(device, rows);
  return products.forward(in, out) + products.backward(in, out);
}

double head_seconds(const ModelConfig& config, double rows, const DeviceRow& device, double logit_bytes,
                    bool both_ways) {
  const Widths w(config);
  const double chunks = std::ceil(rows * w.vocab * logit_bytes / kChunkBytes);
  const Products products(device, rows / chunks);
  return chunks * (products.forward(w.hidden, w.vocab) + (both_ways ? products.backward(w.hidden, w.vocab) : 0));
}

double attention_seconds(const ModelWork& work, double tokens, const DeviceRow& device, AttentionMode attention) {
  const AttentionTime time(work.config, work.seq_len, device, attention);
  return tokens * (time.forward + time.backward);
}

double kept_bytes_per_token(const ModelConfig& config, Recompute recompute) {
  double bytes = kBf16 * Widths(config).hidden + kFloat;  // the stream before the last norm, whose output the head has
  for (const int64_t ffn : config.intermediate_size) bytes += layer_bytes(config, static_cast<double>(ffn), recompute);
  return bytes;
}

DeviceMemory training_memory(const ModelWork& work, const DeviceSettings& settings) {
  const Widths w(work.config);
  const auto tokens = static_cast<double>(settings.micro_rows * work.seq_len);
  const bool reads_teacher = work.loss == Kernel::kl_rows || work.loss == Kernel::jsd_rows;
  return {.state = work.parameters * (settings.split_master ? kSplitMaster : kWholeMaster),
          .activations = tokens * kept_bytes_per_token(work.config, settings.recompute),
          .buffers = tokens * backward_bytes(work.config, settings.recompute),
          .logits = (reads_teacher ? 2 : 1) * chunk_bytes(tokens, w.vocab, kBf16),
          .workspace = kContextBytes + tokens * kFloat * (w.query + w.heads)};
}

DeviceMemory reading_memory(const ModelWork& work) {
  const double tokens = std::max(kReadTokens, static_cast<double>(work.seq_len));
  return {.state = work.parameters * kReadMaster,
          .buffers = tokens * passing_bytes(work.config),
          .logits = chunk_bytes(tokens, Widths(work.config).vocab, kFloat),
          .workspace = kContextBytes};
}

double snapshot_bytes(const ModelWork& work) { return work.parameters * kSnapshot; }

double StepTime::seconds() const { return std::max(products + attention + elementwise + again, launches) + optimizer; }

StepTime step_time(const ModelWork& work, const DeviceSettings& settings, const DeviceRow& device,
                   AttentionMode attention) {
  const Widths w(work.config);
  const auto tokens = static_cast<double>(settings.micro_rows * work.seq_len);
  const Products products(device, tokens);
  if (work.documents) attention = AttentionMode::repeatable;  // the quicker one does not know them
  const AttentionTime heads(work.config, work.seq_len, device, attention);
  Kernels kernels(work, device, tokens);
  StepTime time;
  time.products = head_seconds(work.config, tokens, device, kBf16, /*both_ways=*/true);
  time.attention = w.layers * attention_seconds(work, tokens, device, attention);
  time.elementwise = kernels(Kernel::embedding) + kernels(Kernel::embedding_backward) + kernels(work.loss) +
                     kernels(Kernel::residual_rms_norm) + kernels(Kernel::residual_rms_norm_backward);
  for (const int64_t ffn : work.config.intermediate_size) {
    const LayerProducts layer(w, static_cast<double>(ffn), products);
    const double forward = kernels.layer_forward(ffn);
    time.products += layer.forward + layer.backward;
    time.elementwise += forward + kernels.layer_backward(ffn);
    if (settings.recompute == Recompute::layer)  // all but its last product
      time.again += layer.forward - layer.down + tokens * heads.forward + forward;
    if (settings.recompute == Recompute::gate_up)
      time.again += layer.gate_up + kernels.again(ffn, /*beside_gradients=*/false);
    if (settings.recompute == Recompute::elementwise) time.again += kernels.again(ffn, /*beside_gradients=*/true);
  }
  time.launches = w.layers * kLaunches * kLaunchSeconds;
  const auto micro_batches = static_cast<double>(work.rows) / static_cast<double>(settings.micro_rows);
  for (double* part : {&time.products, &time.attention, &time.elementwise, &time.again, &time.launches})
    *part *= micro_batches;
  time.optimizer = optimizer_seconds(work, settings.split_master, device);
  return time;
}

double reading_seconds(const ModelWork& work, const DeviceRow& device, AttentionMode attention) {
  const Widths w(work.config);
  const double tokens = std::max(kReadTokens, static_cast<double>(work.seq_len));
  const Products products(device, tokens);
  Kernels kernels(work, device, tokens);
  double seconds = head_seconds(work.config, tokens, device, kFloat, /*both_ways=*/false) + kernels(Kernel::embedding) +
                   kernels(Kernel::residual_rms_norm) + kernels(Kernel::top_1_rows) +
                   w.layers * tokens * AttentionTime(work.config, work.seq_len, device, attention).forward;
  for (const int64_t ffn : work.config.intermediate_size)
    seconds += LayerProducts(w, static_cast<double>(ffn), products).forward + kernels.layer_forward(ffn);
  return std::max(seconds, w.layers * kLaunches / 3 * kLaunchSeconds) / tokens;
}

}  // namespace coppice
