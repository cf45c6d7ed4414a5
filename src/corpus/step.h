// A step of a corpus: what measures documents, changes them or lets them go, one at a time (DocumentStep) or by what
// all the others are (GroupStep). Those two are the whole framework: a new step is a file with its functions, a row in
// step_kinds.cpp and a test.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "src/base/option_mark.h"
#include "src/text/documents.h"

namespace coppice {

class OptionTable;
struct SourceOptions;

/// A document whose value lies outside [least, most] goes; one that is equal to a limit stays. A rule that measures
/// nothing has the values 0 and 1, and most = 0.
struct Rule {
  std::string name;
  double least = -std::numeric_limits<double>::infinity();
  double most = std::numeric_limits<double>::infinity();
  bool drops(double value) const { return value < least || value > most; }  // NaN, not measured, stays
};

/// What a step counts besides what its rules drop, by name; summed over files.
using Counts = std::map<std::string, uint64_t>;

/// Looks at documents in one thread, in their order.
class DocumentLook {
 public:
  virtual ~DocumentLook() = default;
  /// The documents to come are of this source, up to the next call.
  virtual void begin(const SourceOptions& source) { (void)source; }
  /// Measures a document, and may change it: true then. values[i] is of rules()[i] and comes as NaN, which is what a
  /// rule that is not defined for the document leaves. With `all` every rule is measured, also behind one that drops;
  /// without it, it may return behind the first that drops.
  virtual bool look(Document& document, std::span<double> values, bool all) = 0;
  /// Of the document that look() has just seen, for the record of its removal where one of the rules drops it: members
  /// of JSON without braces, for what values do not say: `"language":"fr","language_score":0.98`.
  virtual std::string details() const { return {}; }
  /// Another text of the document that look() has just changed: it goes on in its place where a step behind, in this
  /// pass, drops the first. Asked for once.
  virtual std::optional<Document> other() { return std::nullopt; }
  /// Adds what it has counted since it was started, other texts among it.
  virtual void add_counts(Counts& counts) const { (void)counts; }
};

/// Such members of an object of JSON, in its order.
std::string details_of(const nlohmann::ordered_json& members);

/// What a step says to `coppice data plan` before anything is run.
struct StepForecast {
  std::vector<std::string> lines, warnings;
};

/// What a step says of itself, whatever it decides by. Its options are read and checked: threads share it.
class Step {
 public:
  virtual ~Step() = default;
  virtual std::vector<Rule> rules() const = 0;  // in the order in which they drop
  /// Everything outside its options that decides: hashes of model files and lists. Part of its fingerprint.
  virtual std::vector<std::string> inputs() const { return {}; }
  /// What it does with pages as they were fetched (Document::is_page). One that turns them may let some pass.
  enum class Pages { refuses, takes, turns_to_text };
  virtual Pages pages() const { return Pages::refuses; }
  /// Whether it looks for what only the markup of pages says: texts that have lost it are worth a warning then.
  virtual bool reads_markup() const { return false; }
  /// Of documents with about as much text: what its options will find, what it will take.
  virtual StepForecast forecast(double text_bytes) const {
    (void)text_bytes;
    return {};
  }
  /// Once all files are done: refuses totals that say that the step did not do what it is for.
  virtual void finish(const Counts& totals) const { (void)totals; }
};

class DocumentStep : public Step {
 public:
  virtual std::unique_ptr<DocumentLook> start() const = 0;  // one a thread
};

/// Where a group step keeps what it has found: a folder of its own, which is there, and the input files of the pass by
/// number. The number of a document is file << 32 | its place among the documents of that file in this pass.
struct GroupPlace {
  std::filesystem::path folder;
  std::vector<std::string> files;      // relative names, sorted
  std::vector<uint32_t> sources;       // of each file: the number of its source
  std::vector<int> source_priorities;  // of each source; the lower one stays
  std::vector<std::string> source_names;
  uint64_t memory_bytes = 0;  // what sorting and tables may take
  /// Whether the documents of a file, in their order, are left by the group steps right in front of this one, for
  /// reduce() and settle(): whatever counts or compares documents takes those alone. Empty: all are.
  std::function<std::vector<bool>(uint32_t file)> left = {};
};

/// Of what GroupPlace::left says; `left` is empty where there is no such function.
inline bool is_left(const std::vector<bool>& left, uint64_t document) {
  return left.empty() || (document < left.size() && left[document]);
}

/// What a group step notes of the documents of one file, in their order; what it has written appears with commit().
class GroupNotes {
 public:
  virtual ~GroupNotes() = default;
  virtual void add(const Document& document) = 0;
  /// Of the document that add() has just seen: writes into its metadata or scores what group steps right behind this
  /// one, which note it next, may read there.
  virtual void tell(Document& document) const { (void)document; }
  virtual void commit() = 0;
};

/// The decisions about the documents of one file, asked for in their order.
class GroupDecisions {
 public:
  virtual ~GroupDecisions() = default;
  /// As DocumentLook::look. `details`, members of JSON without braces, go to the record of the removal:
  /// `"kept_id":"a","similarity":0.91`.
  virtual bool look(Document& document, std::span<double> values, std::string& details) = 0;
  /// Instead of look(), for GroupPlace::left of a step behind: whether the next document goes, without it at hand.
  virtual bool goes() = 0;
};

/// note() over every file (any task, any order), then every part of reduce(), then settle() once, then decide().
/// Whatever is written is the same for every number of tasks, threads, order and `memory_bytes`. A file that is there
/// under its final name is finished: what was killed is done again. num_parts() may follow memory_bytes, which may
/// differ between two starts: what reduce() writes then carries the number of parts in its name.
class GroupStep : public Step {
 public:
  /// Whether decisions change texts: a group step behind notes them in a pass of its own then, and none is asked
  /// goes().
  virtual bool changes_texts() const { return false; }
  /// Bytes of `memory_bytes` below which settle() refuses so many documents.
  virtual uint64_t least_memory(uint64_t documents) const { return (void)documents, 0; }
  virtual std::unique_ptr<GroupNotes> note(const GroupPlace& place, uint32_t file) const = 0;
  virtual uint32_t num_parts(const GroupPlace& place) const = 0;  // once all notes are there
  virtual void reduce(const GroupPlace& place, uint32_t part) const = 0;
  virtual void settle(const GroupPlace& place) const = 0;
  virtual std::unique_ptr<GroupDecisions> decide(const GroupPlace& place, uint32_t file) const = 0;
};

struct StepOption {
  std::string key, help;
  Mark mark;
  bool is_list = false;  // of strings
};

/// A row of the table of steps.
struct StepKind {
  const char* kind;
  const char* about;    // a line of help
  const char* example;  // a whole command
  std::vector<StepOption> (*options)();
  /// Reads and checks the options of a [[data.step]]; UserError::recipe with file:line.
  std::shared_ptr<const Step> (*read)(OptionTable& table);
};

/// Of a struct with visit_fields(), in its order.
template <class Options>
std::vector<StepOption> step_options() {
  Options options;
  std::vector<StepOption> lines;
  auto field = [&](const char* key, const auto& value, Mark mark, const char* help) {
    lines.push_back({key, help, mark, std::is_same_v<std::decay_t<decltype(value)>, std::vector<std::string>>});
  };
  options.visit_fields(field);
  return lines;
}

/// The rows (step_kinds.cpp).
std::span<const StepKind* const> step_kinds();

}  // namespace coppice
