// Order on reading: seal, file list, sizes, hashes, and only then a parser.
#include "src/checkpoint/tensor_folder.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>
#include <system_error>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/hdf5.h"
#include "src/tensors/shape.h"

namespace coppice {

namespace fs = std::filesystem;

uint64_t file_bytes(const fs::path& path) {
  std::error_code error;
  const uint64_t bytes = fs::file_size(path, error);
  if (error) throw IoError(path.string(), "cannot read the size", error.value());
  return bytes;
}

void check_tensor(const std::string& name, const at::Tensor& value) {
  COPPICE_CHECK(value.defined() && value.scalar_type() == at::kFloat && value.is_contiguous(),
                name + ": contiguous float32 expected");
}

namespace {

/// False when there is nothing; IoError when the system does not say, which is no verdict on the file.
bool has_type(const fs::path& path, fs::file_type type) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(path, error);
  if (status.type() == fs::file_type::none) throw IoError(path.string(), "cannot be looked at", error.value());
  return status.type() == type;
}

/// Seal, exact file list, sizes; hashes too unless `sizes_only`.
Json verify_folder(const fs::path& folder, const std::string& format, bool sizes_only) {
  if (!has_type(folder, fs::file_type::directory)) throw UserError::bad_file(folder.string(), "no such folder");
  Json manifest = read_sealed(folder / kTensorManifest, format, kTensorFolderVersion);
  const std::string where = (folder / kTensorManifest).string();
  std::set<std::string> listed;
  for (const Json& entry : array_at(manifest, "files", where)) {
    const std::string name = string_at(entry, "name", where);
    check_leaf_name(name, where);
    if (name == kTensorManifest || !listed.insert(name).second)
      throw UserError::bad_file(where, "file '" + printable(name) + "' is listed twice");
    const fs::path path = folder / name;
    if (!has_type(path, fs::file_type::regular))
      throw UserError::bad_file(path.string(), "missing, though the manifest lists it");
    const uint64_t expected = unsigned_at(entry, "bytes", where), found = file_bytes(path);
    if (found != expected)
      throw UserError::bad_file(path.string(), fmt::format("{} bytes, expected {}", found, expected));
    if (sizes_only) continue;
    const std::string expected_hash = string_at(entry, "sha256", where), found_hash = sha256_file(path);
    if (found_hash != expected_hash)
      throw UserError::bad_file(path.string(),
                                fmt::format("SHA-256 {}, expected {}", found_hash, printable(expected_hash)));
  }
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name != kTensorManifest && !listed.contains(name))
      throw UserError::bad_file(entry->path().string(), "not listed in the manifest");
  }
  if (error) throw IoError(folder.string(), "cannot be listed", error.value());
  return manifest;
}

}  // namespace

std::string tensor_part_name(size_t part) { return fmt::format("part-{:05}.h5", part); }

TensorFolder::TensorFolder(fs::path folder, const std::string& format)
    : folder_(std::move(folder)), manifest_(check_tensor_folder(folder_, format)) {
  const Json& files = manifest_["files"];
  for (size_t part = 0; part < files.size(); ++part) {
    const std::string name = tensor_part_name(part);
    if (files[part]["name"] != name)
      throw UserError::bad_file((folder_ / kTensorManifest).string(),
                                fmt::format("part {} of {} is '{}', expected {}", part, files.size(),
                                            printable(files[part]["name"].get<std::string>()), name));
    parts_.push_back(std::make_unique<Hdf5Reader>(folder_ / name));
    for (const std::string& dataset : parts_.back()->datasets())
      if (const auto [first, is_new] = part_of_.emplace(dataset, part); !is_new)
        throw UserError::bad_file((folder_ / name).string(), fmt::format("{} stands in {} as well", printable(dataset),
                                                                         tensor_part_name(first->second)));
  }
  if (parts_.empty()) throw UserError::bad_file((folder_ / kTensorManifest).string(), "0 parts, expected one at least");
}

std::vector<std::string> TensorFolder::names() const {
  std::vector<std::string> names;
  for (const auto& [name, part] : part_of_) names.push_back(name);
  return names;
}

fs::path TensorFolder::part_of(const std::string& name) const {
  const auto found = part_of_.find(name);
  return folder_ / tensor_part_name(found == part_of_.end() ? 0 : found->second);
}

const Hdf5Reader& TensorFolder::reader_of(const std::string& name) const {
  const auto found = part_of_.find(name);
  if (found == part_of_.end()) throw UserError::bad_file(part_of(name).string(), name + ": missing");
  return *parts_[found->second];
}

std::vector<int64_t> TensorFolder::shape(const std::string& name) const {
  const Hdf5Shape found = reader_of(name).shape(name);
  const std::vector<int64_t> shape(found.dims.begin(), found.dims.end());
  if (found.type != Hdf5Type::f32)
    throw UserError::bad_file(part_of(name).string(),
                              fmt::format("{}: got another type of shape {}, expected f32", name, shape_text(shape)));
  return shape;
}

void TensorFolder::read(const std::string& name, int64_t first_row, const at::Tensor& into) const {
  check_tensor(name, into);
  if (!into.is_cpu()) {
    const at::Tensor host = at::empty(into.sizes(), at::kFloat);
    read(name, first_row, host);
    into.copy_(host);
    return;
  }
  const std::vector<int64_t> whole = shape(name);
  if (first_row == 0 && into.sizes() == whole) {
    if (into.numel() > 0) reader_of(name).read_all(name, Hdf5Type::f32, into.mutable_data_ptr(), into.nbytes());
    return;
  }
  const at::IntArrayRef rows = into.sizes();
  if (rows.empty() || rows.size() != whole.size() || rows.slice(1) != at::IntArrayRef(whole).slice(1) ||
      first_row < 0 || rows[0] > whole[0] - first_row)
    throw UserError::bad_file(part_of(name).string(), fmt::format("{}: got f32 {}, expected {} from row {} on", name,
                                                                  shape_text(whole), shape_text(rows), first_row));
  if (into.numel() > 0)
    reader_of(name).read(name, Hdf5Type::f32, static_cast<uint64_t>(first_row), static_cast<uint64_t>(rows[0]),
                         into.mutable_data_ptr());
}

Json read_tensor_folder(const fs::path& folder, const std::string& format, const std::vector<NamedTensor>& into) {
  const TensorFolder tensors(folder, format);
  // Names, shapes and types must match exactly before one value is read.
  std::set<std::string> left;
  for (std::string& name : tensors.names()) left.insert(std::move(name));
  for (const NamedTensor& tensor : into) {
    check_tensor(tensor.name, tensor.value);
    const std::string where = tensors.part_of(tensor.name).string();
    if (left.erase(tensor.name) == 0)
      throw UserError::bad_file(where, tensor.name + ": missing, expected " + shape_text(tensor.value.sizes()));
    if (const std::vector<int64_t> found = tensors.shape(tensor.name); tensor.value.sizes() != found)
      throw UserError::bad_file(where, fmt::format("{}: got f32 {}, expected f32 {}", tensor.name, shape_text(found),
                                                   shape_text(tensor.value.sizes())));
  }
  if (!left.empty())
    throw UserError::bad_file(
        tensors.part_of(*left.begin()).string(),
        fmt::format("{}: not expected here ({} additional tensors)", printable(*left.begin()), left.size()));
  for (const NamedTensor& tensor : into) tensors.read(tensor.name, 0, tensor.value);
  return tensors.manifest();
}

Json check_tensor_folder(const fs::path& folder, const std::string& format) {
  return verify_folder(folder, format, /*sizes_only=*/false);
}

Json read_tensor_manifest(const fs::path& folder, const std::string& format) {
  return verify_folder(folder, format, /*sizes_only=*/true);
}

}  // namespace coppice
