#include "recipes/stages/make_corpus.h"

#include <algorithm>
#include <filesystem>
#include <string>

#include "recipes/language/sources.h"
#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/corpus/run/run_corpus.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

/// <corpus>/domains/<domain>/<source>/<file>, each a relative link to the file among the corpus' documents.
void link_domain(const fs::path& corpus, const DomainOptions& domain) {
  const fs::path folder = corpus / "domains" / domain.name;
  std::error_code error;
  fs::remove_all(folder, error);
  for (const std::string& source : domain.sources) {
    const fs::path documents = corpus / "documents" / source;
    for (const auto& entry : fs::recursive_directory_iterator(documents, error)) {
      if (!entry.is_regular_file()) continue;
      const fs::path link = folder / source / entry.path().lexically_relative(documents);
      make_folder(link.parent_path());
      fs::create_symlink(entry.path().lexically_relative(link.parent_path()), link, error);
      if (error) throw IoError(link.string(), "cannot make a link: " + error.message(), error.value());
    }
  }
}

bool is_recorded(const Recipe& recipe) {
  return std::ranges::all_of(recipe.data.domains, [&](const DomainOptions& domain) {
    return domain.sources.empty() || recipe.sources->holds(domain.path);
  });
}

}  // namespace

void make_corpus(const Recipe& recipe) {
  if (recipe.data.corpus == nullptr || is_recorded(recipe)) return;
  const fs::path folder = recipe.data.corpus_folder;
  run_corpus(*recipe.data.corpus, {.out = folder, .wait = true});
  start_torch(recipe.threads);  // again: a language model among the steps has left one thread
  for (const DomainOptions& domain : recipe.data.domains)
    if (domain.sources.size() > 1) link_domain(folder, domain);
}

}  // namespace coppice
