// quality_values DOCUMENTS: what the quality rules make of each document, a JSON line each, for quality_parity.py.
// Every rule set looks at the text as it is; doubles are written so that they are read back to the last bit.
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "src/base/files.h"
#include "src/base/json.h"
#include "src/corpus/quality/c4.h"
#include "src/corpus/quality/document_measures.h"
#include "src/corpus/quality/quality_rules.h"
#include "src/text/documents.h"

using namespace coppice;

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  QualityText text(WordRule::english);
  Repetition repetition;
  C4 c4({});
  for_each_document(argv[1], [&](Document&& document) {
    Json row = {{"id", document.id}, {"rules", Json::object()}};
    for (const QualityRuleSet& set : quality_rule_sets()) {
      if (!set.by_default) continue;
      std::vector<double> values(set.rules.size(), std::nan(""));
      text.set(document.text, "");
      switch (set.set) {
        case QualitySet::gopher_repetition:
          repetition.measure(text, values);
          break;
        case QualitySet::gopher_quality:
          measure_gopher_quality(text, values);
          break;
        case QualitySet::fineweb:
          measure_fineweb(text, 30, repetition, values);
          break;
        default:
          c4.measure(text, values);
          break;
      }
      std::string decision = "keep";
      for (size_t i = set.rules.size(); i-- > 0;) {
        const QualityRule& rule = set.rules[i];
        if (values[i] < rule.least || values[i] > rule.most) decision = rule.name;
        if (!std::isnan(values[i])) row["rules"][rule.name] = values[i];
      }
      row["decisions"][set.name] = decision;
    }
    row["c4_sha256"] = sha256_hex(c4.kept_text());
    row["words"] = text.words();
    std::puts(row.dump().c_str());
  });
}
