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
  static constexpr uint64_t kBlockBytes = kMiB;

  uint64_t size = 0;
  uint32_t crc32c = 0;
  std::vector<uint32_t> block_crc32c;  // CeilDiv(size, kBlockBytes) entries; the last may be short.

  // Reads the whole file once, in bounded memory; holes are not read.
  static absl::StatusOr<FileChecksums> Compute(const File& file);
};

class PageSums;

// A whole file on this disk, as Pause recorded it. Each 1 MiB block is checked against the record
// when it is first read. The checksums of its pages are kept from then on (1/1024 of the file's
// size at most, allocated block by block), and what is read later is checked against them: by
// ReadAt here, by ReadRuns at the receiver, which is given them. So bytes that change on the disk
// after their first check are found, too. A mismatch is DataLoss and is told to `on_corrupt`. Reads
// by pread, never through a mapping: a bad sector is an error, not a SIGBUS. Thread-safe.
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
  std::vector<Run> TryReadRuns(uint64_t offset, uint64_t length, absl::Span<char> out,
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
  ByteRange BlockAt(uint64_t offset) const;
  const PageSums* SumsAt(uint64_t offset) const;
  absl::Status ReadExactly(ByteRange range, char* out);
  // As ReadExactly, if that takes no waiting.
  bool ReadAtOnce(ByteRange range, char* out);
  // Reads the whole of an unchecked block, and checks it.
  absl::Status ReadAndCheck(ByteRange block, char* out);
  // Fills `range`, which lies in one checked block, and checks its pages. At once or not at all:
  // `filled` says which.
  enum class Patience : uint8_t { kNow, kWait };
  absl::Status ReadChecked(const PageSums& sums, ByteRange range, char* out, Patience patience,
                           bool& filled);
  absl::Status ReportCorrupt(std::string_view what);  // Returns DataLoss.

  const BuildFileId id_;
  const File file_;
  const bool memory_backed_;
  const uint64_t allocated_bytes_;
  const std::shared_ptr<const FileChecksums> checksums_;
  const std::function<void(const absl::Status&)> on_corrupt_;
  // By block; null until it was checked. Owned; set once.
  const std::unique_ptr<std::atomic<const PageSums*>[]> sums_;
  std::atomic<bool> corrupt_reported_{false};
};

}  // namespace peerchunk
