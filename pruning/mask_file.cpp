#include "pruning/mask_file.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/hdf5.h"

namespace coppice {

void save_masks(const std::filesystem::path& path, const MaskFile& masks) {
  const std::filesystem::path temporary = temporary_path(path);
  const auto dims = std::vector<uint64_t>{static_cast<uint64_t>(masks.scores_LF.size(0)), static_cast<uint64_t>(masks.scores_LF.size(1))};
  const at::Tensor scores = masks.scores_LF.detach().contiguous(), soft = masks.soft_LF.detach().contiguous();
  Hdf5Writer writer(temporary);
  writer.write_chunked("/scores", Hdf5Type::f32, dims, dims[0], scores.const_data_ptr<float>());
  writer.write_chunked("/soft", Hdf5Type::f32, dims, dims[0], soft.const_data_ptr<float>());
  writer.set_attribute("/", "format", "coppice.masks");
  writer.set_attribute("/", "version", uint64_t{1});
  writer.set_attribute("/", "source_sha256", masks.source_sha256);
  writer.set_attribute("/", "num_kept", static_cast<uint64_t>(masks.num_kept));
  writer.set_attribute("/", "top_k_epsilon", fmt::format("{}", masks.epsilon));
  writer.close();
  OutputFile file(temporary, OutputFile::Mode::existing);
  file.sync();
  file.close();
  commit_rename(temporary, path);
}

MaskFile load_masks(const std::filesystem::path& path) {
  const Hdf5Reader reader(path);
  if (reader.string_attribute("/", "format") != "coppice.masks") throw UserError::bad_file(path.string(), "not a mask file (format is not coppice.masks)");
  const uint64_t version = reader.unsigned_attribute("/", "version");
  if (version != 1) throw UserError::bad_file(path.string(), fmt::format("mask file version {}, this program reads 1", version));
  const Hdf5Shape shape = reader.shape("/scores");
  if (shape.dims.size() != 2 || shape.dims != reader.shape("/soft").dims || shape.dims[0] > 4096 || shape.dims[1] > (1u << 24))
    throw UserError::bad_file(path.string(), "/scores and /soft must be two equal [layers, channels] tables");
  MaskFile masks;
  const auto sizes = std::vector<int64_t>{static_cast<int64_t>(shape.dims[0]), static_cast<int64_t>(shape.dims[1])};
  masks.scores_LF = at::empty(sizes, at::kFloat);
  masks.soft_LF = at::empty(sizes, at::kFloat);
  reader.read_all("/scores", Hdf5Type::f32, masks.scores_LF.mutable_data_ptr<float>(), masks.scores_LF.nbytes());
  reader.read_all("/soft", Hdf5Type::f32, masks.soft_LF.mutable_data_ptr<float>(), masks.soft_LF.nbytes());
  masks.source_sha256 = reader.string_attribute("/", "source_sha256");
  masks.num_kept = static_cast<int64_t>(reader.unsigned_attribute("/", "num_kept"));
  masks.epsilon = std::stod(reader.string_attribute("/", "top_k_epsilon"));
  return masks;
}

}  // namespace coppice
