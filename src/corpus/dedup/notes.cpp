#include "src/corpus/dedup/notes.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/text/document_metadata.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kRunDocuments = 16384;  // of a sorted file: 4 MB in memory, and as much to sort them
constexpr uint32_t kValuesBlock = 8;       // signatures that are checked together: about a page
constexpr uint64_t kWorst = std::numeric_limits<uint64_t>::max();
constexpr size_t kOpenFiles = 64;

fs::path with_ending(const fs::path& stem, std::string_view ending) {
  return stem.string() + "." + std::string(ending);
}

/// Ascending as the doubles.
uint64_t ordered_bits(double value) {
  const auto bits = std::bit_cast<uint64_t>(value);
  return bits >> 63 != 0 ? ~bits : bits | uint64_t{1} << 63;
}

std::optional<double> score_of(const Document& document, std::string_view name) {
  for (const Score& score : document.scores)
    if (score.name == name) return score.value;
  if (const std::optional<Json> scores = find_member(document, {"scores"}); scores && scores->is_object())
    if (const auto found = scores->find(std::string(name)); found != scores->end() && found->is_number())
      return found->get<double>();
  return std::nullopt;
}

/// The digits of a date such as 2026-01-31T10:00:00Z as one number; 0 where there is none.
uint64_t date_number(std::string_view date) {
  uint64_t number = 0;
  int digits = 0;
  for (const char letter : date)
    if (letter >= '0' && letter <= '9' && digits < 14)
      number = 10 * number + static_cast<uint64_t>(letter - '0'), ++digits;
  if (digits < 4) return 0;
  for (; digits < 14; ++digits) number *= 10;
  return number;
}

class NoteWriter : public GroupNotes {
 public:
  NoteWriter(const GroupPlace& place, uint32_t file, const NoteOptions& options)
      : options_(options),
        file_(file),
        stem_(notes_stem(place.folder, file)),
        owner_(options.owner()),
        scope_(options.by_source ? text_hash(place.source_names.at(place.sources.at(file))) : 0),
        maker_(options.shape, options.seed),
        row_(options.shape.width()),
        band_hashes_(static_cast<size_t>(options.shape.bands)) {
    make_folder(stem_.parent_path());
    const auto row_bytes = static_cast<uint32_t>(row_.size() * sizeof(uint32_t));
    values_ = std::make_unique<RecordWriter>(with_ending(stem_, "values"), row_bytes, owner_, kValuesBlock);
    ids_ = std::make_unique<RecordWriter>(with_ending(stem_, "ids"), 1, owner_);
    keys_ = std::make_unique<RecordWriter>(with_ending(stem_, "keys"), sizeof(KeyRecord), owner_);
    if (options.keep_shingles)
      shingles_ = std::make_unique<RecordWriter>(with_ending(stem_, "shingles"), sizeof(uint64_t), owner_);
  }

  void add(const Document& document) override {
    if (documents_ > 0 && documents_ % kRunDocuments == 0) end_run();
    const uint64_t number = uint64_t{file_} << 32 | documents_++, keep = keep_value(document, options_.keep);
    write_key(keep);
    ids_->write(document.id.data(), document.id.size());
    shingle_form(document.text, options_.shingle, form_);
    shingle_hashes(form_, options_.shingle, hashes_);
    maker_.make(hashes_, row_);
    values_->write(row_.data(), 1);
    if (hashes_.empty()) return;
    band_hashes(row_, options_.shape, scope_, band_hashes_);
    for (const uint64_t hash : band_hashes_) bands_.push_back({hash, number});
    const XXH128_hash_t whole = XXH3_128bits_withSeed(form_.data(), form_.size(), scope_);
    exact_.push_back({whole.high64, whole.low64, number, keep});
    if (shingles_ == nullptr) return;
    std::ranges::sort(hashes_);
    shingles_->write(hashes_.data(), static_cast<uint64_t>(std::ranges::unique(hashes_).begin() - hashes_.begin()));
  }

  void commit() override {
    end_run();
    values_->commit();
    write_key(0);
    ids_->commit();
    if (shingles_ != nullptr) shingles_->commit();
    keys_->commit();
  }

 private:
  void write_key(uint64_t keep) {
    const KeyRecord key = {keep, ids_->count(), shingles_ == nullptr ? 0 : shingles_->count()};
    keys_->write(&key, 1);
  }

  template <size_t Words>
  void write_run(const char* what, std::vector<std::array<uint64_t, Words>>& records) {
    std::vector<std::array<uint64_t, Words>> space;
    sort_records(std::span(records), space);
    RecordWriter run(with_ending(stem_, fmt::format("{}.{}", what, runs_)), 8 * Words, owner_);
    run.write(records.data(), records.size());
    run.commit();
    records.clear();
  }

  void end_run() {
    write_run("bands", bands_);
    write_run("exact", exact_);
    ++runs_;
  }

  const NoteOptions options_;
  uint32_t file_;
  fs::path stem_;
  uint64_t owner_, scope_, documents_ = 0, runs_ = 0;
  SignatureMaker maker_;
  std::string form_;
  std::vector<uint64_t> hashes_;
  std::vector<uint32_t> row_;
  std::vector<uint64_t> band_hashes_;
  std::vector<BandRecord> bands_;
  std::vector<ExactRecord> exact_;
  std::unique_ptr<RecordWriter> values_, ids_, keys_, shingles_;
};

/// file << 32 | record to a number among all.
bool renumber(uint64_t& document, const Run& run) {
  const uint64_t record = document & 0xffffffff;
  if (document >> 32 != run.file || record >= run.documents) return false;
  document = run.base + record;
  return true;
}

}  // namespace

uint64_t NoteOptions::owner() const {
  const std::string text = fmt::format("dedup 2 bands={} rows={} shingle={} seed={} by_source={}", shape.bands,
                                       shape.rows, shingle_name(shingle), seed, by_source);
  return XXH3_64bits(text.data(), text.size());
}

uint64_t keep_value(const Document& document, std::string_view keep) {
  if (keep == "longest")
    return kWorst - static_cast<uint64_t>(std::ranges::count_if(
                        document.text, [](char byte) { return (static_cast<unsigned char>(byte) & 0xc0) != 0x80; }));
  if (keep == "newest") return kWorst - date_number(member_text(document, "date"));
  if (keep.starts_with("score:")) {
    const std::optional<double> score = score_of(document, keep.substr(6));
    return score && !std::isnan(*score) ? kWorst - ordered_bits(*score) : kWorst;
  }
  return 0;
}

std::unique_ptr<GroupNotes> write_notes(const GroupPlace& place, uint32_t file, const NoteOptions& options) {
  return std::make_unique<NoteWriter>(place, file, options);
}

fs::path notes_stem(const fs::path& folder, uint32_t file) { return folder / "notes" / fmt::format("{:08}", file); }

fs::path find_notes(const fs::path& path) {
  std::vector<fs::path> found;
  std::error_code error;
  if (fs::exists(with_ending(notes_stem(path, 0), "keys"), error)) {
    found.push_back(path);
  } else {
    for (fs::recursive_directory_iterator at(path, error), end; !error && at != end; at.increment(error))
      if (at->path().filename() == "00000000.keys") found.push_back(at->path().parent_path().parent_path());
  }
  std::ranges::sort(found);
  if (found.empty())
    throw UserError::bad_file(path.string(),
                              "no signatures of an older run below it; a run keeps them with --keep-work");
  if (found.size() > 1)
    throw UserError::bad_file(
        path.string(), fmt::format("signatures of {} steps below it; name the folder of one, such as {}", found.size(),
                                   found.front().string()));
  if (!fs::exists(found.front() / kClustersName))
    throw UserError::bad_file(found.front().string(), "signatures of a run that did not finish; run it to its end");
  if (!fs::exists(with_ending(notes_stem(found.front(), 0), "left")))
    throw UserError::bad_file(found.front().string(),
                              "signatures that do not say which documents stayed, of an earlier version; make that "
                              "corpus again with --keep-work");
  return found.front();
}

uint64_t hash_of_notes(const fs::path& folder, const NoteOptions& options) {
  std::vector<uint64_t> hashes = {options.owner()};
  const auto row_bytes = static_cast<uint32_t>(options.shape.width() * sizeof(uint32_t));
  for (uint32_t file = 0; fs::exists(with_ending(notes_stem(folder, file), "keys")); ++file) {
    const fs::path stem = notes_stem(folder, file);
    hashes.push_back(RecordReader(with_ending(stem, "values"), row_bytes, options.owner()).hash());
    hashes.push_back(RecordReader(with_ending(stem, "left"), 1, options.owner()).hash());
    if (options.keep_shingles && !fs::exists(with_ending(stem, "shingles")))
      throw UserError::bad_file(folder.string(),
                                "signatures of a run without verify = \"text\", which kept no shingles to compare "
                                "exactly; say verify = \"signature\", or make that run again with verify = \"text\"");
  }
  return XXH3_64bits(hashes.data(), hashes.size() * sizeof(uint64_t));
}

bool RenumberBand::apply(BandRecord& record, const Run& run) { return renumber(record[1], run); }
bool RenumberExact::apply(ExactRecord& record, const Run& run) { return renumber(record[2], run); }

NotedDocuments::NotedDocuments(const GroupPlace& place, const NoteOptions& options, const fs::path& reference_folder)
    : owner_(options.owner()), width_(options.shape.width()) {
  if (!reference_folder.empty()) {
    const fs::path folder = find_notes(reference_folder);
    for (uint32_t file = 0; fs::exists(with_ending(notes_stem(folder, file), "keys")); ++file)
      files_.push_back({.stem = notes_stem(folder, file), .number = file, .is_reference = true});
  }
  for (uint32_t file = 0; file < place.files.size(); ++file)
    files_.push_back({.stem = notes_stem(place.folder, file),
                      .number = file,
                      .priority = place.source_priorities.at(place.sources.at(file))});
  for (NotedFile& file : files_) {
    RecordReader reader = keys(file);
    if (reader.count() == 0) reader.damaged("it holds nothing");
    file.base = size_;
    file.documents = reader.count() - 1;
    size_ += file.documents;
  }
  if (size_ >= 0xffffffff)
    throw UserError::recipe("", fmt::format("dedup: got {} documents, expected less than 4294967295; divide the corpus "
                                            "and dedup each part `against` those before it",
                                            size_));
}

const NotedFile& NotedDocuments::file_of(uint64_t document) const {
  return *(std::ranges::upper_bound(files_, document, {}, &NotedFile::base) - 1);
}

std::vector<bool> NotedDocuments::left(const GroupPlace& place) const {
  std::vector<bool> left;
  if (!place.left && (files_.empty() || !files_.front().is_reference)) return left;
  left.assign(size_, true);
  std::string bytes;
  for (const NotedFile& file : files_) {
    const auto begin = left.begin() + static_cast<int64_t>(file.base);
    if (file.is_reference) {
      RecordReader reader(with_ending(file.stem, "left"), 1, owner_);
      if (reader.count() != file.documents) reader.damaged("it is not of as many documents as its run has");
      for (uint64_t done = 0; done < file.documents; done += bytes.size()) {
        bytes.resize(std::min<uint64_t>(kRunDocuments, file.documents - done));
        reader.read(done, bytes.size(), bytes.data());
        std::transform(bytes.begin(), bytes.end(), begin + static_cast<int64_t>(done),
                       [](char byte) { return byte != 0; });
      }
    } else if (place.left) {
      const std::vector<bool> of_file = place.left(file.number);
      COPPICE_CHECK(of_file.size() == file.documents, "a file's notes and its documents");
      std::copy(of_file.begin(), of_file.end(), begin);
    }
  }
  return left;
}

std::vector<Run> NotedDocuments::runs_of(const char* what) const {
  std::vector<Run> runs;
  for (const NotedFile& file : files_)
    for (uint64_t run = 0; run == 0 || run * kRunDocuments < file.documents; ++run)
      runs.push_back({.path = with_ending(file.stem, fmt::format("{}.{}", what, run)),
                      .file = file.number,
                      .base = file.base,
                      .documents = file.documents});
  return runs;
}

RecordReader NotedDocuments::keys(const NotedFile& file) const {
  return {with_ending(file.stem, "keys"), sizeof(KeyRecord), owner_};
}
RecordReader NotedDocuments::values(const NotedFile& file) const {
  return {with_ending(file.stem, "values"), static_cast<uint32_t>(width_ * sizeof(uint32_t)), owner_};
}
RecordReader NotedDocuments::ids(const NotedFile& file) const { return {with_ending(file.stem, "ids"), 1, owner_}; }
RecordReader NotedDocuments::shingles(const NotedFile& file) const {
  return {with_ending(file.stem, "shingles"), sizeof(uint64_t), owner_};
}

RecordWriter NotedDocuments::left_writer(const NotedFile& file) const {
  return {with_ending(file.stem, "left"), 1, owner_};
}

std::string NotedIds::id_of(const fs::path& stem, uint64_t record) {
  auto found = opened_.find(stem);
  if (found == opened_.end()) {
    if (opened_.size() == kOpenFiles) opened_.clear();
    Opened opened{.keys = {with_ending(stem, "keys"), sizeof(KeyRecord), owner_},
                  .ids = {with_ending(stem, "ids"), 1, owner_}};
    found = opened_.emplace(stem, std::move(opened)).first;
  }
  RecordReader &keys = found->second.keys, &ids = found->second.ids;
  std::array<KeyRecord, 2> ends;
  if (record + 2 > keys.count()) keys.damaged("a document that is not there");
  keys.read(record, 2, ends.data());
  if (ends[0][1] > ends[1][1] || ends[1][1] > ids.count()) ids.damaged("an id that is not there");
  std::string id(ends[1][1] - ends[0][1], '\0');
  ids.read(ends[0][1], id.size(), id.data());
  return id;
}

}  // namespace coppice
