// The library's process-wide settings, its element types and its error stack.
#include "src/base/hdf5.h"

#include <fmt/format.h>

#include <charconv>

#include "src/base/errors.h"
#include "src/base/hdf5_handles.h"

namespace coppice {
namespace {

/// HDF5 1.10 has no half type: IEEE 754 binary16 described by its fields, equal to what h5py writes.
hid_t make_half() {
  const hid_t half = H5Tcopy(H5T_IEEE_F32LE);
  const bool made = half >= 0 && H5Tset_fields(half, 15, 10, 5, 0, 10) >= 0 && H5Tset_size(half, 2) >= 0 &&
                    H5Tset_ebias(half, 15) >= 0;
  COPPICE_CHECK(made, "no half type in HDF5");
  return half;
}

extern "C" herr_t collect_failure(unsigned depth, const H5E_error2_t* entry, void* data) {
  Hdf5Failure& failure = *static_cast<Hdf5Failure*>(data);
  const std::string_view text = entry->desc == nullptr ? "" : entry->desc;
  if (depth == 0) failure.text = text;
  constexpr std::string_view kErrno = "errno = ";
  if (const size_t at = text.find(kErrno); at != std::string_view::npos && failure.error_number == 0) {
    const std::string_view digits = text.substr(at + kErrno.size());
    std::from_chars(digits.data(), digits.data() + digits.size(), failure.error_number);
  }
  return 0;
}

}  // namespace

void start_hdf5() {
  static std::once_flag once;
  std::call_once(once, [] {
    H5dont_atexit();  // first: after a failed close the library's own exit handler crashes
    hbool_t safe = false;
    COPPICE_CHECK(H5is_library_threadsafe(&safe) >= 0 && safe,
                  "this HDF5 was built without thread safety: files are read and written in several threads");
    COPPICE_CHECK(H5open() >= 0, "HDF5 does not start");
    COPPICE_CHECK(H5PLset_loading_state(0) >= 0, "HDF5 plugins cannot be switched off");
  });
}

void prepare_hdf5() {
  start_hdf5();
  thread_local const herr_t silent = H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  COPPICE_CHECK(silent >= 0, "HDF5 does not stop printing");
}

Hdf5Failure hdf5_failure() {
  Hdf5Failure failure;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, collect_failure, &failure);
  if (failure.error_number != 0)
    failure.text.clear();  // the innermost text then is a list of addresses; errno says more
  if (failure.error_number == 0 && failure.text.empty()) failure.text = "unknown failure";
  return failure;
}

hid_t hdf5_type(Hdf5Type type) {
  static const hid_t half = make_half();
  switch (type) {
    case Hdf5Type::f32:
      return H5T_IEEE_F32LE;
    case Hdf5Type::f16:
      return half;
    case Hdf5Type::u8:
      return H5T_STD_U8LE;
    case Hdf5Type::u16:
      return H5T_STD_U16LE;
    case Hdf5Type::u32:
      return H5T_STD_U32LE;
    case Hdf5Type::u64:
      return H5T_STD_U64LE;
    case Hdf5Type::i32:
      return H5T_STD_I32LE;
    case Hdf5Type::i64:
      return H5T_STD_I64LE;
  }
  throw InternalError("unknown Hdf5Type");
}

size_t size_of(Hdf5Type type) {
  switch (type) {
    case Hdf5Type::u8:
      return 1;
    case Hdf5Type::f16:
    case Hdf5Type::u16:
      return 2;
    case Hdf5Type::f32:
    case Hdf5Type::u32:
    case Hdf5Type::i32:
      return 4;
    case Hdf5Type::u64:
    case Hdf5Type::i64:
      return 8;
  }
  throw InternalError("unknown Hdf5Type");
}

}  // namespace coppice
