#include "src/corpus/dedup/settle.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <tuple>
#include <utility>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/json.h"
#include "src/base/log.h"
#include "src/corpus/dedup/component.h"
#include "src/corpus/dedup/decisions.h"
#include "src/corpus/dedup/groups.h"
#include "src/corpus/dedup/member_rows.h"
#include "src/corpus/dedup/spill.h"
#include "src/corpus/dedup/union_find.h"
#include "src/text/byte_sink.h"

namespace coppice {
namespace {

using Membership = std::array<uint64_t, 2>;  // component << 32 | document, bucket

constexpr uint32_t kUnmeasured = 0xffffffff;  // the bits of no similarity

/// A bijection of 32 bits that spreads neighbours (the finaliser of MurmurHash3).
uint32_t spread(uint32_t number) {
  number = (number ^ number >> 16) * 0x85ebca6b;
  number = (number ^ number >> 13) * 0xc2b2ae35;
  return number ^ number >> 16;
}

[[noreturn]] void refuse_memory(uint64_t memory_bytes, uint64_t needed, const std::string& what) {
  throw UserError::recipe(
      "", fmt::format("memory: got {}, expected at least {} for {}", format_bytes(static_cast<double>(memory_bytes)),
                      format_bytes(1.02 * static_cast<double>(needed)), what));
}

/// Of tables that hold every document; the rest of the memory, a quarter at least, is for their groups.
uint64_t table_bytes(uint64_t documents) { return documents * 8 + documents / 8; }

class Settling {
 public:
  Settling(const GroupPlace& place, const SettleOptions& options)
      : place_(place),
        options_(options),
        owner_(options.notes.owner()),
        keep_none_(options.notes.keep == "none"),
        documents_(place, options.notes, options.against),
        parts_(group_parts(place, documents_, options.notes.shape)),
        rows_(documents_) {
    const uint64_t needed = least_settle_memory(documents_.size());
    if (needed > place.memory_bytes)
      refuse_memory(place.memory_bytes, needed, fmt::format("{} documents", documents_.size()));
    work_bytes_ = place.memory_bytes - table_bytes(documents_.size());
  }

  void run() {
    find_exact_copies();
    settle_components();
    write();
  }

 private:
  void find_exact_copies();
  void settle_components();
  void settle_part(std::span<const Membership> members);
  void settle_component(std::span<const Membership> members);
  std::vector<uint32_t> order_of(std::span<const uint32_t> documents) const;
  Compare comparison(const std::vector<uint32_t>& documents);
  uint32_t root_of(uint32_t document) const;
  std::optional<Decision> decision_of(const NotedFile& file, uint64_t record) const;
  void write();
  void write_left(const NotedFile& file, std::string left) const;

  /// Calls visit(first, document) for the members of every bucket that are no exact copies, the first with itself.
  template <class Visit>
  void for_each_member(const Visit& visit) {
    bool has_first = false;
    uint32_t first = 0;
    for_each_pair(place_, "bands", parts_.bands, owner_, documents_.size(), [&](const DocumentPair& pair) {
      if (pair[0] == pair[1]) has_first = false;  // another bucket
      if (is_copy_[pair[1]]) return;
      if (!std::exchange(has_first, true)) first = pair[1];
      visit(first, pair[1]);
    });
  }

  const GroupPlace& place_;
  const SettleOptions& options_;
  const uint64_t owner_;
  const bool keep_none_;
  const NotedDocuments documents_;
  const GroupParts parts_;
  uint64_t work_bytes_ = 0;       // what the tables leave
  std::vector<uint32_t> heads_;   // of an exact copy the one that speaks for it, of the others who they are copies of
  std::vector<bool> is_copy_;     // exactly
  std::vector<uint32_t> values_;  // the bits of the similarity to a head; of a head the number of its copies
  MemberRows rows_;
};

void Settling::find_exact_copies() {
  heads_.resize(documents_.size());
  std::iota(heads_.begin(), heads_.end(), 0);
  is_copy_.resize(documents_.size());
  for_each_pair(place_, "exact", parts_.exact, owner_, documents_.size(), [&](const DocumentPair& pair) {
    heads_[pair[1]] = pair[0];
    is_copy_[pair[1]] = true;
  });
}

/// heads_ is the forest of the components first, without the exact copies, and says who stays afterwards.
void Settling::settle_components() {
  uint64_t most = 0;  // memberships: of m documents m, here counted as 2 (m - 1)
  for_each_member([&](uint32_t first, uint32_t document) {
    if (first == document) return;
    join_roots(heads_, first, document);
    most += 2;
  });
  Spill<2> memberships(place_.folder / "components", most, work_bytes_ / 4);
  uint64_t bucket = 0;
  bool alone = false;  // the first of its bucket until now
  const auto add = [&](uint32_t document) {
    memberships.add({uint64_t{spread(find_root(heads_, document))} << 32 | document, bucket});
  };
  for_each_member([&](uint32_t first, uint32_t document) {
    alone = alone || first == document;
    if (first == document) return;
    if (std::exchange(alone, false)) {
      ++bucket;
      add(first);
    }
    add(document);
  });
  memberships.finish();

  for (uint32_t document = 0; document < heads_.size(); ++document)
    if (!is_copy_[document]) heads_[document] = document;
  values_.assign(documents_.size(), 0);
  for (size_t part = 0; part < memberships.num_parts(); ++part) {
    if (memberships.bytes_of(part) > work_bytes_ / 2)
      refuse_memory(place_.memory_bytes, place_.memory_bytes - work_bytes_ + 2 * memberships.bytes_of(part),
                    "the largest group of documents that share bands");
    settle_part(memberships.read(part));
  }
}

/// As many components together as signatures fit into memory.
void Settling::settle_part(std::span<const Membership> members) {
  const uint64_t most = work_bytes_ / 4 / rows_.bytes_each();
  for (size_t begin = 0, end = 0; begin < members.size(); begin = end) {
    std::vector<size_t> ends;
    std::vector<uint32_t> documents;
    while (end < members.size()) {
      const size_t before = documents.size();
      size_t next = end;
      for (; next < members.size() && members[next][0] >> 32 == members[end][0] >> 32; ++next)
        if (next == end || members[next][0] != members[next - 1][0])
          documents.push_back(static_cast<uint32_t>(members[next][0]));
      if (before > 0 && documents.size() > most) {
        documents.resize(before);
        break;
      }
      ends.push_back(end = next);
    }
    std::ranges::sort(documents);
    const bool fits = documents.size() <= most;
    rows_.load(std::move(documents), fits && options_.verify != Verify::none);
    for (size_t i = 0, from = begin; i < ends.size(); from = ends[i++])
      settle_component(members.subspan(from, ends[i] - from));
  }
}

void Settling::settle_component(std::span<const Membership> members) {
  Component component;
  std::vector<uint32_t> documents;
  std::vector<uint64_t> buckets;
  for (const Membership& member : members) buckets.push_back(member[1]);
  std::ranges::sort(buckets);
  buckets.erase(std::ranges::unique(buckets).begin(), buckets.end());
  component.num_buckets = static_cast<uint32_t>(buckets.size());
  for (size_t i = 0; i < members.size(); ++i) {
    if (i > 0 && members[i][0] != members[i - 1][0]) component.begins.push_back(static_cast<uint32_t>(i));
    if (i == 0 || members[i][0] != members[i - 1][0]) documents.push_back(static_cast<uint32_t>(members[i][0]));
    component.buckets.push_back(
        static_cast<uint32_t>(std::ranges::lower_bound(buckets, members[i][1]) - buckets.begin()));
  }
  component.begins.push_back(static_cast<uint32_t>(members.size()));
  component.order = order_of(documents);
  for (const uint32_t document : documents)
    component.is_reference.push_back(documents_.file_of(document).is_reference ? 1 : 0);

  const Compare compare = comparison(documents);
  const std::vector<Fate> fates = keep_none_           ? settle_alike(component, compare)
                                  : options_.connected ? settle_connected(component, compare)
                                                       : settle_verified(component, compare);
  for (size_t i = 0; i < documents.size(); ++i) {
    if (fates[i].head == i) continue;
    heads_[documents[i]] = documents[fates[i].head];
    values_[documents[i]] = fates[i].similarity ? std::bit_cast<uint32_t>(*fates[i].similarity) : kUnmeasured;
  }
}

/// Places in `documents`, references first, then by priority, keep value and number.
std::vector<uint32_t> Settling::order_of(std::span<const uint32_t> documents) const {
  std::vector<std::tuple<bool, int64_t, uint64_t, uint32_t>> keys;
  for (uint32_t i = 0; i < documents.size(); ++i) {
    const NotedFile& file = documents_.file_of(documents[i]);
    keys.emplace_back(!file.is_reference, file.priority, rows_.keep_value(documents[i]), i);
  }
  std::ranges::sort(keys);
  std::vector<uint32_t> order;
  for (const auto& key : keys) order.push_back(std::get<3>(key));
  return order;
}

Compare Settling::comparison(const std::vector<uint32_t>& documents) {
  if (options_.verify == Verify::none) return [](uint32_t, uint32_t) { return Likeness{.similar = true}; };
  if (options_.verify == Verify::text && documents.size() <= kMostCompareTexts) {
    auto texts = std::make_shared<std::vector<std::vector<uint64_t>>>();
    for (const uint32_t document : documents) texts->push_back(rows_.shingles(document));
    return [this, texts](uint32_t a, uint32_t b) {
      const double similarity = jaccard((*texts)[a], (*texts)[b]);
      return Likeness{.similar = similarity >= options_.min_similarity, .similarity = static_cast<float>(similarity)};
    };
  }
  return [this, &documents](uint32_t a, uint32_t b) {
    const uint32_t agreeing =
        agreements(rows_.signature(documents[a], 0), rows_.signature(documents[b], 1), documents_.width());
    const double similarity = static_cast<double>(agreeing) / static_cast<double>(documents_.width());
    return Likeness{.similar = similarity >= options_.min_similarity, .similarity = static_cast<float>(similarity)};
  };
}

/// The one that speaks for the cluster of a document.
uint32_t Settling::root_of(uint32_t document) const {
  while (heads_[document] != document) document = heads_[document];
  return document;
}

/// The decision about a document; nothing where it is in no cluster, or a reference that is a copy itself.
std::optional<Decision> Settling::decision_of(const NotedFile& file, uint64_t record) const {
  const auto document = static_cast<uint32_t>(file.base + record);
  const uint32_t speaker = is_copy_[document] ? heads_[document] : document, head = heads_[speaker];
  if (head == document ? values_[document] == 0 : file.is_reference) return std::nullopt;
  const NotedFile& head_file = documents_.file_of(head);
  Decision decision{.record = record,
                    .reference = head_file.is_reference,
                    .head_file = head_file.number,
                    .head_record = head - head_file.base};
  if (head == document) {
    decision.copies = uint64_t{values_[document]} + 1;
  } else if (head == speaker) {
    decision.kind = Decision::Kind::exact;
    decision.similarity = 1;
  } else if (values_[speaker] == kUnmeasured) {
    decision.kind = Decision::Kind::unmeasured;
  } else {
    decision.kind = Decision::Kind::near;
    decision.similarity = std::bit_cast<float>(values_[speaker]);
  }
  return decision;
}

void Settling::write() {
  for (const NotedFile& file : documents_.files())
    for (uint64_t document = file.base; !file.is_reference && document < file.base + file.documents; ++document)
      if (const uint32_t root = root_of(static_cast<uint32_t>(document)); root != document) ++values_[root];
  ByteSink clusters(place_.folder / kClustersName, ByteSink::Coding::zstd);
  NotedIds ids(owner_);
  for (const NotedFile& file : documents_.files()) {
    std::optional<DecisionWriter> decisions;
    std::string source;
    if (!file.is_reference) {
      decisions.emplace(place_.folder, file.number, owner_);
      const std::string name = Json(place_.files.at(file.number)).dump(-1, ' ', false, Json::error_handler_t::replace);
      source = fmt::format(",\"source\":{},\"file\":{}",
                           Json(place_.source_names.at(place_.sources[file.number])).dump(), name);
    }
    std::string left(file.is_reference ? 0 : file.documents, 1);
    for (uint64_t record = 0; record < file.documents; ++record) {
      const std::optional<Decision> decision = decision_of(file, record);
      if (!decision) continue;
      const bool stays = decision->kind == Decision::Kind::head && (file.is_reference || !keep_none_);
      if (decisions) decisions->write(*decision), left[record] = stays ? 1 : 0;
      const std::string id = Json(ids.id_of(file.stem, record)).dump(-1, ' ', false, Json::error_handler_t::replace);
      clusters.write(fmt::format("{{\"cluster\":{},\"id\":{}{},\"kept\":{}{}}}\n",
                                 root_of(static_cast<uint32_t>(file.base + record)), id, source, stays,
                                 similarity_member(*decision)));
    }
    if (decisions) decisions->commit(), write_left(file, std::move(left));
  }
  clusters.commit();
}

/// For a later run.
void Settling::write_left(const NotedFile& file, std::string left) const {
  if (place_.left) {
    const std::vector<bool> before = place_.left(file.number);
    for (size_t record = 0; record < left.size(); ++record)
      if (!is_left(before, record)) left[record] = 0;
  }
  RecordWriter writer = documents_.left_writer(file);
  writer.write(left.data(), left.size());
  writer.commit();
}

}  // namespace

uint64_t least_settle_memory(uint64_t documents) { return table_bytes(documents) / 3 * 4; }

void settle_groups(const GroupPlace& place, const SettleOptions& options) {
  if (!std::filesystem::exists(place.folder / kClustersName)) Settling(place, options).run();
}

}  // namespace coppice
