// What decides labels, as JSON and field by field, and what follows from it for their files: width of ids, bytes a row.
#include <fmt/format.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/data/draw_numbers.h"
#include "src/data/label_cache_files.h"

namespace coppice {

namespace {

std::string text_of(const Json& value) {
  return printable(value.is_string() ? value.get<std::string>() : value.dump());
}

/// As text, to the last bit.
std::string number_text(double value) { return fmt::format("{}", value); }

/// What says no code or proposal has the plain one.
Json with_plain(Json fingerprint) {
  const LabelFingerprint plain;
  if (!fingerprint.contains("code")) fingerprint["code"] = plain.code;
  if (!fingerprint.contains("proposal_temperature"))
    fingerprint["proposal_temperature"] = number_text(plain.proposal_temperature);
  return fingerprint;
}

}  // namespace

void check_label_fingerprint(const Json& given, const LabelFingerprint& fingerprint, const std::string& path) {
  const Json expected = with_plain(fingerprint.to_json()), found = with_plain(given);
  const auto check = [&](const std::string& name) {
    const Json& value = expected[name];
    if (!found.contains(name))
      throw UserError::bad_file(path, fmt::format("the labels' fingerprint has no field {}", name));
    if (found[name] != value)
      throw UserError::bad_file(path, fmt::format("the labels were made with another {}: found {}, expected {}", name,
                                                  text_of(found[name]), text_of(value)));
  };
  check("tokenizer_sha256");  // other tokens follow from it
  check("tier");              // and what others mean
  for (const auto& [name, value] : expected.items()) check(name);
  for (const auto& [name, value] : found.items())
    if (!expected.contains(name))
      throw UserError::bad_file(path, fmt::format("the labels' fingerprint has an unknown field {}", printable(name)));
}

Json LabelFingerprint::to_json() const {
  Json json = {{"teacher_sha256", teacher_sha256},
               {"tokenizer_sha256", tokenizer_sha256},
               {"vocab_size", vocab_size},
               {"token_manifest_sha256", token_manifest_sha256},
               {"tier", tier},
               {"k", k},
               {"temperature", number_text(temperature)},
               {"window_rule", window_rule},
               {"context", context},
               {"overlap", overlap},
               {"compute_dtype", compute_dtype},
               {"teacher_mode", "eval"}};
  if (code != LabelFingerprint().code) json["code"] = code;
  if (has_tail_draws()) json["draws"] = draws;
  if (is_drawn()) json["draw_seed"] = draw_seed;
  if (has_weights()) json["proposal_temperature"] = number_text(proposal_temperature);
  return json;
}

LabelFingerprint LabelFingerprint::from_json(const Json& json, const std::string& path) {
  LabelFingerprint fingerprint{.teacher_sha256 = string_at(json, "teacher_sha256", path),
                               .tokenizer_sha256 = string_at(json, "tokenizer_sha256", path),
                               .vocab_size = static_cast<int64_t>(unsigned_at(json, "vocab_size", path)),
                               .token_manifest_sha256 = string_at(json, "token_manifest_sha256", path),
                               .tier = string_at(json, "tier", path),
                               .k = static_cast<int64_t>(unsigned_at(json, "k", path)),
                               .temperature = std::strtod(string_at(json, "temperature", path).c_str(), nullptr),
                               .window_rule = string_at(json, "window_rule", path),
                               .context = static_cast<int64_t>(unsigned_at(json, "context", path)),
                               .overlap = static_cast<int64_t>(unsigned_at(json, "overlap", path)),
                               .compute_dtype = string_at(json, "compute_dtype", path)};
  if (json.contains("code")) fingerprint.code = string_at(json, "code", path);
  if (json.contains("proposal_temperature"))
    fingerprint.proposal_temperature = std::strtod(string_at(json, "proposal_temperature", path).c_str(), nullptr);
  if (fingerprint.has_tail_draws()) fingerprint.draws = static_cast<int64_t>(unsigned_at(json, "draws", path));
  if (fingerprint.is_drawn()) fingerprint.draw_seed = unsigned_at(json, "draw_seed", path);
  const bool known = (fingerprint.tier == "top1" || fingerprint.has_logp() || fingerprint.has_draws()) &&
                     (fingerprint.code == "f16" || (fingerprint.code == "q8" && fingerprint.tier == "topk")) &&
                     (fingerprint.has_tail_draws() ? fingerprint.draws >= 1 && fingerprint.draws <= kMaxDraws
                                                   : fingerprint.draws == 0) &&
                     (fingerprint.has_draws() || fingerprint.proposal_temperature == 1);
  const int64_t most_ids = fingerprint.has_tail() ? fingerprint.vocab_size : fingerprint.has_draws() ? kMaxDraws : 1;
  if (!known || fingerprint.vocab_size <= 0 || fingerprint.vocab_size >= (int64_t{1} << 24) || fingerprint.k < 1 ||
      fingerprint.k > most_ids || !(fingerprint.temperature > 0) || !(fingerprint.proposal_temperature > 0))
    throw UserError::bad_file(
        path, fmt::format("labels of tier '{}' with code '{}', k {}, draws {}, temperature {}, proposal_temperature {} "
                          "and a vocabulary of {}",
                          printable(fingerprint.tier), printable(fingerprint.code), fingerprint.k, fingerprint.draws,
                          fingerprint.temperature, fingerprint.proposal_temperature, fingerprint.vocab_size));
  return fingerprint;
}

IdPacking label_packing(const LabelFingerprint& fingerprint) {
  if (fingerprint.vocab_size <= 65535) return IdPacking::two_bytes;
  return fingerprint.has_tail() ? IdPacking::four_bytes : IdPacking::three_bytes;
}
uint32_t none_of(IdPacking packing) {
  return packing == IdPacking::four_bytes ? kNoId : (uint32_t{1} << (8 * static_cast<int>(packing))) - 1;
}

LabelCode label_code(const LabelFingerprint& fingerprint) {
  return {static_cast<uint64_t>(fingerprint.k), static_cast<uint64_t>(fingerprint.draws),
          static_cast<uint64_t>(fingerprint.vocab_size)};
}

/// Of a different id of draws, with its weight.
static uint64_t drawn_id_bytes(const LabelFingerprint& fingerprint) {
  return static_cast<uint64_t>(label_packing(fingerprint)) + (fingerprint.has_weights() ? sizeof(c10::Half) : 0);
}

uint64_t label_row_bytes(const LabelFingerprint& fingerprint) {
  if (fingerprint.is_coded()) return label_code(fingerprint).row_bytes();
  const auto k = static_cast<uint64_t>(fingerprint.k), id_bytes = static_cast<uint64_t>(label_packing(fingerprint));
  if (fingerprint.has_draws()) return drawn_id_bytes(fingerprint) + repeat_bytes(k);
  return k * (id_bytes + (fingerprint.has_logp() ? 2 : 0)) + (fingerprint.has_tail() ? 2 : 0);
}

uint64_t most_label_row_bytes(const LabelFingerprint& fingerprint) {
  const uint64_t other_ids = fingerprint.has_draws() ? static_cast<uint64_t>(fingerprint.k - 1) : 0;
  return label_row_bytes(fingerprint) + other_ids * drawn_id_bytes(fingerprint);
}

}  // namespace coppice
