# LibTorch as two imported targets, made from the folder found: find_package(Torch) would want CUDA and drag nvrtc into every link.
# COPPICE_TORCH_DIR: a folder with include/ and lib/ (the wheel's torch/ folder or an unpacked LibTorch archive).
if(NOT COPPICE_TORCH_DIR)
  file(GLOB found "${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch")
  list(GET found 0 COPPICE_TORCH_DIR)
endif()
if(NOT EXISTS "${COPPICE_TORCH_DIR}/lib/libtorch_cpu.so")
  message(FATAL_ERROR "no LibTorch in '${COPPICE_TORCH_DIR}': run scripts/setup, or set COPPICE_TORCH_DIR")
endif()
message(STATUS "LibTorch: ${COPPICE_TORCH_DIR}")

add_library(torch_cpu INTERFACE)
target_include_directories(torch_cpu SYSTEM INTERFACE "${COPPICE_TORCH_DIR}/include")
target_link_directories(torch_cpu INTERFACE "${COPPICE_TORCH_DIR}/lib")
# libtorch_cpu names symbols of CUDA companions that a CPU program never calls; the lean install leaves them out.
target_link_options(torch_cpu INTERFACE "-Wl,--unresolved-symbols=ignore-in-shared-libs" "-Wl,-rpath,${COPPICE_TORCH_DIR}/lib")
target_link_libraries(torch_cpu INTERFACE c10 torch_cpu_library)
add_library(torch_cpu_library SHARED IMPORTED)
set_target_properties(torch_cpu_library PROPERTIES IMPORTED_LOCATION "${COPPICE_TORCH_DIR}/lib/libtorch_cpu.so")

# OpenMP: libtorch brings its own libgomp, and two of them in one process would keep two thread pools. Compile with -fopenmp, link that one.
add_library(coppice_openmp INTERFACE)
file(GLOB torch_gomp "${COPPICE_TORCH_DIR}/lib/libgomp*.so*")
if(torch_gomp)
  list(GET torch_gomp 0 torch_gomp)
  add_library(torch_gomp_library SHARED IMPORTED)
  set_target_properties(torch_gomp_library PROPERTIES IMPORTED_LOCATION "${torch_gomp}")
  target_compile_options(coppice_openmp INTERFACE -fopenmp)
  target_link_libraries(coppice_openmp INTERFACE torch_gomp_library)
else()  # a LibTorch built against the system's
  find_package(OpenMP REQUIRED)
  target_link_libraries(coppice_openmp INTERFACE OpenMP::OpenMP_CXX)
endif()

# LibTorch bundles fmt 12 headers, which would shadow Debian's: one copy, header-only, for everything that formats text.
file(MAKE_DIRECTORY "${CMAKE_BINARY_DIR}/fmt_include")
file(CREATE_LINK "${COPPICE_TORCH_DIR}/include/fmt" "${CMAKE_BINARY_DIR}/fmt_include/fmt" SYMBOLIC)
add_library(fmt_header_only INTERFACE)
target_include_directories(fmt_header_only SYSTEM INTERFACE "${CMAKE_BINARY_DIR}/fmt_include")
target_compile_definitions(fmt_header_only INTERFACE FMT_HEADER_ONLY=1)
