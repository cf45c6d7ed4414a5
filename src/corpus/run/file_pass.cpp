#include "src/corpus/run/file_pass.h"

#include <fmt/format.h>

#include <map>
#include <optional>

#include "src/base/errors.h"
#include "src/base/failpoint.h"
#include "src/base/files.h"
#include "src/base/signals.h"
#include "src/corpus/run/document_chain.h"
#include "src/corpus/run/pass_documents.h"
#include "src/corpus/run/removal_file.h"
#include "src/corpus/run/value_rows.h"
#include "src/text/document_writer.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

/// The documents that are left: the final file, or one that the next pass reads.
class PassOutput {
 public:
  PassOutput(const fs::path& path, bool last) {
    if (last) {
      final_.emplace(path);
    } else {
      between_.emplace(path);
    }
  }
  void write(uint32_t record, const Document& document) {
    if (final_) return final_->write(document);
    between_->write(record, document);
  }
  void commit() { final_ ? final_->commit() : between_->commit(); }

 private:
  std::optional<DocumentWriter> final_;
  std::optional<PassWriter> between_;
};

}  // namespace

bool is_measured_sample(std::string_view id) { return sample_hash(id) < ~uint64_t{0} / 100; }

std::vector<std::string> value_columns(const std::vector<CorpusStep>& steps, const Pass& pass) {
  std::vector<std::string> columns;
  for (const auto* numbers : {&pass.decided, &pass.mapped})
    for (const size_t step : *numbers)
      for (const Rule& rule : steps[step].rules) columns.push_back(steps[step].name + "/" + rule.name);
  return columns;
}

FilePass::FilePass(const PassWork& work) : work_(work) {
  for (const size_t step : work.passes[work.pass].mapped)
    looks_.push_back(work.settings.steps[step].by_document()->start());
}

/// One file under way.
class FilePass::Run {
 public:
  Run(FilePass& of, uint32_t number)
      : work_(of.work_),
        number_(number),
        file_(work_.files[number]),
        source_(work_.settings.sources[file_.source]),
        looks_(of.looks_),
        path_(work_.folder.documents(work_.pass, file_)),
        output_((make_folder(path_.parent_path()), path_), work_.pass + 1 == work_.passes.size()),
        rows_((make_folder(work_.folder.rows(work_.pass, file_).parent_path()), work_.folder.rows(work_.pass, file_)),
              value_columns(steps(), pass())) {
    for (const auto& look : looks_) {
      look->begin(source_);
      look->add_counts(counted_before_.emplace_back());
    }
    start_groups();
    chain_.emplace(links(of), ChainOptions{.doc_timeout_s = work_.settings.doc_timeout_s,
                                           .keep_removed_text = work_.keep_removed_text});
  }

  void read(std::atomic<uint64_t>& bytes_read) {
    uint64_t read = 0, told = 0;
    const auto tell = [&] { bytes_read += read - std::exchange(told, read); };
    if (work_.pass > 0) {
      record_.input = work_.folder.record(work_.pass - 1, file_).input;
      read_pass(
          work_.folder.documents(work_.pass - 1, file_),
          [&](uint32_t record, Document&& document) { look(record, std::move(document)), tell(); }, &read);
      return tell();
    }
    record_.input = identify(file_);
    uint32_t record = 0;
    const auto take = [&](Document&& document) {
      if (record == UINT32_MAX)
        throw UserError::bad_file(file_.path.string(), "holds more than 2^32 - 1 documents; cut it into several files");
      look(record++, std::move(document)), tell();
    };
    record_.counts.source = work_.read(file_, source_, {.max_bad_share = work_.settings.max_bad_share}, take, &read);
    tell();
    if (stored_bytes(file_) != record_.input.bytes)
      throw UserError::bad_file(file_.path.string(), "has changed while it was read");
  }

  /// The documents come last: they say that the rest is there.
  void commit() {
    for (const auto& notes : notes_) notes->commit();
    (void)COPPICE_FAILPOINT("corpus.after_notes");
    for (auto& [step, removals] : removals_) removals.commit();
    commit_values();
    (void)COPPICE_FAILPOINT("corpus.before_record");
    record_.counts.steps = chain_->counts();
    work_.times.add(chain_->times());
    for (size_t i = 0; i < looks_.size(); ++i) {
      Counts& counted = record_.counts.steps.at(steps()[pass().mapped[i]].name).counted;
      looks_[i]->add_counts(counted);
      for (const auto& [name, before] : counted_before_[i])
        if ((counted[name] -= before) == 0) counted.erase(name);
    }
    work_.folder.write_record(work_.pass, file_, record_);
    (void)COPPICE_FAILPOINT("corpus.after_record");
    output_.commit();
    (void)COPPICE_FAILPOINT("corpus.after_documents");
  }

 private:
  const std::vector<CorpusStep>& steps() const { return work_.settings.steps; }
  const Pass& pass() const { return work_.passes[work_.pass]; }
  int64_t place_of(size_t step) const { return work_.groups[step].number_of[number_]; }

  void start_groups() {
    for (const size_t step : pass().decided)
      if (place_of(step) >= 0)
        decisions_[step] =
            steps()[step].by_group()->decide(work_.groups[step].place, static_cast<uint32_t>(place_of(step)));
    for (const size_t step : pass().noted)
      if (place_of(step) >= 0)
        notes_.push_back(
            steps()[step].by_group()->note(work_.groups[step].place, static_cast<uint32_t>(place_of(step))));
  }

  /// A step that passes this source by has neither look nor decisions.
  std::vector<ChainLink> links(FilePass& of) {
    std::vector<ChainLink> links;
    for (const size_t step : pass().decided) {
      const auto found = decisions_.find(step);
      links.push_back({.step = &steps()[step], .decisions = found == decisions_.end() ? nullptr : found->second.get()});
    }
    for (size_t i = 0; i < pass().mapped.size(); ++i) {
      const CorpusStep& step = steps()[pass().mapped[i]];
      links.push_back({.step = &step, .look = step.looks_at(source_) ? of.looks_[i].get() : nullptr});
    }
    return links;
  }

  void look(uint32_t record, Document&& document) {
    if (stop_requested() || work_.abandoned) throw Stopped("");
    (void)COPPICE_FAILPOINT("corpus.document");
    record_.counts.before.add(document.text.size());
    const bool measured =
        work_.settings.kept_values == CorpusSettings::Values::all ||
        (work_.settings.kept_values == CorpusSettings::Values::sample && is_measured_sample(document.id));
    const std::optional<Removed> removed = chain_->look(document, measured);
    if (measured) rows_.add(record, document_hash(document.id), chain_->values());
    if (removed) {
      const CorpusStep& step = *removed->step;
      const auto [file, fresh] = removals_.try_emplace(&step, work_.folder.removed(step, file_));
      return file->second.write(document, *removed, work_.keep_removed_text);
    }
    if (document.is_page)
      throw UserError::recipe(source_.where,
                              fmt::format("source '{}' holds pages ('{}' is one), and no step in front of "
                                          "what reads their text turns them into it; add a [[data.step]] "
                                          "with kind = \"extract\"",
                                          source_.name, printable(document.id)));
    record_.counts.behind.add(document.text.size());
    for (const auto& notes : notes_) notes->add(document), notes->tell(document);
    output_.write(record, document);
  }

  void commit_values() {
    if (work_.settings.kept_values == CorpusSettings::Values::none) return;
    const bool last = work_.pass + 1 == work_.passes.size();
    if (!last) return rows_.save();
    std::vector<ValueRows> all;
    for (size_t pass = 0; pass < work_.pass; ++pass)
      all.push_back(ValueRows::load(work_.folder.rows(pass, file_), value_columns(steps(), work_.passes[pass])));
    all.push_back(std::move(rows_));
    make_folder(work_.folder.values(file_).parent_path());
    write_values(work_.folder.values(file_), work_.folder.identity_sha256(), file_.name, number_, all);
  }

  const PassWork& work_;
  const uint32_t number_;
  const SourceFile& file_;
  const SourceOptions& source_;
  const std::vector<std::unique_ptr<DocumentLook>>& looks_;  // of this thread, one file behind another
  std::vector<Counts> counted_before_;                       // of each look, by the files before this one
  const fs::path path_;
  PassOutput output_;
  std::map<size_t, std::unique_ptr<GroupDecisions>> decisions_;
  std::vector<std::unique_ptr<GroupNotes>> notes_;
  std::optional<DocumentChain> chain_;
  std::map<const CorpusStep*, RemovalFile> removals_;
  ValueRows rows_;
  FileRecord record_;
};

void FilePass::run(uint32_t file, std::atomic<uint64_t>& bytes_read) {
  Run run(*this, file);
  run.read(bytes_read);
  run.commit();
}

}  // namespace coppice
