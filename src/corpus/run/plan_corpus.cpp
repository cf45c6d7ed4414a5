#include "src/corpus/run/plan_corpus.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <limits>
#include <system_error>

#include "src/base/control_groups.h"
#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/base/threads.h"
#include "src/corpus/run/document_chain.h"
#include "src/corpus/run/lost_markup.h"
#include "src/corpus/run/pass_documents.h"
#include "src/corpus/run/passes.h"
#include "src/corpus/run/raw_pages.h"
#include "src/text/document_writer.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr size_t kSampleDocuments = 1000;              // of a source
constexpr uint64_t kSampleBytes = uint64_t{64} << 20;  // of text; large documents are fewer

struct SampleFull {};  // leaves read_source_file in the middle of a file

struct Sample {
  std::vector<Document> documents;
  uint64_t text_bytes = 0;
};

double cpu_s() {
  timespec now = {};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// A folder that is gone with the plan.
struct Scratch {
  fs::path path = fs::temp_directory_path() / fmt::format("coppice-plan-{}", ::getpid());
  Scratch() { make_folder(path); }
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  double bytes() const {
    uintmax_t sum = 0;
    for (const auto& entry : fs::recursive_directory_iterator(path))
      if (entry.is_regular_file()) sum += entry.file_size();
    return static_cast<double>(sum);
  }
};

std::vector<SourceFile> list_for_plan(const CorpusSettings& settings, const CorpusRequest& request) {
  check_output_apart(settings.sources, request.out);
  std::vector<SourceFile> files = request.list(settings.sources);
  check_raw_pages(settings, files);
  return files;
}

class Planner {
 public:
  Planner(const CorpusSettings& settings, const CorpusRequest& request)
      : settings_(settings),
        request_(request),
        files_(list_for_plan(settings, request)),
        samples_(settings.sources.size()) {}

  CorpusPlan run() {
    const std::vector<Pass> passes = cut_into_passes(settings_.steps);
    plan_.passes = passes.size();
    plan_.memory_bytes = settings_.memory_bytes;
    plan_.free_bytes = free_bytes(request_.out);
    plan_.threads = choose_threads(settings_.threads);
    plan_.warnings = lost_markup_warnings(settings_, files_);
    size_t columns = 0;
    for (uint32_t i = 0; i < settings_.sources.size(); ++i) read_sample(i);
    for (size_t pass = 0; pass < passes.size(); ++pass) {
      for (const size_t step : passes[pass].mapped) look(settings_.steps[step]);
      for (const size_t step : passes[pass].noted) note(settings_.steps[step]);
      write(pass + 1 == passes.size());
    }
    for (const CorpusStep& step : settings_.steps) columns += step.rules.size();
    const double measured = settings_.kept_values == CorpusSettings::Values::all      ? 1
                            : settings_.kept_values == CorpusSettings::Values::sample ? 0.01
                                                                                      : 0;
    for (const SourcePlan& source : plan_.sources)
      plan_.final_bytes += measured * source.documents * (16 + 4 * static_cast<double>(columns));
    for (size_t i = 0; i < samples_.size(); ++i)
      plan_.documents_left += scale(i) * static_cast<double>(samples_[i].documents.size());
    return plan_;
  }

 private:
  /// Documents of a source for each one of its sample.
  double scale(size_t source) const {
    const SourcePlan& of = plan_.sources[source];
    return of.sampled == 0 ? 0 : of.documents / static_cast<double>(of.sampled);
  }

  void read_sample(uint32_t number) {
    SourcePlan& of = plan_.sources.emplace_back(SourcePlan{.name = settings_.sources[number].name});
    Sample& sample = samples_[number];
    uint64_t read = 0;
    bool full = false;
    const double begin = cpu_s();
    const auto take = [&](Document&& document) {
      sample.text_bytes += document.text.size();
      sample.documents.push_back(std::move(document));
      if (sample.documents.size() == kSampleDocuments || sample.text_bytes >= kSampleBytes) throw SampleFull();
    };
    for (const SourceFile& file : files_) {
      if (file.source != number) continue;
      const uint64_t bytes = stored_bytes(file);
      of.files += std::max<size_t>(1, file.members.size());
      of.bytes += bytes;
      if (full) continue;
      uint64_t of_file = 0;
      try {
        request_.read(file, settings_.sources[number], {.max_bad_share = settings_.max_bad_share}, take, &of_file);
        read += bytes;
      } catch (const SampleFull&) {
        full = true;
        read += std::max<uint64_t>(1, of_file);
      }
    }
    of.sampled = sample.documents.size();
    const double more = full ? std::max(1.0, static_cast<double>(of.bytes) / static_cast<double>(read)) : 1;
    of.documents = more * static_cast<double>(of.sampled);
    of.text_bytes = more * static_cast<double>(sample.text_bytes);
    of.read_seconds = more * (cpu_s() - begin);
  }

  /// What a step says itself, of the text that comes to it.
  void forecast(const CorpusStep& step) {
    double text_bytes = 0;
    for (size_t i = 0; i < samples_.size(); ++i)
      if (step.looks_at(settings_.sources[i]))
        for (const Document& document : samples_[i].documents)
          text_bytes += scale(i) * static_cast<double>(document.text.size());
    const StepForecast said = step.step->forecast(text_bytes);
    for (const std::string& line : said.lines) plan_.forecasts.push_back(step.name + ": " + line);
    for (const std::string& warning : said.warnings) plan_.warnings.push_back(step.name + ": " + warning);
  }

  void look(const CorpusStep& step) {
    forecast(step);
    StepPlan& of = plan_.steps.emplace_back(StepPlan{.name = step.name});
    const std::unique_ptr<DocumentLook> look = step.by_document()->start();
    DocumentChain chain({{.step = &step, .look = look.get()}}, {.doc_timeout_s = settings_.doc_timeout_s});
    double dropped = 0;
    for (size_t i = 0; i < samples_.size(); ++i) {
      if (!step.looks_at(settings_.sources[i])) continue;
      look->begin(settings_.sources[i]);
      std::vector<Document> left;
      const double begin = cpu_s(), came = static_cast<double>(samples_[i].documents.size());
      for (Document& document : samples_[i].documents)
        if (!chain.look(document, /*all=*/true)) left.push_back(std::move(document));
      of.seconds += scale(i) * (cpu_s() - begin);
      of.documents += scale(i) * came;
      dropped += scale(i) * (came - static_cast<double>(left.size()));
      samples_[i].documents = std::move(left);
    }
    of.dropped = of.documents > 0 ? dropped / of.documents : 0;
  }

  void note(const CorpusStep& step) {
    forecast(step);
    StepPlan& of = plan_.steps.emplace_back(StepPlan{.name = step.name, .groups = true});
    for (size_t i = 0; i < samples_.size(); ++i) {
      if (!step.looks_at(settings_.sources[i])) continue;
      const Scratch scratch;
      const GroupPlace place{.folder = scratch.path,
                             .files = {settings_.sources[i].name},
                             .sources = {0},
                             .source_priorities = {static_cast<int>(settings_.sources[i].priority)},
                             .source_names = {settings_.sources[i].name},
                             .memory_bytes = settings_.memory_bytes};
      const double begin = cpu_s();
      const std::unique_ptr<GroupNotes> notes = step.by_group()->note(place, 0);
      for (Document& document : samples_[i].documents) notes->add(document), notes->tell(document);
      notes->commit();
      of.seconds += scale(i) * (cpu_s() - begin);
      of.documents += scale(i) * static_cast<double>(samples_[i].documents.size());
      plan_.work_bytes += scale(i) * scratch.bytes();
    }
    of.least_memory = static_cast<double>(step.by_group()->least_memory(static_cast<uint64_t>(of.documents)));
  }

  void write(bool last) {
    for (size_t i = 0; i < samples_.size(); ++i) {
      const Scratch scratch;
      const double begin = cpu_s();
      if (last) {
        DocumentWriter writer(scratch.path / "sample.jsonl.zst");
        for (const Document& document : samples_[i].documents) writer.write(document);
        writer.commit();
      } else {
        PassWriter writer(scratch.path / "sample");
        for (const Document& document : samples_[i].documents) writer.write(0, document);
        writer.commit();
      }
      plan_.write_seconds += scale(i) * (cpu_s() - begin);
      (last ? plan_.final_bytes : plan_.work_bytes) += scale(i) * scratch.bytes();
    }
  }

  const CorpusSettings& settings_;
  const CorpusRequest& request_;
  const std::vector<SourceFile> files_;
  std::vector<Sample> samples_;  // what is left of them
  CorpusPlan plan_;
};

}  // namespace

double CorpusPlan::seconds() const {
  double sum = write_seconds;
  for (const SourcePlan& source : sources) sum += source.read_seconds;
  for (const StepPlan& step : steps) sum += step.seconds;
  return sum / threads;
}

CorpusPlan plan_corpus(const CorpusSettings& settings, const CorpusRequest& request) {
  return Planner(settings, request).run();
}

std::string plan_text(const CorpusPlan& plan) {
  std::string text = fmt::format("{:<24} {:>8} {:>12} {:>12} {:>12} {:>10}\n", "source", "files", "bytes", "documents",
                                 "text", "CPU time");
  for (const SourcePlan& of : plan.sources)
    text += fmt::format("{:<24} {:>8} {:>12} {:>12} {:>12} {:>10}\n", of.name, of.files,
                        format_bytes(static_cast<double>(of.bytes)), format_count(std::round(of.documents)),
                        format_bytes(of.text_bytes), format_duration(of.read_seconds));
  text += fmt::format("\n{:<24} {:>12} {:>12} {:>10}\n", "step", "documents", "drops", "CPU time");
  for (const StepPlan& of : plan.steps)
    text += fmt::format("{:<24} {:>12} {:>12} {:>10}\n", of.name, format_count(std::round(of.documents)),
                        of.groups ? "(groups)" : fmt::format("{:.1f}%", 100 * of.dropped), format_duration(of.seconds));
  text += fmt::format("{:<24} {:>12} {:>12} {:>10}\n\n", "writing", format_count(std::round(plan.documents_left)), "",
                      format_duration(plan.write_seconds));
  text +=
      fmt::format("{} {}, {} for the corpus and {} on the way; {} free\n{} of memory a task\nabout {} on {} {}{}\n",
                  plan.passes, plan.passes == 1 ? "pass" : "passes", format_bytes(plan.final_bytes),
                  format_bytes(plan.work_bytes), format_bytes(static_cast<double>(plan.free_bytes)),
                  format_bytes(static_cast<double>(plan.memory_bytes)), format_duration(plan.seconds()), plan.threads,
                  plan.threads == 1 ? "thread" : "threads", plan.passes == 1 ? "" : ", and the grouping");
  for (const std::string& line : plan.forecasts) text += line + "\n";
  for (const std::string& warning : plan.warnings) text += "warning: " + warning + "\n";
  return text;
}

void check_fits(const CorpusPlan& plan, const CorpusRequest& request) {
  const double needed = plan.final_bytes + plan.work_bytes;
  if (needed > static_cast<double>(plan.free_bytes))
    throw IoError(request.out.native(), fmt::format("needs about {}, {} are free", format_bytes(needed),
                                                    format_bytes(static_cast<double>(plan.free_bytes))));
  for (const StepPlan& step : plan.steps)
    if (step.least_memory > static_cast<double>(plan.memory_bytes))
      throw UserError::recipe(
          "", fmt::format("data.memory: got {}, step '{}' needs {} for about {} documents",
                          format_bytes(static_cast<double>(plan.memory_bytes)), step.name,
                          format_bytes(1.02 * step.least_memory), format_count(std::round(step.documents))));
  const double machine = static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGESIZE));
  const double memory = std::min(machine, control_group_limits().memory_bytes);
  if (static_cast<double>(plan.memory_bytes) > memory)
    throw UserError::recipe("",
                            fmt::format("data.memory: got {}, this machine has {}",
                                        format_bytes(static_cast<double>(plan.memory_bytes)), format_bytes(memory)));
}

}  // namespace coppice
