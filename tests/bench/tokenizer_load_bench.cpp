// Opening a tokenizer.json of byte-level BPE as large as Llama 3's, beside reading its bytes: whole, and refused
// because the last of its merges makes no token, which only the end of the file tells. Tokens are random words; a
// token's merges are all ways to cut it into two tokens, as in files that were converted from tiktoken's.
//   tokenizer_load_bench --threads 1 --vocab 128000
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/json.h"
#include "src/base/random.h"
#include "src/tokens/tokenizer.h"
#include "tests/bench/bench.h"
#include "tests/scratch_folder.h"
#include "tests/tokens/byte_level_models.h"

using namespace coppice;
using namespace coppice::bench;

namespace {

constexpr size_t kLetters = 26, kLongest = 24;

struct Vocabulary {
  std::vector<std::string> tokens;  // by id: letters, space, the other bytes, words
  std::unordered_map<std::string, int32_t> ids;
  std::vector<std::pair<std::string, std::string>> merges;

  void add(const std::string& token) {
    if (ids.emplace(token, static_cast<int32_t>(tokens.size())).second) tokens.push_back(token);
  }
};

Vocabulary make_vocabulary(size_t size) {
  Vocabulary vocabulary;
  for (int byte = 'a'; byte <= 'z'; ++byte) vocabulary.add(test::gpt2_character(byte));
  vocabulary.add(test::gpt2_character(' '));
  for (int byte = 0; byte < 256; ++byte) vocabulary.add(test::gpt2_character(byte));
  for (uint64_t draw = 0; vocabulary.tokens.size() < size; ++draw) {
    const auto drawn = [&](uint64_t side) -> const std::string& {  // short tokens more often
      const double u = random_uniform(1, Purpose::test, draw, side);
      return vocabulary.tokens[static_cast<size_t>(u * u * u * static_cast<double>(vocabulary.tokens.size()))];
    };
    if (const std::string word = drawn(0) + drawn(1); word.size() <= kLongest) vocabulary.add(word);
  }
  for (size_t id = 256; id < vocabulary.tokens.size(); ++id)
    for (size_t cut = 1; cut < vocabulary.tokens[id].size(); ++cut) {
      const std::string left = vocabulary.tokens[id].substr(0, cut), right = vocabulary.tokens[id].substr(cut);
      if (vocabulary.ids.contains(left) && vocabulary.ids.contains(right)) vocabulary.merges.emplace_back(left, right);
    }
  return vocabulary;
}

std::string json_of(const Vocabulary& vocabulary) {
  const auto quoted = [](const std::string& text) { return Json(text).dump(); };
  std::string text =
      R"({"added_tokens":[)" +
      test::added_token(static_cast<int>(vocabulary.tokens.size()), "<|endoftext|>", true).dump() +
      R"(],"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"decoder":{"type":"ByteLevel"},)"
      R"("model":{"type":"BPE","ignore_merges":true,"vocab":{)";
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id)
    text += fmt::format("{}\n{}: {}", id == 0 ? "" : ",", quoted(vocabulary.tokens[id]), id);
  text += R"(},"merges":[)";
  for (size_t i = 0; i < vocabulary.merges.size(); ++i)
    text += fmt::format("{}\n{}", i == 0 ? "" : ",",
                        quoted(vocabulary.merges[i].first + " " + vocabulary.merges[i].second));
  return text + "]}}\n";
}

/// A word's ids by the definition: the merge of the lowest rank, leftmost first, until there is none.
std::vector<int32_t> merged(const std::string& word, const Vocabulary& vocabulary,
                            const std::unordered_map<std::string, size_t>& ranks) {
  if (const auto whole = vocabulary.ids.find(word); whole != vocabulary.ids.end()) return {whole->second};
  std::vector<std::string> parts;
  for (const char letter : word) parts.emplace_back(1, letter);
  while (true) {
    size_t best = ranks.size(), at = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i)
      if (const auto rank = ranks.find(parts[i] + " " + parts[i + 1]); rank != ranks.end() && rank->second < best)
        best = rank->second, at = i;
    if (best == ranks.size()) break;
    parts[at] += parts[at + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
  std::vector<int32_t> ids;
  for (const std::string& part : parts) ids.push_back(vocabulary.ids.at(part));
  return ids;
}

/// Of 200 words of letters, those whose ids are others.
int count_wrong(const Tokenizer& tokenizer, const Vocabulary& vocabulary) {
  std::unordered_map<std::string, size_t> ranks;
  for (size_t rank = 0; rank < vocabulary.merges.size(); ++rank)
    ranks.emplace(vocabulary.merges[rank].first + " " + vocabulary.merges[rank].second, rank);
  int wrong = 0;
  for (uint64_t i = 0; i < 200; ++i) {
    std::string word;
    for (uint64_t k = 0; k < 1 + i % 20; ++k)
      word += static_cast<char>('a' + random_bits(2, Purpose::test, i, k) % kLetters);
    wrong += tokenizer.encode(word) != merged(word, vocabulary, ranks);
  }
  return wrong;
}

bool is_refused(const std::filesystem::path& file) {
  try {
    Tokenizer::load(file);
  } catch (const UserError& error) {
    return error.code() == ExitCode::bad_file;
  }
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  const Flags flags(argc, argv, {{"vocab", 128'000}});
  measure_ceilings(flags);
  const ScratchFolder folder("tokenizer-load-bench");
  Vocabulary vocabulary = make_vocabulary(static_cast<size_t>(flags["vocab"]));
  const std::filesystem::path whole = folder.write("whole/tokenizer.json", json_of(vocabulary));
  const int wrong = count_wrong(Tokenizer::load(whole), vocabulary);
  const std::string longest =
      *std::ranges::max_element(vocabulary.tokens, {}, [](const std::string& token) { return token.size(); });
  vocabulary.merges.emplace_back(longest, longest);
  const std::filesystem::path broken = folder.write("broken/tokenizer.json", json_of(vocabulary));
  emit_check(flags, wrong + !is_refused(broken), 0);

  const std::vector<Readings> readings =
      measure(flags, {[&] { Tokenizer::load(whole); }, [&] { is_refused(broken); }, [&] { read_file(whole); }});
  const char* names[] = {"load", "refuse_last_merge", "read_bytes"};
  const auto bytes = static_cast<double>(std::filesystem::file_size(whole));
  for (size_t i = 0; i < 3; ++i) {
    Readings line = readings[i];
    line.insert(line.end(), {{"merges", static_cast<double>(vocabulary.merges.size() - 1)},
                             {"mb", bytes / 1e6},
                             {"mb_s", bytes / 1e6 / line[0].second}});
    emit(names[i], flags, line);
  }
}
