// parity_fasttext MODEL < TEXTS: a line for each line, the probabilities of all labels in the order of the file's.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <iostream>
#include <string>

#include "src/corpus/classify/fasttext_model.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const coppice::FastTextModel model{std::filesystem::path(argv[1])};
  fmt::print("{}\n", fmt::join(model.labels(), " "));
  coppice::FastTextModel::Room room;
  for (std::string text; std::getline(std::cin, text);) fmt::print("{}\n", fmt::join(model.predict(text, room), " "));
}
