#include "src/corpus/classify/classifier_file.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <limits>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/hdf5.h"
#include "src/corpus/classify/mapped_file.h"

namespace coppice {
namespace {

constexpr const char *kFormat = "coppice.classifier", *kNormalForm = "datatrove";
constexpr uint64_t kVersion = 1, kSealBytes = 64, kChunkRows = 65536;
constexpr const char *kWeights = "/weights", *kPlatt = "/platt", *kHeldOut = "/held_out", *kAuc = "/held_out/auc",
                     *kReliability = "/held_out/reliability", *kPrecision = "/held_out/precision";
static_assert(sizeof(Platt) == 2 * sizeof(float) && sizeof(ReliabilityBin) == 3 * sizeof(float) &&
              sizeof(PrecisionRow) == 4 * sizeof(float));

void check_seal(const std::filesystem::path& path) {
  const MappedFile file(path);
  const std::string_view bytes = file.bytes();
  if (!is_hdf5_file(bytes))
    throw UserError::bad_file(path.native(), "is no classifier: it does not begin as HDF5 does");
  if (bytes.size() <= kSealBytes ||
      sha256_hex(bytes.substr(0, bytes.size() - kSealBytes)) != bytes.substr(bytes.size() - kSealBytes))
    throw UserError::bad_file(
        path.native(),
        "its last 64 bytes are not the SHA-256 of the others: the file is damaged, cut short or no "
        "classifier of coppice; copy it again, or train it again");
}

/// Reads `count` floats of a dataset that must have exactly these dimensions.
void read_floats(const Hdf5Reader& reader, const char* dataset, const std::vector<uint64_t>& dims, float* out) {
  uint64_t count = 1;
  for (const uint64_t size : dims) count *= size;
  if (reader.shape(dataset).dims != dims)
    throw UserError::bad_file(reader.path().native(), fmt::format("{}: another shape than it must have", dataset));
  reader.read_all(dataset, Hdf5Type::f32, out, count * sizeof(float));
  for (uint64_t i = 0; i < count; ++i)
    if (!std::isfinite(out[i]))
      throw UserError::bad_file(reader.path().native(), fmt::format("{}: element {} is no finite number", dataset, i));
}

}  // namespace

double Classifier::probability(std::span<const Feature> features) const {
  double sum = 0;
  for (const Feature& feature : features) sum += double{weights[feature.bucket]} * feature_value(feature.count);
  return features.empty() ? std::numeric_limits<double>::quiet_NaN() : platt(sum / feature_norm(features));
}

void write_classifier(const Classifier& classifier, const std::filesystem::path& path) {
  const std::filesystem::path temporary = temporary_path(path);
  Hdf5Writer writer(temporary, /*alignment=*/1);
  const auto write = [&](const char* dataset, const std::vector<uint64_t>& dims, const void* data) {
    writer.write_chunked(dataset, Hdf5Type::f32, dims, kChunkRows, data);
  };
  write(kWeights, {classifier.weights.size()}, classifier.weights.data());
  write(kPlatt, {2}, &classifier.platt);
  write(kAuc, {1}, &classifier.held_out.auc);
  write(kReliability, {kReliabilityBins, 3}, classifier.held_out.reliability.data());
  write(kPrecision, {kPrecisionRows, 4}, classifier.held_out.precision.data());
  writer.set_attribute(kHeldOut, "positives", classifier.held_out.positives);
  writer.set_attribute(kHeldOut, "negatives", classifier.held_out.negatives);
  writer.set_attribute("/", "format", kFormat);
  writer.set_attribute("/", "version", kVersion);
  writer.set_attribute("/", "normal_form", kNormalForm);
  writer.set_attribute("/", "seed", classifier.seed);
  writer.set_attribute("/", "passes", classifier.passes);
  writer.set_attribute("/", "positive_sha256", classifier.positive_sha256);
  writer.set_attribute("/", "negative_sha256", classifier.negative_sha256);
  writer.close();
  OutputFile seal(temporary, OutputFile::Mode::append);
  seal.write(sha256_file(temporary));
  seal.sync();
  seal.close();
  commit_rename(temporary, path);
}

Classifier read_classifier(const std::filesystem::path& path) {
  check_seal(path);
  const Hdf5Reader reader(path);
  const std::string format = reader.string_attribute("/", "format");
  if (format != kFormat)
    throw UserError::bad_file(path.native(), fmt::format("format '{}', expected '{}'", printable(format), kFormat));
  if (const uint64_t version = reader.unsigned_attribute("/", "version"); version != kVersion)
    throw UserError::bad_file(path.native(), fmt::format("version {}, {} is read", version, kVersion));
  if (const std::string form = reader.string_attribute("/", "normal_form"); form != kNormalForm)
    throw UserError::bad_file(path.native(),
                              fmt::format("normal form '{}', '{}' is known", printable(form), kNormalForm));
  const Hdf5Shape weights = reader.shape(kWeights);
  if (weights.dims.size() != 1 || !std::has_single_bit(weights.dims[0]) || weights.dims[0] > kMaxBuckets)
    throw UserError::bad_file(path.native(),
                              fmt::format("{}: its size is no power of two up to {}", kWeights, kMaxBuckets));
  Classifier classifier;
  classifier.weights.resize(weights.dims[0]);
  read_floats(reader, kWeights, weights.dims, classifier.weights.data());
  read_floats(reader, kPlatt, {2}, &classifier.platt.slope);
  read_floats(reader, kAuc, {1}, &classifier.held_out.auc);
  read_floats(reader, kReliability, {kReliabilityBins, 3}, &classifier.held_out.reliability[0].documents);
  read_floats(reader, kPrecision, {kPrecisionRows, 4}, &classifier.held_out.precision[0].threshold);
  classifier.held_out.positives = reader.unsigned_attribute(kHeldOut, "positives");
  classifier.held_out.negatives = reader.unsigned_attribute(kHeldOut, "negatives");
  classifier.seed = reader.unsigned_attribute("/", "seed");
  classifier.passes = reader.unsigned_attribute("/", "passes");
  classifier.positive_sha256 = reader.string_attribute("/", "positive_sha256");
  classifier.negative_sha256 = reader.string_attribute("/", "negative_sha256");
  return classifier;
}

bool is_hdf5_file(std::string_view bytes) { return bytes.starts_with("\x89HDF\r\n\x1a\n"); }

}  // namespace coppice
