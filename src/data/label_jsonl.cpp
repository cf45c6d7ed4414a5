// Labels out: our own JSONL (label_jsonl.h).
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <vector>

#include "src/base/files.h"
#include "src/data/label_jsonl.h"
#include "src/text/byte_sink.h"

namespace coppice {

namespace {

using OrderedJson = nlohmann::ordered_json;  // keys in the order they are written

/// A log-probability as JSON: nothing left = null.
OrderedJson number_json(float value) { return std::isinf(value) ? OrderedJson() : OrderedJson(value); }

/// Ids that more than one document of the shards has.
std::unordered_set<uint64_t> repeated_ids_of(const TokenShards& shards) {
  std::vector<uint64_t> ids;
  for (size_t shard = 0; shard < shards.shards().size(); ++shard)
    ids.insert(ids.end(), shards.document_ids(shard).begin(), shards.document_ids(shard).end());
  std::ranges::sort(ids);
  std::unordered_set<uint64_t> repeated;
  for (size_t i = 1; i < ids.size(); ++i)
    if (ids[i] == ids[i - 1]) repeated.insert(ids[i]);
  return repeated;
}

}  // namespace

LabelTransfer export_labels(const std::filesystem::path& folder, const TokenShards& shards,
                            const std::filesystem::path& output) {
  const LabelCacheSummary summary = summarise_labels(folder);
  const LabelFingerprint& fingerprint = summary.fingerprint;
  const LabelCache cache(folder, shards, fingerprint, LabelCoverage::some);
  const auto k = static_cast<size_t>(fingerprint.k), draws = static_cast<size_t>(fingerprint.draws);
  if (output.has_parent_path()) make_folder(output.parent_path());
  ByteSink file(output, output.string().ends_with(".zst") ? ByteSink::Coding::zstd : ByteSink::Coding::plain);
  OrderedJson header = {{"format", kLabelHeaderFormat},
                        {"version", kLabelHeaderVersion},
                        {"domain", summary.domain},
                        {"fingerprint", OrderedJson::parse(fingerprint.to_json().dump())},
                        {"near_ties", OrderedJson::array()}};
  for (const LabelShardSummary& shard : summary.shard)
    header["near_ties"].push_back(shard.near_ties < 0 ? OrderedJson() : OrderedJson(shard.near_ties));
  file.write(header.dump() + "\n");
  const std::unordered_set<uint64_t> repeated = repeated_ids_of(shards);
  LabelTransfer transfer;
  for (size_t shard = 0; shard < shards.shards().size(); ++shard) {
    uint64_t begin = 0;
    for (size_t document = 0; document < shards.document_ends(shard).size(); ++document) {
      const uint64_t count = shards.document_ends(shard)[document] - begin;
      std::vector<int64_t> tokens(count);
      shards.read(shard, begin, count, tokens.data());
      std::vector<int64_t> id(count * k);
      std::vector<float> logp(count * k), tail(count);
      std::vector<int64_t> drawn(count * draws);
      if (fingerprint.has_tail_draws()) {
        cache.read_hybrid(shard, begin, count, id.data(), logp.data(), tail.data(), drawn.data());
      } else if (fingerprint.has_logp()) {
        cache.read_top_k(shard, begin, count, id.data(), logp.data(), tail.data());
      } else if (fingerprint.has_draws()) {
        cache.read_draws(shard, begin, count, id.data(), logp.data());  // the log of their weights, if they have some
      } else {
        cache.read(shard, begin, count, id.data());
      }
      begin += count;
      bool labelled = false;
      for (uint64_t i = 0; i < count; ++i) labelled |= id[i * k] >= 0;
      const uint64_t document_id = shards.document_ids(shard)[document];
      if (!labelled && !repeated.contains(document_id))
        continue;  // of equal texts the first line is the first document's
      const char* const ids_key = fingerprint.has_draws() ? "draws" : "top_ids";
      OrderedJson line = {
          {"doc", fmt::format("{:016x}", document_id)}, {"tokens", tokens}, {ids_key, OrderedJson::array()}};
      OrderedJson logps = OrderedJson::array(), tails = OrderedJson::array(), tail_draws = OrderedJson::array();
      for (uint64_t i = 0; i < count; ++i) {
        OrderedJson ids = OrderedJson::array(), values = OrderedJson::array();
        for (size_t j = i * k; j < (i + 1) * k && id[j] >= 0; ++j) {
          ids.push_back(id[j]);
          values.push_back(logp[j]);
        }
        transfer.labelled += !ids.empty();
        line[ids_key].push_back(std::move(ids));
        logps.push_back(std::move(values));
        tails.push_back(number_json(tail[i]));
        tail_draws.push_back(OrderedJson::array());
        for (size_t j = i * draws; j < (i + 1) * draws && drawn[j] >= 0; ++j) tail_draws.back().push_back(drawn[j]);
      }
      if (fingerprint.has_logp()) line["top_logprobs"] = std::move(logps);
      if (fingerprint.has_weights()) line[kDrawWeightsKey] = std::move(logps);
      if (fingerprint.has_tail()) line["tail_logprobs"] = std::move(tails);
      if (fingerprint.has_tail_draws()) line["tail_draws"] = std::move(tail_draws);
      file.write(line.dump() + "\n");
      ++transfer.documents;
      transfer.tokens += count;
    }
  }
  file.commit();
  return transfer;
}

}  // namespace coppice
