// Where an item is cut is decided by hashes of ids and counters, never by a random state: the same corpus gives the
// same files.
#include "src/data/make_tasks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <tuple>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/json.h"
#include "src/base/log.h"

namespace coppice {
namespace {

constexpr size_t kItems = 200, kChoices = 4;
constexpr size_t kContextBytes = 100, kPieceBytes = 40, kMinWordBytes = 3;

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }
bool is_letter(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) != 0 || static_cast<unsigned char>(c) >= 0x80;
}

/// One plain space between two words: what the default delimiter puts back.
bool is_gap(const std::string& text, size_t at) {
  return at > 0 && at + 1 < text.size() && text[at] == ' ' && !is_space(text[at - 1]) && !is_space(text[at + 1]);
}

void sort_by_hash(std::vector<Document>& documents) {
  std::ranges::sort(documents, {},
                    [](const Document& document) { return std::pair(document_hash(document.id), document.id); });
}

/// The words before `end`, about kContextBytes of them.
std::string context_before(const std::string& text, size_t end) {
  size_t begin = end > kContextBytes ? end - kContextBytes : 0;
  while (begin > 0 && begin < end && !is_space(text[begin - 1])) ++begin;
  return text.substr(begin, end - begin);
}

struct Gap {
  const Document* document;
  size_t at;
  std::string piece() const {  // whole words, kPieceBytes at least
    const std::string& text = document->text;
    size_t end = at + 1 + kPieceBytes;
    while (end < text.size() && !is_space(text[end])) ++end;
    return text.substr(at + 1, end - at - 1);
  }
};

/// A gap with room for a context before it and a piece behind it, the first one from a place that `key` decides.
std::optional<Gap> find_gap(const Document& document, const std::string& key) {
  const std::string& text = document.text;
  if (text.size() < kContextBytes + 2 * kPieceBytes) return std::nullopt;
  const size_t first = kContextBytes, last = text.size() - 2 * kPieceBytes, places = last - first + 1;
  const size_t start = document_hash(key) % places;
  for (size_t i = 0; i < places; ++i)
    if (const size_t at = first + (start + i) % places; is_gap(text, at)) return Gap{&document, at};
  return std::nullopt;
}

/// The right choice moves to a place that `key` decides; the others keep their order.
std::string line_of(const std::string& id, const std::string& context, std::vector<std::string> choices,
                    const std::vector<std::string>& documents) {
  const size_t answer = document_hash(id) % choices.size();
  std::rotate(choices.begin(), choices.begin() + 1, choices.begin() + static_cast<std::ptrdiff_t>(answer) + 1);
  return Json({{"id", id}, {"context", context}, {"choices", choices}, {"answer", answer}, {"documents", documents}})
             .dump() +
         "\n";
}

struct Sentence {
  const Document* document;
  size_t begin, end;  // of its last word
};

/// Last words of sentences, and how often every word occurs.
void add_words(const Document& document, std::map<std::string, size_t>& counts, std::vector<Sentence>& sentences) {
  const std::string& text = document.text;
  for (size_t begin = 0; begin < text.size();) {
    if (!is_letter(text[begin])) {
      ++begin;
      continue;
    }
    size_t end = begin;
    while (end < text.size() && is_letter(text[end])) ++end;
    if (end - begin >= kMinWordBytes) {
      ++counts[text.substr(begin, end - begin)];
      const bool ends_sentence = end < text.size() &&
                                 std::string_view(".!?").find(text[end]) != std::string_view::npos &&
                                 (end + 1 == text.size() || is_space(text[end + 1]));
      if (ends_sentence && begin > kContextBytes && is_gap(text, begin - 1))
        sentences.push_back({&document, begin, end});
    }
    begin = end;
  }
}

}  // namespace

std::vector<std::string> continuation_items(const std::string& domain, std::vector<Document> documents, size_t count) {
  std::erase_if(documents, [](const Document& document) { return !find_gap(document, document.id); });
  sort_by_hash(documents);
  std::vector<std::string> lines;
  if (documents.size() < kChoices) return lines;
  std::set<std::pair<size_t, size_t>> used;  // document, place
  for (size_t turn = 0; turn < 4 * count && lines.size() < count; ++turn) {
    const std::string id = fmt::format("{}-{}", domain, turn);
    std::vector<std::string> pieces, ids;
    Gap right{};
    for (size_t i = 0; i < kChoices; ++i) {  // three neighbours in hash order bring the wrong ones
      const Document& document = documents[(turn + i) % documents.size()];
      const Gap gap = *find_gap(document, fmt::format("{}#{}-{}", document.id, turn, i));
      if (i == 0) right = gap;
      pieces.push_back(gap.piece());
      ids.push_back(document.id);
    }
    if (std::set(pieces.begin(), pieces.end()).size() < kChoices ||
        !used.emplace(turn % documents.size(), right.at).second)
      continue;
    lines.push_back(line_of(id, context_before(right.document->text, right.at), pieces, ids));
  }
  return lines;
}

std::vector<std::string> word_items(const std::string& domain, std::vector<Document> documents, size_t count) {
  sort_by_hash(documents);
  std::map<std::string, size_t> counts;
  std::vector<Sentence> sentences;
  for (const Document& document : documents) add_words(document, counts, sentences);
  std::vector<std::string> lines, ranked;
  if (counts.size() < kChoices) return lines;
  for (const auto& [word, times] : counts) ranked.push_back(word);
  // Equally frequent words by length, so that a sum over tokens does not favour short ones; then in no order that a
  // reader could guess.
  std::ranges::sort(ranked, {}, [&](const std::string& word) {
    return std::tuple(-static_cast<int64_t>(counts[word]), word.size(), document_hash(word), word);
  });
  std::map<std::string, size_t> rank;
  for (size_t i = 0; i < ranked.size(); ++i) rank[ranked[i]] = i;
  for (size_t i = 0; i < std::min(count, sentences.size()); ++i) {
    const Sentence& sentence = sentences[i * sentences.size() / std::min(count, sentences.size())];  // spread evenly
    const std::string& text = sentence.document->text;
    const std::string word = text.substr(sentence.begin, sentence.end - sentence.begin);
    const size_t first =
        std::min(rank[word] - std::min<size_t>(rank[word], 1), ranked.size() - kChoices);  // one rank above, two below
    std::vector<std::string> words = {word};
    for (size_t r = first; r < first + kChoices; ++r)
      if (ranked[r] != word) words.push_back(ranked[r]);
    lines.push_back(line_of(fmt::format("{}-{}", domain, i), context_before(text, sentence.begin - 1), words,
                            {sentence.document->id}));
  }
  return lines;
}

namespace {

struct TaskText {
  const char* name;
  std::vector<std::string> (*make)(const std::string&, std::vector<Document>, size_t);
  std::string text = {};
  size_t items = 0;
};

void add_domain(std::span<TaskText> tasks, const CorpusDomain& domain, double heldout_share, size_t share) {
  std::vector<Document> documents;
  const auto keep_heldout = [&](Document&& document) {
    if (is_heldout(document.id, heldout_share)) documents.push_back(std::move(document));
  };
  log_corpus_report(domain.path, for_each_document(domain.path, keep_heldout, domain.reading), domain.reading);
  for (TaskText& task : tasks) {
    const std::vector<std::string> lines = task.make(domain.name, documents, share);
    for (const std::string& line : lines) task.text += line;
    task.items += lines.size();
    if (lines.size() < share)
      log_warning(fmt::format("domain '{}': its {} held-out documents give {} items of task '{}', {} were wanted",
                              domain.name, documents.size(), lines.size(), task.name, share));
  }
}

}  // namespace

std::vector<MadeTask> make_tasks(const std::vector<CorpusDomain>& domains, double heldout_share,
                                 const std::filesystem::path& output) {
  TaskText tasks[] = {{.name = "continuation", .make = continuation_items}, {.name = "word", .make = word_items}};
  const size_t share = (kItems + domains.size() - 1) / domains.size();
  for (const CorpusDomain& domain : domains) add_domain(tasks, domain, heldout_share, share);
  make_folder(output);
  std::vector<MadeTask> made;
  for (const TaskText& task : tasks) {
    if (task.items == 0)
      throw UserError::recipe(
          "data.heldout_share",
          fmt::format("got {}: the held-out documents give no item of task '{}'", heldout_share, task.name));
    made.push_back({output / fmt::format("{}.jsonl", task.name), task.items});
    write_file_atomically(made.back().file, task.text);
  }
  return made;
}

}  // namespace coppice
