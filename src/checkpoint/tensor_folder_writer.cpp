// part-00000.h5, part-00001.h5, ... by the skeleton method: libhdf5 writes metadata, never tensor bytes. Each part is
// synced, then the manifest, then the folder, which is renamed.
#include "src/checkpoint/tensor_folder_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <future>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

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

/// One part under way: which of the source's entries, and where they lie.
struct Skeleton {
  std::vector<size_t> entries;
  std::vector<uint64_t> offsets;
};

Skeleton write_skeleton(const fs::path& path, const std::string& format, const TensorSource& source,
                        std::vector<size_t> entries) {
  Skeleton part{.entries = std::move(entries)};
  Hdf5Writer skeleton(path);
  for (const size_t i : part.entries) {
    const TensorSource::Entry& entry = source.entries[i];
    skeleton.reserve_contiguous(entry.name, Hdf5Type::f32, {entry.shape.begin(), entry.shape.end()});
    skeleton.set_attribute(entry.name, "dtype", "f32");
  }
  skeleton.set_attribute("/", "format", format);
  skeleton.set_attribute("/", "version", uint64_t{kTensorFolderVersion});
  for (const size_t i : part.entries) part.offsets.push_back(skeleton.contiguous_offset(source.entries[i].name));
  skeleton.close();
  return part;
}

/// Writes a part; returns its entry in the manifest. Its bytes are hashed while the disk takes them.
Json write_part(const fs::path& path, const std::string& format, const TensorSource& source,
                std::vector<size_t> entries) {
  const Skeleton part = write_skeleton(path, format, source, std::move(entries));
  uint64_t end = file_bytes(path);
  for (size_t i = 0; i < part.entries.size(); ++i)
    end = std::max(end, part.offsets[i] + bytes_of(source.entries[part.entries[i]]));
  OutputFile file(path, OutputFile::Mode::existing);
  file.allocate(end);  // a full disk stops here, before one tensor byte
  for (size_t i = 0; i < part.entries.size(); ++i) {
    const TensorSource::Entry& entry = source.entries[part.entries[i]];
    const at::Tensor value = source.value(part.entries[i]).cpu();
    check_tensor(entry.name, value);
    COPPICE_CHECK(value.sizes() == entry.shape, fmt::format("{}: got {}, {} was announced", entry.name,
                                                            shape_text(value.sizes()), shape_text(entry.shape)));
    if (value.numel() > 0)
      file.write_at(part.offsets[i], {static_cast<const std::byte*>(value.const_data_ptr()), value.nbytes()});
  }
  std::future<std::string> sha256 = std::async(std::launch::async, sha256_file, path);
  file.sync();
  file.close();
  return {{"name", path.filename().string()}, {"bytes", file_bytes(path)}, {"sha256", sha256.get()}};
}

void write_folder_once(const fs::path& folder, const std::string& format, const TensorSource& source, Json manifest,
                       uint64_t part_bytes) {
  const fs::path temporary = start_temporary_folder(folder);
  try {
    Json files = Json::array();
    for (std::vector<size_t>& entries : divide_into_parts(source.entries, part_bytes)) {
      files.push_back(write_part(temporary / tensor_part_name(files.size()), format, source, std::move(entries)));
      COPPICE_FAILPOINT("ckpt.after_part");
    }
    manifest["format"] = format;
    manifest["version"] = kTensorFolderVersion;
    manifest["files"] = std::move(files);
    COPPICE_FAILPOINT("ckpt.before_manifest");
    OutputFile file(temporary / kTensorManifest, OutputFile::Mode::create);
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

}  // namespace

uint64_t bytes_of(const TensorSource::Entry& entry) {
  uint64_t bytes = sizeof(float);
  for (const int64_t size : entry.shape) bytes *= static_cast<uint64_t>(size);
  return bytes;
}

std::vector<std::vector<size_t>> divide_into_parts(const std::vector<TensorSource::Entry>& entries,
                                                   uint64_t part_bytes) {
  std::map<int64_t, uint64_t> unit_bytes;
  for (const TensorSource::Entry& entry : entries)
    if (entry.unit != kStageUnit) unit_bytes[entry.unit] += bytes_of(entry);
  std::map<int64_t, size_t> part_of;
  size_t part = 0;
  uint64_t filled = 0;
  for (const auto& [unit, bytes] : unit_bytes) {
    if (filled >= part_bytes) {
      ++part;
      filled = 0;
    }
    part_of[unit] = part;
    filled += bytes;
  }
  part_of[kStageUnit] = part == 0 ? 0 : part + 1;
  std::vector<std::vector<size_t>> parts(part + 1);
  for (size_t i = 0; i < entries.size(); ++i) {
    const size_t into = part_of.at(entries[i].unit);
    if (into == parts.size()) parts.emplace_back();
    parts[into].push_back(i);
  }
  return parts;
}

void write_tensor_folder(const fs::path& folder, const std::string& format, const TensorSource& source, Json facts,
                         uint64_t part_bytes) {
  try {
    write_folder_once(folder, format, source, facts, part_bytes);
  } catch (const IoError& error) {
    // A failed write or fsync means the data is lost: everything again from memory, once; never "fsync again".
    log_warning(fmt::format("writing {} failed and is tried once more: {}", folder.filename().string(), error.what()));
    write_folder_once(folder, format, source, std::move(facts), part_bytes);
  }
}

TensorSource source_of(std::vector<NamedTensor> tensors) {
  TensorSource source;
  for (const NamedTensor& tensor : tensors) {
    check_tensor(tensor.name, tensor.value);
    source.entries.push_back({.name = tensor.name, .shape = tensor.value.sizes().vec()});
  }
  source.value = [tensors = std::move(tensors)](size_t i) { return tensors[i].value; };
  return source;
}

TensorSource join(std::vector<TensorSource> sources) {
  TensorSource all;
  std::vector<std::pair<size_t, size_t>> from;  // which source, and its entry
  for (size_t i = 0; i < sources.size(); ++i)
    for (size_t entry = 0; entry < sources[i].entries.size(); ++entry) {
      all.entries.push_back(sources[i].entries[entry]);
      from.emplace_back(i, entry);
    }
  all.value = [from = std::move(from), sources = std::move(sources)](size_t entry) {
    return sources[from[entry].first].value(from[entry].second);
  };
  return all;
}

std::vector<NamedTensor> tensors_of(const TensorSource& source) {
  std::vector<NamedTensor> tensors;
  for (size_t i = 0; i < source.entries.size(); ++i) tensors.push_back({source.entries[i].name, source.value(i)});
  return tensors;
}

void write_tensor_folder(const fs::path& folder, const std::string& format, const std::vector<NamedTensor>& tensors,
                         Json facts) {
  write_tensor_folder(folder, format, source_of(tensors), std::move(facts));
}

}  // namespace coppice
