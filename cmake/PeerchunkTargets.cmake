# One static library per module, one test program per module.

set(PEERCHUNK_MODULES "" CACHE INTERNAL "")

add_library(peerchunk_options INTERFACE)
target_compile_options(peerchunk_options INTERFACE -Wall -Wextra -Wpedantic -Werror
  -Wno-missing-field-initializers
  $<$<CXX_COMPILER_ID:Clang>:-Wthread-safety -Wthread-safety-beta>)
if(PEERCHUNK_SANITIZE)
  target_compile_options(peerchunk_options INTERFACE -fsanitize=${PEERCHUNK_SANITIZE}
    -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(peerchunk_options INTERFACE -fsanitize=${PEERCHUNK_SANITIZE})
endif()

# gRPC's headers take seconds to parse: modules that use them share one precompiled header.
if(PEERCHUNK_WITH_GRPC)
  set(PEERCHUNK_GRPC_PCH <grpcpp/grpcpp.h> <grpcpp/generic/generic_stub.h>
      <string> <vector> <memory> <absl/status/statusor.h>)
endif()

# peerchunk_add_module(<name> [DIR <folder under src>] [GRPC] DEPS <targets for users too>
#                      PRIVATE <targets of its own>)
# Sources are the folder's own *.cc (not of sub-folders), public headers include/peerchunk/<dir>/*.h.
function(peerchunk_add_module name)
  cmake_parse_arguments(arg "GRPC" "DIR" "DEPS;PRIVATE" ${ARGN})
  if(NOT arg_DIR)
    set(arg_DIR ${name})
  endif()
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${arg_DIR}/*.cc)
  file(GLOB headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/include/peerchunk/${arg_DIR}/*.h)
  set(target peerchunk_${name})
  if(NOT sources)  # A module of headers only; CMake wants one source all the same.
    set(sources ${PROJECT_BINARY_DIR}/headers_only.cc)
    file(CONFIGURE OUTPUT ${sources} CONTENT "")
  endif()
  add_library(${target} STATIC ${sources})
  add_library(peerchunk::${name} ALIAS ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name} LINKER_LANGUAGE CXX)
  target_include_directories(${target}
    PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>
    PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_compile_features(${target} PUBLIC cxx_std_20)
  if(headers)
    target_sources(${target} PUBLIC FILE_SET HEADERS BASE_DIRS ${PROJECT_SOURCE_DIR}/include FILES ${headers})
    set_target_properties(${target} PROPERTIES VERIFY_INTERFACE_HEADER_SETS ON)
  endif()
  target_link_libraries(${target} PUBLIC ${arg_DEPS} PRIVATE ${arg_PRIVATE} $<BUILD_INTERFACE:peerchunk_options>)
  if(arg_GRPC)
    target_precompile_headers(${target} PRIVATE ${PEERCHUNK_GRPC_PCH})
  endif()
  set(PEERCHUNK_MODULES ${PEERCHUNK_MODULES} ${target} CACHE INTERNAL "")
endfunction()

# peerchunk_add_test(<module> [DIR <folder under tests>] [GRPC] LIBS <targets>)
# One program <module>_test from tests/<dir>/*_test.cc.
function(peerchunk_add_test name)
  cmake_parse_arguments(arg "GRPC" "DIR;TIMEOUT" "LIBS" ${ARGN})
  if(NOT arg_DIR)
    set(arg_DIR ${name})
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  if(PEERCHUNK_SANITIZE)  # Several times as slow, and most of all at starting programs.
    math(EXPR arg_TIMEOUT "3 * ${arg_TIMEOUT}")
  endif()
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${arg_DIR}/*_test.cc)
  if(NOT sources)
    return()
  endif()
  set(target ${name}_test)
  add_executable(${target} ${sources})
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR})
  target_link_libraries(${target} PRIVATE ${arg_LIBS} peerchunk_test_support peerchunk_options)
  if(arg_GRPC)
    target_precompile_headers(${target} PRIVATE ${PEERCHUNK_GRPC_PCH} <gmock/gmock.h> <gtest/gtest.h>)
  endif()
  add_test(NAME ${name} COMMAND ${target})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${arg_TIMEOUT})
  if(arg_GRPC)
    set_tests_properties(${name} PROPERTIES LABELS grpc)
  endif()
endfunction()

function(peerchunk_install)
  include(CMakePackageConfigHelpers)
  # Everything below "umbrella" in the module table; the daemon and the tool are programs.
  add_library(peerchunk_umbrella INTERFACE)
  add_library(peerchunk::peerchunk ALIAS peerchunk_umbrella)
  set_target_properties(peerchunk_umbrella PROPERTIES EXPORT_NAME peerchunk)
  target_link_libraries(peerchunk_umbrella INTERFACE ${PEERCHUNK_MODULES})
  foreach(module IN LISTS PEERCHUNK_MODULES)
    get_target_property(sets ${module} INTERFACE_HEADER_SETS)
    if(sets)
      install(TARGETS ${module} EXPORT peerchunk-targets FILE_SET HEADERS
              ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
    else()
      install(TARGETS ${module} EXPORT peerchunk-targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
    endif()
  endforeach()
  install(TARGETS peerchunk_umbrella EXPORT peerchunk-targets)
  install(EXPORT peerchunk-targets NAMESPACE peerchunk:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/peerchunk)
  configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/peerchunk-config.cmake.in
    ${PROJECT_BINARY_DIR}/peerchunk-config.cmake
    INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/peerchunk)
  write_basic_package_version_file(${PROJECT_BINARY_DIR}/peerchunk-config-version.cmake
    COMPATIBILITY SameMinorVersion)
  install(FILES ${PROJECT_BINARY_DIR}/peerchunk-config.cmake
                ${PROJECT_BINARY_DIR}/peerchunk-config-version.cmake
                ${PROJECT_SOURCE_DIR}/cmake/PeerchunkDependencies.cmake
          DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/peerchunk)
endfunction()
