// `coppice labels export` and `coppice labels import`: the label cache of one domain as JSONL, one document a line (docs/labels.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace coppice {

struct LabelsOptions {
  std::filesystem::path tokens;  // a domain's token shards
  std::filesystem::path cache;   // a domain's labels: read by export, made by import
  std::filesystem::path file;    // .jsonl or .jsonl.zst
  std::string teacher;           // import: what the fingerprint says of where the labels come from
  std::string tier = "topk";
  int64_t k = 1;
  double temperature = 1;
};

/// One line on stdout: `120 documents, 41003 tokens, 40883 labelled`.
void run_labels_export(const LabelsOptions& options);
void run_labels_import(const LabelsOptions& options);

}  // namespace coppice
