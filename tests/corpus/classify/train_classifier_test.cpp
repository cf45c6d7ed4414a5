#include "src/corpus/classify/train_classifier.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/caught.h"
#include "tests/corpus/classify/made_classifier.h"

using namespace coppice;

namespace {

std::string bytes_of(const ClassifierTraining& training, const ScratchFolder& folder) {
  write_classifier(train_classifier(training), folder / "model.h5");
  return slurp(folder / "model.h5");
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("train_classifier: tells documents of two kinds apart, and says how well") {
    const ScratchFolder folder("train");
    const Classifier classifier = train_classifier(made_training(folder));
    CHECK(classifier.held_out.positives + classifier.held_out.negatives > 30);
    CHECK(classifier.held_out.auc == 1);
    FeatureCounter counter(classifier.weights.size());
    CHECK(classifier.probability(counter.count("a careful proof of a lemma")) > 0.8);
    CHECK(classifier.probability(counter.count("a cheap offer of watches")) < 0.2);
    CHECK(std::isnan(classifier.probability(counter.count("..."))));
  }

  TEST_CASE("train_classifier: the same bytes for 1 and 4 threads, and however documents lie in files") {
    const ScratchFolder folder("train");
    ClassifierTraining training = made_training(folder);
    const std::string bytes = bytes_of(training, folder);
    training.threads = 4;
    CHECK(bytes_of(training, folder) == bytes);
    training.positive = {folder.write("good2.jsonl", made_documents(true, 120, 300)),
                         folder.write("good1.jsonl", made_documents(true, 0, 120))};
    CHECK(bytes_of(training, folder) == bytes);
    training.seed = 2;
    CHECK(bytes_of(training, folder) != bytes);
  }

  TEST_CASE("train_classifier: max_documents keeps the same documents, whatever their order") {
    const ScratchFolder folder("train");
    ClassifierTraining training = made_training(folder);
    training.max_documents = 100;
    const std::string bytes = bytes_of(training, folder);
    training.threads = 3;
    training.positive = {folder.write("good2.jsonl", made_documents(true, 120, 300)),
                         folder.write("good1.jsonl", made_documents(true, 0, 120))};
    CHECK(bytes_of(training, folder) == bytes);
    training.max_documents = 101;
    CHECK(bytes_of(training, folder) != bytes);
  }

  TEST_CASE("train_classifier: documents of both kinds must be there to train on and to hold out") {
    const ScratchFolder folder("train");
    ClassifierTraining training = made_training(folder);
    training.negative = {folder.write("few.jsonl", made_documents(false, 0, 1))};
    const Caught error = caught([&] { train_classifier(training); });
    CHECK(error.code == 2);
    CHECK(error.says("--negative"));
    CHECK(error.says("give more documents"));
    training.negative = {folder.write("signs.jsonl", "{\"text\":\"...\"}\n")};
    CHECK(caught([&] { train_classifier(training); }).says("0 documents with words"));
    training.negative = {folder / "absent.jsonl"};
    CHECK(caught([&] { train_classifier(training); }).code == 3);
  }
}
