#include "src/corpus/report/cluster_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <functional>
#include <nlohmann/json.hpp>

#include "src/base/json.h"
#include "src/corpus/report/own_lines.h"

namespace coppice {
namespace {

constexpr size_t kLargest = 10;

void for_each_member(const std::filesystem::path& file,
                     const std::function<void(const Json&, const std::string&)>& take) {
  for_each_own_line(file, [&](std::string_view line, uint64_t number) {
    const std::string where = fmt::format("{}:{}", file.native(), number);
    take(parse_json(line, where), where);
  });
}

struct Member {
  uint64_t cluster;
  uint32_t copy;  // 0 for the one that stays, which comes first
  uint32_t source;
  auto operator<=>(const Member&) const = default;
};

}  // namespace

ClusterSummary summarize_clusters(const std::filesystem::path& file, const std::vector<std::string>& sources) {
  ClusterSummary summary;
  summary.copies.assign(sources.size() + 1, std::vector<uint64_t>(sources.size() + 1));
  std::vector<Member> members;
  for_each_member(file, [&](const Json& line, const std::string& where) {
    const std::string source = line.contains("source") ? string_at(line, "source", where) : "";
    const auto number = std::ranges::find(sources, source) - sources.begin();
    members.push_back({unsigned_at(line, "cluster", where), line.value("kept", Json()) == true ? 0u : 1u,
                       static_cast<uint32_t>(number)});
    if (!line.contains("similarity")) return;
    const double similarity = std::clamp(number_at(line, "similarity", where), 0.0, 1.0);
    ++summary.similarities[std::min<size_t>(static_cast<size_t>(similarity * 20), 19)];
  });
  std::ranges::sort(members);
  std::vector<std::pair<uint64_t, uint64_t>> largest;  // members, cluster
  for (size_t begin = 0, end = 0; begin < members.size(); begin = end) {
    while (end < members.size() && members[end].cluster == members[begin].cluster) ++end;
    ++summary.clusters;
    ++summary.sizes[std::bit_ceil(end - begin)];
    for (size_t i = begin + 1; i < end; ++i) ++summary.copies[members[i].source][members[begin].source];
    largest.emplace_back(end - begin, members[begin].cluster);
    if (largest.size() < 2 * kLargest && end < members.size()) continue;
    std::ranges::sort(largest, [](const auto& a, const auto& b) {
      return a.first != b.first ? a.first > b.first : a.second < b.second;
    });
    if (largest.size() > kLargest) largest.resize(kLargest);
  }
  summary.members = members.size();
  for (const auto& [size, cluster] : largest) summary.largest.push_back({.members = size});
  std::vector<bool> said(largest.size());
  for_each_member(file, [&](const Json& line, const std::string& where) {
    const uint64_t cluster = unsigned_at(line, "cluster", where);
    const auto found = std::ranges::find(largest, cluster, &std::pair<uint64_t, uint64_t>::second);
    if (found == largest.end()) return;
    const auto place = static_cast<size_t>(found - largest.begin());
    if (said[place] && line.value("kept", Json()) != true) return;
    said[place] = true;
    summary.largest[place].id = string_at(line, "id", where);
    summary.largest[place].file = line.contains("file") ? string_at(line, "file", where) : "";
    summary.largest[place].source = line.contains("source") ? string_at(line, "source", where) : "(older run)";
  });
  return summary;
}

}  // namespace coppice
