#include "build/cached_pages.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/logging.h"
#include "build/page_sums.h"
#include "build/whole_pages.h"
#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

constexpr uint64_t kBlock = CachedPages::kBlockBytes;
static_assert(kBlock == PageSums::kPages * kPageBytes);

}  // namespace

CachedPages::CachedPages(BuildFileId id, File file, uint64_t size, Counter* spoilt_pages)
    : id_(id),
      file_(std::move(file)),
      size_(size),
      spoilt_pages_(spoilt_pages),
      present_(CeilDiv(size, kPageBytes)),
      sums_(new std::atomic<PageSums*>[CeilDiv(size, kBlock)]()) {}

CachedPages::~CachedPages() {
  for (uint64_t block = 0; block < CeilDiv(size_, kBlock); ++block) delete sums_[block].load();
}

uint64_t CachedPages::PresentBytes(uint64_t offset, uint64_t limit) const {
  if (offset >= size_ || limit == 0) return 0;
  const uint64_t end = offset + std::min(limit, size_ - offset);
  const uint64_t missing = present_.FindUnset(offset / kPageBytes, CeilDiv(end, kPageBytes));
  return std::min(end, std::max(offset, missing * kPageBytes)) - offset;
}

uint64_t CachedPages::TotalBytes() const {
  return std::min(size_, present_pages_.load(std::memory_order_relaxed) * kPageBytes);
}

void CachedPages::AskAllocatedBytes() {
  if (const auto allocated = file_.AllocatedBytes(); allocated.ok()) {
    allocated_bytes_.store(*allocated, std::memory_order_relaxed);
  }
}

CachedPages::Outcome CachedPages::Read(ByteRange range, char* out, Patience patience) {
  Outcome outcome = Outcome::kRead;
  const auto read = [&](ByteRange part, char* to) {
    const absl::Span<char> into(to, part.length);
    if (patience == Patience::kNow) return file_.ReadAtIfInMemory(part.offset, into);
    const absl::StatusOr<size_t> got = file_.ReadAt(part.offset, into);
    return got.ok() && *got == part.length;
  };
  // In pieces that are checked while they are in a core's cache.
  ReadInWholePages(range, size_, out, [&](ByteRange pages, char* to) {
    for (uint64_t at = pages.offset; at < pages.end(); at += kMaxDataRunBytes) {
      const ByteRange piece{at, std::min(kMaxDataRunBytes, pages.end() - at)};
      char* const bytes = to + (at - pages.offset);
      if (!read(piece, bytes)) {
        if (outcome == Outcome::kRead) outcome = Outcome::kUnread;
        return false;
      }
      for (uint64_t done = 0; done < piece.length; done += kPageBytes) {
        const uint64_t page = (at + done) / kPageBytes;
        if (Matches(page, {bytes + done, std::min(kPageBytes, piece.length - done)})) continue;
        Forget(page);
        outcome = Outcome::kSpoilt;
      }
    }
    return outcome == Outcome::kRead;
  });
  return outcome;
}

std::vector<Run> CachedPages::Runs(ByteRange range, uint64_t most_data_bytes) const {
  const bool of_pages = range.offset % kPageBytes == 0 &&
                        (range.end() % kPageBytes == 0 || range.end() == size_) &&
                        range.offset % kBlock + range.length <= kBlock;
  if (!of_pages || range.empty() || PresentBytes(range.offset, range.length) < range.length) {
    return {};
  }
  return SumsOf(range.offset / kPageBytes)
      ->Runs(range.offset % kBlock, range.length, most_data_bytes);
}

const PageSums* CachedPages::SumsOf(uint64_t page) const {
  return sums_[page / PageSums::kPages].load(std::memory_order_acquire);
}

PageSums& CachedPages::MakeSumsOf(uint64_t page) {
  std::atomic<PageSums*>& sums = sums_[page / PageSums::kPages];
  if (PageSums* const made = sums.load(std::memory_order_acquire)) return *made;
  auto fresh = std::make_unique<PageSums>();
  PageSums* made = nullptr;
  if (!sums.compare_exchange_strong(made, fresh.get(), std::memory_order_acq_rel)) return *made;
  return *fresh.release();
}

bool CachedPages::Matches(uint64_t page, std::string_view bytes) const {
  return SumsOf(page)->Matches(page % PageSums::kPages, bytes);
}

void CachedPages::Forget(uint64_t page) {
  if (!present_.Clear(page)) return;  // Someone else has found it.
  present_pages_.fetch_sub(1, std::memory_order_relaxed);
  spoilt_pages_->Add();
  if (spoilt_.exchange(true)) return;
  Logger("build").error("event=cache_spoilt file={} offset={} action=fetched_again",
                        id_.ObjectPath(), page * kPageBytes);
}

absl::Status CachedPages::WriteZeros(ByteRange range) const {
  const std::string zeros(std::min<uint64_t>(range.length, 64 * kKiB), '\0');
  for (uint64_t at = range.offset; at < range.end();) {
    const uint64_t take = std::min<uint64_t>(zeros.size(), range.end() - at);
    PEERCHUNK_RETURN_IF_ERROR(file_.WriteAt(at, std::string_view(zeros).substr(0, take)));
    at += take;
  }
  return absl::OkStatus();
}

absl::StatusOr<BlockRange> CachedPages::Writer::Append(const Extent& extent) {
  const ByteRange range{extent.offset, extent.length};
  const uint64_t begin = range.offset / kPageBytes;
  const uint64_t touched_end = CeilDiv(range.end(), kPageBytes);
  // What another fetch has brought meanwhile is there. An object's bytes never change, so zeros are
  // holes still, unless something has written on the file behind its back.
  const bool there = pages_->present_.FindUnset(begin, touched_end) == touched_end;
  const bool as_hole = extent.zero && !pages_->spoilt_.load(std::memory_order_relaxed);
  if (extent.zero) {
    SumZeros(range.length);
  } else {
    for (const std::string_view piece : extent.pieces) Sum(piece);
  }
  if (!there && !as_hole) {
    PEERCHUNK_RETURN_IF_ERROR(extent.zero
                                  ? pages_->WriteZeros(range)
                                  : pages_->file_.WriteVectorAt(range.offset, extent.pieces));
  }
  const uint64_t end = at_ == pages_->size_ ? touched_end : at_ / kPageBytes;
  const uint64_t added = pages_->present_.Set(begin, end);
  if (added == 0) return BlockRange{};
  pages_->present_pages_.fetch_add(added, std::memory_order_relaxed);
  if (!as_hole) {
    pages_->allocated_bytes_.fetch_add(std::min(range.length, added * kPageBytes),
                                       std::memory_order_relaxed);
  }
  return BlockRange{begin, end};
}

void CachedPages::Writer::Sum(std::string_view bytes) {
  while (!bytes.empty()) {
    const std::string_view part = bytes.substr(0, LeftOfPage());
    crc32c_ = ExtendCrc32c(crc32c_, part);
    zero_ = zero_ && IsAllZero(part);
    bytes.remove_prefix(part.size());
    Summed(part.size());
  }
}

void CachedPages::Writer::SumZeros(uint64_t length) {
  static const uint32_t crc_of_zero_page = Crc32cOfZeros(kPageBytes);
  while (length > 0) {
    const uint64_t part = std::min(length, LeftOfPage());
    crc32c_ =
        part == kPageBytes ? crc_of_zero_page : CombineCrc32c(crc32c_, Crc32cOfZeros(part), part);
    length -= part;
    Summed(part);
  }
}

void CachedPages::Writer::Summed(uint64_t length) {
  const uint64_t page = at_ / kPageBytes;
  at_ += length;
  if (at_ % kPageBytes != 0 && at_ != pages_->size_) return;
  pages_->MakeSumsOf(page).Set(page % PageSums::kPages, crc32c_, zero_);
  crc32c_ = 0;
  zero_ = true;
}

uint64_t CachedPages::Writer::LeftOfPage() const {
  return std::min(kPageBytes - at_ % kPageBytes, pages_->size_ - at_);
}

}  // namespace peerchunk
