// evaluate: every model on the same windows of one split: next-token loss, bits per byte, accuracy, and agreement with
// the teacher's top-1, per domain and over all, and how well calibrated they are; and on the same multiple-choice tasks
// and repeated random tokens. Their speed, where it is asked for.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>

#include "recipes/stages/context.h"
#include "recipes/stages/evaluate.h"
#include "recipes/stages/measure_speed.h"
#include "recipes/stages/score_tasks.h"
#include "src/base/failpoint.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/base/signals.h"
#include "src/checkpoint/checkpoint.h"
#include "src/data/batch_device.h"
#include "src/evaluate/calibration.h"
#include "src/evaluate/copying.h"
#include "src/model/parameters.h"
#include "src/tensors/calibrated_cross_entropy.h"
#include "src/tensors/ops.h"
#include "src/tokens/text_bytes.h"
#include "student/targets.h"

namespace coppice {
namespace {

struct DomainWindows {
  std::string domain;
  std::vector<Batch> batches;
  std::vector<int64_t> split;  // of each batch: positions before it lie in the first half of the windows
  std::vector<at::Tensor> teacher_label_BT;
  double live_bytes = 0;  // UTF-8 bytes of the tokens that are predicted
};

std::vector<DomainWindows> read_windows(const StageContext& context, const EvaluateStage& options) {
  const TextBytes text_bytes(*context.data.tokenizer);
  const at::Device device = place(context.stage).device;
  const auto& split = context.data.split(options.split);
  const int64_t limit =
      options.tokens == 0 ? -1
                          : std::max<int64_t>(1, options.tokens / options.seq_len / static_cast<int64_t>(split.size()));
  std::vector<DomainWindows> all;
  for (const auto& [domain, shards] : split) {
    DomainWindows windows{.domain = domain};
    WindowReader reader(shards, options.seq_len, false, limit);
    auto rows_of_half = static_cast<int64_t>(reader.num_windows() / 2);
    for (Batch batch; reader.next(std::max<int64_t>(1, options.batch_tokens / options.seq_len), batch);) {
      const auto ids = [](const at::Tensor& ids_BT) {
        return std::span(ids_BT.const_data_ptr<int64_t>(), static_cast<size_t>(ids_BT.numel()));
      };
      windows.live_bytes += text_bytes.of(ids(batch.token_BT.contiguous()), ids(batch.true_label_BT.contiguous()));
      const int64_t rows = std::min(rows_of_half, batch.token_BT.size(0));
      rows_of_half -= rows;
      windows.split.push_back(rows * options.seq_len);
      windows.batches.push_back(on_device(std::move(batch), device));
    }
    if (!windows.batches.empty()) all.push_back(std::move(windows));
  }
  return all;
}

/// What random tokens are drawn from: pieces that spell text. The byte pieces of SentencePiece are left out: a model
/// may have met few of them.
std::vector<int64_t> ordinary_ids(const Tokenizer& tokenizer) {
  std::vector<int64_t> ids;
  const std::vector<Piece>& pieces = tokenizer.pieces();
  for (size_t id = 0; id < pieces.size(); ++id)
    if (pieces[id].type == PieceType::normal) ids.push_back(static_cast<int64_t>(id));
  return ids;
}

Json scores_json(const LossSums& sums, double bytes) {
  const auto live = static_cast<double>(sums.num_live);
  return {{"loss", sums.ce / live},
          {"bits_per_byte", sums.ce / std::log(2.0) / bytes},
          {"accuracy", static_cast<double>(sums.correct) / live},
          {"teacher_agreement", static_cast<double>(sums.agree) / live},
          {"positions", sums.num_live}};
}

Json calibration_json(const std::array<CalibrationSums, 2>& halves) {
  const std::optional<Calibration> calibration = calibrate(halves[0], halves[1]);
  if (!calibration) return Json::object();
  return {{"ece", calibration->ece}, {"temperature", calibration->temperature}, {"calibrated_loss", calibration->loss}};
}

/// Every distance, and the mean of their accuracies.
Json copying_json(const std::vector<CopyingScore>& scores) {
  Json json = Json::object();
  double sum = 0;
  for (const CopyingScore& score : scores) {
    json["copying"].push_back({{"distance", score.distance},
                               {"accuracy", score.accuracy},
                               {"loss", score.loss},
                               {"positions", score.positions}});
    sum += score.accuracy;
  }
  if (!scores.empty()) json["copying_accuracy"] = sum / static_cast<double>(scores.size());
  return json;
}

void check_stop() {
  if (stop_requested()) throw Stopped("stopped while evaluating; models that are scored are kept, run again to go on");
}

/// Rows of the models that are scored, kept as they come, so that a stop costs one model.
class ScoredModels {
 public:
  explicit ScoredModels(const std::filesystem::path& folder) : file_(folder / "scored.json") {
    if (std::filesystem::exists(file_))
      rows_ = object_at(read_sealed(file_, kFormat, kVersion), "models", file_.string());
  }
  bool has(const std::string& name) const { return rows_.contains(name); }
  const Json& row(const std::string& name) const { return rows_.at(name); }
  void add(const std::string& name, Json row) {
    rows_[name] = std::move(row);
    write_file_atomically(file_, seal({{"format", kFormat}, {"version", kVersion}, {"models", rows_}}));
  }
  /// The stage's manifest holds the rows from now on.
  void remove_file() const { std::filesystem::remove(file_); }

 private:
  static constexpr const char* kFormat = "coppice.scored_models";
  static constexpr int kVersion = 1;
  std::filesystem::path file_;
  Json rows_ = Json::object();
};

/// Every model on the same windows and tasks. The teacher comes first: its pass leaves the labels that agreement is
/// counted against.
class Evaluation {
 public:
  explicit Evaluation(const StageContext& context)
      : options_(context.stage.get<EvaluateStage>()),
        windows_(read_windows(context, options_)),
        tasks_(context.recipe, options_, *context.data.tokenizer),
        ordinary_ids_(ordinary_ids(*context.data.tokenizer)) {}

  uint64_t num_tokens() const {
    uint64_t tokens = tasks_.num_tokens();
    for (const DomainWindows& domain : windows_)
      for (const Batch& batch : domain.batches) tokens += static_cast<uint64_t>(batch.token_BT.numel());
    return tokens;
  }

  void label(const Model& teacher) {
    for (DomainWindows& domain : windows_)
      for (size_t i = 0; i < domain.batches.size(); ++i) (void)hidden_states(teacher, domain, i, /*is_teacher=*/true);
  }

  /// `is_teacher`: labels the windows on the way. `on_tokens` gets the tokens that are done, of num_tokens.
  Json score(const Model& model, bool is_teacher, const std::function<void(uint64_t)>& on_tokens) {
    uint64_t tokens_done = 0;
    LossSums total;
    std::array<CalibrationSums, 2> halves;  // of every domain's windows
    double total_bytes = 0;
    Json domains = Json::object();
    for (DomainWindows& domain : windows_) {
      LossSums sums;
      for (size_t i = 0; i < domain.batches.size(); ++i) {
        on_tokens(tokens_done);
        const at::Tensor hidden_ND = hidden_states(model, domain, i, is_teacher);
        tokens_done += static_cast<uint64_t>(domain.batches[i].token_BT.numel());
        const auto [batch, parts] =
            calibrated_cross_entropy({.hidden_ND = hidden_ND,
                                      .head_VD = output_head(model),
                                      .true_label_N = domain.batches[i].true_label_BT.reshape({-1})},
                                     domain.teacher_label_BT[i].reshape({-1}), domain.split[i]);
        sums.add({.ce = batch.ce, .num_live = batch.num_live, .correct = batch.correct, .agree = batch.agree});
        for (size_t half = 0; half < halves.size(); ++half) halves[half].add(parts[half]);
      }
      domains[domain.domain] = scores_json(sums, domain.live_bytes);
      total.add(sums);
      total_bytes += domain.live_bytes;
    }
    Json row = scores_json(total, total_bytes);
    row["domains"] = domains;
    row.update(calibration_json(halves));
    row.update(copying_json(score_copying(model, ordinary_ids_, options_.seq_len, options_.batch_tokens, check_stop)));
    row.update(tasks_.score(model, options_.batch_tokens, [&](uint64_t tokens) {
      check_stop();
      on_tokens(tokens_done + tokens);
    }));
    row["parameters"] = count_parameters(model.config);
    row["intermediate_size"] = model.config.intermediate_size;
    return row;
  }

 private:
  at::Tensor hidden_states(const Model& model, DomainWindows& domain, size_t i, bool is_teacher) {
    check_stop();
    const at::NoGradGuard no_grad;
    const Batch& batch = domain.batches[i];
    at::Tensor hidden_ND = decoder_hidden(model, batch.input());
    if (is_teacher)
      domain.teacher_label_BT.push_back(top_1(hidden_ND, output_head(model)).view(batch.token_BT.sizes()));
    return hidden_ND;
  }

  const EvaluateStage& options_;
  std::vector<DomainWindows> windows_;
  TaskScorer tasks_;
  std::vector<int64_t> ordinary_ids_;
};

std::string score_text(const Json& row) {
  std::string text = fmt::format("loss {:.4f}  bits/byte {:.4f}  accuracy {:.4f}  agreement {:.4f}",
                                 row["loss"].get<double>(), row["bits_per_byte"].get<double>(),
                                 row["accuracy"].get<double>(), row["teacher_agreement"].get<double>());
  if (row.contains("ece"))
    text += fmt::format("  ECE {:.4f}  at T {:.2f} loss {:.4f}", row["ece"].get<double>(),
                        row["temperature"].get<double>(), row["calibrated_loss"].get<double>());
  if (row.contains("copying_accuracy")) text += fmt::format("  copying {:.4f}", row["copying_accuracy"].get<double>());
  if (row.contains("task_accuracy")) text += fmt::format("  tasks {:.4f}", row["task_accuracy"].get<double>());
  return text;
}

}  // namespace

Json run_evaluate(StageContext& context) {
  const auto& options = context.stage.get<EvaluateStage>();
  const Placement on = place(context.stage);
  Evaluation evaluation(context);
  ScoredModels scored(context.folder());
  std::vector<std::string> order = options.of;
  std::ranges::stable_partition(order, [&](const std::string& name) { return name == options.teacher; });
  const bool all_scored = std::ranges::all_of(order, [&](const std::string& name) { return scored.has(name); });
  const uint64_t tokens_of_model = evaluation.num_tokens(), tokens = tokens_of_model * options.of.size();
  Progress progress(context.stage.name, tokens, "token");
  uint64_t tokens_done = 0;
  if (!all_scored && (order.front() != options.teacher || scored.has(options.teacher)))
    evaluation.label(load_model(context.model_folder(options.teacher), on).model);
  for (const std::string& name : order) {
    if (!scored.has(name)) {
      const Model model = load_model(context.model_folder(name), on).model;
      const auto on_tokens = [&](uint64_t own) { progress.update(tokens_done + own, {{"", name}}); };
      scored.add(name, evaluation.score(model, name == options.teacher, on_tokens));
      (void)COPPICE_FAILPOINT("evaluate.scored");
    }
    const Json& row = scored.row(name);
    progress.update(tokens_done += tokens_of_model, {{name, fmt::format("loss {:.4f}", row["loss"].get<double>())}});
    log_info(fmt::format("{:>12}: {}", name, score_text(row)));
  }
  const Json speeds =
      options.speed_tokens > 0 ? measure_speed(context, options.of, options.speed_tokens) : Json::object();
  Json models = Json::array();
  double flops = 0;
  for (const std::string& name : options.of) {
    Json row = scored.row(name);
    row["name"] = name;
    if (speeds.contains(name)) row["speed"] = speeds.at(name);
    models.push_back(std::move(row));
    flops += forward_flops_per_token(context.recipe.model_after(name), options.seq_len) *
             static_cast<double>(tokens_of_model);
  }
  scored.remove_file();
  progress.finish(fmt::format("{} models scored", options.of.size()));
  Json body = {{"tokens", tokens}, {"flops", flops}, {"teacher", options.teacher}, {"results", {{"models", models}}}};
  if (options.split != EvaluateStage().split) body["split"] = options.split;
  return body;
}

}  // namespace coppice
