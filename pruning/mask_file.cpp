#include "pruning/mask_file.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <charconv>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/hdf5.h"

namespace coppice {
namespace {

constexpr uint64_t kVersion = 3, kAxisVersion = 4;  // of FFN channels; of an axis that the file names

/// Over everything the file says, as it is read: a flipped byte of the file's own structure may pass for other numbers.
std::string content_sha256(const MaskFile& masks) {
  const auto bytes_of = [](const void* data, size_t size) {
    return std::string_view(static_cast<const char*>(data), size);
  };
  const at::Tensor scores = masks.scores_LF.detach().contiguous(), soft = masks.soft_LF.detach().contiguous();
  const std::vector<int64_t> widths = masks.widths();
  Sha256 hash;
  hash.update(fmt::format("{} {} {} {} {} {}\n", scores.size(0), scores.size(1), masks.source_sha256, masks.num_kept,
                          masks.epsilon, masks.method));
  hash.update(masks.global ? "global" : "layer");
  if (masks.axis != CutAxis::ffn) hash.update(row_of(masks.axis).name);
  hash.update(bytes_of(scores.const_data_ptr<float>(), scores.nbytes()));
  hash.update(bytes_of(soft.const_data_ptr<float>(), soft.nbytes()));
  hash.update(bytes_of(widths.data(), widths.size() * sizeof(int64_t)));
  return hash.hex();
}

}  // namespace

std::vector<int64_t> MaskFile::widths() const {
  return kept.empty() ? std::vector<int64_t>(static_cast<size_t>(scores_LF.size(0)), num_kept) : kept;
}

void save_masks(const std::filesystem::path& path, const MaskFile& masks) {
  const std::filesystem::path temporary = temporary_path(path);
  const auto dims = std::vector<uint64_t>{static_cast<uint64_t>(masks.scores_LF.size(0)),
                                          static_cast<uint64_t>(masks.scores_LF.size(1))};
  const at::Tensor scores = masks.scores_LF.detach().contiguous(), soft = masks.soft_LF.detach().contiguous();
  Hdf5Writer writer(temporary);
  writer.write_chunked("/scores", Hdf5Type::f32, dims, dims[0], scores.const_data_ptr<float>());
  writer.write_chunked("/soft", Hdf5Type::f32, dims, dims[0], soft.const_data_ptr<float>());
  const std::vector<int64_t> widths = masks.widths();
  writer.write_chunked("/kept", Hdf5Type::i64, {dims[0]}, dims[0], widths.data());
  writer.set_attribute("/", "format", "coppice.masks");
  writer.set_attribute("/", "version", masks.axis == CutAxis::ffn ? kVersion : kAxisVersion);
  if (masks.axis != CutAxis::ffn) writer.set_attribute("/", "axis", row_of(masks.axis).name);
  writer.set_attribute("/", "source_sha256", masks.source_sha256);
  writer.set_attribute("/", "num_kept", static_cast<uint64_t>(masks.num_kept));
  writer.set_attribute("/", "top_k_epsilon", fmt::format("{}", masks.epsilon));
  writer.set_attribute("/", "method", masks.method);
  writer.set_attribute("/", "budget", masks.global ? "global" : "layer");
  writer.set_attribute("/", "content_sha256", content_sha256(masks));
  writer.close();
  OutputFile file(temporary, OutputFile::Mode::existing);
  file.sync();
  file.close();
  commit_rename(temporary, path);
}

MaskFile load_masks(const std::filesystem::path& path) {
  const Hdf5Reader reader(path);
  if (reader.string_attribute("/", "format") != "coppice.masks")
    throw UserError::bad_file(path.string(), "not a mask file (format is not coppice.masks)");
  const uint64_t version = reader.unsigned_attribute("/", "version");
  if (version != kVersion && version != kAxisVersion)
    throw UserError::bad_file(path.string(), fmt::format("mask file version {}, this program reads {} and {}", version,
                                                         kVersion, kAxisVersion));
  const Hdf5Shape shape = reader.shape("/scores");
  if (shape.dims.size() != 2 || shape.dims != reader.shape("/soft").dims || shape.dims[0] < 1 || shape.dims[1] < 1 ||
      shape.dims[0] > 4096 || shape.dims[1] > (1u << 24))
    throw UserError::bad_file(path.string(), "/scores and /soft must be two equal [layers, channels] tables");
  MaskFile masks;
  const auto sizes = std::vector<int64_t>{static_cast<int64_t>(shape.dims[0]), static_cast<int64_t>(shape.dims[1])};
  masks.scores_LF = at::empty(sizes, at::kFloat);
  masks.soft_LF = at::empty(sizes, at::kFloat);
  reader.read_all("/scores", Hdf5Type::f32, masks.scores_LF.mutable_data_ptr<float>(), masks.scores_LF.nbytes());
  reader.read_all("/soft", Hdf5Type::f32, masks.soft_LF.mutable_data_ptr<float>(), masks.soft_LF.nbytes());
  if (version == kAxisVersion) {
    const std::string name = reader.string_attribute("/", "axis");
    const std::optional<CutAxis> axis = find_axis(name);
    if (axis != CutAxis::heads && axis != CutAxis::layers)  // channels have the other version, dimensions no masks
      throw UserError::bad_file(path.string(), fmt::format("axis '{}', expected heads or layers", printable(name)));
    if (!row_of(*axis).per_layer && shape.dims[0] != 1)
      throw UserError::bad_file(
          path.string(), fmt::format("/scores has {} rows, and axis '{}' is one choice: 1", shape.dims[0], name));
    masks.axis = *axis;
  }
  masks.source_sha256 = reader.string_attribute("/", "source_sha256");
  masks.num_kept = static_cast<int64_t>(reader.unsigned_attribute("/", "num_kept"));
  const std::string epsilon = reader.string_attribute("/", "top_k_epsilon");
  if (std::from_chars(epsilon.data(), epsilon.data() + epsilon.size(), masks.epsilon).ec != std::errc())
    throw UserError::bad_file(path.string(), "top_k_epsilon is no number");
  masks.method = reader.string_attribute("/", "method");
  const std::string budget = reader.string_attribute("/", "budget");
  if (budget != "layer" && budget != "global")
    throw UserError::bad_file(path.string(), fmt::format("budget '{}', expected layer or global", printable(budget)));
  masks.global = budget == "global";
  if (masks.global && masks.axis != CutAxis::ffn)
    throw UserError::bad_file(path.string(), fmt::format("budget 'global' is of FFN channels alone, and axis is '{}'",
                                                         row_of(masks.axis).name));
  masks.kept.resize(static_cast<size_t>(sizes[0]));
  if (reader.shape("/kept").dims != std::vector<uint64_t>{shape.dims[0]})
    throw UserError::bad_file(path.string(), "/kept must hold one number a layer");
  reader.read_all("/kept", Hdf5Type::i64, masks.kept.data(), masks.kept.size() * sizeof(int64_t));
  for (size_t layer = 0; layer < masks.kept.size(); ++layer)
    if (masks.kept[layer] < 1 || masks.kept[layer] > sizes[1])
      throw UserError::bad_file(path.string(), fmt::format("layer {} keeps {} channels, expected 1 to {}", layer,
                                                           masks.kept[layer], sizes[1]));
  if (reader.string_attribute("/", "content_sha256") != content_sha256(masks))
    throw UserError::bad_file(path.string(), "damaged: its content has another hash");
  return masks;
}

}  // namespace coppice
