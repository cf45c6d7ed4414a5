// coppice data train-classifier: a classifier that tells good documents from others.
#include <fmt/format.h>

#include <memory>

#include "recipes/commands/verbs.h"
#include "src/base/signals.h"
#include "src/base/threads.h"
#include "src/corpus/classify/train_classifier.h"

namespace coppice {
namespace {

/// The table of the held-out documents, on stdout.
void print_report(const HeldOutReport& report) {
  fmt::print("{} good and {} bad documents held out: AUC {:.4f}\n\n", report.positives, report.negatives, report.auc);
  fmt::print("min_score  kept   precision  recall\n");
  for (const PrecisionRow& row : report.precision)
    fmt::print("{:9.2f}  {:.3f}  {:9.3f}  {:6.3f}\n", row.threshold, row.kept_share, row.precision, row.recall);
}

}  // namespace

void add_data_train_classifier(CLI::App& data, Action& action) {
  struct Flags {
    ClassifierTraining training;
    std::filesystem::path output;
  };
  const auto flags = std::make_shared<Flags>();
  flags->training.threads = 0;
  flags->training.reading.text_option = "--text";
  CLI::App* train = add_verb(
      data, "train-classifier", "a classifier of words and word pairs out of good and bad documents, for data classify",
      "coppice data train-classifier --positive books.jsonl --negative crawl.jsonl -o quality.h5");
  train->add_option("--positive", flags->training.positive, "files and folders of good documents")->required();
  train->add_option("--negative", flags->training.negative, "files and folders of the others")->required();
  train->add_option("-o,--output", flags->output, "file to write")->required();
  train->add_option("--text", flags->training.reading.text_key, "the field that holds a document's text")
      ->capture_default_str();
  train->add_option("--passes", flags->training.passes, "over the documents that are trained on")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  train
      ->add_option("--max-documents", flags->training.max_documents,
                   "of each kind at most, chosen by their ids; 12 kB of memory each")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40))
      ->capture_default_str();
  train->add_option("--seed", flags->training.seed, "of the order of the documents")->capture_default_str();
  train->add_option("--threads", flags->training.threads, "0 = all cores; the result is the same")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  train->callback([flags, &action] {
    action = [flags] {
      install_signal_handlers();
      flags->training.threads = choose_threads(flags->training.threads);
      const Classifier classifier = train_classifier(flags->training);
      write_classifier(classifier, flags->output);
      print_report(classifier.held_out);
      flush_result();
    };
  });
}

}  // namespace coppice
