// A folder of named tensors: part-00000.h5 by the skeleton method (libhdf5 writes metadata, never tensor bytes) and a
// sealed manifest.json. Order on writing: part synced, manifest synced, folder synced, renamed. Order on reading: seal,
// file list, sizes, hashes, and only then a parser.
#include "src/checkpoint/tensor_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>

#include "src/base/errors.h"
#include "src/base/failpoint.h"
#include "src/base/files.h"
#include "src/base/hdf5.h"
#include "src/base/log.h"
#include "src/checkpoint/folder_commit.h"
#include "src/tensors/shape.h"

namespace coppice {

namespace fs = std::filesystem;

namespace {

constexpr int kVersion = 1;
constexpr const char* kPart = "part-00000.h5";
constexpr const char* kManifest = "manifest.json";

uint64_t file_bytes(const fs::path& path) {
  std::error_code error;
  const uint64_t bytes = fs::file_size(path, error);
  if (error) throw IoError(path.string(), "cannot read the size", error.value());
  return bytes;
}

/// False when there is nothing; IoError when the system does not say, which is no verdict on the file.
bool has_type(const fs::path& path, fs::file_type type) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(path, error);
  if (status.type() == fs::file_type::none) throw IoError(path.string(), "cannot be looked at", error.value());
  return status.type() == type;
}

std::vector<uint64_t> dims_of(const at::Tensor& tensor) { return {tensor.sizes().begin(), tensor.sizes().end()}; }

void check_named_tensor(const NamedTensor& tensor) {
  COPPICE_CHECK(tensor.value.defined() && tensor.value.scalar_type() == at::kFloat && tensor.value.is_contiguous() &&
                    tensor.value.device().is_cpu(),
                tensor.name + ": contiguous float32 on the CPU expected");
}

void write_part(const fs::path& path, const std::string& format, const std::vector<NamedTensor>& tensors) {
  std::vector<uint64_t> offsets;
  {
    Hdf5Writer skeleton(path);
    for (const NamedTensor& tensor : tensors) {
      check_named_tensor(tensor);
      skeleton.reserve_contiguous(tensor.name, Hdf5Type::f32, dims_of(tensor.value));
      skeleton.set_attribute(tensor.name, "dtype", "f32");
      if (tensor.name.starts_with("/optim/")) {  // where this slice lies in the whole tensor, for readers of another
                                                 // world size: here it is all of it
        skeleton.set_attribute(tensor.name, "shape", dims_of(tensor.value));
        skeleton.set_attribute(tensor.name, "begin", uint64_t{0});
      }
    }
    skeleton.set_attribute("/", "format", format);
    skeleton.set_attribute("/", "version", uint64_t{kVersion});
    for (const NamedTensor& tensor : tensors) offsets.push_back(skeleton.contiguous_offset(tensor.name));
    skeleton.close();
  }
  uint64_t end = file_bytes(path);
  for (size_t i = 0; i < tensors.size(); ++i) end = std::max(end, offsets[i] + tensors[i].value.nbytes());
  OutputFile file(path, OutputFile::Mode::existing);
  file.allocate(end);  // a full disk stops here, before one tensor byte
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].value.numel() == 0) continue;
    file.write_at(offsets[i],
                  {static_cast<const std::byte*>(tensors[i].value.const_data_ptr()), tensors[i].value.nbytes()});
  }
  file.sync();
  file.close();
}

void write_folder_once(const fs::path& folder, const std::string& format, const std::vector<NamedTensor>& tensors,
                       Json manifest) {
  const fs::path temporary = start_temporary_folder(folder);
  try {
    const fs::path part = temporary / kPart;
    write_part(part, format, tensors);
    manifest["format"] = format;
    manifest["version"] = kVersion;
    manifest["files"] = Json::array({{{"name", kPart}, {"bytes", file_bytes(part)}, {"sha256", sha256_file(part)}}});
    COPPICE_FAILPOINT("ckpt.before_manifest");
    OutputFile file(temporary / kManifest, OutputFile::Mode::create);
    file.write(seal(manifest));
    file.sync();
    file.close();
    COPPICE_FAILPOINT("ckpt.before_rename");
    commit_folder(temporary, folder);
    COPPICE_FAILPOINT("ckpt.after_rename");
  } catch (...) {
    discard_folder(temporary);  // its bytes would only keep a full disk full
    throw;
  }
}

/// Seal, exact file list, sizes; hashes too unless `sizes_only`.
Json verify_folder(const fs::path& folder, const std::string& format, bool sizes_only) {
  if (!has_type(folder, fs::file_type::directory)) throw UserError::bad_file(folder.string(), "no such folder");
  Json manifest = read_sealed(folder / kManifest, format, kVersion);
  const std::string where = (folder / kManifest).string();
  std::set<std::string> listed;
  for (const Json& entry : array_at(manifest, "files", where)) {
    const std::string name = string_at(entry, "name", where);
    check_leaf_name(name, where);
    if (name == kManifest || !listed.insert(name).second)
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
    if (name != kManifest && !listed.contains(name))
      throw UserError::bad_file(entry->path().string(), "not listed in the manifest");
  }
  if (error) throw IoError(folder.string(), "cannot be listed", error.value());
  return manifest;
}

/// Names, shapes and types must match exactly before one value is read.
void fill_tensors(const fs::path& part, const std::vector<NamedTensor>& into) {
  const Hdf5Reader reader(part);
  std::set<std::string> left;
  for (std::string& name : reader.datasets()) left.insert(std::move(name));
  for (const NamedTensor& tensor : into) {
    check_named_tensor(tensor);
    if (left.erase(tensor.name) == 0)
      throw UserError::bad_file(part.string(), tensor.name + ": missing, expected " + shape_text(tensor.value.sizes()));
    const Hdf5Shape found = reader.shape(tensor.name);
    if (found.type != Hdf5Type::f32 || found.dims != dims_of(tensor.value)) {
      const std::vector<int64_t> dims(found.dims.begin(), found.dims.end());
      throw UserError::bad_file(part.string(), fmt::format("{}: got {} {}, expected f32 {}", tensor.name,
                                                           found.type == Hdf5Type::f32 ? "f32" : "another type",
                                                           shape_text(dims), shape_text(tensor.value.sizes())));
    }
  }
  if (!left.empty())
    throw UserError::bad_file(part.string(), fmt::format("{}: not expected here ({} additional tensors)",
                                                         printable(*left.begin()), left.size()));
  for (const NamedTensor& tensor : into)
    if (tensor.value.numel() > 0)
      reader.read_all(tensor.name, Hdf5Type::f32, tensor.value.mutable_data_ptr(), tensor.value.nbytes());
}

}  // namespace

void write_tensor_folder(const fs::path& folder, const std::string& format, const std::vector<NamedTensor>& tensors,
                         Json facts) {
  try {
    write_folder_once(folder, format, tensors, facts);
  } catch (const IoError& error) {
    // A failed write or fsync means the data is lost: everything again from memory, once; never "fsync again".
    log_warning(fmt::format("writing {} failed and is tried once more: {}", folder.filename().string(), error.what()));
    write_folder_once(folder, format, tensors, std::move(facts));
  }
}

Json check_tensor_folder(const fs::path& folder, const std::string& format) {
  return verify_folder(folder, format, /*sizes_only=*/false);
}

Json read_tensor_folder(const fs::path& folder, const std::string& format, const std::vector<NamedTensor>& into) {
  Json manifest = check_tensor_folder(folder, format);
  const Json& files = manifest["files"];
  if (files.size() != 1 || files[0]["name"] != kPart)
    throw UserError::bad_file((folder / kManifest).string(),
                              fmt::format("{} parts, expected one named {}", files.size(), kPart));
  fill_tensors(folder / kPart, into);
  return manifest;
}

Json read_tensor_manifest(const fs::path& folder, const std::string& format) {
  return verify_folder(folder, format, /*sizes_only=*/true);
}

}  // namespace coppice
