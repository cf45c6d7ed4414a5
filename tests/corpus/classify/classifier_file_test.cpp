// The file of a classifier: what goes in comes out, and no damaged one is read.
#include "src/corpus/classify/classifier_file.h"

#include <doctest/doctest.h>

#include <cmath>

#include "src/base/files.h"
#include "src/base/hdf5.h"
#include "tests/caught.h"
#include "tests/corpus/classify/made_classifier.h"

using namespace coppice;

namespace {

/// A classifier of 64 weights, in 4 kB.
Classifier small_classifier() {
  Classifier classifier{.weights = std::vector<float>(64), .platt = {2, -1}, .seed = 7, .passes = 5};
  for (size_t i = 0; i < 64; ++i) classifier.weights[i] = static_cast<float>(i) / 8 - 4;
  classifier.held_out = held_out_report(std::vector<HeldOutScore>{{1, true}, {-1, false}}, classifier.platt);
  classifier.positive_sha256 = sha256_hex("good");
  classifier.negative_sha256 = sha256_hex("bad");
  return classifier;
}

/// Bytes with the seal that belongs to them.
std::string sealed(std::string bytes) {
  bytes.resize(bytes.size() - 64);
  return bytes + sha256_hex(bytes);
}

/// The file that `write` makes, sealed: what is wrong with it is not its bytes.
std::filesystem::path made_file(const ScratchFolder& folder, const std::function<void(Hdf5Writer&)>& write) {
  const std::filesystem::path path = folder / "made.h5";
  Hdf5Writer writer(path, 1);
  write(writer);
  writer.close();
  const std::string bytes = slurp(path);
  spill(path, bytes + sha256_hex(bytes));
  return path;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("classifier_file: what was written is read") {
    const ScratchFolder folder("classifier");
    const Classifier written = small_classifier();
    write_classifier(written, folder / "a.h5");
    const Classifier read = read_classifier(folder / "a.h5");
    CHECK(read.weights == written.weights);
    CHECK(read.platt.slope == 2);
    CHECK(read.platt.offset == -1);
    CHECK(read.held_out.auc == 1);
    CHECK(read.held_out.positives == 1);
    CHECK(read.held_out.reliability[9].documents == written.held_out.reliability[9].documents);
    CHECK(read.held_out.precision[19].threshold == written.held_out.precision[19].threshold);
    CHECK(read.seed == 7);
    CHECK(read.passes == 5);
    CHECK(read.positive_sha256 == sha256_hex("good"));
    CHECK(read.negative_sha256 == sha256_hex("bad"));
    CHECK(folder.names() == std::vector<std::string>{"a.h5"});
    write_classifier(written, folder / "b.h5");
    CHECK(slurp(folder / "a.h5") == slurp(folder / "b.h5"));
  }

  TEST_CASE("classifier_file: cut anywhere, or with one byte changed, it is refused") {
    const ScratchFolder folder("classifier");
    write_classifier(small_classifier(), folder / "a.h5");
    const std::string bytes = slurp(folder / "a.h5");
    int refused = 0, tried = 0;
    for (size_t size = 0; size < bytes.size(); size += size < 512 || size + 512 > bytes.size() ? 1 : 37) {
      ++tried;
      refused += caught([&] { read_classifier(folder.write("cut.h5", bytes.substr(0, size))); }).code == 3;
    }
    for (size_t at = 0; at < bytes.size(); at += 29) {
      std::string changed = bytes;
      changed[at] = static_cast<char>(changed[at] ^ 0x40);
      ++tried;
      refused += caught([&] { read_classifier(folder.write("cut.h5", changed)); }).code == 3;
    }
    CHECK(tried > 1000);
    CHECK(refused == tried);
  }

  TEST_CASE("classifier_file: whole HDF5 files of another shape are refused by what they lack") {
    const ScratchFolder folder("classifier");
    const auto says = [&](const std::filesystem::path& path, std::string_view part) {
      const Caught error = caught([&] { read_classifier(path); });
      CAPTURE(error.text);
      CHECK(error.code == 3);
      CHECK(error.says(part));
    };
    says(folder.write("text.h5",
                      "not HDF5 at all, but long enough to have had a seal at its end, which is 64 bytes long"),
         "does not begin as HDF5");
    says(made_file(folder, [](Hdf5Writer& file) { file.set_attribute("/", "version", uint64_t{1}); }), "format");
    says(made_file(folder, [](Hdf5Writer& file) { file.set_attribute("/", "format", "coppice.tokens"); }),
         "expected 'coppice.classifier'");
    const auto head = [](Hdf5Writer& file, uint64_t version, std::string_view form) {
      file.set_attribute("/", "format", "coppice.classifier");
      file.set_attribute("/", "version", version);
      file.set_attribute("/", "normal_form", form);
    };
    says(made_file(folder, [&](Hdf5Writer& file) { head(file, 2, "datatrove"); }), "version 2, 1 is read");
    says(made_file(folder, [&](Hdf5Writer& file) { head(file, 1, "mine"); }), "normal form 'mine'");
    const auto weights = [&](std::vector<float> values) {
      return made_file(folder, [&](Hdf5Writer& file) {
        head(file, 1, "datatrove");
        file.write_chunked("/weights", Hdf5Type::f32, {values.size()}, 64, values.data());
      });
    };
    says(weights(std::vector<float>(63)), "no power of two");
    says(weights({0, NAN}), "element 1 is no finite number");
    says(weights({0, 1}), "/platt");
  }

  TEST_CASE("classifier_file: a seal of its own does not make a damaged file good") {
    const ScratchFolder folder("classifier");
    write_classifier(small_classifier(), folder / "a.h5");
    std::string bytes = slurp(folder / "a.h5");
    bytes[0] = 'x';
    CHECK(caught([&] { read_classifier(folder.write("b.h5", sealed(bytes))); }).code == 3);
  }
}
