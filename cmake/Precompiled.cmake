# ATen's headers take a file 10 s to read, and precompiled ones 1 s: coppice_precompile(TARGET) for targets that know torch. OpenMP's macro changes what they
# say, so that there are two. Every file goes on including what it uses: -DCOPPICE_PRECOMPILED=OFF must build too.
option(COPPICE_PRECOMPILED "precompile the headers of LibTorch (0.4 GB, twice)" ON)
file(WRITE "${CMAKE_BINARY_DIR}/generated/empty.cpp.new" "// carries the precompiled headers\n")
file(COPY_FILE "${CMAKE_BINARY_DIR}/generated/empty.cpp.new" "${CMAKE_BINARY_DIR}/generated/empty.cpp" ONLY_IF_DIFFERENT)
foreach(name precompiled precompiled_openmp)
  if(COPPICE_PRECOMPILED)
    add_library(${name} OBJECT EXCLUDE_FROM_ALL "${CMAKE_BINARY_DIR}/generated/empty.cpp")
    target_link_libraries(${name} PRIVATE torch_cpu fmt_header_only)
    target_compile_options(${name} PRIVATE -fpch-preprocess)
    target_precompile_headers(${name} PRIVATE <ATen/ATen.h>)
  endif()
endforeach()
if(COPPICE_PRECOMPILED)
  target_link_libraries(precompiled_openmp PRIVATE coppice_openmp)
endif()

# coppice_precompile(TARGET [OPENMP]): OPENMP where the target is compiled with it.
function(coppice_precompile target)
  if(COPPICE_PRECOMPILED)
    set(from precompiled)
    if("OPENMP" IN_LIST ARGN)
      set(from precompiled_openmp)
    endif()
    target_compile_options(${target} PRIVATE -fpch-preprocess)  # for ccache
    target_precompile_headers(${target} REUSE_FROM ${from})
  endif()
endfunction()
