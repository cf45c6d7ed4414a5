# cmake -DSOURCE=... -DOUTPUT=... -P GitCommit.cmake: writes git_commit() into OUTPUT, only where it differs from what stands there.
execute_process(COMMAND git -C "${SOURCE}" rev-parse --short=12 HEAD OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT commit)
  set(commit "unknown")
endif()
file(CONFIGURE OUTPUT "${OUTPUT}" @ONLY CONTENT [[
#include "recipes/folder/version.h"

const char* coppice::git_commit() { return "@commit@"; }
]])
