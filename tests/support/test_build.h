#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "peerchunk/base/build_id.h"
#include "peerchunk/base/file_kind.h"
#include "peerchunk/template/build_registry.h"
#include "tests/support/temp_dir.h"

namespace peerchunk::test {

// A build made up for a test: its files, byte for byte, and the devices that they stand for.
struct TestBuild {
  BuildId id;
  std::map<FileKind, std::string> files;
  std::string memfile;  // The whole device; empty for a filesystem-only build.
  std::string rootfs;

  bool filesystem_only() const { return !files.contains(FileKind::kMemfile); }
  const std::string& Device(FileKind diff) const {
    return diff == FileKind::kMemfile ? memfile : rootfs;
  }
  // The header of `diff` as V4, with a record that says that this build's own is stored as zstd.
  std::string HeaderWithCompression(FileKind diff) const;
  // Writes the files below `folder`/`name`/ and returns their paths, as Pause takes them.
  SnapshotFiles WriteTo(const TempDir& folder, std::string_view name) const;
};

struct TestBuildSpec {
  uint64_t memfile_bytes = 3 * 1024 * 1024 + 5 * 4096;  // Multiples of 4096; 0: filesystem-only.
  uint64_t rootfs_bytes = 2 * 1024 * 1024;
  uint32_t seed = 1;  // Of the contents; also of the build id.
  // The build that this one was started from: some of its blocks are dirtied, some zeroed. Null: a
  // base, where about a third of the blocks are zeros, mapped as such.
  const TestBuild* parent = nullptr;
};

TestBuild MakeTestBuild(const TestBuildSpec& spec);

}  // namespace peerchunk::test
