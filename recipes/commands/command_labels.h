// `coppice labels export` and `coppice labels import`: the label cache of one domain as JSONL, one document a line
// (docs/labels.md). A file of ours says itself what its labels are; what is given to import must agree with it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace coppice {

struct LabelsOptions {
  std::filesystem::path tokens;  // a domain's token shards
  std::filesystem::path cache;   // a domain's labels: read by export, made by import
  std::filesystem::path file;    // .jsonl or .jsonl.zst
  // import
  std::optional<std::string> teacher;  // what the fingerprint says of where the labels come from
  std::optional<std::string> tier;     // topk
  std::optional<int64_t> k;            // 1
  std::optional<double> temperature;   // 1
  std::string format = "coppice";      // or vllm
  bool low_mass = false;
};

/// One line on stdout: `120 documents, 41003 tokens, 40883 labelled`.
void run_labels_export(const LabelsOptions& options);
void run_labels_import(const LabelsOptions& options);

}  // namespace coppice
