// A classifier's file: what is damaged does not reach HDF5, for its seal does not hold.
#include "fuzz/target.h"
#include "src/base/hdf5.h"
#include "src/corpus/classify/classifier_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static coppice::fuzz::MemoryFile file;
  coppice::start_hdf5();
  return coppice::fuzz::run(data, size, [](std::string_view bytes) {
    const coppice::Classifier classifier = coppice::read_classifier(file.write(bytes));
    coppice::FeatureCounter counter(classifier.weights.size());
    [[maybe_unused]] volatile double kept = classifier.probability(counter.count("a b c a b"));
  });
}
