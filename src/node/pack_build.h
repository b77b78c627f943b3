#pragma once

#include <cstdint>
#include <stop_token>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "peerchunk/base/build_id.h"
#include "peerchunk/base/file_kind.h"
#include "peerchunk/base/range.h"

namespace peerchunk {

// What PackBuild makes a build from. Paths are absolute; empty where there is none.
struct PackOptions {
  BuildId build;
  std::string out_folder;  // Created when missing; must not have files of a build.
  std::string rootfs;      // Raw images.
  std::string memfile;     // Both or none: without them the build is filesystem-only.
  std::string snapfile;
  // Of a child: the folder with the parent's headers, and the parent's whole raw images.
  std::string parent_folder;
  std::string parent_rootfs;
  std::string parent_memfile;
  uint64_t memfile_block_bytes = kPageBytes;
  std::string kernel_version;  // For metadata.json.
  std::string firecracker_version;
  std::stop_token cancellation;
};

struct PackedDiff {
  FileKind kind = FileKind::kRootfs;
  uint64_t device_bytes = 0;
  uint64_t diff_bytes = 0;
  uint64_t zero_bytes = 0;       // Not in the diff: newly zero.
  uint64_t unchanged_bytes = 0;  // Not in the diff: as in the parent.
  uint64_t generation = 0;
};

struct PackedBuild {
  BuildId build;
  std::vector<PackedDiff> diffs;
};

// Makes the files of a build from raw images: diffs of packed blocks, V3
// headers, metadata.json. A block that is zero, or that equals the parent's, takes no space. Reads
// each image once, in bounded memory; after an error no file of the build is left.
absl::StatusOr<PackedBuild> PackBuild(const PackOptions& options);

}  // namespace peerchunk
