// coppice data, of corpora that are there: questions to a run's folder, and any input to documents.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "recipes/commands/verbs.h"
#include "src/base/errors.h"
#include "src/base/signals.h"
#include "src/corpus/decontaminate/contamination_report.h"
#include "src/corpus/maths/domains.h"
#include "src/corpus/report/corpus_diff.h"
#include "src/corpus/report/corpus_text.h"
#include "src/corpus/report/samples.h"
#include "src/corpus/report/tune.h"
#include "src/corpus/sources/convert.h"

namespace coppice {

void add_data_tune(CLI::App& data, Action& action) {
  struct Flags {
    std::string run;
    std::vector<std::string> set;
  };
  const auto flags = std::make_shared<Flags>();
  CLI::App* tune_verb = add_verb(data, "tune",
                                 "what other thresholds would have removed, from stored values; without --set seven "
                                 "for every rule",
                                 "coppice data tune corpora/web --set quality.char_dup_ratio=0.05");
  tune_verb->add_option("run", flags->run, "folder of a corpus")->required();
  tune_verb->add_option("--set", flags->set,
                        "another threshold: step.rule=0.05, or step.rule=50..100000 for both sides");
  tune_verb->callback([flags, &action] {
    action = [flags] {
      const CompleteCorpus corpus = open_complete_corpus(flags->run);
      if (flags->set.empty()) return fmt::print("{}", threshold_table(threshold_rows(corpus, corpus.files)));
      std::vector<ThresholdChange> changes;
      for (const std::string& change : flags->set) changes.push_back(parse_change(corpus, change));
      fmt::print("{}", tune_text(tune(corpus, changes)));
    };
  });
}

void add_data_sample(CLI::App& data, Action& action) {
  struct Flags {
    std::string run, step, rule;
    size_t count = 10;
    bool kept = false;
    SampleText text;
  };
  const auto flags = std::make_shared<Flags>();
  CLI::App* sample = add_verb(data, "sample", "documents that a rule has removed, with the value that decided",
                              "coppice data sample corpora/web --step quality --rule short_line_ratio -n 20");
  sample->add_option("run", flags->run, "folder of a corpus")->required();
  sample->add_option("--step", flags->step, "name of the step")->required();
  sample->add_option("--rule", flags->rule, "name of the rule")->required();
  sample->add_option("-n,--count", flags->count, "documents, the same ones every time; default 10");
  sample->add_flag("--kept", flags->kept, "documents that the corpus has kept instead");
  sample->add_option("--characters", flags->text.characters, "of each text; default 300");
  sample->add_flag("--raw", flags->text.raw, "show personal data as it stands");
  sample->callback([flags, &action] {
    action = [flags] {
      const CompleteCorpus corpus = open_complete_corpus(flags->run);
      const ToldStep& step = corpus.step(flags->step, "--step");
      const ToldRule& rule = corpus.rule(step, flags->rule, "--rule");
      fmt::print(
          "{}", samples_text(sample_documents(corpus, step, rule, flags->count, flags->kept, flags->text), step, rule));
    };
  });
}

void add_data_stats(CLI::App& data, Action& action) {
  struct Flags {
    std::string run;
    bool json = false;
  };
  const auto flags = std::make_shared<Flags>();
  CLI::App* stats = add_verb(data, "stats", "totals and drop table of a corpus", "coppice data stats corpora/web");
  stats->add_option("run", flags->run, "folder of a corpus")->required();
  stats->add_flag("--json", flags->json, "as report.json has them");
  stats->callback([flags, &action] {
    action = [flags] {
      const CompleteCorpus corpus = open_complete_corpus(flags->run);
      if (!flags->json) return fmt::print("{}", stats_text(corpus));
      fmt::print("{}\n", read_json(corpus.root / "report.json").dump(1));
    };
  });
}

void add_data_diff(CLI::App& data, Action& action) {
  struct Flags {
    std::string first, second;
  };
  const auto flags = std::make_shared<Flags>();
  CLI::App* diff = add_verb(data, "diff", "two corpora beside each other: what either keeps alone, and why",
                            "coppice data diff corpora/web corpora/strict");
  diff->add_option("first", flags->first, "folder of a corpus")->required();
  diff->add_option("second", flags->second, "folder of another")->required();
  diff->callback([flags, &action] {
    action = [flags] {
      fmt::print("{}",
                 diff_text(diff_corpora(open_complete_corpus(flags->first), open_complete_corpus(flags->second))));
    };
  });
}

void add_data_convert(CLI::App& data, Action& action) {
  struct Flags {
    ConvertOptions options;
    std::string out;
  };
  const auto flags = std::make_shared<Flags>();
  CLI::App* convert = add_verb(data, "convert", "any input format to documents, in files of about 256 MB",
                               "coppice data convert press/*.parquet -o press --text body --license CC-BY-4.0");
  convert->add_option("inputs", flags->options.inputs, "files, folders or patterns, a source each")->required();
  convert->add_option("-o,--out", flags->out, "folder to write documents-*.jsonl.zst into")->required();
  convert->add_option("--kind", flags->options.kind,
                      "warc, wet, jsonl, parquet, html, text or code; default by ending");
  convert->add_option("--text", flags->options.text, "the field or column that holds a document's text");
  convert->add_option("--license", flags->options.license, "licence of documents that name none");
  convert->add_option("--max-bad-share", flags->options.max_bad_share, "share of a file's records that may be bad");
  convert->callback([flags, &action] {
    action = [flags] {
      install_signal_handlers();
      flags->options.out = flags->out;
      const ConvertReport report = convert_to_documents(flags->options);
      fmt::print("{} documents, {} bytes of text, in {} files\n", report.total.documents, report.text_bytes,
                 report.files.size());
      if (report.pages > 0) fmt::print("{} are pages of HTML\n", report.pages);
      for (const auto& [what, counts] : {std::pair("passed over", &report.total.passed), {"bad", &report.total.bad}})
        if (!counts->empty()) fmt::print("{}: {}\n", what, reasons_text(*counts));
    };
  });
}

void add_data_domains(CLI::App& data, Action& action) {
  const auto run = std::make_shared<std::string>();
  CLI::App* domains =
      add_verb(data, "domains", "domains of a corpus by their documents, with three samples each, for people to label",
               "coppice data domains corpora/maths > domains.tsv");
  domains->add_option("run", *run, "folder of a corpus")->required();
  domains->callback([run, &action] {
    action = [run] {
      const CompleteCorpus corpus = open_complete_corpus(*run);
      fmt::print("{}", domain_lines(list_domains(corpus.root / "documents")));
    };
  });
}

void add_data_overlap(CLI::App& data, Action& action) {
  const auto run = std::make_shared<std::string>();
  CLI::App* overlap = add_verb(data, "overlap", "how much of each benchmark's items stands in a corpus",
                               "coppice data overlap corpora/web");
  overlap->add_option("run", *run, "folder of a corpus")->required();
  overlap->callback(
      [run, &action] { action = [run] { fmt::print("{}", overlap_tables(open_complete_corpus(*run))); }; });
}

}  // namespace coppice
