// Writing: V18 format (checksummed metadata, no consistency flag), aligned data, early allocation, every close checked.
// A failure carries errno where the library's error stack tells it.
#include <fmt/format.h>

#include <algorithm>

#include "src/base/errors.h"
#include "src/base/hdf5_handles.h"

namespace coppice {
namespace {

void check(bool good, const std::filesystem::path& path, const std::string& what) {
  if (good) return;
  const Hdf5Failure failure = hdf5_failure();
  throw IoError(path.native(), failure.text.empty() ? what : what + ": " + failure.text, failure.error_number);
}

Hdf5Handle make_space(const std::vector<uint64_t>& dims) {
  const std::vector<hsize_t> sizes(dims.begin(), dims.end());
  return {
      dims.empty() ? H5Screate(H5S_SCALAR) : H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr),
      H5Sclose};
}

bool has_elements(const std::vector<uint64_t>& dims) { return std::ranges::find(dims, uint64_t{0}) == dims.end(); }

/// Objects carry no time stamps: equal content makes equal bytes.
bool without_times(hid_t creation) { return creation >= 0 && H5Pset_obj_track_times(creation, false) >= 0; }

/// Creates the groups above `name` that are not there yet.
void make_groups(hid_t file, const std::filesystem::path& path, const std::string& name) {
  for (size_t slash = name.find('/', 1); slash != std::string::npos; slash = name.find('/', slash + 1)) {
    const std::string group = name.substr(0, slash);
    const htri_t present = H5Lexists(file, group.c_str(), H5P_DEFAULT);
    if (present > 0) continue;
    Hdf5Handle creation(H5Pcreate(H5P_GROUP_CREATE), H5Pclose);
    check(present == 0 && without_times(creation), path, "cannot prepare groups");
    Hdf5Handle made(H5Gcreate2(file, group.c_str(), H5P_DEFAULT, creation, H5P_DEFAULT), H5Gclose);
    check(made.valid() && made.close(), path, fmt::format("cannot create group {}", group));
  }
}

/// Creates a dataset and the groups above it. `creation` must allocate early.
Hdf5Handle make_dataset(hid_t file, const std::filesystem::path& path, const std::string& name, Hdf5Type type,
                        const std::vector<uint64_t>& dims, hid_t creation) {
  make_groups(file, path, name);
  check(without_times(creation), path, fmt::format("cannot prepare dataset {}", name));
  Hdf5Handle space = make_space(dims);
  check(space.valid(), path, fmt::format("dataset {}: no such shape", name));
  Hdf5Handle dataset(H5Dcreate2(file, name.c_str(), hdf5_type(type), space, H5P_DEFAULT, creation, H5P_DEFAULT),
                     H5Dclose);
  check(dataset.valid(), path, fmt::format("cannot create dataset {}", name));
  return dataset;
}

/// `dims` empty: a single value.
void write_attribute(hid_t file, const std::filesystem::path& path, const std::string& object, const char* name,
                     hid_t type, const void* value, const std::vector<uint64_t>& dims = {}) {
  const std::string what = fmt::format("cannot write attribute {} of {}", name, object);
  Hdf5Handle owner(H5Oopen(file, object.c_str(), H5P_DEFAULT), H5Oclose);
  check(owner.valid(), path, what);
  const htri_t present = H5Aexists(owner, name);
  check(present >= 0 && (present == 0 || H5Adelete(owner, name) >= 0), path, what);
  Hdf5Handle space = make_space(dims);
  Hdf5Handle attribute(H5Acreate2(owner, name, type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  check(attribute.valid() && H5Awrite(attribute, type, value) >= 0, path, what);
  check(attribute.close(), path, what);
  check(owner.close(), path, what);
}

}  // namespace

Hdf5Writer::Hdf5Writer(std::filesystem::path path, uint64_t alignment) : path_(std::move(path)) {
  prepare_hdf5();
  Hdf5Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose), creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
  // No locks: the name is not final yet and nobody else's, and some network file systems cannot lock.
  const bool prepared = access.valid() && H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18) >= 0 &&
                        H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) >= 0 &&
                        H5Pset_alignment(access, alignment, alignment) >= 0 &&
                        H5Pset_file_locking(access, false, true) >= 0;
  check(prepared && without_times(creation), path_, "cannot prepare the file");
  file_ = H5Fcreate(path_.c_str(), H5F_ACC_TRUNC, creation, access);
  check(file_ >= 0, path_, "cannot be created");
}

Hdf5Writer::~Hdf5Writer() {
  if (file_ >= 0) H5Fclose(file_);
}

void Hdf5Writer::write_chunked(const std::string& dataset, Hdf5Type type, const std::vector<uint64_t>& dims,
                               uint64_t chunk_rows, const void* data, Packing packing) {
  make_chunked(dataset, type, dims, chunk_rows, packing);
  if (has_elements(dims)) write_rows(dataset, type, 0, dims[0], data);
}

void Hdf5Writer::make_chunked(const std::string& dataset, Hdf5Type type, const std::vector<uint64_t>& dims,
                              uint64_t chunk_rows, Packing packing) {
  prepare_hdf5();
  COPPICE_CHECK(!dims.empty() && chunk_rows > 0, "a chunked dataset has rows");
  Hdf5Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  bool prepared = creation.valid() && H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY) >= 0;
  if (prepared && has_elements(dims)) {  // an empty dataset has no chunks: it stays contiguous
    std::vector<hsize_t> chunk(dims.begin(), dims.end());
    chunk[0] = std::min(chunk_rows, dims[0]);
    prepared = H5Pset_chunk(creation, static_cast<int>(chunk.size()), chunk.data()) >= 0;
    if (packing == Packing::deflate)
      prepared = prepared && H5Pset_shuffle(creation) >= 0 && H5Pset_deflate(creation, 4) >= 0;
    prepared = prepared && H5Pset_fletcher32(creation) >= 0;
  }
  check(prepared, path_, fmt::format("cannot prepare dataset {}", dataset));
  Hdf5Handle made = make_dataset(file_, path_, dataset, type, dims, creation);
  check(made.close(), path_, fmt::format("cannot write dataset {}", dataset));
}

void Hdf5Writer::write_rows(const std::string& dataset, Hdf5Type type, uint64_t begin, uint64_t count,
                            const void* data) {
  prepare_hdf5();
  const std::string what = fmt::format("cannot write dataset {}", dataset);
  Hdf5Handle opened(H5Dopen2(file_, dataset.c_str(), H5P_DEFAULT), H5Dclose);
  check(opened.valid(), path_, what);
  Hdf5Handle space(H5Dget_space(opened), H5Sclose);
  const int rank = space.valid() ? H5Sget_simple_extent_ndims(space) : 0;
  check(rank > 0, path_, what);
  std::vector<hsize_t> dims(static_cast<size_t>(rank)), start(dims.size(), 0);
  check(H5Sget_simple_extent_dims(space, dims.data(), nullptr) == rank, path_, what);
  COPPICE_CHECK(begin <= dims[0] && count <= dims[0] - begin, "rows that the dataset does not have");
  start[0] = begin;
  dims[0] = count;
  Hdf5Handle memory(H5Screate_simple(rank, dims.data(), nullptr), H5Sclose);
  const bool selected =
      memory.valid() && H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, dims.data(), nullptr) >= 0;
  check(selected && H5Dwrite(opened, hdf5_type(type), memory, space, H5P_DEFAULT, data) >= 0, path_, what);
  check(opened.close(), path_, what);
}

void Hdf5Writer::reserve_contiguous(const std::string& dataset, Hdf5Type type, const std::vector<uint64_t>& dims) {
  prepare_hdf5();
  Hdf5Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  const bool prepared = creation.valid() && H5Pset_layout(creation, H5D_CONTIGUOUS) >= 0 &&
                        H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY) >= 0 &&
                        H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER) >= 0;
  check(prepared, path_, fmt::format("cannot prepare dataset {}", dataset));
  Hdf5Handle made = make_dataset(file_, path_, dataset, type, dims, creation);
  check(made.close(), path_, fmt::format("cannot reserve dataset {}", dataset));
}

void Hdf5Writer::set_attribute(const std::string& object, const char* name, std::string_view value) {
  prepare_hdf5();
  Hdf5Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  const bool prepared = type.valid() && H5Tset_size(type, std::max<size_t>(value.size(), 1)) >= 0 &&
                        H5Tset_strpad(type, H5T_STR_NULLPAD) >= 0 && H5Tset_cset(type, H5T_CSET_UTF8) >= 0;
  check(prepared, path_, fmt::format("cannot prepare attribute {}", name));
  const std::string text = value.empty() ? std::string(1, '\0') : std::string(value);
  write_attribute(file_, path_, object, name, type, text.data());
}

void Hdf5Writer::set_attribute(const std::string& object, const char* name, uint64_t value) {
  prepare_hdf5();
  write_attribute(file_, path_, object, name, H5T_STD_U64LE, &value);
}

void Hdf5Writer::set_attribute(const std::string& object, const char* name, const std::vector<uint64_t>& values) {
  prepare_hdf5();
  write_attribute(file_, path_, object, name, H5T_STD_U64LE, values.data(), {values.size()});
}

uint64_t Hdf5Writer::contiguous_offset(const std::string& dataset) const {
  prepare_hdf5();
  Hdf5Handle opened(H5Dopen2(file_, dataset.c_str(), H5P_DEFAULT), H5Dclose);
  check(opened.valid(), path_, fmt::format("no dataset {}", dataset));
  if (H5Dget_storage_size(opened) == 0) return 0;
  const haddr_t offset = H5Dget_offset(opened);
  check(offset != HADDR_UNDEF, path_, fmt::format("dataset {} has no place yet", dataset));
  return offset;
}

void Hdf5Writer::close() {
  prepare_hdf5();
  COPPICE_CHECK(file_ >= 0, "closed twice");
  // A failed flush leaves dirty metadata that the close would try again; both verdicts count, the first one speaks.
  const bool flushed = H5Fflush(file_, H5F_SCOPE_LOCAL) >= 0;
  const Hdf5Failure failure = flushed ? Hdf5Failure{} : hdf5_failure();
  const bool closed = H5Fclose(std::exchange(file_, -1)) >= 0;
  if (!flushed)
    throw IoError(path_.native(), failure.text.empty() ? "cannot be written" : "cannot be written: " + failure.text,
                  failure.error_number);
  check(closed, path_, "cannot be closed");
}

}  // namespace coppice
