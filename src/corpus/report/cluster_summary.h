// What stats/groups/<step>/clusters.jsonl.zst says of copies.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace coppice {

struct LargeCluster {
  uint64_t members = 0;
  std::string id, source, file;  // of the document that stays, else of the first one; no file: of an older run
};

struct ClusterSummary {
  uint64_t clusters = 0, members = 0;
  std::map<uint64_t, uint64_t> sizes;         // clusters by members, rounded up to a power of two
  std::vector<LargeCluster> largest;          // ten at most
  std::array<uint64_t, 20> similarities{};    // of documents that went, in steps of 0.05
  std::vector<std::vector<uint64_t>> copies;  // [source of the copy, source of what it is a copy of]
};

/// `sources`: names; the last row and column of `copies` are of documents of an older run. Takes 16 bytes of memory a
/// member. UserError::bad_file naming the line.
ClusterSummary summarize_clusters(const std::filesystem::path& file, const std::vector<std::string>& sources);

}  // namespace coppice
