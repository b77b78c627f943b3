#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include "peerchunk/base/build_id.h"
#include "peerchunk/base/clock.h"
#include "peerchunk/base/file_kind.h"
#include "peerchunk/storage/storage.h"

namespace peerchunk {

// Where FetchBuild reads the six files of one build. Used by one thread; outlives its readers.
class BuildContent {
 public:
  struct DiffStat {
    uint64_t size = 0;
    std::optional<uint32_t> crc32c;  // Of the whole file, where it is known.
  };

  virtual ~BuildContent() = default;
  // The whole file; null when the build has no such file. Only for blobs.
  virtual absl::StatusOr<std::shared_ptr<const std::string>> Blob(FileKind kind,
                                                                  const ReadOptions& options) = 0;
  // Nothing when the build has no such file. Only for diffs, as is ReadDiff.
  virtual absl::StatusOr<std::optional<DiffStat>> StatDiff(FileKind kind,
                                                           const ReadOptions& options) = 0;
  // From `offset` to the end.
  virtual absl::StatusOr<std::unique_ptr<RangeReader>> ReadDiff(FileKind kind, uint64_t offset,
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
  // A fetch may take hours, but not when nobody answers: each blob has this long, and each stream
  // of a diff ten times as long. A stream that gained something before it failed for lack of time
  // or of a source begins anew where it stopped.
  absl::Duration patience = absl::Minutes(1);
  Clock* clock = &Clock::Real();  // Borrowed.
  // Called often, on the calling thread.
  std::function<void(const FetchState&)> on_progress;
};

// Copies a build's own files into a folder, in the order metadata.json is the sign of completeness
// in: it is written last, and one that is there goes before any other file is replaced. Each file
// is written under a temporary name, checked (size, CRC32C where known, headers against the build
// and its diff) and renamed; whatever fails leaves no half file behind, and what a fetch left that
// was killed goes with the next one into that folder. NotFound: no such build. AlreadyExists: the
// folder has another one, and `overwrite` is false. DataLoss: files that disagree.
absl::StatusOr<std::vector<FetchedFile>> FetchBuild(const BuildId& build, BuildContent& content,
                                                    const FetchOptions& options);

}  // namespace peerchunk
