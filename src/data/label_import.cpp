// Labels in: JSONL of ours or of a served model (label_jsonl.h) becomes a cache.
#include "src/data/label_import.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/data/label_cache_writer.h"
#include "src/data/label_checks.h"
#include "src/data/label_line.h"
#include "src/data/store_label.h"
#include "src/text/file_endings.h"

namespace coppice {

namespace {

constexpr uint64_t kMaxLineBytes = uint64_t{1} << 30;

LineReader open_lines(const std::filesystem::path& input) {
  const FileEnding* ending = ending_of(input);
  return {input, ending == nullptr ? ByteSource::Coding::plain : ending->coding, kMaxLineBytes};
}

/// The first line of our own files; nothing when the object is a document.
struct Header {
  Json fingerprint;
  std::vector<int64_t> near_ties;  // of each shard, -1 = unknown
};
std::optional<Header> header_of(const LinePlace& line, const Json& object) {
  if (!object.contains("format")) return std::nullopt;
  const std::string where = fmt::format("{}:{}", line.path, line.number);
  if (string_at(object, "format", where) != kLabelHeaderFormat ||
      unsigned_at(object, "version", where) != kLabelHeaderVersion)
    line.refuse(fmt::format("got format {} of version {}, expected {} of version {}", object["format"].dump(),
                            object["version"].dump(), kLabelHeaderFormat, kLabelHeaderVersion));
  Header header{.fingerprint = object_at(object, "fingerprint", where)};
  if (object.contains("near_ties"))
    for (const Json& count : array_at(object, "near_ties", where)) {
      if (!count.is_null() && !count.is_number_unsigned()) line.refuse("\"near_ties\" holds more than counts and null");
      header.near_ties.push_back(count.is_null() ? -1 : count.get<int64_t>());
    }
  return header;
}

/// The next line that is not blank, as an object.
bool next_object(LineReader& reader, LinePlace& line, Json& object) {
  for (std::string_view text; reader.next(text);) {
    if (text.find_first_not_of(" \t") == std::string_view::npos) continue;
    line.number = reader.line_number();
    object = parse_json(text, fmt::format("{}:{}", line.path, line.number));
    if (!object.is_object()) line.refuse("expected one JSON object");
    return true;
  }
  return false;
}

struct DocumentPlace {
  uint64_t id = 0, begin = 0, end = 0;
  size_t shard = 0;
  bool seen = false;
};

/// The documents of the shards by the hash of their id, those of one id in their order.
std::vector<DocumentPlace> places_of(const TokenShards& shards) {
  std::vector<DocumentPlace> places;
  for (size_t shard = 0; shard < shards.shards().size(); ++shard)
    for (size_t document = 0, begin = 0; document < shards.document_ends(shard).size(); ++document) {
      const uint64_t end = shards.document_ends(shard)[document];
      places.push_back({.id = shards.document_ids(shard)[document], .begin = begin, .end = end, .shard = shard});
      begin = end;
    }
  std::ranges::stable_sort(places, {}, &DocumentPlace::id);
  return places;
}

/// Tokens [given, given + count) of a line are tokens [at, at + count) of its document.
struct Part {
  size_t given = 0, at = 0, count = 0;
};

/// The part of a document that a line holds; nothing when it is another text. `whole`: all of it or nothing.
std::optional<Part> part_of(const std::vector<int64_t>& given, const std::vector<int64_t>& tokens, bool whole) {
  if (given == tokens) return Part{.count = tokens.size()};
  if (whole || given.empty() || tokens.size() < 2) return std::nullopt;
  const auto stands_at = [&](size_t first, size_t at) {  // given[first...] at tokens[at...]
    return std::equal(given.begin() + static_cast<std::ptrdiff_t>(first), given.end(),
                      tokens.begin() + static_cast<std::ptrdiff_t>(at));
  };
  const size_t count = given.size();
  if (count <= tokens.size() && stands_at(0, 0)) return Part{.count = count};
  if (count > 1 && count - 1 <= tokens.size() && stands_at(1, 0))
    return Part{.given = 1, .count = count - 1};  // behind a begin-of-text token
  const size_t end =
      tokens.size() - (given.back() != tokens.back());  // prompts are cut on the left as well; without end-of-text
  if (count <= end && stands_at(0, end - count)) return Part{.at = end - count, .count = count};
  return std::nullopt;
}

/// A cache under a temporary name until it is whole.
struct NewCache {
  std::filesystem::path path, temporary;
  bool committed = false;
  explicit NewCache(std::filesystem::path final_path) : path(std::move(final_path)), temporary(temporary_path(path)) {
    std::filesystem::remove_all(temporary);
  }
  ~NewCache() {
    std::error_code ignored;
    if (!committed) std::filesystem::remove_all(temporary, ignored);
  }
  void commit() {
    std::filesystem::remove_all(path);
    commit_rename(temporary, path);
    committed = true;
  }
};

class Import {
 public:
  Import(const std::filesystem::path& input, const TokenShards& shards, const LabelFingerprint& fingerprint,
         const std::filesystem::path& cache, const LabelImport& options)
      : shards_(shards),
        fingerprint_(fingerprint),
        options_(options),
        line_{.path = input.string()},
        places_(places_of(shards)),
        held_(shards.shards().size()),
        cache_(cache),
        writer_(cache_.temporary, shards, fingerprint),
        place_check_(shards, options) {
    COPPICE_CHECK(options.format == "coppice" || !fingerprint.is_drawn(), "draws in format " + options.format);
    for (size_t shard = 0; shard < held_.size(); ++shard) expected_.push_back(shards.document_ends(shard).size());
  }

  LabelTransfer run() {
    LineReader reader = open_lines(line_.path);
    std::optional<MassCheck> mass;
    Json object;
    bool ours = false;  // a cache without a label leaves a first line alone
    while (next_object(reader, line_, object)) {
      if (!mass) {
        const auto header = header_of(line_, object);
        mass.emplace(fingerprint_, header.has_value(), options_.low_mass);
        ours = header.has_value();
        if (header) {
          check_label_fingerprint(header->fingerprint, fingerprint_, fmt::format("{}:{}", line_.path, line_.number));
          near_ties_ = header->near_ties;
          continue;
        }
      }
      add_document(object, *mass);
    }
    if (transfer_.documents == 0 && (!ours || transfer_.left_out > 0)) refuse_nothing();
    if (mass) mass->finish();
    weight_check_.finish();
    place_check_.judge(line_);
    say_what_is_left_out();
    for (size_t shard = 0; shard < held_.size(); ++shard)
      if (expected_[shard] > 0) write(shard);
    cache_.commit();
    return transfer_;
  }

 private:
  ShardLabels& labels_of(size_t shard) {
    if (held_[shard] == nullptr) held_[shard] = std::make_unique<ShardLabels>(TokenRuns(), fingerprint_);
    return *held_[shard];
  }

  void write(size_t shard) {
    ShardLabels& labels = labels_of(shard);
    if (shard < near_ties_.size()) labels.near_ties = near_ties_[shard];
    writer_.write(shard, labels);
    held_[shard].reset();
  }

  std::vector<int64_t> tokens_of(const DocumentPlace& place) const {
    std::vector<int64_t> tokens(place.end - place.begin);
    shards_.read(place.shard, place.begin, tokens.size(), tokens.data());
    return tokens;
  }

  /// The document of this id that has not come yet and begins, ends or is as the line says.
  std::pair<DocumentPlace*, Part> find(std::span<DocumentPlace> same_id, const std::vector<int64_t>& given) const {
    const auto unseen = std::ranges::find(same_id, false, &DocumentPlace::seen);
    if (unseen == same_id.end()) line_.refuse("the document came before");
    const bool whole = options_.format == "coppice";
    for (DocumentPlace& place : same_id) {
      const uint64_t length = place.end - place.begin;
      if (place.seen || (whole ? given.size() != length : given.size() > length + 1)) continue;  // without reading it
      if (const auto part = part_of(given, tokens_of(place), whole)) return {&place, *part};
    }
    const std::vector<int64_t> tokens = tokens_of(*unseen);
    const auto differs = static_cast<size_t>(std::ranges::mismatch(given, tokens).in1 - given.begin());
    if (given.size() != tokens.size() && (differs == std::min(given.size(), tokens.size()) || whole))
      line_.refuse(fmt::format("its {} tokens are not the {} of the shards{}", given.size(), tokens.size(),
                               whole && (differs == given.size() || differs + 1 == tokens.size())
                                   ? " (the format \"vllm\" takes documents that are cut short)"
                                   : ""));
    line_.refuse(fmt::format("token {} is {}, the shards hold {}: another tokenizer or text", differs,
                             given[differs] < 0 ? "no id" : std::to_string(given[differs]), tokens[differs]));
  }

  void add_document(const Json& object, MassCheck& mass) {
    const auto same_id = std::ranges::equal_range(places_, document_of(line_, object), {}, &DocumentPlace::id);
    if (same_id.empty()) {
      if (transfer_.left_out++ == 0) first_left_out_ = line_;
      return;
    }
    const LabelLine given = options_.format == "coppice" ? read_label_lists(line_, object, fingerprint_)
                                                         : read_vllm_line(line_, object, fingerprint_);
    const auto [place, part] = find(same_id, given.tokens);
    place->seen = true;
    ShardLabels& labels = labels_of(place->shard);
    std::vector<int64_t> first_choice(part.count, kNoLabel);
    uint64_t labelled = 0;
    for (size_t i = 0; i < part.count; ++i) {
      const TokenLabels& token = given.labels[part.given + i];
      if (given.has_logp) mass.add(line_, token);
      if (fingerprint_.has_weights()) weight_check_.add(line_, token);
      const StoredToken stored = store_label(line_, fingerprint_, token, place->begin + part.at + i, labels);
      transfer_.padded_ids += stored.padded;
      first_choice[i] = stored.first;
      labelled += first_choice[i] != kNoLabel;
    }
    const auto begin = given.tokens.begin() + static_cast<std::ptrdiff_t>(part.given);
    place_check_.add(line_, {begin, begin + static_cast<std::ptrdiff_t>(part.count)}, first_choice);
    const uint64_t count = place->end - place->begin;
    if (labelled + 1 < count) ++cut_, unlabelled_ += count - 1 - labelled;
    ++transfer_.documents;
    transfer_.tokens += count;
    transfer_.labelled += labelled;
    if (--expected_[place->shard] == 0) write(place->shard);
  }

  [[noreturn]] void refuse_nothing() const {
    if (transfer_.left_out == 0) throw UserError::bad_file(line_.path, "holds no document");
    first_left_out_.refuse(
        fmt::format("the token shards hold no such document, nor any other of the {} in this file: another domain's "
                    "labels, or other ids than "
                    "the corpus has",
                    transfer_.left_out));
  }

  void say_what_is_left_out() const {
    const std::string whose = fmt::format("{}: domain '{}'", line_.path, shards_.domain());
    if (transfer_.left_out > 0)
      log_info(fmt::format(
          "{}: {} of {} documents are held out or not in the token shards and are left out, the first in line {}",
          whose, transfer_.left_out, transfer_.left_out + transfer_.documents, first_left_out_.number));
    if (cut_ > 0 && options_.format != "coppice")
      log_info(
          fmt::format("{}: {} of {} documents are cut short or have no label for their end-of-text; {} of {} tokens "
                      "stay without a label",
                      whose, cut_, transfer_.documents, unlabelled_, transfer_.tokens - transfer_.documents));
    if (transfer_.padded_ids > 0)
      log_info(
          fmt::format("{}: {} ids of a padded output table, beyond the vocabulary of {}, are left out; their "
                      "probability goes to the tail",
                      line_.path, transfer_.padded_ids, fingerprint_.vocab_size));
  }

  const TokenShards& shards_;
  const LabelFingerprint& fingerprint_;
  const LabelImport& options_;
  LinePlace line_, first_left_out_;
  std::vector<DocumentPlace> places_;
  std::vector<std::unique_ptr<ShardLabels>> held_;  // shards of which some documents have come
  std::vector<size_t> expected_;                    // documents that each still waits for
  std::vector<int64_t> near_ties_;
  NewCache cache_;
  LabelCacheWriter writer_;
  PlaceCheck place_check_;
  WeightCheck weight_check_;
  LabelTransfer transfer_;
  uint64_t cut_ = 0,
           unlabelled_ =
               0;  // documents not all of whose tokens have a label, and these tokens; a document's last needs none
};

}  // namespace

std::optional<LabelFingerprint> read_label_header(const std::filesystem::path& input) {
  LineReader reader = open_lines(input);
  LinePlace line{input.string()};
  Json object;
  if (!next_object(reader, line, object)) return std::nullopt;
  const auto header = header_of(line, object);
  return header ? std::optional(LabelFingerprint::from_json(header->fingerprint, line.path)) : std::nullopt;
}

LabelTransfer import_labels(const std::filesystem::path& input, const TokenShards& shards,
                            const LabelFingerprint& fingerprint, const std::filesystem::path& cache,
                            const LabelImport& options) {
  return Import(input, shards, fingerprint, cache, options).run();
}

}  // namespace coppice
