#include "src/corpus/report/samples.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "src/base/errors.h"
#include "src/base/utf8_byte.h"
#include "src/corpus/personal/personal.h"
#include "src/corpus/report/kept_documents.h"
#include "src/corpus/report/removal_lines.h"
#include "src/corpus/report/value_file.h"
#include "src/text/html/page_text.h"

namespace coppice {
namespace {

constexpr size_t kMostFiles = 64;
constexpr size_t kMargin = 4096;  // bytes behind a beginning, so that what is masked is seen whole

struct AllFound {};  // leaves read_source_file in the middle of a file

/// As the source holds them. What cannot be read is not at hand: the file may have changed since, or gone.
void read_from_source(const CompleteCorpus& corpus, const SourceFile& file, std::set<uint64_t> ids,
                      const SampleText& shape, std::map<uint64_t, Sample>& found) {
  if (ids.empty() || file.path.empty()) return;
  try {
    read_source_file(file, corpus.sources.at(file.source).options, {.max_bad_share = 1}, [&](const Document& document) {
      const uint64_t id = document_hash(document.id);
      if (ids.erase(id) == 0) return;
      const std::string text =
          document.is_page ? extract_page(document.text, {.respects_opt_out = false}).text : document.text;
      Sample& sample = found[id];
      sample.id = document.id;
      sample.source = document.source;
      sample.text = beginning_of(text, shape);
      if (ids.empty()) throw AllFound();
    });
  } catch (const AllFound&) {
  } catch (const UserError&) {
  }
}

/// Keeps the `count` samples of the lowest hashes.
class LowestHashes {
 public:
  struct Item {
    Sample sample;
    size_t file = 0;
  };
  explicit LowestHashes(size_t count) : count_(count) {}
  template <class Make>
  void add(std::string_view id, const Make& make) {
    const std::pair<uint64_t, std::string> key(sample_hash(id), id);
    if (count_ == 0 || (kept_.size() == count_ && std::prev(kept_.end())->first <= key)) return;
    kept_[key] = make();
    if (kept_.size() > count_) kept_.erase(std::prev(kept_.end()));
  }
  std::map<std::pair<uint64_t, std::string>, Item> kept_;

 private:
  size_t count_;
};

void sample_removed(const CompleteCorpus& corpus, const ToldStep& step, const ToldRule& rule, const SampleText& shape,
                    LowestHashes& lowest) {
  for (size_t i = 0; i < corpus.files.size(); ++i)
    read_removals(corpus.removed(step, corpus.files[i]), [&](RemovalLine&& line) {
      if (line.rule != rule.rule.name) return;
      lowest.add(line.id, [&] {
        LowestHashes::Item item{.sample = {.id = line.id, .source = line.source, .value = line.value}, .file = i};
        if (line.text) item.sample.text = beginning_of(*line.text, shape);
        return item;
      });
    });
  std::map<size_t, std::set<uint64_t>> wanted;
  for (const auto& [key, item] : lowest.kept_)
    if (!item.sample.text) wanted[item.file].insert(document_hash(item.sample.id));
  for (const auto& [file, ids] : wanted) {
    std::map<uint64_t, Sample> found;
    read_from_source(corpus, corpus.files[file], ids, shape, found);
    for (auto& [key, item] : lowest.kept_)
      if (const auto of = found.find(document_hash(item.sample.id)); item.file == file && of != found.end())
        item.sample.text = of->second.text;
  }
}

void sample_kept(const CompleteCorpus& corpus, const ToldStep& step, const ToldRule& rule, const SampleText& shape,
                 LowestHashes& lowest) {
  check_has_values(corpus);
  for (const SourceFile& file : sampled_files(corpus, kMostFiles)) {
    const ValueFile stored(corpus, file);
    const std::vector<float> column = stored.column(step.name, rule.rule.name);
    const std::vector<uint64_t> ids = stored.ids();
    std::vector<std::pair<uint64_t, float>> values;
    for (size_t i = 0; i < column.size(); ++i)
      if (!std::isnan(column[i]) && !drops_stored(rule.rule, column[i])) values.emplace_back(ids[i], column[i]);
    std::ranges::sort(values);
    read_kept(corpus, file, [&](const Document& document) {
      const auto value =
          std::ranges::lower_bound(values, document_hash(document.id), {}, &std::pair<uint64_t, float>::first);
      if (value == values.end() || value->first != document_hash(document.id)) return;
      lowest.add(document.id, [&] {
        return LowestHashes::Item{.sample = {.id = document.id,
                                             .source = document.source,
                                             .value = value->second,
                                             .text = beginning_of(document.text, shape)}};
      });
    });
  }
}

}  // namespace

std::string beginning_of(std::string_view text, const SampleText& shape) {
  std::string begin(first_bytes(text, 4 * shape.characters + kMargin));
  if (!shape.raw) begin = masked(begin);
  std::string line;
  size_t characters = 0;
  for (const char c : begin) {
    const bool blank = static_cast<unsigned char>(c) <= ' ';
    if (blank && (line.empty() || line.back() == ' ')) continue;
    if (!is_continuation_byte(c) && characters++ == shape.characters) return line + "\u2026";
    line += blank ? ' ' : c;
  }
  return line;
}

std::map<uint64_t, Sample> find_documents(const CompleteCorpus& corpus, const SourceFile& file,
                                          const std::set<uint64_t>& ids, const SampleText& shape) {
  std::map<uint64_t, Sample> found;
  if (ids.empty()) return found;
  read_kept(corpus, file, [&](const Document& document) {
    if (const uint64_t id = document_hash(document.id); ids.contains(id))
      found[id] = {.id = document.id, .source = document.source, .text = beginning_of(document.text, shape)};
  });
  std::set<uint64_t> without_text;
  for (const ToldStep& step : corpus.steps)
    read_removals(corpus.removed(step, file), [&](const RemovalLine& line) {
      const uint64_t id = document_hash(line.id);
      if (!ids.contains(id) || found.contains(id)) return;
      found[id] = {.id = line.id, .source = line.source};
      if (line.text)
        found[id].text = beginning_of(*line.text, shape);
      else
        without_text.insert(id);
    });
  read_from_source(corpus, file, std::move(without_text), shape, found);
  return found;
}

std::vector<Sample> sample_documents(const CompleteCorpus& corpus, const ToldStep& step, const ToldRule& rule,
                                     size_t count, bool kept, const SampleText& shape) {
  LowestHashes lowest(count);
  (kept ? sample_kept : sample_removed)(corpus, step, rule, shape, lowest);
  std::vector<Sample> samples;
  for (auto& [key, item] : lowest.kept_) samples.push_back(std::move(item.sample));
  std::ranges::stable_sort(samples, {}, [](const Sample& sample) { return sample.value.value_or(0); });
  return samples;
}

std::string samples_text(const std::vector<Sample>& samples, const ToldStep& step, const ToldRule& rule) {
  std::string text = fmt::format("{}.{} drops {}\n", printable(step.name), printable(rule.rule.name),
                                 rule.has_threshold() ? limits_text(rule.rule) : "what it finds");
  for (const Sample& sample : samples) {
    text += fmt::format("\n{}  {}  ({})\n", sample.value ? fmt::format("{:.6g}", *sample.value) : "-",
                        printable(sample.id), printable(sample.source));
    text += "  " + (sample.text ? printable(*sample.text) : std::string("(text not at hand)")) + "\n";
  }
  return text;
}

}  // namespace coppice
