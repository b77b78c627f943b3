#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "peerchunk/base/build_id.h"
#include "peerchunk/base/file_kind.h"
#include "peerchunk/storage/storage.h"

namespace peerchunk {

// One diff as FetchBuild copies it.
struct DiffContent {
  uint64_t size = 0;
  std::optional<uint32_t> crc32c;
  std::unique_ptr<RangeReader> reader;  // Over the whole file.
};

// Where FetchBuild reads the six files of one build. Used by one thread.
class BuildContent {
 public:
  virtual ~BuildContent() = default;
  // The whole file; null when the build has no such file. Only for blobs.
  virtual absl::StatusOr<std::shared_ptr<const std::string>> Blob(FileKind kind,
                                                                  const ReadOptions& options) = 0;
  // Only for diffs.
  virtual absl::StatusOr<std::optional<DiffContent>> Diff(FileKind kind,
                                                          const ReadOptions& options) = 0;
};

// The objects of one build in a provider.
std::unique_ptr<BuildContent> ContentOf(const BuildId& build,
                                        std::shared_ptr<StorageProvider> provider);

struct FetchedFile {
  FileKind kind = FileKind::kMetadata;
  uint64_t size = 0;
  uint32_t crc32c = 0;
  bool was_there = false;  // The folder had the very same file already.
};

struct FetchState {
  FileKind kind = FileKind::kMetadata;  // The file under way.
  uint64_t file_size = 0;
  uint64_t file_done = 0;
  uint64_t total_size = 0;  // Of the files whose sizes are known so far.
  uint64_t total_done = 0;
  uint64_t zero_bytes = 0;  // Runs of zeros, which took no transfer.
};

struct FetchOptions {
  std::string folder;      // Created when missing.
  bool overwrite = false;  // Replace files there that differ; otherwise AlreadyExists.
  ReadOptions read;
  // Called often, on the calling thread.
  std::function<void(const FetchState&)> on_progress;
};

// Copies a build's own files into a folder, in the order metadata.json is the sign of completeness
// in: it is written last. Each file is written under a temporary name, checked (size, CRC32C where
// known, headers against the build and its diff) and renamed; whatever fails leaves no half file
// behind. NotFound: no such build. DataLoss: files that disagree.
absl::StatusOr<std::vector<FetchedFile>> FetchBuild(const BuildId& build, BuildContent& content,
                                                    const FetchOptions& options);

}  // namespace peerchunk
