// Reading: links, storage, filters, type and size of a dataset are looked at before its first byte is read; then it
// stays open with a chunk cache that holds several chunks (chunks larger than the cache would be decoded again for
// every row).
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "src/base/checked.h"
#include "src/base/errors.h"
#include "src/base/hdf5_handles.h"

namespace coppice {
namespace {

constexpr size_t kCacheSlots = 1009, kCacheBytes = size_t{8} << 20;
constexpr double kCachePreemption = 0.75;
constexpr uint64_t kUnquestionedBytes = uint64_t{4} << 30,
                   kMaxRatio = 1000;  // declared bytes: up to 4 GiB, or 1000 per stored byte
constexpr uint64_t kMaxCompactBytes = 64 << 10, kMaxAttributeBytes = 64 << 10;
constexpr size_t kMaxDepth = 16, kMaxObjects = 200'000;
constexpr Hdf5Type kTypes[] = {Hdf5Type::f32, Hdf5Type::f16, Hdf5Type::u8,  Hdf5Type::u16,
                               Hdf5Type::u32, Hdf5Type::u64, Hdf5Type::i32, Hdf5Type::i64};

UserError refuse(const std::filesystem::path& path, std::string_view object, const std::string& why) {
  return UserError::bad_file(path.native(), fmt::format("{}: {}", printable(object), why));
}

void check(bool good, const std::filesystem::path& path, std::string_view object, const char* what) {
  if (good) return;
  const Hdf5Failure failure = hdf5_failure();
  for (const int system : {EIO, EACCES, EMFILE, ENFILE, ENOMEM})  // says nothing about the file
    if (failure.error_number == system)
      throw IoError(path.native(), fmt::format("{}: {}", printable(object), what), system);
  throw refuse(path, object,
               fmt::format("{}: {}", what, failure.text.empty() ? "the file cannot be read" : failure.text));
}

enum class Kind { real, natural, integer };  // floating point, unsigned, signed

Kind kind_of(Hdf5Type type) {
  if (type == Hdf5Type::f32 || type == Hdf5Type::f16) return Kind::real;
  return type == Hdf5Type::i32 || type == Hdf5Type::i64 ? Kind::integer : Kind::natural;
}

/// True when every value of `from` is a value of `to`.
bool keeps_values(Hdf5Type from, Hdf5Type to) {
  if (from == to) return true;
  if (kind_of(from) == kind_of(to)) return size_of(from) < size_of(to);
  return kind_of(from) == Kind::natural && kind_of(to) == Kind::integer && size_of(from) < size_of(to);
}

uint64_t num_elements(const std::vector<uint64_t>& dims, const std::filesystem::path& path) {
  uint64_t count = 1;
  for (const uint64_t dim : dims) count = checked_multiply(count, dim, path.native());
  return count;
}

/// The dataset's element type; everything but the eight plain ones is refused.
Hdf5Type element_type(hid_t dataset, const std::filesystem::path& path, const std::string& name) {
  Hdf5Handle stored(H5Dget_type(dataset), H5Tclose);
  check(stored.valid(), path, name, "no type");
  if (H5Tcommitted(stored) > 0) throw refuse(path, name, "a committed type is not read");
  for (const Hdf5Type type : kTypes)
    if (H5Tequal(stored, hdf5_type(type)) > 0) return type;
  if (H5Tdetect_class(stored, H5T_VLEN) > 0 || H5Tis_variable_str(stored) > 0)
    throw refuse(path, name, "a variable-length type is not read");
  throw refuse(path, name, "its type is none of f32, f16, u8, u16, u32, u64, i32, i64 (little-endian)");
}

void check_storage(hid_t dataset, const std::filesystem::path& path, const std::string& name, uint64_t declared_bytes) {
  Hdf5Handle creation(H5Dget_create_plist(dataset), H5Pclose);
  check(creation.valid(), path, name, "no creation properties");
  if (H5Pget_external_count(creation) != 0) throw refuse(path, name, "external storage is not read");
  const H5D_layout_t layout = H5Pget_layout(creation);
  if (layout == H5D_VIRTUAL) throw refuse(path, name, "a virtual dataset is not read");
  if (layout != H5D_CONTIGUOUS && layout != H5D_CHUNKED && layout != H5D_COMPACT)
    throw refuse(path, name, "unknown storage layout");
  if (layout == H5D_COMPACT && declared_bytes > kMaxCompactBytes)
    throw refuse(path, name, "compact storage above 64 KiB");
  const int num_filters = H5Pget_nfilters(creation);
  check(num_filters >= 0, path, name, "no filter list");
  for (int i = 0; i < num_filters; ++i) {
    unsigned flags = 0, config = 0;
    size_t values = 0;
    const H5Z_filter_t filter =
        H5Pget_filter2(creation, static_cast<unsigned>(i), &flags, &values, nullptr, 0, nullptr, &config);
    if (filter != H5Z_FILTER_FLETCHER32 && filter != H5Z_FILTER_SHUFFLE && filter != H5Z_FILTER_DEFLATE)
      throw refuse(
          path, name,
          fmt::format("filter {} is not read, only fletcher32, shuffle and deflate", static_cast<int>(filter)));
  }
  const uint64_t stored_bytes = H5Dget_storage_size(dataset);
  if (declared_bytes > kUnquestionedBytes && declared_bytes / kMaxRatio > stored_bytes)
    throw refuse(path, name, fmt::format("declares {} bytes, but stores {}", declared_bytes, stored_bytes));
}

extern "C" herr_t collect_name(hid_t, const char* name, const H5L_info_t*, void* data) {
  auto& names = *static_cast<std::vector<std::string>*>(data);
  if (names.size() > kMaxObjects) return 1;  // stops; the caller sees that there are too many
  names.emplace_back(name);
  return 0;
}

}  // namespace

Hdf5Reader::Hdf5Reader(std::filesystem::path path) : path_(std::move(path)) {
  prepare_hdf5();
  std::error_code error;
  if (!std::filesystem::is_regular_file(path_, error))
    throw UserError::bad_file(path_.native(), error ? error.message() : "is not a regular file");
  Hdf5Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  const bool prepared = access.valid() && H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) >= 0 &&
                        H5Pset_file_locking(access, false, true) >= 0;
  check(prepared, path_, "/", "cannot prepare");
  file_ = H5Fopen(path_.c_str(), H5F_ACC_RDONLY, access);
  check(file_ >= 0, path_, "/", "cannot be opened as HDF5");
}

Hdf5Reader::~Hdf5Reader() {
  for (const auto& [name, dataset] : open_) H5Dclose(dataset.id);
  if (file_ >= 0) H5Fclose(file_);
}

/// Every part of the path must be a hard link: other kinds can lead out of the file.
void Hdf5Reader::check_links(const std::string& object) const {
  for (size_t end = object.find('/', 1); object != "/"; end = object.find('/', end + 1)) {
    const std::string part = object.substr(0, end);
    if (H5Lexists(file_, part.c_str(), H5P_DEFAULT) <= 0) throw refuse(path_, part, "is missing");
    H5L_info_t info = {};
    check(H5Lget_info(file_, part.c_str(), &info, H5P_DEFAULT) >= 0, path_, part, "no link information");
    if (info.type == H5L_TYPE_SOFT) throw refuse(path_, part, "a soft link is not followed");
    if (info.type == H5L_TYPE_EXTERNAL) throw refuse(path_, part, "an external link is not followed");
    if (info.type != H5L_TYPE_HARD) throw refuse(path_, part, "a user-defined link is not followed");
    if (end == std::string::npos) return;
  }
}

bool Hdf5Reader::has(const std::string& dataset) const {
  prepare_hdf5();
  const std::lock_guard lock(guard_);
  for (size_t end = dataset.find('/', 1);; end = dataset.find('/', end + 1)) {
    const std::string part = dataset.substr(0, end);
    if (H5Lexists(file_, part.c_str(), H5P_DEFAULT) <= 0) return false;
    if (end == std::string::npos) return true;
  }
}

const Hdf5Reader::Dataset& Hdf5Reader::dataset(const std::string& name) const {
  if (const auto known = open_.find(name); known != open_.end()) return known->second;
  check_links(name);
  H5O_info_t info = {};
  check(H5Oget_info_by_name2(file_, name.c_str(), &info, H5O_INFO_BASIC, H5P_DEFAULT) >= 0, path_, name, "no object");
  if (info.type != H5O_TYPE_DATASET) throw refuse(path_, name, "is not a dataset");
  Hdf5Handle access(H5Pcreate(H5P_DATASET_ACCESS), H5Pclose);
  check(access.valid() && H5Pset_chunk_cache(access, kCacheSlots, kCacheBytes, kCachePreemption) >= 0, path_, name,
        "cannot prepare");
  Hdf5Handle opened(H5Dopen2(file_, name.c_str(), access), H5Dclose);
  check(opened.valid(), path_, name, "cannot be opened");

  Dataset found;
  Hdf5Handle space(H5Dget_space(opened), H5Sclose);
  check(space.valid(), path_, name, "no shape");
  const H5S_class_t space_class = H5Sget_simple_extent_type(space);
  if (space_class != H5S_SIMPLE && space_class != H5S_SCALAR) throw refuse(path_, name, "has no shape");
  std::vector<hsize_t> sizes(H5S_MAX_RANK);
  const int rank = H5Sget_simple_extent_dims(space, sizes.data(), nullptr);
  check(rank >= 0, path_, name, "no shape");
  found.shape.dims.assign(sizes.begin(), sizes.begin() + rank);
  found.shape.type = element_type(opened, path_, name);
  check_storage(opened, path_, name,
                checked_multiply(num_elements(found.shape.dims, path_), size_of(found.shape.type), path_.native()));
  found.id = opened.release();
  return open_.emplace(name, std::move(found)).first->second;
}

Hdf5Shape Hdf5Reader::shape(const std::string& name) const {
  prepare_hdf5();
  const std::lock_guard lock(guard_);
  return dataset(name).shape;
}

std::vector<std::string> Hdf5Reader::datasets() const {
  prepare_hdf5();
  const std::lock_guard lock(guard_);
  struct Group {
    std::string prefix;  // ends with '/'
    size_t depth;
  };
  std::vector<std::string> found;
  std::vector<Group> open = {{"/", 0}};
  std::set<haddr_t> seen;  // groups by address: hard links may form a cycle
  size_t num_objects = 0;
  while (!open.empty()) {
    const Group group = open.back();
    open.pop_back();
    std::vector<std::string> names;
    check(H5Literate_by_name(file_, group.prefix.c_str(), H5_INDEX_NAME, H5_ITER_NATIVE, nullptr, collect_name, &names,
                             H5P_DEFAULT) >= 0,
          path_, group.prefix, "cannot be listed");
    num_objects += names.size();
    if (num_objects > kMaxObjects) throw refuse(path_, group.prefix, fmt::format("more than {} objects", kMaxObjects));
    for (const std::string& leaf : names) {
      if (printable(leaf) != leaf)
        throw refuse(path_, group.prefix + leaf, "the name contains control characters or is not UTF-8");
      const std::string name = group.prefix + leaf;
      H5L_info_t link = {};
      check(H5Lget_info(file_, name.c_str(), &link, H5P_DEFAULT) >= 0, path_, name, "no link information");
      if (link.type != H5L_TYPE_HARD) throw refuse(path_, name, "only hard links are read, not soft or external ones");
      H5O_info_t info = {};
      check(H5Oget_info_by_name2(file_, name.c_str(), &info, H5O_INFO_BASIC, H5P_DEFAULT) >= 0, path_, name,
            "no object");
      if (info.type == H5O_TYPE_DATASET) {
        found.push_back(name);
      } else if (info.type != H5O_TYPE_GROUP) {
        throw refuse(path_, name, "is neither a dataset nor a group");
      } else if (!seen.insert(info.addr).second || group.depth + 1 > kMaxDepth) {
        throw refuse(path_, name, "groups form a cycle or nest too deep");
      } else {
        open.push_back({name + "/", group.depth + 1});
      }
    }
  }
  std::ranges::sort(found);
  return found;
}

void Hdf5Reader::read_rows(const std::string& name, const Dataset& dataset, Hdf5Type type, uint64_t begin,
                           uint64_t count, void* out) const {
  const auto& dims = dataset.shape.dims;
  if (!keeps_values(dataset.shape.type, type))
    throw refuse(path_, name, "its element type does not fit into the one expected");
  if (begin > dims[0] || count > dims[0] - begin)
    throw refuse(
        path_, name,
        fmt::format("rows {} to {} asked, there are {}", begin, checked_add(begin, count, path_.native()), dims[0]));
  if (count == 0 || num_elements(dims, path_) == 0) return;
  std::vector<hsize_t> start(dims.size(), 0), size(dims.begin(), dims.end());
  start[0] = begin;
  size[0] = count;
  Hdf5Handle from(H5Dget_space(dataset.id), H5Sclose);
  Hdf5Handle to(H5Screate_simple(static_cast<int>(size.size()), size.data(), nullptr), H5Sclose);
  check(from.valid() && to.valid() &&
            H5Sselect_hyperslab(from, H5S_SELECT_SET, start.data(), nullptr, size.data(), nullptr) >= 0,
        path_, name, "no such rows");
  check(H5Dread(dataset.id, hdf5_type(type), to, from, H5P_DEFAULT, out) >= 0, path_, name, "cannot be read");
}

void Hdf5Reader::read(const std::string& name, Hdf5Type type, uint64_t begin, uint64_t count, void* out) const {
  prepare_hdf5();
  const std::lock_guard lock(guard_);
  const Dataset& found = dataset(name);
  if (found.shape.dims.empty()) throw refuse(path_, name, "is a single value without rows");
  read_rows(name, found, type, begin, count, out);
}

void Hdf5Reader::read_all(const std::string& name, Hdf5Type type, void* out, uint64_t bytes) const {
  prepare_hdf5();
  const std::lock_guard lock(guard_);
  const Dataset& found = dataset(name);
  const uint64_t expected = checked_multiply(num_elements(found.shape.dims, path_), size_of(type), path_.native());
  if (bytes != expected) throw refuse(path_, name, fmt::format("holds {} bytes as read, expected {}", expected, bytes));
  if (found.shape.dims.empty()) {
    if (!keeps_values(found.shape.type, type))
      throw refuse(path_, name, "its element type does not fit into the one expected");
    check(H5Dread(found.id, hdf5_type(type), H5S_ALL, H5S_ALL, H5P_DEFAULT, out) >= 0, path_, name, "cannot be read");
    return;
  }
  read_rows(name, found, type, 0, found.shape.dims[0], out);
}

Hdf5Chunks Hdf5Reader::chunks(const std::string& name) const {
  prepare_hdf5();
  const std::lock_guard lock(guard_);
  const Dataset& found = dataset(name);
  const std::vector<uint64_t>& dims = found.shape.dims;
  Hdf5Handle creation(H5Dget_create_plist(found.id), H5Pclose);
  check(creation.valid(), path_, name, "no creation properties");
  std::vector<hsize_t> chunk(H5S_MAX_RANK);
  const int rank = H5Pget_layout(creation) == H5D_CHUNKED ? H5Pget_chunk(creation, H5S_MAX_RANK, chunk.data()) : -1;
  if (rank <= 0 || static_cast<size_t>(rank) != dims.size() ||
      !std::equal(dims.begin() + 1, dims.end(), chunk.begin() + 1))
    throw refuse(path_, name, "is not chunked along its first axis");
  const int num_filters = H5Pget_nfilters(creation);
  unsigned flags = 0, config = 0;
  size_t values = 0;
  const bool is_plain =
      num_filters == 0 || (num_filters == 1 && H5Pget_filter2(creation, 0, &flags, &values, nullptr, 0, nullptr,
                                                              &config) == H5Z_FILTER_FLETCHER32);
  if (!is_plain) throw refuse(path_, name, "is stored with filters other than fletcher32");

  uint64_t row_bytes = size_of(found.shape.type);
  for (size_t i = 1; i < dims.size(); ++i) row_bytes = checked_multiply(row_bytes, dims[i], path_.native());
  Hdf5Chunks result;
  result.rows = chunk[0];
  const uint64_t chunk_bytes = checked_multiply(row_bytes, result.rows, path_.native());
  const uint64_t file_bytes = std::filesystem::file_size(path_);
  for (uint64_t row = 0; row < dims[0]; row += result.rows) {
    std::vector<hsize_t> start(dims.size(), 0);
    start[0] = row;
    unsigned skipped_filters = 0;
    haddr_t address = HADDR_UNDEF;
    hsize_t stored_bytes = 0;
    check(H5Dget_chunk_info_by_coord(found.id, start.data(), &skipped_filters, &address, &stored_bytes) >= 0, path_,
          name, "no chunk");
    if (address == HADDR_UNDEF || stored_bytes < chunk_bytes || address > file_bytes ||
        stored_bytes > file_bytes - address)
      throw refuse(path_, name, fmt::format("the chunk of row {} does not lie in the file", row));
    result.offsets.push_back(address);
  }
  return result;
}

namespace {

/// One attribute of one object, already known to be a single value.
struct Attribute {
  Hdf5Handle id, type;
};

Attribute open_attribute(hid_t file, const std::filesystem::path& path, const std::string& object, const char* name) {
  const std::string label = fmt::format("attribute {} of {}", name, object);
  Hdf5Handle owner(H5Oopen(file, object.c_str(), H5P_DEFAULT), H5Oclose);
  check(owner.valid(), path, object, "cannot be opened");
  if (H5Aexists(owner, name) <= 0) throw refuse(path, label, "is missing");
  Hdf5Handle id(H5Aopen(owner, name, H5P_DEFAULT), H5Aclose);
  check(id.valid(), path, label, "cannot be opened");
  Hdf5Handle space(H5Aget_space(id), H5Sclose);
  if (H5Sget_simple_extent_npoints(space) != 1) throw refuse(path, label, "is not one value");
  Hdf5Handle type(H5Aget_type(id), H5Tclose);
  return {std::move(id), std::move(type)};
}

}  // namespace

std::string Hdf5Reader::string_attribute(const std::string& object, const char* name) const {
  prepare_hdf5();
  const std::lock_guard lock(guard_);
  check_links(object);
  const Attribute attribute = open_attribute(file_, path_, object, name);
  const std::string label = fmt::format("attribute {} of {}", name, object);
  if (H5Tget_class(attribute.type) != H5T_STRING) throw refuse(path_, label, "is not a string");
  if (H5Tis_variable_str(attribute.type) != 0) throw refuse(path_, label, "a variable-length string is not read");
  const size_t size = H5Tget_size(attribute.type);
  if (size > kMaxAttributeBytes) throw refuse(path_, label, "is longer than 64 KiB");
  std::string text(size, '\0');
  check(H5Aread(attribute.id, attribute.type, text.data()) >= 0, path_, label, "cannot be read");
  const char pad = H5Tget_strpad(attribute.type) == H5T_STR_SPACEPAD ? ' ' : '\0';
  if (H5Tget_strpad(attribute.type) == H5T_STR_NULLTERM) text.resize(std::min(text.find('\0'), text.size()));
  text.erase(text.find_last_not_of(pad) + 1);
  return text;
}

uint64_t Hdf5Reader::unsigned_attribute(const std::string& object, const char* name) const {
  prepare_hdf5();
  const std::lock_guard lock(guard_);
  check_links(object);
  const Attribute attribute = open_attribute(file_, path_, object, name);
  const std::string label = fmt::format("attribute {} of {}", name, object);
  if (H5Tget_class(attribute.type) != H5T_INTEGER || H5Tget_size(attribute.type) > 8)
    throw refuse(path_, label, "is not an integer of up to 64 bits");
  if (H5Tget_sign(attribute.type) == H5T_SGN_2) {
    int64_t value = 0;
    check(H5Aread(attribute.id, H5T_NATIVE_INT64, &value) >= 0, path_, label, "cannot be read");
    if (value < 0) throw refuse(path_, label, fmt::format("is {}, expected a number from 0", value));
    return static_cast<uint64_t>(value);
  }
  uint64_t value = 0;
  check(H5Aread(attribute.id, H5T_NATIVE_UINT64, &value) >= 0, path_, label, "cannot be read");
  return value;
}

}  // namespace coppice
