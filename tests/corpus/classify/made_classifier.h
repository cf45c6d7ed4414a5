// Documents of two kinds that differ in some of their words, and a classifier in a few kilobytes.
#pragma once

#include <string>

#include "src/corpus/classify/classifier_file.h"
#include "src/corpus/classify/train_classifier.h"
#include "tests/scratch_folder.h"

namespace coppice {

/// Lines of documents good-0, good-1 ... or bad-0 ...; each has a common text, and words of its kind among others.
inline std::string made_documents(bool good, int begin, int end) {
  std::string lines;
  for (int i = begin; i < end; ++i) {
    std::string text;
    for (int k = 0; k < 30; ++k) text += "word" + std::to_string((i * 7 + k * 11) % 50) + " ";
    text += good ? "careful proof of lemma " : "cheap offer of watches ";
    text += std::to_string(i % 3) + (i % 5 == 0 ? " offer" : " proof");
    lines += R"({"id":")" + std::string(good ? "good-" : "bad-") + std::to_string(i) + R"(","text":")" + text + "\"}\n";
  }
  return lines;
}

/// 300 documents of each kind, `buckets` weights.
inline ClassifierTraining made_training(const ScratchFolder& folder, uint64_t buckets = 1 << 10) {
  ClassifierTraining training{.buckets = buckets};
  training.positive = {folder.write("good.jsonl", made_documents(true, 0, 300))};
  training.negative = {folder.write("bad.jsonl", made_documents(false, 0, 300))};
  return training;
}

}  // namespace coppice
