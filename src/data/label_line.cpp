#include "src/data/label_line.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/data/label_import.h"
#include "src/data/label_jsonl.h"
#include "src/text/documents.h"

namespace coppice {

namespace {

const Json& list_of(const LinePlace& place, const Json& object, const char* name) {
  if (!object.contains(name) || !object[name].is_array())
    place.refuse(fmt::format("\"{}\" is missing or no list", name));
  return object[name];
}

const Json& list_of(const LinePlace& place, const Json& object, const char* name, size_t length) {
  const Json& list = list_of(place, object, name);
  if (list.size() != length) place.refuse(fmt::format("\"{}\" has {} entries, expected {}", name, list.size(), length));
  return list;
}

std::vector<int64_t> tokens_of(const Json& list) {
  std::vector<int64_t> tokens;
  for (const Json& token : list)
    tokens.push_back(token.is_number_unsigned() ? std::max<int64_t>(-1, token.get<int64_t>()) : -1);
  return tokens;
}

double log_probability(const LinePlace& place, const Json& value) {
  if (!value.is_number() || std::isnan(value.get<double>()))
    place.refuse("a log-probability is no number up to 0: " + value.dump().substr(0, 60));
  if (!(value.get<double>() <= kMassAboveOne))
    place.refuse(
        fmt::format("a log-probability is no number up to 0: {}; raw logits? take their log-softmax over the whole "
                    "vocabulary (natural logarithm)",
                    value.dump()));
  return std::min(0.0, value.get<double>());
}

int64_t id_of(const Json& value) {
  return value.is_number_unsigned() ? std::max<int64_t>(-1, value.get<int64_t>()) : -1;
}

/// Log of the mass that the ids of one token leave; null stands for none.
double tail_of(const LinePlace& place, const Json& value) {
  return value.is_null() ? -std::numeric_limits<double>::infinity() : log_probability(place, value);
}

/// The choices of one token out of parallel lists; `logps` null = none are given.
std::vector<LabelChoice> choices_of(const LinePlace& place, const Json& ids, const Json* logps,
                                    const char* name = "top_ids") {
  if (!ids.is_array())
    place.refuse(fmt::format("\"{}\" holds {} at a token, expected a list of ids", name, ids.dump().substr(0, 60)));
  if (logps != nullptr && (!logps->is_array() || logps->size() != ids.size()))
    place.refuse("\"top_logprobs\" and \"top_ids\" differ in length at a token");
  std::vector<LabelChoice> choices;
  for (size_t j = 0; j < ids.size(); ++j)
    choices.push_back({id_of(ids[j]), logps == nullptr ? 0.0 : log_probability(place, (*logps)[j])});
  return choices;
}

void sort_choices(std::vector<LabelChoice>& choices) {
  std::ranges::stable_sort(choices, std::ranges::greater{}, &LabelChoice::logp);
}

/// {"6": {"logprob": -0.1, "rank": 1, "decoded_token": " the"}, ...}, or {"6": -0.1, ...}.
std::vector<LabelChoice> choices_of_map(const LinePlace& place, const Json& map) {
  if (!map.is_object())
    place.refuse(
        fmt::format("\"prompt_logprobs\" holds {} at a token, expected an object or null", map.dump().substr(0, 60)));
  std::vector<LabelChoice> choices;
  bool ranked = false, first = false;
  for (const auto& [key, value] : map.items()) {
    int64_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size()) id = -1;
    const bool is_entry = value.is_object() && value.contains("logprob");
    choices.push_back({id, log_probability(place, is_entry ? value["logprob"] : value)});
    if (!is_entry || !value.contains("rank")) continue;
    ranked = true;
    first = first || value["rank"] == Json(1);
  }
  if (ranked && !first)
    place.refuse(
        "\"prompt_logprobs\" holds no entry of rank 1 at a token: what the model would choose is not among them; ask "
        "for prompt_logprobs of 1 or more");
  sort_choices(choices);
  return choices;
}

}  // namespace

void LinePlace::refuse(const std::string& message) const {
  throw UserError::bad_file(path, fmt::format("line {}: {}", number, message));
}

uint64_t document_of(const LinePlace& place, const Json& object) {
  if (object.contains("id")) {
    const Json& id = object["id"];
    if (id.is_string()) return document_hash(id.get<std::string>());
    if (id.is_number_float() && std::abs(id.get<double>()) >= 0x1p63)
      place.refuse("\"id\" is a number beyond 64 bits; write it as a string");
    if (id.is_number()) return document_hash(id.dump());  // as the corpus is read: 17 and "17" are one document
    if (!object.contains("doc")) place.refuse("\"id\" is neither a string nor a number: " + id.dump().substr(0, 60));
  }
  if (!object.contains("doc") || !object["doc"].is_string()) place.refuse("neither \"id\" nor \"doc\"");
  const std::string text = object["doc"].get<std::string>();
  if (text.size() != 16 || text.find_first_not_of("0123456789abcdef") != std::string::npos)
    place.refuse("\"doc\" is not 16 hex digits");
  return std::stoull(text, nullptr, 16);
}

namespace {

/// Draws at a token: all or none.
void check_count(const LinePlace& place, const char* name, size_t found, int64_t draws) {
  if (found != 0 && found != static_cast<size_t>(draws))
    place.refuse(
        fmt::format("\"{}\" holds {} ids at a token, expected {} (draws = {}) or none", name, found, draws, draws));
}

/// The log of what each of a token's draws weighs, as it will be stored: one number for all draws of an id.
void read_weights(const LinePlace& place, const Json& weights, std::vector<LabelChoice>& draws) {
  if (!weights.is_array() || weights.size() != draws.size())
    place.refuse(fmt::format("\"{}\" and \"draws\" differ in length at a token", kDrawWeightsKey));
  std::map<int64_t, float> of_id;
  for (size_t j = 0; j < draws.size(); ++j) {
    const double given = weights[j].is_number() ? weights[j].get<double>() : std::nan("");
    const auto stored = static_cast<float>(static_cast<c10::Half>(static_cast<float>(given)));
    if (!std::isfinite(stored))
      place.refuse(fmt::format("the log of a draw's weight is no number of half precision: {}",
                               weights[j].dump().substr(0, 60)));
    if (of_id.emplace(draws[j].id, stored).first->second != stored)
      place.refuse(fmt::format("draws of id {} have different weights at a token", draws[j].id));
    draws[j].logp = given;
  }
}

LabelLine read_draws(const LinePlace& place, const Json& object, const LabelFingerprint& fingerprint) {
  LabelLine line{.tokens = tokens_of(list_of(place, object, "tokens")), .labels = {}};
  if (!fingerprint.has_weights() && object.contains(kDrawWeightsKey))
    place.refuse(fmt::format("\"{}\": draws at proposal_temperature 1 have no weights; say what they were drawn at",
                             kDrawWeightsKey));
  const size_t count = line.tokens.size();
  const Json* weights = fingerprint.has_weights() ? &list_of(place, object, kDrawWeightsKey, count) : nullptr;
  const Json& draws = list_of(place, object, "draws", count);
  for (size_t i = 0; i < count; ++i) {
    TokenLabels& token = line.labels.emplace_back();
    token.choices = choices_of(place, draws[i], nullptr, "draws");
    check_count(place, "draws", token.choices.size(), fingerprint.k);
    if (weights != nullptr) read_weights(place, (*weights)[i], token.choices);
  }
  return line;
}

std::vector<int64_t> tail_draws_of(const LinePlace& place, const Json& draws, const LabelFingerprint& fingerprint) {
  std::vector<int64_t> ids;
  for (const LabelChoice& choice : choices_of(place, draws, nullptr, "tail_draws")) ids.push_back(choice.id);
  check_count(place, "tail_draws", ids.size(), fingerprint.draws);
  return ids;
}

}  // namespace

LabelLine read_label_lists(const LinePlace& place, const Json& object, const LabelFingerprint& fingerprint) {
  if (fingerprint.has_draws()) return read_draws(place, object, fingerprint);
  const auto k = static_cast<size_t>(fingerprint.k);
  LabelLine line{
      .tokens = tokens_of(list_of(place, object, "tokens")), .labels = {}, .has_logp = fingerprint.has_logp()};
  const size_t count = line.tokens.size();
  const Json& ids = list_of(place, object, "top_ids", count);
  const Json* logps = line.has_logp ? &list_of(place, object, "top_logprobs", count) : nullptr;
  const Json* tails = fingerprint.has_tail() && object.contains("tail_logprobs")
                          ? &list_of(place, object, "tail_logprobs", count)
                          : nullptr;
  const Json* drawn = fingerprint.has_tail_draws() ? &list_of(place, object, "tail_draws", count) : nullptr;
  for (size_t i = 0; i < count; ++i) {
    if (ids[i].is_array() && ids[i].size() > k)
      place.refuse(
          fmt::format("\"top_ids\" holds {} at a token, expected a list of at most {} ids (vLLM's k + 1 come in with "
                      "the format \"vllm\")",
                      ids[i].dump().substr(0, 60), k));
    TokenLabels& token = line.labels.emplace_back();
    token.choices = choices_of(place, ids[i], logps == nullptr ? nullptr : &(*logps)[i]);
    for (size_t j = 1; j < token.choices.size(); ++j)  // as they will be stored
      if (static_cast<float>(static_cast<c10::Half>(static_cast<float>(token.choices[j].logp))) >
          static_cast<float>(static_cast<c10::Half>(static_cast<float>(token.choices[j - 1].logp))))
        place.refuse("log-probabilities are not in descending order");
    if (drawn != nullptr) token.drawn = tail_draws_of(place, (*drawn)[i], fingerprint);
    if (tails == nullptr) continue;
    token.has_tail = true;
    token.tail = tail_of(place, (*tails)[i]);
  }
  return line;
}

LabelLine read_vllm_line(const LinePlace& place, const Json& object, const LabelFingerprint& fingerprint) {
  LabelLine line;
  if (object.contains("prompt_logprobs")) {
    line.tokens = tokens_of(list_of(place, object, "prompt_token_ids"));
    const Json& entries = list_of(place, object, "prompt_logprobs", line.tokens.size());
    line.has_logp = true;
    line.labels.resize(line.tokens.size());
    // Entry i is the distribution of token i itself: what stands at the token before it.
    if (!entries.empty() && !entries[0].is_null())
      place.refuse("\"prompt_logprobs\" does not begin with null: nothing comes before the first token");
    for (size_t i = 1; i < entries.size(); ++i)
      if (!entries[i].is_null()) line.labels[i - 1].choices = choices_of_map(place, entries[i]);
    return line;
  }
  line.tokens = tokens_of(list_of(place, object, "tokens"));
  line.has_logp = object.contains("top_logprobs");
  if (fingerprint.has_logp() && !line.has_logp) place.refuse("\"top_logprobs\" is missing or no list");
  const Json& ids = list_of(place, object, "top_ids", line.tokens.size());
  const Json* logps = line.has_logp ? &list_of(place, object, "top_logprobs", line.tokens.size()) : nullptr;
  const Json* tails = line.has_logp && object.contains("tail_logprobs")
                          ? &list_of(place, object, "tail_logprobs", line.tokens.size())
                          : nullptr;
  for (size_t i = 0; i < ids.size(); ++i) {
    TokenLabels& token = line.labels.emplace_back();
    if (ids[i].is_null()) continue;
    token.choices = choices_of(place, ids[i], logps == nullptr ? nullptr : &(*logps)[i]);
    sort_choices(token.choices);
    token.has_tail = tails != nullptr;
    if (token.has_tail) token.tail = tail_of(place, (*tails)[i]);
  }
  return line;
}

}  // namespace coppice
