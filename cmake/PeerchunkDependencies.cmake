# Every library this project links. Included by the build and by the installed package alike, so the
# two cannot disagree. What is listed here is installed from Debian by scripts/install-dependencies.
include(CMakeFindDependencyMacro)

find_dependency(Threads)
find_dependency(absl CONFIG)
find_dependency(spdlog CONFIG)
find_dependency(nlohmann_json CONFIG)
find_dependency(PkgConfig)
pkg_check_modules(ISAL REQUIRED QUIET IMPORTED_TARGET GLOBAL libisal)
pkg_check_modules(LZ4 REQUIRED QUIET IMPORTED_TARGET GLOBAL liblz4)
pkg_check_modules(NGHTTP2 REQUIRED QUIET IMPORTED_TARGET GLOBAL libnghttp2)
find_dependency(OpenSSL)
# gRPC's package expects Protobuf's module-mode targets to exist.
find_dependency(Protobuf MODULE)

if(PEERCHUNK_WITH_GRPC)
  find_dependency(gRPC CONFIG)
endif()
if(PEERCHUNK_WITH_MOUNT)
  if(PEERCHUNK_IS_INSTALLED)  # With a mount, which does not link without it.
    pkg_check_modules(FUSE3 REQUIRED IMPORTED_TARGET GLOBAL fuse3)  # Says which, unlike QUIET.
  else()
    pkg_check_modules(FUSE3 QUIET IMPORTED_TARGET GLOBAL fuse3)
    if(NOT FUSE3_FOUND)
      set(PEERCHUNK_WITH_MOUNT OFF)
      message(STATUS "libfuse3 not found: building without the mount")
    endif()
  endif()
endif()
