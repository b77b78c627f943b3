#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "peerchunk/base/file.h"
#include "peerchunk/base/range.h"
#include "peerchunk/build/build_file.h"

namespace peerchunk {

// The checksums that Pause records of one file: one CRC32C of the whole and one per 1 MiB block.
struct FileChecksums {
  static constexpr uint64_t kBlockBytes = 1024 * 1024;

  uint64_t size = 0;
  uint32_t crc32c = 0;
  std::vector<uint32_t> block_crc32c;  // CeilDiv(size, kBlockBytes) entries; the last may be short.

  // Reads the whole file once, in bounded memory; holes are not read.
  static absl::StatusOr<FileChecksums> Compute(const File& file);
};

// A whole file on this disk, as Pause recorded it. Each block is checked against the record when it
// is first read, and whenever ReadAt reads it whole; a mismatch is DataLoss and is told to
// `on_corrupt`. Reads by pread, never through a mapping: a bad sector is an error, not a SIGBUS.
// Thread-safe.
class LocalBuildFile final : public BuildFile {
 public:
  // `on_corrupt` may be empty; it runs on a reader's thread, at most once per file.
  static absl::StatusOr<std::shared_ptr<LocalBuildFile>> Open(
      BuildFileId id, File file, std::shared_ptr<const FileChecksums> checksums,
      std::function<void(const absl::Status&)> on_corrupt);

  ~LocalBuildFile() override;

  const BuildFileId& id() const override { return id_; }
  uint64_t size() const override { return checksums_->size; }
  std::optional<uint32_t> crc32c() const override { return checksums_->crc32c; }
  absl::StatusOr<size_t> ReadAt(uint64_t offset, absl::Span<char> out,
                                const ReadOptions& options) override;
  bool TryReadAt(uint64_t offset, absl::Span<char> out) override;
  absl::StatusOr<std::vector<Run>> ReadRuns(uint64_t offset, absl::Span<char> out,
                                            const ReadOptions& options) override;
  uint64_t PresentBytes(uint64_t offset, uint64_t limit) const override;
  uint64_t AllocatedBytes() const override { return allocated_bytes_; }

  // True once any byte was found not to match the record.
  bool corrupt() const { return corrupt_reported_.load(std::memory_order_relaxed); }

 private:
  LocalBuildFile(BuildFileId id, File file, uint64_t allocated_bytes,
                 std::shared_ptr<const FileChecksums> checksums,
                 std::function<void(const absl::Status&)> on_corrupt);
  std::string Context(uint64_t offset, size_t length) const;
  absl::Status ReadExactly(ByteRange range, char* out);
  absl::Status ReadAndCheck(uint64_t block, ByteRange extent, char* out);
  absl::Status ReportCorrupt(std::string_view what);  // Returns DataLoss.

  const BuildFileId id_;
  const File file_;
  const uint64_t allocated_bytes_;
  const std::shared_ptr<const FileChecksums> checksums_;
  const std::function<void(const absl::Status&)> on_corrupt_;
  // One per block; set by a check that held.
  const std::unique_ptr<std::atomic<bool>[]> checked_;
  // By block, as they were found when it was first sent; null until then. Owned; set once.
  const std::unique_ptr<std::atomic<const std::vector<Run>*>[]> runs_;
  std::atomic<bool> corrupt_reported_{false};
};

}  // namespace peerchunk
