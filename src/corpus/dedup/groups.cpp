#include "src/corpus/dedup/groups.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "src/base/files.h"

namespace coppice {
namespace {

constexpr const char kExact[] = "exact", kBands[] = "bands";

uint32_t parts_for(uint64_t bytes, uint64_t memory_bytes) {
  return static_cast<uint32_t>(std::clamp<uint64_t>(bytes / std::max<uint64_t>(memory_bytes / 4, 1) + 1, 1, 1u << 20));
}

void write_pair(RecordWriter& out, uint64_t first, uint64_t second) {
  const DocumentPair pair = {static_cast<uint32_t>(first), static_cast<uint32_t>(second)};
  out.write(&pair, 1);
}

}  // namespace

GroupParts group_parts(const GroupPlace& place, const NotedDocuments& documents, const SignatureShape& shape) {
  return {.exact = parts_for(documents.size() * sizeof(ExactRecord), place.memory_bytes),
          .bands = parts_for(documents.size() * sizeof(BandRecord) * static_cast<uint64_t>(shape.bands),
                             place.memory_bytes)};
}

std::filesystem::path group_path(const GroupPlace& place, const char* kind, uint32_t part, uint32_t parts) {
  return place.folder / "groups" / fmt::format("{}-{:05}-of-{:05}", kind, part, parts);
}

void write_group_part(const GroupPlace& place, const NotedDocuments& documents, const GroupParts& parts, uint32_t part,
                      uint64_t owner) {
  const bool exact = part < parts.exact;
  const uint32_t number = exact ? part : part - parts.exact, of = exact ? parts.exact : parts.bands;
  const std::filesystem::path path = group_path(place, exact ? kExact : kBands, number, of);
  if (std::filesystem::exists(path)) return;
  make_folder(path.parent_path());
  RecordWriter out(path, sizeof(DocumentPair), owner);
  const std::vector<bool> all_left = documents.left(place);
  if (exact) {
    const auto order = [&](const ExactRecord& record) {
      const NotedFile& file = documents.file_of(record[2]);
      return std::tuple(!file.is_reference, file.priority, record[3], record[2]);
    };
    documents.exact_runs().for_each_group(hash_range(number, of), place.memory_bytes / 2, [&](const auto& group) {
      ExactRecord best = {};
      bool begun = false;
      group.for_each([&](const ExactRecord& record) {
        if (!is_left(all_left, record[2])) return;
        if (!std::exchange(begun, true) || order(record) < order(best)) best = record;
      });
      group.for_each([&](const ExactRecord& record) {
        if (is_left(all_left, record[2]) && record[2] != best[2]) write_pair(out, best[2], record[2]);
      });
    });
  } else {
    documents.band_runs().for_each_group(hash_range(number, of), place.memory_bytes / 2, [&](const auto& group) {
      uint64_t first = documents.size();
      group.for_each([&](const BandRecord& record) {
        if (!is_left(all_left, record[1])) return;
        first = std::min(first, record[1]);
        write_pair(out, first, record[1]);
      });
    });
  }
  out.commit();
}

}  // namespace coppice
