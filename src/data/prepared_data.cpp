#include "src/data/prepared_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "src/base/errors.h"
#include "src/base/files.h"

namespace coppice {

namespace fs = std::filesystem;

std::vector<const TokenShards*> PreparedData::shards_of(const std::vector<MixtureEntry>& mixture) const {
  std::vector<const TokenShards*> shards;
  for (const MixtureEntry& entry : mixture) {
    const auto found = train.find(entry.domain);
    COPPICE_CHECK(found != train.end(), "no tokens of domain " + entry.domain);
    shards.push_back(&found->second);
  }
  return shards;
}

const std::map<std::string, TokenShards>& PreparedData::split(std::string_view name) const {
  COPPICE_CHECK(name == "heldout" || name == "tuning", "no split " + std::string(name));
  return name == "tuning" ? tuning : heldout;
}

PreparedData open_prepared(const fs::path& data_folder, std::string fingerprint) {
  PreparedData data{.fingerprint = std::move(fingerprint)};
  const fs::path tokenizer = data_folder / "tokenizer";
  data.tokenizer =
      std::make_unique<Tokenizer>(Tokenizer::load(tokenizer_in(tokenizer).value_or(tokenizer / "tokenizer.model")));
  std::string manifests;
  for (auto [kind, into] : {std::pair{"tokens", &data.train}, {"heldout", &data.heldout}, {"tuning", &data.tuning}}) {
    if (!fs::exists(data_folder / kind)) continue;
    std::vector<fs::path> folders;
    for (const auto& entry : fs::directory_iterator(data_folder / kind))
      if (fs::exists(entry.path() / "manifest.json")) folders.push_back(entry.path());
    std::ranges::sort(folders);
    for (const fs::path& folder : folders) {
      TokenShards shards(folder);
      if (shards.tokenizer_sha256() != data.tokenizer->fingerprint())
        throw UserError::bad_file(folder.string(),
                                  fmt::format("tokens were made with another tokenizer: {} here, {} in data/tokenizer",
                                              shards.tokenizer_sha256(), data.tokenizer->fingerprint()));
      manifests += fmt::format("{} {} {}\n", kind, shards.domain(), shards.manifest_sha256());
      const std::string domain = shards.domain();
      into->emplace(domain, std::move(shards));
    }
  }
  data.tokens_sha256 = sha256_hex(manifests);
  return data;
}

}  // namespace coppice
