# nvcc, and LibTorch's CUDA side: the targets torch_cuda and coppice_nvcc_library(). Neither configuring nor building needs a device, and what is built starts on a
# machine without a driver. CUDA's libraries are those that LibTorch loads, never the toolkit's beside them: two runtimes in one process know nothing of each other.
find_program(CMAKE_CUDA_COMPILER nvcc HINTS "$ENV{CUDA_HOME}/bin" PATHS /usr/local/cuda/bin)
if(NOT CMAKE_CUDA_COMPILER)
  message(FATAL_ERROR "nvcc is missing, neither on PATH nor in /usr/local/cuda/bin: install the CUDA toolkit, or give -DCMAKE_CUDA_COMPILER=/path/to/nvcc; "
    "the preset release needs none of it")
endif()

if(EXISTS "${COPPICE_TORCH_DIR}/lib/libtorch_cuda.so")
  execute_process(COMMAND ldd "${COPPICE_TORCH_DIR}/lib/libtorch_cuda.so" OUTPUT_VARIABLE companions)
  string(REGEX MATCHALL "[^ \t\n]+ => not found" missing "${companions}")
  list(TRANSFORM missing REPLACE " => not found" "")
else()
  set(missing libtorch_cuda.so)
endif()
if(missing)
  list(JOIN missing ", " missing)
  message(FATAL_ERROR "the CUDA side of LibTorch in '${COPPICE_TORCH_DIR}' is not there (${missing}): run scripts/setup cuda, or set COPPICE_TORCH_DIR")
endif()
string(REGEX MATCH "libcudart\\.so\\.([0-9]+) => ([^ \n]+)" found "${companions}")
set(torch_cuda_major "${CMAKE_MATCH_1}")
get_filename_component(cudart "${CMAKE_MATCH_2}" REALPATH)

if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES "80-real;90" CACHE STRING "A100; H100 and H200; what is newer compiles PTX of 90 when it starts")
endif()
set(CMAKE_CUDA_HOST_COMPILER "${CMAKE_CXX_COMPILER}")
enable_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER_VERSION MATCHES "^${torch_cuda_major}\\.")
  message(FATAL_ERROR "nvcc is of CUDA ${CMAKE_CUDA_COMPILER_VERSION}, LibTorch in '${COPPICE_TORCH_DIR}' of CUDA ${torch_cuda_major}: "
    "give -DCMAKE_CUDA_COMPILER=/path/to/nvcc of CUDA ${torch_cuda_major}")
endif()
message(STATUS "CUDA: ${CMAKE_CUDA_COMPILER} ${CMAKE_CUDA_COMPILER_VERSION}, runtime ${cudart}")
set(CMAKE_CUDA_RUNTIME_LIBRARY None)  # not the toolkit's
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)  # which CMake 3.25 does not know of this nvcc

add_library(cuda_runtime SHARED IMPORTED)
set_target_properties(cuda_runtime PROPERTIES IMPORTED_LOCATION "${cudart}")
add_library(torch_cuda_library SHARED IMPORTED)
set_target_properties(torch_cuda_library PROPERTIES IMPORTED_LOCATION "${COPPICE_TORCH_DIR}/lib/libtorch_cuda.so")
add_library(torch_cuda INTERFACE)
target_include_directories(torch_cuda SYSTEM INTERFACE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
target_link_options(torch_cuda INTERFACE -Wl,--no-as-needed)  # whose operations are there because it is loaded, though we name no symbol of it
target_link_libraries(torch_cuda INTERFACE torch_cpu torch_cuda_library c10_cuda cuda_runtime)

# coppice_nvcc_library(NAME SOURCES ...): a static library of .cu files, in another folder than their C++ twin, for a source's language belongs to the folder. A
# register that is spilled and local memory are errors. No ccache: what it keeps a .cu by is the text for one
# architecture.
function(coppice_nvcc_library target)
  cmake_parse_arguments(ARG "" "" "SOURCES" ${ARGN})
  add_library(${target} STATIC ${ARG_SOURCES})
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON
    COMPILE_OPTIONS "-Xptxas=-warn-spills,-warn-lmem-usage,-Werror;SHELL:-Werror all-warnings")  # and none of C++'s
endfunction()
