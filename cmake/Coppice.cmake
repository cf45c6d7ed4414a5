# coppice_library(NAME SOURCES ... DEPENDS ...): a static library of one folder.
function(coppice_library target)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  add_library(${target} STATIC ${ARG_SOURCES})
  target_link_libraries(${target} PUBLIC ${ARG_DEPENDS} fmt_header_only)
endfunction()

# coppice_test(NAME SOURCES ... DEPENDS ... SUITES unit grad ...): one doctest program, one ctest entry per suite (= label).
function(coppice_test target)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;DEPENDS;SUITES" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  if(COPPICE_SANITIZE)
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 5")  # instrumented programs are several times slower
  endif()
  add_executable(${target} ${ARG_SOURCES} $<TARGET_OBJECTS:test_main>)
  target_link_libraries(${target} PRIVATE ${ARG_DEPENDS} fmt_header_only torch_cpu)
  target_compile_definitions(${target} PRIVATE COPPICE_SOURCE_DIR="${CMAKE_SOURCE_DIR}" COPPICE_BINARY_DIR="${CMAKE_BINARY_DIR}")
  foreach(suite IN LISTS ARG_SUITES)
    add_test(NAME ${target}.${suite} COMMAND ${target} --test-suite=${suite})
    set_tests_properties(${target}.${suite} PROPERTIES LABELS ${suite} TIMEOUT ${ARG_TIMEOUT} SKIP_RETURN_CODE 77)
  endforeach()
endfunction()
