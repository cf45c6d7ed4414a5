#include "src/corpus/report/value_file.h"

#include <fmt/format.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/base/json.h"

namespace coppice {

ValueFile::ValueFile(const CompleteCorpus& corpus, const SourceFile& file)
    : reader_(corpus.values(file)), documents_(0) {
  const std::string where = corpus.values(file).string();
  if (reader_.string_attribute("/", "format") != "coppice.values" || reader_.unsigned_attribute("/", "version") != 1)
    throw UserError::bad_file(where, "holds no values of a corpus");
  if (const std::string of = reader_.string_attribute("/", "file"); of != file.name)
    throw UserError::bad_file(where, fmt::format("holds the values of '{}', expected those of '{}'; have the corpus "
                                                 "made again",
                                                 printable(of), printable(file.name)));
  if (const std::string of = reader_.string_attribute("/", "made_of"); of != fingerprint(corpus.made_of))
    throw UserError::bad_file(where, fmt::format("holds values of a corpus of fingerprint {}, expected {}; have the "
                                                 "corpus made again",
                                                 printable(of), fingerprint(corpus.made_of)));
  documents_ = reader_.shape("/document").dims.at(0);
}

std::vector<float> ValueFile::column(const std::string& step, const std::string& rule) const {
  std::vector<float> values(documents_, std::numeric_limits<float>::quiet_NaN());
  const std::string name = "/" + step + "/" + rule;
  if (documents_ > 0 && reader_.has(name))
    reader_.read_all(name, Hdf5Type::f32, values.data(), values.size() * sizeof(float));
  return values;
}

std::vector<uint64_t> ValueFile::ids() const {
  std::vector<uint64_t> ids(documents_);
  if (documents_ > 0) reader_.read_all("/id", Hdf5Type::u64, ids.data(), ids.size() * sizeof(uint64_t));
  return ids;
}

void check_has_values(const CompleteCorpus& corpus) {
  if (corpus.made_of.value("values", "") == "none")
    throw UserError::recipe(corpus.root.string(),
                            "the corpus was made with values = \"none\", so there is nothing to measure by; make it "
                            "again with values = \"all\" or \"sample\"");
}

bool drops_stored(const Rule& rule, float value) {
  return value < static_cast<float>(rule.least) || value > static_cast<float>(rule.most);
}

}  // namespace coppice
