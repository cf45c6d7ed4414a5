// What ThreadSanitizer is told, and nothing in every other build. Its view: each thread of a block is a thread of its
// own; only a launch, __syncthreads and __syncwarp order what two of them do.
#pragma once

#ifdef COPPICE_RACE_CHECK
#include <sanitizer/tsan_interface.h>
#endif

namespace coppice::executor {

#ifdef COPPICE_RACE_CHECK
inline constexpr bool kRaceCheck = true;
inline void* this_race_fiber() { return __tsan_get_current_fiber(); }
inline void* make_race_fiber() { return __tsan_create_fiber(0); }
inline void change_race_fiber(void* to) { __tsan_switch_to_fiber(to, __tsan_switch_to_fiber_no_sync); }
/// What the running fiber has done so far happens before what whoever acquires `name` does afterwards.
inline void release_order(void* name) { __tsan_release(name); }
inline void acquire_order(void* name) { __tsan_acquire(name); }
#else
inline constexpr bool kRaceCheck = false;
inline void* this_race_fiber() { return nullptr; }
inline void* make_race_fiber() { return nullptr; }
inline void change_race_fiber(void*) {}
inline void release_order(void*) {}
inline void acquire_order(void*) {}
#endif

}  // namespace coppice::executor
