// What the reader and the writer share inside: handles that close themselves, element types, and messages made from
// HDF5's error stack. Only hdf5*.cpp include this.
#pragma once

#include <hdf5.h>

#include <string>
#include <utility>

#include "src/base/hdf5.h"

namespace coppice {

/// Owns one hid_t. close() reports failure; the destructor is for error paths.
class Hdf5Handle {
 public:
  using Closer = herr_t (*)(hid_t);
  Hdf5Handle(hid_t id, Closer closer) : id_(id), closer_(closer) {}
  ~Hdf5Handle() { close(); }
  Hdf5Handle(Hdf5Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), closer_(other.closer_) {}
  Hdf5Handle& operator=(Hdf5Handle&&) = delete;
  operator hid_t() const { return id_; }
  bool valid() const { return id_ >= 0; }
  hid_t release() { return std::exchange(id_, -1); }
  bool close() { return id_ < 0 || closer_(std::exchange(id_, -1)) >= 0; }

 private:
  hid_t id_;
  Closer closer_;
};

struct Hdf5Failure {
  std::string text;      // the innermost description of the stack
  int error_number = 0;  // errno, where the failure was a system call
};
/// What the last failed call of this thread left behind; ask before any other HDF5 call, which would clear it.
Hdf5Failure hdf5_failure();

/// start_hdf5(), and no printing of error stacks by this thread: the library keeps that switch per thread.
void prepare_hdf5();
/// The element type in files and in memory (both little-endian), valid until the process ends.
hid_t hdf5_type(Hdf5Type type);

}  // namespace coppice
