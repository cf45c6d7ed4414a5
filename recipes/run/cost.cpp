#include "recipes/run/cost.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "recipes/folder/machine.h"
#include "recipes/language/sources.h"
#include "recipes/language/training_options.h"
#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/input_file.h"
#include "src/base/log.h"
#include "src/corpus/sources/source_kinds.h"
#include "src/text/documents_folder.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr double kBytesPerToken = 2.5;  // of text, before a tokenizer is there to tell

/// Sum over the regular files below a folder; 0 when there is none. What cannot be listed is found by whoever reads it.
/// Hidden files do not count: what a run has set aside (.bad-*, .left-*, .old-*) or not yet finished is no part of what
/// its stages leave.
template <class BytesOf>
double sum_over_files(const fs::path& folder, BytesOf bytes_of) {
  double sum = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    if (entry->path().filename().string().starts_with(".")) {
      entry.disable_recursion_pending();
      continue;
    }
    if (entry->is_regular_file(error) && !error) sum += bytes_of(entry->path());
  }
  return sum;
}

double file_bytes(const fs::path& path) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  return error ? 0 : static_cast<double>(size);
}

double folder_bytes(const fs::path& folder) { return sum_over_files(folder, file_bytes); }

/// Packed files hold about four times their size.
double file_text_bytes(const fs::path& path) {
  return file_bytes(path) * (coding_of(path) == ByteSource::Coding::plain ? 1 : 4);
}

/// Text of one domain, by the size of its files.
double text_bytes(const std::string& path) {
  std::error_code error;
  return fs::is_directory(path, error) ? sum_over_files(documents_folder(path), file_text_bytes)
                                       : file_text_bytes(path);
}

/// A domain of the recipe's own corpus, before that is made.
bool is_unmade(const Recipe& recipe, const DomainOptions& domain) {
  std::error_code error;
  return !domain.sources.empty() && !fs::exists(fs::path(recipe.data.corpus_folder) / "report.json", error) &&
         !recipe.sources->recorded("bytes", domain.path);
}

double text_bytes(const Recipe& recipe, const DomainOptions& domain) {
  if (is_unmade(recipe, domain)) return 0;
  const auto read = [&] {
    if (domain.sources.empty()) return Json(text_bytes(domain.path));
    double bytes = 0;  // the links to several sources come with the run
    for (const std::string& source : domain.sources)
      bytes += text_bytes((fs::path(recipe.data.corpus_folder) / "documents" / source).string());
    return Json(bytes);
  };
  return recipe.sources->look("bytes", domain.path, read).get<double>();
}

/// Tokens that each training stage draws from each domain, and how often that reads the domain.
std::string mixture_table(const Recipe& recipe) {
  std::string text = fmt::format("{:<14} {:<14} {:>9} {:>8}\n", "stage", "domain", "tokens", "epochs");
  for (const Stage& stage : recipe.stages) {
    const TrainingOptions* training = training_of(stage);
    if (training == nullptr) continue;
    // in windows of which the stage draws at most a million: max_epochs counts, and no table takes long
    const double tokens = static_cast<double>(training->steps()) * static_cast<double>(training->batch_tokens);
    const double window = std::max(static_cast<double>(training->seq_len), tokens / 1e6);
    std::vector<uint64_t> windows;
    std::vector<double> there;
    for (const MixtureEntry& entry : training->mixture) {
      there.push_back(text_bytes(recipe, *std::ranges::find(recipe.data.domains, entry.domain, &DomainOptions::name)) /
                      kBytesPerToken);
      windows.push_back(std::max<uint64_t>(1, static_cast<uint64_t>(there.back() / window)));
    }
    const bool known = std::ranges::all_of(there, [](double in_domain) { return in_domain > 0; });
    const std::vector<uint64_t> drawn =
        mixture_counts(training->mixture, static_cast<uint64_t>(std::ceil(tokens / window)),
                       known ? windows : std::vector<uint64_t>());
    for (size_t d = 0; d < drawn.size(); ++d) {
      const double from_domain = static_cast<double>(drawn[d]) * window;
      text +=
          fmt::format("{:<14} {:<14} {:>9} {:>8}\n", d == 0 ? stage.name : "", training->mixture[d].domain,
                      format_count(from_domain), there[d] > 0 ? fmt::format("{:.2f}", from_domain / there[d]) : "-");
    }
  }
  return text;
}

/// Stages run one after the other: the largest counts for memory, and its checkpoints go before the next one's come.
void add_up(RecipeCost& total) {
  double transient_bytes = 0;
  for (const StageCost& cost : total.stages) {
    total.memory_bytes = std::max(total.memory_bytes, cost.memory_bytes);
    total.disk_bytes += cost.disk_bytes - cost.transient_bytes;
    transient_bytes = std::max(transient_bytes, cost.transient_bytes);
  }
  total.disk_bytes += transient_bytes;
}

}  // namespace

CorpusBytes corpus_bytes(const Recipe& recipe) {
  CorpusBytes corpus(0, /*is_whole=*/!recipe.data.domains.empty());
  std::error_code error;
  for (const DomainOptions& domain : recipe.data.domains) {
    if (is_unmade(recipe, domain))
      log_warning(
          fmt::format("domain '{}': the corpus in {} is not made yet (coppice data run, or run): its text is in "
                      "no figure here",
                      domain.name, printable(recipe.data.corpus_folder)));
    else if (domain.sources.empty() && !fs::exists(domain.path, error) &&
             !recipe.sources->recorded("bytes", domain.path))
      log_warning(fmt::format("domain '{}': {}: no such corpus file or folder{}; counted as empty", domain.name,
                              printable(domain.path), searched_from(domain.path)));
    const double bytes = text_bytes(recipe, domain);
    corpus.bytes += bytes;
    corpus.is_whole &= bytes > 0;
  }
  return corpus;
}

RecipeCost estimate_cost(const Recipe& recipe, const CorpusBytes& corpus, double gemm_gflops) {
  RecipeCost total;
  StageCost data{.name = "data", .kind = "data", .tokens = corpus.bytes / kBytesPerToken};
  data.disk_bytes = 2.2 * data.tokens;
  data.memory_remedy = "tokenizer.training_bytes";
  const double trainer_bytes = recipe.tokenizer.path.empty() ? static_cast<double>(recipe.tokenizer.training_bytes) : 0;
  data.memory_bytes = trainer_bytes * 12;
  data.seconds = gemm_gflops > 0 ? corpus.bytes / 2.5e6 + trainer_bytes / 1e6 : 0;
  total.stages.push_back(data);
  const CostBasis basis{.recipe = recipe,
                        .tokens = data.tokens,
                        .heldout_tokens = data.tokens * recipe.data.heldout_share,
                        .tuning_tokens = data.tokens * recipe.data.tuning_share,
                        .is_whole = corpus.is_whole};
  for (const Stage& stage : recipe.stages) {
    StageCost cost{.name = stage.name, .kind = stage.kind};
    kind_of(stage).cost(basis, stage, cost);
    cost.memory_bytes += kProgramBytes;
    if (gemm_gflops > 0)
      cost.seconds =
          (cost.flops / cost.share_of_gemm + cost.uncounted_flops / kForwardShareOfGemm) / (gemm_gflops * 1e9);
    total.stages.push_back(cost);
  }
  add_up(total);
  return total;
}

RecipeCost remaining_cost(const RecipeCost& cost, const fs::path& run_root, const std::vector<std::string>& done) {
  RecipeCost rest;
  for (StageCost stage : cost.stages) {
    if (std::ranges::find(done, stage.name) != done.end()) continue;
    stage.disk_bytes = std::max(0.0, stage.disk_bytes - folder_bytes(run_root / stage.name));
    stage.transient_bytes = std::min(stage.transient_bytes, stage.disk_bytes);
    rest.stages.push_back(stage);
  }
  add_up(rest);
  return rest;
}

void check_fits(const RecipeCost& cost, const fs::path& run_root) {
  if (const double memory = available_memory(); cost.memory_bytes > memory) {
    const auto largest = std::ranges::max_element(cost.stages, {}, &StageCost::memory_bytes);
    throw DeviceError::out_of_memory(fmt::format("stage '{}' needs about {} of memory, {} are available; lower {}",
                                                 largest->name, format_bytes(largest->memory_bytes),
                                                 format_bytes(memory), largest->memory_remedy));
  }
  if (const auto free = static_cast<double>(free_bytes(run_root)); cost.disk_bytes > free)
    throw IoError(run_root.string(), fmt::format("the run needs about {} of disk, {} are free; lower keep_last or "
                                                 "tokens, or choose another folder with --out",
                                                 format_bytes(cost.disk_bytes), format_bytes(free)));
}

CorpusTokens estimate_tokens(const Recipe& recipe) {
  CorpusTokens corpus;
  for (const DomainOptions& domain : recipe.data.domains) {
    if (is_unmade(recipe, domain)) {
      corpus.unmade.push_back(domain.name);
      continue;
    }
    const double tokens = text_bytes(recipe, domain) / kBytesPerToken;
    corpus.train[domain.name] = tokens * (1 - recipe.data.heldout_share - recipe.data.tuning_share);
    corpus.heldout += tokens * recipe.data.heldout_share;
    corpus.tuning += tokens * recipe.data.tuning_share;
  }
  return corpus;
}

std::string split_line(const CorpusTokens& corpus) {
  double train = 0;
  for (const auto& [domain, tokens] : corpus.train) train += tokens;
  std::string unmade;
  if (!corpus.unmade.empty()) unmade = fmt::format("text of {}: not made yet\n", fmt::join(corpus.unmade, ", "));
  if (train <= 0) return unmade;
  return unmade + fmt::format("text: about {} tokens to train on, {} held out{}\n", format_count(train),
                              format_count(corpus.heldout),
                              corpus.tuning > 0 ? fmt::format(", {} for tuning", format_count(corpus.tuning)) : "");
}

std::string cost_table(const Recipe& recipe, const RecipeCost& cost) {
  std::string text = fmt::format("{}: {} stages\n\n{:<14} {:<12} {:>11} {:>9} {:>7} {:>10} {:>10} {:>10} {:>8}\n",
                                 recipe.name, recipe.stages.size(), "stage", "kind", "parameters", "tokens", "steps",
                                 "FLOPs", "memory", "disk", "time");
  double flops = 0, seconds = 0;
  for (const StageCost& stage : cost.stages) {
    const auto shown = [](bool known, std::string value) { return known ? value : std::string("-"); };
    text += fmt::format("{:<14} {:<12} {:>11} {:>9} {:>7} {:>10} {:>10} {:>10} {:>8}\n", stage.name, stage.kind,
                        shown(stage.parameters > 0, format_count(static_cast<double>(stage.parameters))),
                        shown(stage.tokens > 0, format_count(stage.tokens)),
                        shown(stage.steps > 0, fmt::format("{}", stage.steps)),
                        shown(stage.flops > 0, fmt::format("{:.2e}", stage.flops)), format_bytes(stage.memory_bytes),
                        format_bytes(stage.disk_bytes), shown(stage.seconds > 0, format_duration(stage.seconds)));
    flops += stage.flops;
    seconds += stage.seconds;
  }
  text += fmt::format("\ntotal: {:.2e} FLOPs, {} of memory at most, {} of disk{}\n", flops,
                      format_bytes(cost.memory_bytes), format_bytes(cost.disk_bytes),
                      seconds > 0 ? fmt::format(", about {}", format_duration(seconds)) : "");
  return text + split_line(estimate_tokens(recipe)) + "\n" + mixture_table(recipe);
}

}  // namespace coppice
