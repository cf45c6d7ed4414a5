// Faults on demand, for tests: COPPICE_FAILPOINT("ckpt.after_rename") does nothing unless the environment variable
// COPPICE_FAILPOINTS names it: `name=action@hit[,name=action@hit]`, action abort | error | sleep:<seconds> | nan, hit counted from 1.
// Compiled out (no lookup, no branch) unless the build sets COPPICE_WITH_FAILPOINTS, which release packages do not.
#pragma once

namespace coppice {

#ifdef COPPICE_WITH_FAILPOINTS
/// abort: SIGKILL to itself. error: throws IoError. sleep: sleeps. Returns true for nan on its hit.
bool failpoint(const char* name);
#define COPPICE_FAILPOINT(name) ::coppice::failpoint(name)
#else
#define COPPICE_FAILPOINT(name) false
#endif

}  // namespace coppice
