#include "src/corpus/dedup/paragraphs.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <array>
#include <optional>
#include <tuple>
#include <utility>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/corpus/dedup/notes.h"
#include "src/corpus/dedup/sorted_runs.h"
#include "src/corpus/dedup/spill.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

using LineRecord = std::array<uint64_t, 2>;   // hash, document << 32 | line
using CountRecord = std::array<uint64_t, 2>;  // documents, files of lines

constexpr size_t kRunLines = 1 << 18;  // of a sorted file: 4 MB in memory

fs::path lines_path(const GroupPlace& place, uint32_t file, uint64_t run) {
  return notes_stem(place.folder, file).string() + fmt::format(".lines.{}", run);
}
fs::path chars_path(const GroupPlace& place, uint32_t file) {
  return notes_stem(place.folder, file).string() + ".chars";
}
fs::path count_path(const GroupPlace& place, uint32_t file) {
  return notes_stem(place.folder, file).string() + ".count";
}
fs::path part_path(const GroupPlace& place, uint32_t part, uint32_t parts) {
  return place.folder / "groups" / fmt::format("lines-{:05}-of-{:05}", part, parts);
}
fs::path cuts_path(const GroupPlace& place, uint32_t file) {
  return place.folder / "cuts" / fmt::format("{:08}", file);
}

/// Code points.
uint32_t num_chars(std::string_view text) {
  return static_cast<uint32_t>(
      std::ranges::count_if(text, [](char byte) { return (static_cast<unsigned char>(byte) & 0xc0) != 0x80; }));
}

class LineNotes : public GroupNotes {
 public:
  LineNotes(const GroupPlace& place, uint32_t file, const ParagraphOptions& options)
      : place_(place), file_(file), options_(options) {
    make_folder(notes_stem(place.folder, file).parent_path());
    chars_.emplace(chars_path(place, file), sizeof(uint32_t), options.owner());
  }

  void add(const Document& document) override {
    std::vector<uint32_t> chars = {num_chars(document.text), 0};
    for_each_line(document.text, [&](std::string_view line) {
      if (!is_long(line, options_)) return;
      lines_.push_back({text_hash(line), documents_ << 32 | chars[1]++});
      chars.push_back(num_chars(line));
    });
    chars_->write(chars.data(), chars.size());
    ++documents_;
    if (lines_.size() >= kRunLines) end_run();
  }

  void commit() override {
    end_run();
    chars_->commit();
    RecordWriter count(count_path(place_, file_), sizeof(CountRecord), options_.owner());
    const CountRecord record = {documents_, runs_};
    count.write(&record, 1);
    count.commit();
  }

 private:
  void end_run() {
    sort_records(std::span(lines_), space_);
    RecordWriter run(lines_path(place_, file_, runs_++), sizeof(LineRecord), options_.owner());
    run.write(lines_.data(), lines_.size());
    run.commit();
    lines_.clear();
  }

  const GroupPlace place_;
  const uint32_t file_;
  const ParagraphOptions options_;
  uint64_t documents_ = 0, runs_ = 0;
  std::vector<LineRecord> lines_, space_;
  std::optional<RecordWriter> chars_;
};

/// How the documents of all files are numbered one behind the other.
struct LineFile {
  uint64_t base = 0, documents = 0, runs = 0;
  int64_t priority = 0;
};

struct NotedLines {
  std::vector<LineFile> files;
  uint64_t documents = 0;
  std::vector<Run> runs;

  NotedLines(const GroupPlace& place, uint64_t owner) {
    for (uint32_t file = 0; file < place.files.size(); ++file) {
      RecordReader reader(count_path(place, file), sizeof(CountRecord), owner);
      CountRecord count;
      if (reader.count() != 1) reader.damaged("one record expected");
      reader.read(0, 1, &count);
      files.push_back({.base = documents,
                       .documents = count[0],
                       .runs = count[1],
                       .priority = place.source_priorities.at(place.sources.at(file))});
      for (uint64_t run = 0; run < count[1]; ++run)
        runs.push_back({.path = lines_path(place, file, run), .file = file, .base = documents, .documents = count[0]});
      documents += count[0];
    }
    if (documents >= 0xffffffff)
      throw UserError::recipe("", fmt::format("paragraphs: got {} documents, expected less than 4294967295; divide the "
                                              "corpus",
                                              documents));
  }
  const LineFile& file_of(uint64_t document) const {
    return *(std::ranges::upper_bound(files, document, {}, &LineFile::base) - 1);
  }
  /// GroupPlace::left of all of them, a bit each; empty where there is no such function.
  std::vector<bool> left(const GroupPlace& place) const {
    std::vector<bool> left;
    for (uint32_t file = 0; place.left && file < files.size(); ++file) {
      const std::vector<bool> of_file = place.left(file);
      COPPICE_CHECK(of_file.size() == files[file].documents, "a file's notes and its documents");
      left.insert(left.end(), of_file.begin(), of_file.end());
    }
    return left;
  }
};

struct RenumberLine {
  static bool apply(LineRecord& record, const Run& run) {
    if (record[1] >> 32 >= run.documents) return false;
    record[1] += run.base << 32;
    return true;
  }
};

}  // namespace

uint64_t ParagraphOptions::owner() const {
  const std::string text = fmt::format("paragraphs 1 min_chars={} min_documents={}", min_chars, min_documents);
  return XXH3_64bits(text.data(), text.size());
}

bool is_long(std::string_view line, const ParagraphOptions& options) {
  const size_t end = line.find_last_not_of('\n') + 1;
  return static_cast<int64_t>(end) >= options.min_chars && num_chars(line.substr(0, end)) >= options.min_chars &&
         text_hash(line) != 0;
}

std::unique_ptr<GroupNotes> note_lines(const GroupPlace& place, uint32_t file, const ParagraphOptions& options) {
  return std::make_unique<LineNotes>(place, file, options);
}

uint32_t num_line_parts(const GroupPlace& place, const ParagraphOptions& options) {
  uint64_t lines = 0;
  for (const Run& run : NotedLines(place, options.owner()).runs)
    lines += RecordReader(run.path, sizeof(LineRecord), options.owner()).count();
  const uint64_t memory = std::max<uint64_t>(place.memory_bytes / 4, 1);
  return static_cast<uint32_t>(std::min<uint64_t>(lines * sizeof(LineRecord) / memory + 1, 1 << 20));
}

void write_line_part(const GroupPlace& place, const ParagraphOptions& options, uint32_t part) {
  const uint32_t parts = num_line_parts(place, options);
  const fs::path path = part_path(place, part, parts);
  if (fs::exists(path)) return;
  make_folder(path.parent_path());
  const NotedLines noted(place, options.owner());
  RecordWriter out(path, sizeof(uint64_t), options.owner());
  const std::vector<bool> left = noted.left(place);
  const auto order = [&](const LineRecord& record) {
    return std::pair(noted.file_of(record[1] >> 32).priority, record[1]);
  };
  SortedRuns<2, 1, RenumberLine> runs(noted.runs, options.owner());
  runs.for_each_group(hash_range(part, parts), place.memory_bytes / 2, [&](const auto& group) {
    std::optional<LineRecord> best;
    int64_t documents = 0;
    uint64_t last = ~uint64_t{0};
    group.for_each([&](const LineRecord& record) {
      if (!is_left(left, record[1] >> 32)) return;
      documents += std::exchange(last, record[1] >> 32) == record[1] >> 32 ? 0 : 1;
      if (!best || order(record) < order(*best)) best = record;
    });
    if (documents < options.min_documents) return;
    group.for_each([&](const LineRecord& record) {
      if (is_left(left, record[1] >> 32) && record[1] != (*best)[1]) out.write(&record[1], 1);
    });
  });
  out.commit();
}

void settle_lines(const GroupPlace& place, const ParagraphOptions& options) {
  const uint64_t owner = options.owner();
  const NotedLines noted(place, owner);
  const uint32_t parts = num_line_parts(place, options);
  const uint64_t stride = (uint64_t{1} << 32) / (noted.documents + 1);  // spreads the places over 64 bits
  uint64_t cuts = 0;
  for (uint32_t part = 0; part < parts; ++part)
    cuts += RecordReader(part_path(place, part, parts), sizeof(uint64_t), owner).count();
  Spill<1> spill(place.folder / "places", cuts, place.memory_bytes / 2);
  std::vector<uint64_t> block;
  for (uint32_t part = 0; part < parts; ++part) {
    RecordReader reader(part_path(place, part, parts), sizeof(uint64_t), owner);
    for (uint64_t done = 0; done < reader.count(); done += block.size()) {
      block.resize(std::min<uint64_t>(8192, reader.count() - done));
      reader.read(done, block.size(), block.data());
      for (const uint64_t cut : block) spill.add({cut * stride});
    }
  }
  spill.finish();
  make_folder(cuts_path(place, 0).parent_path());
  uint32_t file = 0;
  std::optional<RecordWriter> out;
  const auto next_file = [&](uint64_t document) {  // the file of a document, with all before it finished
    while (!out || document >= noted.files[file].base + noted.files[file].documents) {
      if (out) {
        out->commit();
        if (++file == noted.files.size()) return;
      }
      out.emplace(cuts_path(place, file), sizeof(uint64_t), owner);
    }
  };
  for (size_t part = 0; part < spill.num_parts(); ++part)
    for (const std::array<uint64_t, 1>& record : spill.read(part)) {
      const uint64_t cut = record[0] / stride;
      next_file(cut >> 32);
      const uint64_t inside = cut - (noted.files[file].base << 32);
      out->write(&inside, 1);
    }
  if (!noted.files.empty()) next_file(noted.documents);
}

LineCuts::LineCuts(const GroupPlace& place, uint32_t file, const ParagraphOptions& options)
    : cuts_(cuts_path(place, file), sizeof(uint64_t), options.owner()),
      chars_(chars_path(place, file), sizeof(uint32_t), options.owner()) {}

uint32_t LineCuts::next_chars() {
  uint32_t chars = 0;
  if (next_char_ == chars_.count()) chars_.damaged("a document that is not there");
  chars_.read(next_char_++, 1, &chars);
  return chars;
}

DocumentCuts LineCuts::next() {
  DocumentCuts cuts;
  for (uint64_t cut = 0; next_cut_ < cuts_.count(); ++next_cut_) {
    cuts_.read(next_cut_, 1, &cut);
    if (cut >> 32 > record_) break;
    const auto line = static_cast<uint32_t>(cut);
    if (cut >> 32 < record_ || (!cuts.lines.empty() && line <= cuts.lines.back()))
      cuts_.damaged("its records are not in order");
    cuts.lines.push_back(line);
  }
  ++record_;
  const uint32_t chars = next_chars();
  cuts.long_lines = next_chars();
  if (!cuts.lines.empty() && cuts.lines.back() >= cuts.long_lines) cuts_.damaged("a line that is not there");
  uint64_t lost = 0;
  auto cut = cuts.lines.begin();
  for (uint32_t line = 0; line < cuts.long_lines; ++line) {
    const uint32_t of_line = next_chars();
    if (cut == cuts.lines.end() || *cut != line) continue;
    lost += of_line;
    ++cut;
  }
  if (lost > 0) cuts.lost = static_cast<double>(lost) / static_cast<double>(chars);
  return cuts;
}

}  // namespace coppice
