#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>

#include "build/block_bitmap.h"
#include "build/fetch_table.h"
#include "peerchunk/base/build_id.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/file_kind.h"
#include "peerchunk/base/metrics.h"
#include "peerchunk/base/range.h"
#include "peerchunk/build/runs.h"
#include "peerchunk/storage/storage.h"

namespace peerchunk {

class PageSums;

// What a chunk cache holds: a sparse file, a bit for each page that is present, and the CRC32C of
// each of those (1/1024 of them, allocated block by block), which was computed from the bytes that
// came, before they were written. What is read is checked against it: a page that no longer
// matches, because a byte flipped or a write-back failed, is missing from then on. Zeros stay
// holes. Reads take no lock and allocate nothing. Thread-safe.
class CachedPages {
 public:
  // Of the checksums that are allocated, and of runs, at once.
  static constexpr uint64_t kBlockBytes = kMiB;

  // `file` has `size` bytes, all of them holes; one that is not open holds no page. `spoilt_pages`
  // is borrowed.
  CachedPages(BuildFileId id, File file, uint64_t size, Counter* spoilt_pages);
  ~CachedPages();

  bool is_open() const { return file_.is_open(); }
  const BlockBitmap& present() const { return present_; }
  // How many bytes from `offset` on, at most `limit`, are present.
  uint64_t PresentBytes(uint64_t offset, uint64_t limit) const;
  // All that are present, in whole pages.
  uint64_t TotalBytes() const;

  // Of disk, as counted by what was written, or by the file system when it was last asked.
  uint64_t AllocatedBytes() const { return allocated_bytes_.load(std::memory_order_relaxed); }
  void AskAllocatedBytes();

  enum class Patience : uint8_t { kNow, kWait };
  enum class Outcome : uint8_t {
    kRead,
    kUnread,  // The disk gave an error, or (kNow) would have to be waited for.
    kSpoilt,  // A page did not match; all that did not are missing now.
  };
  // Fills `range`, which was present. Only what is kRead may be handed out.
  Outcome Read(ByteRange range, char* out, Patience patience);

  // The runs of `range` by what was kept of it, as far as their data are not more than
  // `most_data_bytes`. None unless it is of whole present pages of one block.
  std::vector<Run> Runs(ByteRange range, uint64_t most_data_bytes) const;

  // Puts in what one fetch brings.
  class Writer;

 private:
  // Null: no page of its block has come yet.
  const PageSums* SumsOf(uint64_t page) const;
  PageSums& MakeSumsOf(uint64_t page);
  bool Matches(uint64_t page, std::string_view bytes) const;
  void Forget(uint64_t page);
  absl::Status WriteZeros(ByteRange range) const;

  const BuildFileId id_;
  const File file_;
  const uint64_t size_;
  Counter* const spoilt_pages_;
  BlockBitmap present_;
  std::atomic<uint64_t> present_pages_{0};
  std::atomic<uint64_t> allocated_bytes_{0};
  std::atomic<bool> spoilt_{false};  // A page was: holes are not known to be zeros any more.
  // By block. Owned; set once.
  const std::unique_ptr<std::atomic<PageSums*>[]> sums_;
};

// From the begin of a page on, in order, without a gap. Used by one thread at a time.
class CachedPages::Writer {
 public:
  Writer(CachedPages* pages, uint64_t first_page) : pages_(pages), at_(first_page * kPageBytes) {}

  // `extent` was checked. Returns the pages that it has completed, when any of them was missing:
  // they are present now. An error: it could not be written.
  absl::StatusOr<BlockRange> Append(const Extent& extent);

 private:
  void Sum(std::string_view bytes);
  void SumZeros(uint64_t length);
  void Summed(uint64_t length);  // Up to the end of a page at most.
  uint64_t LeftOfPage() const;

  CachedPages* const pages_;
  uint64_t at_;  // As far as bytes are summed.
  // Of the page that `at_` is in, up to there.
  uint32_t crc32c_ = 0;
  bool zero_ = true;
};

}  // namespace peerchunk
