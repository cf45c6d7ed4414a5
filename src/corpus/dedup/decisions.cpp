#include "src/corpus/dedup/decisions.h"

#include <fmt/format.h>

#include <bit>
#include <utility>

#include "src/base/files.h"

namespace coppice {
namespace {

using DecisionRecord =
    std::array<uint64_t, 3>;  // record; head: reference << 63 | file << 32 | record; kind << 32 | value

constexpr uint64_t kReference = uint64_t{1} << 63;

std::filesystem::path path_of(const std::filesystem::path& folder, uint32_t file) {
  make_folder(folder / "decisions");
  return folder / "decisions" / fmt::format("{:08}", file);
}

}  // namespace

std::string similarity_member(const Decision& decision) {
  const bool measured = decision.kind == Decision::Kind::exact || decision.kind == Decision::Kind::near;
  return measured ? fmt::format(",\"similarity\":{:.4g}", decision.similarity) : "";
}

DecisionWriter::DecisionWriter(const std::filesystem::path& folder, uint32_t file, uint64_t owner)
    : writer_(path_of(folder, file), sizeof(DecisionRecord), owner) {}

void DecisionWriter::write(const Decision& decision) {
  const uint32_t value = decision.kind == Decision::Kind::head ? static_cast<uint32_t>(decision.copies)
                                                               : std::bit_cast<uint32_t>(decision.similarity);
  const DecisionRecord record = {
      decision.record,
      (decision.reference ? kReference : 0) | uint64_t{decision.head_file} << 32 | decision.head_record,
      uint64_t{static_cast<uint32_t>(decision.kind)} << 32 | value};
  writer_.write(&record, 1);
}

DecisionReader::DecisionReader(const std::filesystem::path& folder, uint32_t file, uint64_t owner)
    : reader_(path_of(folder, file), sizeof(DecisionRecord), owner) {}

bool DecisionReader::read_next() {
  if (next_ == reader_.count()) return false;
  DecisionRecord record;
  reader_.read(next_++, 1, &record);
  if (waiting_ && record[0] <= waiting_->record) reader_.damaged("its records are not in order");
  Decision& decision = waiting_.emplace();
  decision.record = record[0];
  decision.reference = (record[1] & kReference) != 0;
  decision.head_file = static_cast<uint32_t>(record[1] >> 32) & 0x7fffffff;
  decision.head_record = record[1] & 0xffffffff;
  decision.kind = static_cast<Decision::Kind>(record[2] >> 32);
  const auto value = static_cast<uint32_t>(record[2]);
  if (decision.kind == Decision::Kind::head) {
    decision.copies = value;
  } else {
    decision.similarity = std::bit_cast<float>(value);
  }
  return true;
}

std::optional<Decision> DecisionReader::find(uint64_t record) {
  while (!waiting_ || waiting_->record < record)
    if (!read_next()) return std::nullopt;
  return waiting_->record == record ? waiting_ : std::nullopt;
}

}  // namespace coppice
