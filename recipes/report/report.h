// What a run proved, for people and for programs: one plain struct in, four texts out (JSON, Markdown, HTML, SVG). Pure
// functions: the caller reads manifests and metrics and fills the struct; nothing here opens a file, knows a stage's
// name or looks at a clock. An absent number is NaN (kAbsent) and is left out everywhere. Losses are plain
// cross-entropy in nats a token, shares lie in [0, 1], sizes are bytes, times seconds.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace coppice {

inline constexpr double kAbsent = std::numeric_limits<double>::quiet_NaN();

/// What a stage was run for: only the first kind is the method's own price.
enum class StagePurpose { method, source, comparison };

/// One stage: what it cost, what `plan` had predicted, and its metrics.jsonl as read_metrics() returns it.
struct ReportStage {
  std::string name, kind;
  std::string status = "done";  // done, running, missing
  std::string from;             // the stage it starts from; empty = fresh weights or not applicable
  StagePurpose purpose = StagePurpose::method;
  std::string changed;  // options changed midway: "lr 0.01 -> 0.003 at step 1200"
  double tokens = kAbsent;
  double seconds = kAbsent;             // summed over restarts
  double checkpoint_stall_s = kAbsent;  // of them, in which training stood still for its checkpoints
  double predicted_seconds = kAbsent;
  double flops = kAbsent;
  double peak_bytes = kAbsent;  // resident memory
  double predicted_bytes = kAbsent;
  std::vector<std::map<std::string, double>>
      metrics;  // keys of formats: step, tokens, loss, ce, kd, lr, heldout_loss, ...
};

/// One model's score on the held-out windows (all of them, or one domain's).
struct ReportScore {
  double loss = kAbsent;
  double bits_per_byte = kAbsent;
  double accuracy = kAbsent;           // of its own top-1 against the next token
  double teacher_agreement = kAbsent;  // of its top-1 with the teacher's
  // The rest is of all windows together, and of no domain.
  double task_accuracy = kAbsent;     // mean over the multiple-choice tasks
  double ece = kAbsent;               // expected calibration error: 15 bins of the top-1 probability
  double temperature = kAbsent;       // that fits the windows best; above 1 = too sure of itself
  double calibrated_loss = kAbsent;   // of each half of the windows at the temperature fitted on the other
  double copying_accuracy = kAbsent;  // on repeated random tokens: mean over the distances of ReportModel::copying
};

/// One model on random tokens that are repeated `distance` tokens later.
struct ReportCopying {
  int64_t distance = 0, positions = 0;
  double accuracy = kAbsent, loss = kAbsent;
};

/// One model on one multiple-choice task.
struct ReportTask {
  double acc = kAbsent, acc_norm = kAbsent, stderr_of_acc = kAbsent;
  int64_t items = 0;
};

/// One model. `role` tells the verdict what it stands for; several models may share a role:
///   source      what was cut, or in a run without a cut the teacher of what was distilled
///   pruned      the source cut by the run's own decision (learned masks, or its one-shot score), not trained since
///   student     `pruned` after training, or a model of another shape trained by a teacher: what the run is for
///   scratch     the student's shape from fresh weights
///   plain       the student's start without teacher labels, where others have them
///   control     as wide as the source: trained on from it, or "cut" without losing a channel
///   teacher     neither source nor student, and some stage learns from it
///   distilled   another shape with a teacher, beside students that were cut
///   the name of a one-shot score    cut by it; trained or not, see training_tokens
///   (empty)     shown in tables, not judged
struct ReportModel {
  std::string name;  // = its stage
  std::string role;
  std::string evaluation;  // the stage that scored it: only models of one evaluation were scored on the same windows
  std::string split = "heldout";           // the text of these windows; or "tuning", by which options are chosen
  int64_t parameters = 0;                  // with embedding, a tied one once
  std::vector<int64_t> intermediate_size;  // one per layer
  int64_t num_hidden_layers = 0, num_attention_heads = 0, num_key_value_heads = 0, hidden_size = 0;  // 0 = unknown
  double training_tokens = 0;  // since the cut, or since fresh weights: what "equal tokens" compares
  double file_bytes = kAbsent;
  double decode_tokens_per_s = kAbsent;  // of coppice, as in its row of `speeds`
  double peak_bytes = kAbsent;
  int64_t positions = 0;  // held-out live positions scored (0 = unknown)
  ReportScore score;
  std::map<std::string, ReportScore> domains;
  std::map<std::string, ReportTask> tasks;
  std::vector<ReportCopying> copying;  // by distance
};

/// A size of models, besides the FFN widths.
struct ReportSize {
  const char *key, *name;  // in report.json, as in config.json; in tables
  int64_t ReportModel::*member;
};
inline constexpr ReportSize kReportSizes[] = {
    {"num_hidden_layers", "layers", &ReportModel::num_hidden_layers},
    {"num_attention_heads", "query heads", &ReportModel::num_attention_heads},
    {"num_key_value_heads", "key/value heads", &ReportModel::num_key_value_heads},
    {"hidden_size", "hidden size", &ReportModel::hidden_size}};

inline bool is_on_tuning_text(const ReportModel& model) { return model.split == "tuning"; }

/// Tokens a second over several turns: the median one, the slowest, the quickest.
struct ReportRate {
  double median = kAbsent, low = kAbsent, high = kAbsent;
};

/// One model in one program: as coppice holds it, or as a file that was exported from it or that it was imported from.
struct ReportSpeed {
  std::string model;            // = its stage
  std::string program;          // coppice, llama.cpp; empty = nobody measured this file
  std::string file;             // its name; empty for coppice
  std::string type;             // of most weights: F32, Q8_0
  std::string conditions;       // "prompt of 64, 64 new tokens, 5 turns, 2 threads": only equal ones are compared
  double file_bytes = kAbsent;  // of coppice: of the weights in memory
  ReportRate prefill, decode;
  double peak_bytes = kAbsent;  // resident: weights, and what decoding adds at most
};

/// One layer's mask over the moments of ReportMasks::step.
struct ReportMaskLayer {
  std::vector<double> kept_share;  // sum lambda / F
  std::vector<double> sharpness;   // sum of the top K / K; 1 = binary
  std::vector<double> churn;       // 1 - overlap with the hard mask one moment earlier; the first entry is NaN
};

/// The mask stage: how the decision was reached and what it is worth at the cut.
struct ReportMasks {
  std::string stage;  // empty = no mask stage in this run
  int64_t num_channels = 0, num_kept = 0;
  std::string units = "FFN channels a layer", unit = "channel";  // what they count, and one of it
  bool per_layer = true;                                         // otherwise the one row is the model's
  std::vector<double> step;
  std::vector<ReportMaskLayer> layers;
  std::vector<std::pair<std::string, double>>
      overlap;  // share of kept channels another score would also have kept, by its name
  double soft_loss = kAbsent, hard_loss = kAbsent, pruned_loss = kAbsent,
         random_loss = kAbsent;  // held-out, same windows
};

/// One matrix that was solved anew: what its output missed of its target on calibration text, as a share of that.
struct ReportRefitted {
  int64_t layer = 0;
  std::string weight = "down_proj";
  double before = kAbsent, after = kAbsent;
};

/// One cut that was refitted, with held-out losses, all on the same windows.
struct ReportRefit {
  std::string stage;
  std::vector<ReportRefitted> refitted;  // from the lowest layer on, o_proj before down_proj
  double uncut_loss = kAbsent, cut_loss = kAbsent, refitted_loss = kAbsent;
  /// The part of what the cut cost that the refit brought back; absent where the cut cost nothing.
  double closed() const {
    return cut_loss > uncut_loss ? (cut_loss - refitted_loss) / (cut_loss - uncut_loss) : kAbsent;
  }
};

/// Reads the series of ReportMasks (step, layers) from a learn_masks stage's metrics: keys "kept_share.<layer>",
/// "sharpness.<layer>", "churn.<layer>"; lines without them are skipped.
ReportMasks mask_series(const std::vector<std::map<std::string, double>>& metrics);

/// Something the run verified: "masked against pruned logits", "largest relative difference 2.1e-07 (limit 1e-05)".
struct ReportCheck {
  std::string name, text;
  bool passed = true;
};

struct Report {
  std::string recipe;
  std::vector<ReportStage> stages;
  std::vector<ReportModel> models;  // from source to student
  std::vector<ReportSpeed> speeds;
  ReportMasks masks;
  std::vector<ReportRefit> refits;
  std::vector<ReportCheck> checks;
  std::vector<std::pair<std::string, std::string>> versions, machine;  // shown as given
  double bytes_per_token = kAbsent;                                    // of the held-out text
};

/// Whether the report's models differ in a size: only then it is shown.
bool differs(const Report& report, int64_t ReportModel::*size);

enum class ReportOutcome { better, worse, mixed, even };  // even: no difference that the sample shows

/// A judged model beside what it is held against, scored on the same windows.
struct ReportComparison {
  const ReportModel *judged = nullptr, *other = nullptr;
  std::string against;  // "training the same shape from scratch"
  bool is_peer =
      true;  // of the judged one's size: evidence for or against it; false: the source and other sizes, shown beside it
  ReportOutcome by_loss = ReportOutcome::even, by_accuracy = ReportOutcome::even, by_agreement = ReportOutcome::even,
                outcome = ReportOutcome::even;
};

/// A measure by which models are held against each other.
struct ReportMeasure {
  const char* name;  // "loss"
  ReportOutcome ReportComparison::*by;
};
inline constexpr ReportMeasure kReportMeasures[] = {{"loss", &ReportComparison::by_loss},
                                                    {"accuracy", &ReportComparison::by_accuracy},
                                                    {"agreement", &ReportComparison::by_agreement}};

/// What the run is for, among the models that were scored: the end of a chain of students, else of what was cut and
/// trained, else cut. Of several one that is exported, else the best by loss. nullptr when none has been scored.
const ReportModel* judged_model(const Report& report);
/// The model that `model` was cut from or learned from, nearest first; nullptr when that was not scored beside it.
const ReportModel* source_of(const Report& report, const ReportModel& model);
/// The judged model against all that was scored beside it, then its cut before training against other cuts. Pointers
/// into `report`.
std::vector<ReportComparison> comparisons_of(const Report& report);

/// Three short sentences at most: what came out, with its decode speed where that was measured; whether it holds
/// against what it was compared with, what it loses to first; what is not counted or not known. The numbers behind them
/// are the table of comparisons.
std::vector<std::string> verdict_sentences(const Report& report);
/// The same as one text.
std::string verdict_of(const Report& report);
/// For a terminal: a sentence a line, then the table.
std::string verdict_text(const Report& report);

/// report.json: recipe, verdict, comparisons[], stages[], models[] with the fields of the run-folder format
/// (docs/evaluate.md), then speeds[], masks, refits[], checks, versions, machine. Ends with a newline.
std::string report_json(const Report& report);
/// The same facts as Markdown; shows `picture` (a path relative to the file).
std::string report_markdown(const Report& report, const std::string& picture = "report.svg");
/// One self-contained page: no script, no network, no font; light and dark; every name escaped.
std::string report_html(const Report& report);
/// The one picture of report.md: loss curves of all training stages, the mask over time, bars of the models.
std::string report_svg(const Report& report);

}  // namespace coppice
