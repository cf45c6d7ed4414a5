#include "src/data/label_jsonl.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/data/byte_sink.h"
#include "src/data/byte_source.h"
#include "src/data/documents.h"

namespace coppice {

namespace {

using OrderedJson = nlohmann::ordered_json;  // keys in the order they are written

constexpr uint64_t kMaxLineBytes = uint64_t{1} << 30;

struct DocumentPlace {
  size_t shard = 0;
  uint64_t begin = 0, end = 0;
  bool seen = false;
};

std::map<uint64_t, DocumentPlace> places_of(const TokenShards& shards) {
  std::map<uint64_t, DocumentPlace> places;
  for (size_t shard = 0; shard < shards.shards().size(); ++shard) {
    uint64_t begin = 0;
    for (size_t document = 0; document < shards.document_ends(shard).size(); ++document) {
      const uint64_t end = shards.document_ends(shard)[document];
      places[shards.document_ids(shard)[document]] = {.shard = shard, .begin = begin, .end = end};
      begin = end;
    }
  }
  return places;
}

std::vector<int64_t> tokens_of(const TokenShards& shards, const DocumentPlace& place) {
  std::vector<int64_t> tokens(place.end - place.begin);
  shards.read(place.shard, place.begin, tokens.size(), tokens.data());
  return tokens;
}

/// A log-probability as JSON: nothing left = null.
OrderedJson number_json(float value) { return std::isinf(value) ? OrderedJson() : OrderedJson(value); }

/// One line being read: every complaint names it.
struct Line {
  std::string path;
  uint64_t number = 0;
  [[noreturn]] void refuse(const std::string& message) const { throw UserError::bad_file(path, fmt::format("line {}: {}", number, message)); }

  const Json& list(const Json& object, const char* name, size_t length) const {
    if (!object.contains(name) || !object[name].is_array()) refuse(fmt::format("\"{}\" is missing or no list", name));
    if (object[name].size() != length) refuse(fmt::format("\"{}\" has {} entries, expected {}", name, object[name].size(), length));
    return object[name];
  }
  float log_probability(const Json& value) const {
    if (!value.is_number() || !(value.get<double>() <= 1e-3)) refuse("a log-probability is no number up to 0: " + value.dump());
    return std::min(0.0f, value.get<float>());
  }
};

uint64_t hash_of(const Line& line, const Json& object) {
  if (object.contains("id") && object["id"].is_string()) return document_hash(object["id"].get<std::string>());
  if (!object.contains("doc") || !object["doc"].is_string()) line.refuse("neither \"id\" nor \"doc\"");
  const std::string text = object["doc"].get<std::string>();
  if (text.size() != 16 || text.find_first_not_of("0123456789abcdef") != std::string::npos) line.refuse("\"doc\" is not 16 hex digits");
  return std::stoull(text, nullptr, 16);
}

/// Adds the labels of one token, where it has some.
void read_token(const Line& line, const LabelFingerprint& fingerprint, const Json& ids, const Json* logp, const Json* tail, uint64_t token, ShardLabels& labels,
                LabelTransfer& transfer) {
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  const auto k = static_cast<size_t>(fingerprint.k);
  if (!ids.is_array() || ids.size() > k)
    line.refuse(fmt::format("\"top_ids\" holds {} at a token, expected a list of at most {} ids", ids.dump().substr(0, 60), k));
  if (logp != nullptr && (!logp->is_array() || logp->size() != ids.size())) line.refuse("\"top_logprobs\" and \"top_ids\" differ in length at a token");
  if (ids.empty()) return;
  const uint64_t row = labels.append({token, token + 1});
  double mass = 0, padded_mass = 0;  // of the ids that are kept, of those that are left out
  size_t kept = 0;
  float before = 0;
  for (size_t j = 0; j < ids.size(); ++j) {
    const int64_t id = ids[j].is_number_unsigned() ? ids[j].get<int64_t>() : -1;
    if (id < 0 || id >= fingerprint.vocab_size + kPaddedRows)
      line.refuse(fmt::format("id {} is outside the vocabulary of {}", ids[j].dump(), fingerprint.vocab_size));
    const bool padded = id >= fingerprint.vocab_size;
    if (logp != nullptr) {
      const float value = static_cast<c10::Half>(line.log_probability((*logp)[j]));
      if (j > 0 && value > before) line.refuse("log-probabilities are not in descending order");
      before = value;
      (padded ? padded_mass : mass) += std::exp((*logp)[j].get<double>());
    }
    if (padded) continue;
    for (size_t other = 0; other < kept; ++other)
      if (labels.id[row * k + other] == id) line.refuse(fmt::format("id {} stands twice at a token", id));
    labels.id[row * k + kept] = static_cast<int32_t>(id);
    if (logp != nullptr) labels.logp[row * k + kept] = before;
    ++kept;
  }
  const uint64_t padded_ids = ids.size() - kept;
  transfer.padded_ids += padded_ids;
  transfer.labelled += kept > 0;
  if (!fingerprint.has_tail() || kept == 0) return;
  const double given = tail == nullptr ? std::max(0.0, 1 - mass - padded_mass) : tail->is_null() ? 0.0 : std::exp(double{line.log_probability(*tail)});
  labels.tail[row] = tail != nullptr && padded_ids == 0 && !tail->is_null() ? line.log_probability(*tail)
                     : given + padded_mass > 0                              ? static_cast<float>(std::log(given + padded_mass))
                                                                            : kNothing;
}

constexpr const char* kHeaderFormat = "coppice.labels.jsonl";
constexpr uint64_t kHeaderVersion = 1;

LineReader open_lines(const std::filesystem::path& input) {
  return {input, input.string().ends_with(".zst") ? ByteSource::Coding::zstd : ByteSource::Coding::plain, kMaxLineBytes};
}

/// The first line of our own files; nothing when the object is a document.
struct Header {
  Json fingerprint;
  std::vector<int64_t> near_ties;  // of each shard, -1 = unknown
};
std::optional<Header> header_of(const Line& line, const Json& object) {
  if (!object.contains("format")) return std::nullopt;
  const std::string where = fmt::format("{}:{}", line.path, line.number);
  if (string_at(object, "format", where) != kHeaderFormat || unsigned_at(object, "version", where) != kHeaderVersion)
    line.refuse(fmt::format("got format {} of version {}, expected {} of version {}", object["format"].dump(), object["version"].dump(), kHeaderFormat,
                            kHeaderVersion));
  Header header{.fingerprint = object_at(object, "fingerprint", where)};
  if (object.contains("near_ties"))
    for (const Json& count : array_at(object, "near_ties", where)) {
      if (!count.is_null() && !count.is_number_unsigned()) line.refuse("\"near_ties\" holds more than counts and null");
      header.near_ties.push_back(count.is_null() ? -1 : count.get<int64_t>());
    }
  return header;
}

/// The next line that is not blank, as an object.
bool next_object(LineReader& reader, Line& line, Json& object) {
  for (std::string_view text; reader.next(text);) {
    if (text.find_first_not_of(" \t") == std::string_view::npos) continue;
    line.number = reader.line_number();
    object = parse_json(text, fmt::format("{}:{}", line.path, line.number));
    if (!object.is_object()) line.refuse("expected one JSON object");
    return true;
  }
  return false;
}

/// A cache under a temporary name until it is whole.
struct NewCache {
  std::filesystem::path path, temporary;
  bool committed = false;
  explicit NewCache(std::filesystem::path final_path) : path(std::move(final_path)), temporary(temporary_path(path)) { std::filesystem::remove_all(temporary); }
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

}  // namespace

std::optional<LabelFingerprint> read_label_header(const std::filesystem::path& input) {
  LineReader reader = open_lines(input);
  Line line{input.string()};
  Json object;
  if (!next_object(reader, line, object)) return std::nullopt;
  const auto header = header_of(line, object);
  return header ? std::optional(LabelFingerprint::from_json(header->fingerprint, line.path)) : std::nullopt;
}

LabelTransfer export_labels(const std::filesystem::path& folder, const TokenShards& shards, const std::filesystem::path& output) {
  const LabelCacheSummary summary = summarise_labels(folder);
  const LabelFingerprint& fingerprint = summary.fingerprint;
  const LabelCache cache(folder, shards, fingerprint, LabelCoverage::some);
  const auto k = static_cast<size_t>(fingerprint.k);
  if (output.has_parent_path()) make_folder(output.parent_path());
  ByteSink file(output, output.string().ends_with(".zst") ? ByteSink::Coding::zstd : ByteSink::Coding::plain);
  OrderedJson header = {{"format", kHeaderFormat},
                        {"version", kHeaderVersion},
                        {"domain", summary.domain},
                        {"fingerprint", OrderedJson::parse(fingerprint.to_json().dump())},
                        {"near_ties", OrderedJson::array()}};
  for (const LabelShardSummary& shard : summary.shard) header["near_ties"].push_back(shard.near_ties < 0 ? OrderedJson() : OrderedJson(shard.near_ties));
  file.write(header.dump() + "\n");
  LabelTransfer transfer;
  for (size_t shard = 0; shard < shards.shards().size(); ++shard) {
    uint64_t begin = 0;
    for (size_t document = 0; document < shards.document_ends(shard).size(); ++document) {
      const DocumentPlace place{.shard = shard, .begin = begin, .end = shards.document_ends(shard)[document]};
      const uint64_t count = place.end - begin;
      std::vector<int64_t> id(count * k);
      std::vector<float> logp(count * k), tail(count);
      if (fingerprint.has_logp()) {
        cache.read_top_k(shard, begin, count, id.data(), logp.data(), tail.data());
      } else {
        cache.read(shard, begin, count, id.data());
      }
      begin = place.end;
      bool labelled = false;
      for (uint64_t i = 0; i < count; ++i) labelled |= id[i * k] >= 0;
      if (!labelled) continue;
      OrderedJson line = {
          {"doc", fmt::format("{:016x}", shards.document_ids(shard)[document])}, {"tokens", tokens_of(shards, place)}, {"top_ids", OrderedJson::array()}};
      OrderedJson logps = OrderedJson::array(), tails = OrderedJson::array();
      for (uint64_t i = 0; i < count; ++i) {
        OrderedJson ids = OrderedJson::array(), values = OrderedJson::array();
        for (size_t j = i * k; j < (i + 1) * k && id[j] >= 0; ++j) {
          ids.push_back(id[j]);
          values.push_back(logp[j]);
        }
        transfer.labelled += !ids.empty();
        line["top_ids"].push_back(std::move(ids));
        logps.push_back(std::move(values));
        tails.push_back(number_json(tail[i]));
      }
      if (fingerprint.has_logp()) line["top_logprobs"] = std::move(logps);
      if (fingerprint.has_tail()) line["tail_logprobs"] = std::move(tails);
      file.write(line.dump() + "\n");
      ++transfer.documents;
      transfer.tokens += count;
    }
  }
  file.commit();
  return transfer;
}

LabelTransfer import_labels(const std::filesystem::path& input, const TokenShards& shards, const LabelFingerprint& fingerprint,
                            const std::filesystem::path& cache) {
  std::map<uint64_t, DocumentPlace> places = places_of(shards);
  std::vector<std::unique_ptr<ShardLabels>> held(shards.shards().size());  // shards of which some documents have come
  std::vector<size_t> expected;                                            // documents that each still waits for
  for (size_t shard = 0; shard < held.size(); ++shard) expected.push_back(shards.document_ends(shard).size());
  NewCache made(cache);
  LabelCacheWriter writer(made.temporary, shards, fingerprint);
  std::vector<int64_t> near_ties;
  const auto labels_of = [&](size_t shard) -> ShardLabels& {
    if (held[shard] == nullptr) held[shard] = std::make_unique<ShardLabels>(TokenRuns(), fingerprint);
    return *held[shard];
  };
  const auto write = [&](size_t shard) {
    ShardLabels& labels = labels_of(shard);
    if (shard < near_ties.size()) labels.near_ties = near_ties[shard];
    writer.write(shard, labels);
    held[shard].reset();
  };
  LabelTransfer transfer;
  LineReader reader = open_lines(input);
  Line line{input.string()};
  Json object;
  bool ours = false;  // a cache without a label leaves a first line alone
  for (bool first = true; next_object(reader, line, object); first = false) {
    if (first)
      if (const auto header = header_of(line, object)) {
        ours = true;
        check_label_fingerprint(header->fingerprint, fingerprint, fmt::format("{}:{}", line.path, line.number));
        near_ties = header->near_ties;
        continue;
      }
    const auto found = places.find(hash_of(line, object));
    if (found == places.end()) line.refuse("the token shards hold no such document");
    DocumentPlace& place = found->second;
    if (place.seen) line.refuse("the document came before");
    place.seen = true;
    const std::vector<int64_t> tokens = tokens_of(shards, place);
    const Json& given = line.list(object, "tokens", tokens.size());
    for (size_t i = 0; i < tokens.size(); ++i)
      if (given[i] != tokens[i]) line.refuse(fmt::format("token {} is {}, the shards hold {}: another tokenizer or text", i, given[i].dump(), tokens[i]));
    const Json& ids = line.list(object, "top_ids", tokens.size());
    const Json* logps = fingerprint.has_logp() ? &line.list(object, "top_logprobs", tokens.size()) : nullptr;
    const Json* tails = fingerprint.has_tail() && object.contains("tail_logprobs") ? &line.list(object, "tail_logprobs", tokens.size()) : nullptr;
    ShardLabels& labels = labels_of(place.shard);
    for (size_t i = 0; i < tokens.size(); ++i)
      read_token(line, fingerprint, ids[i], logps ? &(*logps)[i] : nullptr, tails ? &(*tails)[i] : nullptr, place.begin + i, labels, transfer);
    ++transfer.documents;
    transfer.tokens += tokens.size();
    if (--expected[place.shard] == 0) write(place.shard);
  }
  if (transfer.documents == 0 && !ours) throw UserError::bad_file(input.string(), "holds no document");
  if (transfer.padded_ids > 0)
    log_info(fmt::format("{}: {} ids of a padded output table, beyond the vocabulary of {}, are left out; their probability goes to the tail", input.string(),
                         transfer.padded_ids, fingerprint.vocab_size));
  for (size_t shard = 0; shard < held.size(); ++shard)
    if (expected[shard] > 0) write(shard);
  made.commit();
  return transfer;
}

}  // namespace coppice
