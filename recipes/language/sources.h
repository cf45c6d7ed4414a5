// What a recipe reads from outside its run folder: corpora, imported models, tokenizers, labels made elsewhere, task
// files. A run records what it read of each (sources.json), so that it stands alone afterwards: where something is gone
// the record holds, where it has changed the change shows as ever.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "src/base/json.h"
#include "src/checkpoint/given_model.h"

namespace coppice {

struct Recipe;
struct Stage;

class Sources {
 public:
  enum class First { world, record };  // record: for a report of what was, whatever lies at these paths now

  Sources() = default;  // of the run folder that open() is told
  explicit Sources(std::filesystem::path run_root, First first = First::world);
  /// False for a report of what was: what lies outside now is not asked.
  bool asks_world() const { return first_ == First::world; }
  /// Reads the record of the run in `default_root`, unless the constructor named a run. No record is an empty one.
  void open(const std::filesystem::path& default_root);

  /// What `read` says of `path` (asked once), or what was recorded of it as `what` where it is gone. Without a record
  /// `read` says what is amiss.
  Json look(const std::string& what, const std::filesystem::path& path, const std::function<Json()>& read);
  std::string look_text(const std::string& what, const std::filesystem::path& path,
                        const std::function<std::string()>& read);
  /// Whether look() has an answer for a path that is gone.
  bool recorded(const std::string& what, const std::filesystem::path& path) const;
  /// Whether the path is gone and something was recorded of it.
  bool holds(const std::filesystem::path& path) const;

  /// The tokenizer that lies at `path` (given_tokenizer), opened once.
  const Tokenizer& tokenizer(const std::filesystem::path& path);

  /// What is gone and goes by the record.
  const std::set<std::string>& gone() const { return gone_; }
  /// Records what was looked at, beside what is recorded already.
  void save(const std::filesystem::path& run_root) const;

 private:
  void read(const std::filesystem::path& run_root);
  First first_ = First::world;
  bool opened_ = false;
  std::map<std::string, std::map<std::string, Json>> record_, seen_;  // path -> what -> answer
  std::set<std::string> gone_;
  std::map<std::filesystem::path, Tokenizer> tokenizers_;
};

/// Nothing lies there, or an empty folder: what an unmounted disk leaves.
bool is_gone(const std::filesystem::path& path);

/// The shape of a model from elsewhere, and whether one lies there or was recorded of what is gone.
GivenShape shape_of(Sources& sources, const std::filesystem::path& path);
bool has_shape(const Sources& sources, const std::filesystem::path& path);
/// Of a tokenizer from elsewhere: its fingerprint; its number of ids, 0 where it is gone and no
/// record says.
std::string tokenizer_fingerprint(Sources& sources, const std::filesystem::path& path);
int64_t tokenizer_vocab_size(Sources& sources, const std::filesystem::path& path);

/// A warning of one line that names what is gone; none when all is there.
void say_what_is_gone(const Recipe& recipe);
/// Whether a stage has a source that is gone, so that it is known by its record alone.
bool goes_by_record(const Recipe& recipe, const Stage& stage);
/// Refuses to begin a stage (exit 3) that needs something from outside which is gone, naming both.
void check_there(const Recipe& recipe, const Stage& stage);
/// The same of tokenizer and token shards, as far as `data_folder` does not hold them yet (empty: it will hold
/// nothing).
void check_data_there(const Recipe& recipe, const std::filesystem::path& data_folder);

}  // namespace coppice
