// evaluate: every model on the same held-out windows: next-token loss, bits per byte, accuracy, and agreement with the teacher's top-1, per domain and over
// all.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "recipes/stages.h"
#include "src/base/log.h"
#include "src/base/signals.h"
#include "src/model/parameters.h"
#include "src/tensors/ops.h"
#include "student/targets.h"

namespace coppice {
namespace {

struct DomainWindows {
  std::string domain;
  std::vector<Batch> batches;
  std::vector<at::Tensor> teacher_label_BT;
  double live_bytes = 0;  // UTF-8 bytes of the tokens that are predicted
};

/// UTF-8 bytes that a token stands for: 0 for control pieces, 1 for byte pieces, the text's length (space for U+2581) otherwise.
std::vector<double> bytes_of_pieces(const Tokenizer& tokenizer) {
  std::vector<double> bytes;
  for (const Piece& piece : tokenizer.pieces()) {
    double length = 0;
    if (piece.type == PieceType::byte) length = 1;
    if (piece.type == PieceType::normal || piece.type == PieceType::user_defined) {
      length = static_cast<double>(piece.text.size());
      for (size_t at = piece.text.find("\u2581"); at != std::string::npos; at = piece.text.find("\u2581", at + 3)) length -= 2;
    }
    bytes.push_back(length);
  }
  return bytes;
}

std::vector<DomainWindows> read_windows(const StageContext& context, const EvaluateStage& options) {
  const std::vector<double> piece_bytes = bytes_of_pieces(*context.data.tokenizer);
  const int64_t limit = options.tokens == 0 ? -1 : std::max<int64_t>(1, options.tokens / options.seq_len / static_cast<int64_t>(context.data.heldout.size()));
  std::vector<DomainWindows> all;
  for (const auto& [domain, shards] : context.data.heldout) {
    DomainWindows windows{.domain = domain};
    WindowReader reader(shards, options.seq_len, false, limit);
    for (Batch batch; reader.next(std::max<int64_t>(1, options.batch_tokens / options.seq_len), batch);) {
      const at::Tensor label = batch.true_label_BT.contiguous();
      for (const int64_t *id = label.const_data_ptr<int64_t>(), *end = id + label.numel(); id != end; ++id)
        if (*id >= 0) windows.live_bytes += piece_bytes[static_cast<size_t>(*id)];
      windows.batches.push_back(std::move(batch));
    }
    if (!windows.batches.empty()) all.push_back(std::move(windows));
  }
  return all;
}

Json scores_json(const LossSums& sums, double bytes) {
  const auto live = static_cast<double>(sums.num_live);
  return {{"loss", sums.ce / live},
          {"bits_per_byte", sums.ce / std::log(2.0) / bytes},
          {"accuracy", static_cast<double>(sums.correct) / live},
          {"teacher_agreement", static_cast<double>(sums.agree) / live}};
}

}  // namespace

Json run_evaluate(StageContext& context) {
  const auto& options = std::get<EvaluateStage>(context.stage.options);
  std::vector<DomainWindows> windows = read_windows(context, options);
  double flops = 0;
  uint64_t tokens = 0;
  {
    const Model teacher = load_model(context.model_folder(options.teacher)).model;
    for (DomainWindows& domain : windows)
      for (const Batch& batch : domain.batches) {
        const at::NoGradGuard no_grad;
        const at::Tensor hidden_ND = decoder_hidden(teacher, {.token_BT = batch.token_BT, .position_BT = batch.position_BT, .document_BT = batch.document_BT});
        domain.teacher_label_BT.push_back(top_1(hidden_ND, output_head(teacher)).view(batch.token_BT.sizes()));
      }
  }
  Json models = Json::array();
  Progress progress(context.stage.name, options.of.size(), "model");
  for (const std::string& name : options.of) {
    if (stop_requested()) throw Stopped("stopped while evaluating; run again to start this stage over");
    const Model model = load_model(context.model_folder(name)).model;
    LossSums total;
    double total_bytes = 0;
    Json domains = Json::object();
    for (const DomainWindows& domain : windows) {
      LossSums sums;
      for (size_t i = 0; i < domain.batches.size(); ++i) {
        Targets targets = make_targets(domain.batches[i], domain.teacher_label_BT[i], KdOptions{.teacher_weight = 0.5, .z_loss = 0});
        sums.add(evaluate_batch(model, domain.batches[i], targets));
        tokens += static_cast<uint64_t>(domain.batches[i].token_BT.numel());
        flops += forward_flops_per_token(model.config, options.seq_len) * static_cast<double>(domain.batches[i].token_BT.numel());
      }
      domains[domain.domain] = scores_json(sums, domain.live_bytes);
      total.add(sums);
      total_bytes += domain.live_bytes;
    }
    Json row = scores_json(total, total_bytes);
    row["name"] = name;
    row["parameters"] = count_parameters(model.config);
    row["intermediate_size"] = model.config.intermediate_size;
    row["domains"] = domains;
    progress.update(models.size() + 1, {{name, fmt::format("loss {:.4f}", row["loss"].get<double>())}});
    log_info(fmt::format("{:>12}: loss {:.4f}  bits/byte {:.4f}  accuracy {:.4f}  agreement {:.4f}", name, row["loss"].get<double>(),
                         row["bits_per_byte"].get<double>(), row["accuracy"].get<double>(), row["teacher_agreement"].get<double>()));
    models.push_back(std::move(row));
  }
  progress.finish(fmt::format("{} models scored", options.of.size()));
  return {{"tokens", tokens}, {"flops", flops}, {"teacher", options.teacher}, {"results", {{"models", models}}}};
}

}  // namespace coppice
