// Memory of large CPU tensors, kept when a tensor dies and handed to the next one of about its size. A training step
// asks for the same activations again and again; through malloc each of them comes back cold (aligned blocks are mapped
// anew, or leave holes too small for their like), and page faults then cost more than the elementwise work on it.
#pragma once

#include <cstddef>

namespace coppice {

/// Makes torch take CPU memory from the cache from now on, for the life of the process; calls after the first change
/// nothing.
void install_caching_allocator();

struct CacheReport {
  size_t bytes_from_system = 0;  // held by the cache: in use or free
  size_t bytes_free = 0;         // of these, waiting for a tensor
  size_t num_system_calls = 0;   // blocks asked from the system so far
};
CacheReport caching_allocator_report();
/// Gives all free blocks back to the system (between stages, before measuring memory).
void release_cached_memory();

}  // namespace coppice
