#include "src/data/label_jsonl.h"

#include <fmt/format.h>
#include <zstd.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/log.h"
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

/// The labels of one token; returns how many ids of a padded output table were left out.
uint64_t read_token(const Line& line, const LabelFingerprint& fingerprint, const Json& ids, const Json* logp, const Json* tail, uint64_t token,
                    ShardLabels& labels) {
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  const auto k = static_cast<size_t>(fingerprint.k);
  if (!ids.is_array() || ids.size() > k)
    line.refuse(fmt::format("\"top_ids\" holds {} at a token, expected a list of at most {} ids", ids.dump().substr(0, 60), k));
  if (logp != nullptr && (!logp->is_array() || logp->size() != ids.size())) line.refuse("\"top_logprobs\" and \"top_ids\" differ in length at a token");
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
      if (labels.id[token * k + other] == id) line.refuse(fmt::format("id {} stands twice at a token", id));
    labels.id[token * k + kept] = static_cast<int32_t>(id);
    if (logp != nullptr) labels.logp[token * k + kept] = before;
    ++kept;
  }
  const uint64_t padded_ids = ids.size() - kept;
  if (!fingerprint.has_tail() || kept == 0) return padded_ids;
  const double given = tail == nullptr ? std::max(0.0, 1 - mass - padded_mass) : tail->is_null() ? 0.0 : std::exp(double{line.log_probability(*tail)});
  labels.tail[token] = tail != nullptr && padded_ids == 0 && !tail->is_null() ? line.log_probability(*tail)
                       : given + padded_mass > 0                              ? static_cast<float>(std::log(given + padded_mass))
                                                                              : kNothing;
  return padded_ids;
}

/// Lines to a plain or zstd file that appears by rename.
void write_lines(const std::filesystem::path& path, const std::string& text) {
  if (path.has_parent_path()) make_folder(path.parent_path());
  if (!path.string().ends_with(".zst")) return write_file_atomically(path, text);
  std::string packed(ZSTD_compressBound(text.size()), '\0');
  const size_t size = ZSTD_compress(packed.data(), packed.size(), text.data(), text.size(), 3);
  COPPICE_CHECK(!ZSTD_isError(size), ZSTD_getErrorName(size));
  write_file_atomically(path, std::string_view(packed).substr(0, size));
}

}  // namespace

LabelTransfer export_labels(const std::filesystem::path& folder, const TokenShards& shards, const std::filesystem::path& output) {
  const LabelFingerprint fingerprint = summarise_labels(folder).fingerprint;
  const LabelCache cache(folder, shards, fingerprint, LabelCoverage::some);
  const auto k = static_cast<size_t>(fingerprint.k);
  LabelTransfer transfer;
  std::string text;
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
      text += line.dump() + "\n";
      ++transfer.documents;
      transfer.tokens += count;
      begin = place.end;
    }
  }
  write_lines(output, text);
  return transfer;
}

LabelTransfer import_labels(const std::filesystem::path& input, const TokenShards& shards, const LabelFingerprint& fingerprint,
                            const std::filesystem::path& cache) {
  std::map<uint64_t, DocumentPlace> places = places_of(shards);
  std::vector<ShardLabels> labels;
  for (const TokenShardInfo& shard : shards.shards()) labels.emplace_back(shard.tokens, fingerprint);
  LabelTransfer transfer;
  LineReader reader(input, input.string().ends_with(".zst") ? ByteSource::Coding::zstd : ByteSource::Coding::plain, kMaxLineBytes);
  for (std::string_view text; reader.next(text);) {
    if (text.find_first_not_of(" \t") == std::string_view::npos) continue;
    const Line line{input.string(), reader.line_number()};
    const Json object = parse_json(text, fmt::format("{}:{}", line.path, line.number));
    if (!object.is_object()) line.refuse("expected one JSON object");
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
    for (size_t i = 0; i < tokens.size(); ++i) {
      transfer.padded_ids +=
          read_token(line, fingerprint, ids[i], logps ? &(*logps)[i] : nullptr, tails ? &(*tails)[i] : nullptr, place.begin + i, labels[place.shard]);
      transfer.labelled += labels[place.shard].id[(place.begin + i) * static_cast<size_t>(fingerprint.k)] != kNoLabel;
    }
    ++transfer.documents;
    transfer.tokens += tokens.size();
  }
  if (transfer.documents == 0) throw UserError::bad_file(input.string(), "holds no document");
  if (transfer.padded_ids > 0)
    log_info(fmt::format("{}: {} ids of a padded output table, beyond the vocabulary of {}, are left out; their probability goes to the tail", input.string(),
                         transfer.padded_ids, fingerprint.vocab_size));
  LabelCacheWriter writer(cache, shards, fingerprint);
  for (size_t shard = 0; shard < labels.size(); ++shard) writer.write(shard, labels[shard]);
  return transfer;
}

}  // namespace coppice
