#include "recipes/compress/source.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <vector>

#include "recipes/language/sources.h"
#include "src/base/errors.h"
#include "src/base/input_file.h"
#include "src/base/log.h"
#include "src/checkpoint/given_model.h"
#include "src/text/documents.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr size_t kSampleBytes = size_t{2} << 20, kSampleFiles = 32;
constexpr double kHeldoutDocuments = 10;

/// What check_name() of a recipe lets pass, short enough for a width behind it.
std::string recipe_name(const fs::path& model) {
  const fs::path path = fs::absolute(model);
  std::string name = path.extension() == ".gguf" ? path.stem().string() : path.filename().string();
  for (char& c : name)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '-' && c != '_' && c != '.') c = '-';
  name.erase(0, std::min(name.find_first_not_of('.'), name.size()));
  return name.empty() ? "model" : name.substr(0, 48);
}

struct Enough {};  // thrown out of a walk over documents

/// Adds what the first `limit` bytes of a file's text tell. What is read and unpacked comes in blocks: its whole is
/// judged by all the text of the last block that was begun.
void look_at_file(const fs::path& file, size_t limit, const Tokenizer& tokenizer, CompressText& text, double& tokens,
                  double& sampled) {
  uint64_t read = 0, read_at_limit = 0;
  double bytes = 0, documents = 0, seconds = 0, ids = 0, encoded = 0;
  bool whole = true;
  try {
    for_each_document(
        file,
        [&](Document&& document) {
          if (read_at_limit > 0 && read > read_at_limit) throw Enough();
          documents += 1;
          bytes += static_cast<double>(document.text.size());
          if (read_at_limit > 0) return;
          const double begin_s = monotonic_s();
          ids += static_cast<double>(tokenizer.encode(document.text).size()) + 1;  // and the end of text
          seconds += monotonic_s() - begin_s;
          encoded += static_cast<double>(document.text.size());
          if (encoded >= static_cast<double>(limit)) read_at_limit = read;
        },
        {}, &read);
  } catch (const Enough&) {
    whole = false;
  }
  const double factor =
      whole ? 1 : std::max(1.0, static_cast<double>(stored_bytes(file)) / static_cast<double>(read_at_limit));
  text.whole &= whole;
  text.documents += documents * factor;
  text.bytes += bytes * factor;
  text.encode_s += seconds;
  tokens += ids;
  sampled += encoded;
}

}  // namespace

CompressSource open_source(const std::string& path) {
  if (!is_given_model(path))
    throw UserError::recipe(
        "MODEL", fmt::format("{}: no Hugging Face folder or GGUF file{}", printable(path), searched_from(path)));
  const GivenShape shape = given_shape(path);
  CompressSource source{
      .path = path,
      .name = recipe_name(path),
      .config = shape.config,
      .longest = shape.attention_window > 0 ? shape.attention_window : shape.config.max_position_embeddings,
      .tokenizer = given_tokenizer(path)};
  source.config.vocab_size = source.tokenizer.vocab_size();
  const std::vector<int64_t>& widths = source.config.intermediate_size;
  if (std::ranges::adjacent_find(widths, std::not_equal_to<>()) != widths.end())
    throw UserError::recipe("MODEL", fmt::format("the layers of {} have {} to {} FFN channels, expected one width: "
                                                 "learned masks are one table; a recipe of your own cuts such a model "
                                                 "by a score",
                                                 printable(path), std::ranges::min(widths), std::ranges::max(widths)));
  return source;
}

CompressText look_at_text(const std::string& path, const Tokenizer& tokenizer) {
  if (is_gone(path))
    throw UserError::recipe("--text", fmt::format("{}: no text there{}; expected a folder or file of {}",
                                                  printable(path), searched_from(path), kCorpusEndings));
  std::vector<fs::path> files = {path};
  if (fs::is_directory(path)) {
    files.clear();
    for (const std::string& file : corpus_files(path)) files.push_back(fs::path(path) / file);
    if (files.empty())
      throw UserError::recipe(
          "--text", fmt::format("{}: none of its files is text; expected {}", printable(path), kCorpusEndings));
  }
  const size_t seen = std::min(files.size(), kSampleFiles);
  CompressText text{.whole = seen == files.size()};
  double tokens = 0, sampled = 0, looked_at = 0;
  for (size_t i = 0; i < seen; ++i) {  // evenly spread
    const fs::path& file = files[i * files.size() / seen];
    look_at_file(file, kSampleBytes / seen, tokenizer, text, tokens, sampled);
    looked_at += static_cast<double>(stored_bytes(file));
  }
  const double factor = std::max(1.0, static_cast<double>(stored_bytes(path)) / std::max(1.0, looked_at));
  text.documents *= factor;
  text.bytes *= factor;
  text.bytes_per_token = std::max(1.0, sampled) / tokens;
  text.encode_s /= std::max(1.0, sampled);
  return text;
}

double heldout_share(const CompressText& text) {
  return std::clamp(std::ceil(100 * kHeldoutDocuments / text.documents) / 100, 0.02, 0.2);
}

}  // namespace coppice
