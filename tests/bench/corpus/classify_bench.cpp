// classify_bench GOOD BAD FOLDER: our classifier against libfasttext (dim 100, word pairs) on the same documents: AUC
// on the same held-out tenth, MB/s of text of both and of our reader of fastText's models, in turns on one core.
#include <fasttext/fasttext.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "src/corpus/classify/fasttext_model.h"
#include "src/corpus/classify/train_classifier.h"
#include "tests/bench/corpus/text_bench.h"

using namespace coppice;

namespace {

/// A document on one line, as fastText reads it.
std::string line_of(const Document& document) {
  std::string line = document.text;
  std::ranges::replace(line, '\n', ' ');
  return line + "\n";
}

fasttext::Args arguments(const std::filesystem::path& lines) {
  fasttext::Args args;
  args.parseArgs({"fasttext", "supervised", "-input", lines.string(), "-output", "none", "-dim", "100", "-wordNgrams",
                  "2", "-epoch", "5", "-lr", "0.5", "-thread", "1", "-verbose", "0"});
  return args;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const std::filesystem::path folder = argv[3];
  ClassifierTraining training;
  training.positive = {argv[1]};
  training.negative = {argv[2]};
  std::vector<Document> documents;
  std::vector<std::string> lines;
  std::vector<size_t> held_out;
  double bytes = 0;
  size_t positives = 0;
  std::ofstream file(folder / "lines.txt");
  for (const char* path : {argv[1], argv[2]}) {
    const bool positive = path == argv[1];
    for (Document& document : bench::read_documents(path)) {
      lines.push_back(line_of(document));
      bytes += static_cast<double>(document.text.size());
      positives += positive;
      if (is_heldout(document.id, training.heldout_share)) {
        held_out.push_back(documents.size());
      } else {
        file << (positive ? "__label__good " : "__label__bad ") << lines.back();
      }
      documents.push_back(std::move(document));
    }
  }
  file.close();

  const double begin = bench::user_s();
  const Classifier classifier = train_classifier(training);
  const double trained = bench::user_s();
  fasttext::FastText peer;
  peer.train(arguments(folder / "lines.txt"));
  const double peer_trained = bench::user_s();
  peer.saveModel((folder / "peer.bin").string());
  const FastTextModel reader{folder / "peer.bin"};
  const size_t good = reader.labels()[0] == "__label__good" ? 0 : 1;

  FeatureCounter counter(kMaxBuckets);
  FastTextModel::Room room;
  const auto ours = [&](size_t i) { return classifier.probability(counter.count(documents[i].text)); };
  const auto reads = [&](size_t i) { return double{reader.predict(documents[i].text, room)[good]}; };
  const auto peers = [&](size_t i) {
    std::istringstream in(lines[i]);
    std::vector<std::pair<fasttext::real, std::string>> predictions;
    peer.predictLine(in, predictions, 2, 0);
    for (const auto& [probability, label] : predictions)
      if (label == "__label__good") return double{probability};
    return 0.0;
  };
  std::vector<HeldOutScore> our_scores, peer_scores;
  double worst = 0;
  for (const size_t i : held_out) {
    our_scores.push_back({ours(i), i < positives});
    peer_scores.push_back({peers(i), i < positives});
    worst = std::max(worst, std::abs(peer_scores.back().score - reads(i)));
  }
  const std::vector<double> times = bench::median_s({
      {"ours",
       [&] {
         for (size_t i = 0; i < documents.size(); ++i) ours(i);
       }},
      {"fasttext",
       [&] {
         for (size_t i = 0; i < documents.size(); ++i) peers(i);
       }},
      {"reader",
       [&] {
         for (size_t i = 0; i < documents.size(); ++i) reads(i);
       }},
  });
  bench::emit("classify", {{"documents", static_cast<double>(documents.size())},
                           {"mb", bytes / 1e6},
                           {"held_out", static_cast<double>(held_out.size())},
                           {"auc", area_under_curve(our_scores)},
                           {"fasttext_auc", area_under_curve(peer_scores)},
                           {"mb_s", bytes / 1e6 / times[0]},
                           {"fasttext_mb_s", bytes / 1e6 / times[1]},
                           {"reader_mb_s", bytes / 1e6 / times[2]},
                           {"ratio", times[1] / times[0]},
                           {"reader_ratio", times[1] / times[2]},
                           {"reader_worst", worst},
                           {"train_s", trained - begin},
                           {"fasttext_train_s", peer_trained - trained}});
}
