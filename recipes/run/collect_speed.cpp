#include "recipes/run/collect_speed.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "recipes/folder/run_folder.h"
#include "recipes/run/collect_report.h"
#include "recipes/stages/export.h"
#include "recipes/stages/import.h"
#include "src/base/errors.h"
#include "src/base/log.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFormat = "coppice.llamacpp";
constexpr uint64_t kVersion = 1, kMaxBytes = uint64_t{1} << 20;
constexpr size_t kMaxWords = 200;  // of a file's name, of its type

std::string conditions_text(uint64_t prompt_tokens, uint64_t new_tokens, uint64_t turns, uint64_t threads) {
  return fmt::format("a prompt of {} tokens, {} new ones, {} turn{}, {} thread{}", prompt_tokens, new_tokens, turns,
                     turns == 1 ? "" : "s", threads, threads == 1 ? "" : "s");
}

double positive_at(const Json& object, const char* key, const std::string& path) {
  const double value = number_at(object, key, path);
  if (!std::isfinite(value) || value <= 0)
    throw UserError::bad_file(path, fmt::format("{}: got {}, expected above 0", key, value));
  return value;
}

ReportRate rate_at(const Json& row, const char* key, const std::string& path) {
  const Json& spread = object_at(row, key, path);
  const ReportRate rate = {.median = positive_at(spread, "median", path),
                           .low = positive_at(spread, "low", path),
                           .high = positive_at(spread, "high", path)};
  if (rate.low > rate.median || rate.median > rate.high)
    throw UserError::bad_file(
        path, fmt::format("{}: low {}, median {}, high {} are not in order", key, rate.low, rate.median, rate.high));
  return rate;
}

std::string words_at(const Json& row, const char* key, const std::string& path) {
  std::string words = string_at(row, key, path);
  if (words.empty() || words.size() > kMaxWords)
    throw UserError::bad_file(path,
                              fmt::format("{}: {} bytes of text, expected 1 to {}", key, words.size(), kMaxWords));
  return words;
}

/// A row of llamacpp.json: figures, and where its file lay ("release/gguf/student.gguf").
struct Measured {
  fs::path path;
  ReportSpeed speed;
};

std::vector<Measured> read_llamacpp(const fs::path& file) {
  const std::string path = file.string();
  const Json json = read_json(file, kMaxBytes);
  if (!json.is_object() || json.value("format", Json()) != kFormat)
    throw UserError::bad_file(path, fmt::format("expected format {}", kFormat));
  if (const uint64_t version = unsigned_at(json, "version", path); version != kVersion)
    throw UserError::bad_file(path, fmt::format("version {}, expected {}", version, kVersion));
  const std::string conditions =
      conditions_text(unsigned_at(json, "prompt_tokens", path), unsigned_at(json, "tokens", path),
                      unsigned_at(json, "repeats", path), unsigned_at(json, "threads", path));
  std::vector<Measured> rows;
  for (const Json& row : array_at(json, "files", path)) {
    if (!row.is_object()) throw UserError::bad_file(path, "files: expected objects");
    const fs::path named = words_at(row, "path", path);
    rows.push_back({.path = named,
                    .speed = {.program = "llama.cpp",
                              .file = named.filename().string(),
                              .type = words_at(row, "type", path),
                              .conditions = conditions,
                              .file_bytes = static_cast<double>(unsigned_at(row, "bytes", path)),
                              .prefill = rate_at(row, "prefill_tokens_per_s", path),
                              .decode = rate_at(row, "decode_tokens_per_s", path),
                              .peak_bytes = positive_at(row, "peak_bytes", path)}});
  }
  return rows;
}

/// A file, or a Hugging Face folder, that holds one of the run's models.
struct ModelFile {
  fs::path path;
  std::string model, type;
  double bytes = kAbsent;  // NaN: it is gone
};

double size_of(const fs::path& file) {
  std::error_code gone;
  const uint64_t bytes = fs::file_size(file, gone);
  return gone ? kAbsent : static_cast<double>(bytes);
}

std::string in_capitals(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return text;
}

/// What was imported as GGUF, and what was exported, in the order of the stages.
std::vector<ModelFile> model_files(const Recipe& recipe, const fs::path& root) {
  std::vector<ModelFile> files;
  for (const Stage& stage : recipe.stages) {
    if (const auto* import = stage.find<ImportStage>();
        import != nullptr && fs::path(import->path).extension() == ".gguf")
      files.push_back({.path = import->path, .model = stage.name, .bytes = size_of(import->path)});
    const auto* exports = stage.find<ExportStage>();
    const fs::path folder = result_folder(root / stage.name);
    const auto manifest = exports == nullptr ? std::nullopt : find_stage_manifest(folder);
    if (!manifest) continue;
    for (const auto& [format, facts] : manifest->body.at("results").items())
      files.push_back({.path = folder / format / facts.value("file", ""),
                       .model = exports->from,
                       .type = in_capitals(format == "gguf" ? exports->quantization : exports->dtype),
                       .bytes = number_or_absent(facts, "bytes")});
  }
  return files;
}

/// How many of the last parts of two paths are equal.
size_t equal_end(const fs::path& a, const fs::path& b) {
  const std::vector<fs::path> parts_a(a.begin(), a.end()), parts_b(b.begin(), b.end());
  const auto [end_a, end_b] = std::ranges::mismatch(parts_a.rbegin(), parts_a.rend(), parts_b.rbegin(), parts_b.rend());
  return static_cast<size_t>(end_a - parts_a.rbegin());
}

/// The file that a row was measured on; nullptr and why when there is none, or more than one.
const ModelFile* file_of(const Measured& row, const std::vector<ModelFile>& files, std::string& why) {
  std::vector<const ModelFile*> fits;
  bool other_size = false;
  for (const ModelFile& file : files) {
    if (file.path.filename() != row.path.filename()) continue;
    if (std::isfinite(file.bytes) && file.bytes != row.speed.file_bytes)
      other_size = true;
    else
      fits.push_back(&file);
  }
  if (fits.size() > 1) {
    const auto end = [&](const ModelFile* file) { return equal_end(file->path, row.path); };
    const size_t longest = end(*std::ranges::max_element(fits, {}, end));
    std::erase_if(fits, [&](const ModelFile* file) { return end(file) < longest; });
  }
  if (fits.size() == 1) return fits.front();
  why = !fits.empty() ? "several files of this run have its name and size, under the same folders"
        : other_size  ? "the file of this run has another size: measure it again"
                      : "no file of this run has this name";
  return nullptr;
}

void fail(Report& report, const std::string& name, const std::string& text) {
  log_warning(fmt::format("{}: {}; not in the report", printable(name), text));
  report.checks.push_back({.name = printable(name), .text = text, .passed = false});
}

}  // namespace

void add_measured_speed(Report& report, const Json& rows) {
  for (const Json& row : rows) {
    if (!row.contains("speed")) continue;
    const Json& speed = row.at("speed");
    const std::string name = row.at("name"), path = "speed of " + name;
    report.speeds.push_back({.model = name,
                             .program = "coppice",
                             .type = "F32",
                             .conditions = conditions_text(speed.at("prompt_tokens"), speed.at("new_tokens"),
                                                           speed.at("turns"), speed.at("threads")),
                             .file_bytes = number_or_absent(speed, "parameter_bytes"),
                             .prefill = rate_at(speed, "prefill_tokens_per_s", path),
                             .decode = rate_at(speed, "decode_tokens_per_s", path),
                             .peak_bytes = number_or_absent(speed, "peak_bytes")});
    for (ReportModel& model : report.models) {
      if (model.name != name) continue;
      model.decode_tokens_per_s = report.speeds.back().decode.median;
      model.peak_bytes = report.speeds.back().peak_bytes;
    }
  }
}

void add_files(Report& report, const Recipe& recipe, const fs::path& root) {
  const std::vector<ModelFile> files = model_files(recipe, root);
  std::vector<const ModelFile*> measured;
  std::error_code none;
  if (const fs::path llamacpp = root / "llamacpp.json"; fs::exists(llamacpp, none)) try {
      for (Measured& row : read_llamacpp(llamacpp)) {
        std::string why;
        const ModelFile* file = file_of(row, files, why);
        if (file == nullptr) {
          fail(report, fmt::format("llamacpp.json: {}", row.speed.file), why);
          continue;
        }
        row.speed.model = file->model;
        measured.push_back(file);
        report.speeds.push_back(std::move(row.speed));
      }
    } catch (const Error& error) {
      std::string text = error.what();  // a report names nothing above the run folder
      if (const std::string where = llamacpp.string() + ": "; text.starts_with(where)) text.erase(0, where.size());
      fail(report, "llamacpp.json", text);
    }
  if (report.speeds.empty()) return;
  for (const ModelFile& file : files)
    if (std::ranges::find(measured, &file) == measured.end() && std::isfinite(file.bytes))
      report.speeds.push_back({.model = file.model,
                               .file = file.path.has_filename() ? file.path.filename().string() : "Hugging Face folder",
                               .type = file.type,
                               .file_bytes = file.bytes});
}

}  // namespace coppice
