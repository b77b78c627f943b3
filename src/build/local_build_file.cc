#include "peerchunk/build/local_build_file.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/memory_backed.h"
#include "build/page_sums.h"
#include "build/whole_pages.h"
#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

constexpr uint64_t kBlock = FileChecksums::kBlockBytes;

}  // namespace

LocalBuildFile::LocalBuildFile(BuildFileId id, File file, uint64_t allocated_bytes,
                               std::shared_ptr<const FileChecksums> checksums,
                               std::function<void(const absl::Status&)> on_corrupt)
    : id_(id),
      file_(std::move(file)),
      memory_backed_(IsMemoryBacked(file_.fd())),
      allocated_bytes_(allocated_bytes),
      checksums_(std::move(checksums)),
      on_corrupt_(std::move(on_corrupt)),
      sums_(new std::atomic<const PageSums*>[checksums_->block_crc32c.size()]()) {}

LocalBuildFile::~LocalBuildFile() {
  for (size_t block = 0; block < checksums_->block_crc32c.size(); ++block) {
    delete sums_[block].load();
  }
}

absl::StatusOr<std::shared_ptr<LocalBuildFile>> LocalBuildFile::Open(
    BuildFileId id, File file, std::shared_ptr<const FileChecksums> checksums,
    std::function<void(const absl::Status&)> on_corrupt) {
  if (checksums == nullptr || checksums->block_crc32c.size() != CeilDiv(checksums->size, kBlock)) {
    return absl::InvalidArgumentError(
        absl::StrCat("open ", id.ObjectPath(), ": the record lacks checksums of some blocks"));
  }
  PEERCHUNK_ASSIGN_OR_RETURN(const uint64_t size, file.Size());
  if (size != checksums->size) {
    const absl::Status lost =
        absl::DataLossError(absl::StrCat("open ", id.ObjectPath(), ": the file has ", size,
                                         " bytes, its record says ", checksums->size));
    if (on_corrupt) on_corrupt(lost);
    return lost;
  }
  PEERCHUNK_ASSIGN_OR_RETURN(const uint64_t allocated, file.AllocatedBytes());
  return std::shared_ptr<LocalBuildFile>(new LocalBuildFile(
      id, std::move(file), allocated, std::move(checksums), std::move(on_corrupt)));
}

ByteRange LocalBuildFile::BlockAt(uint64_t offset) const {
  const uint64_t begin = offset / kBlock * kBlock;
  return {begin, std::min(kBlock, size() - begin)};
}

const PageSums* LocalBuildFile::SumsAt(uint64_t offset) const {
  return sums_[offset / kBlock].load(std::memory_order_acquire);
}

absl::StatusOr<size_t> LocalBuildFile::ReadAt(uint64_t offset, absl::Span<char> out,
                                              const ReadOptions& options) {
  const auto context = [&] { return Context(offset, out.size()); };
  const std::optional<ByteRange> range = ByteRange::Clip(offset, out.size(), size());
  if (!range) {
    return absl::OutOfRangeError(absl::StrCat(context(), ": the file has ", size(), " bytes"));
  }
  std::unique_ptr<char[]> whole_block;
  for (uint64_t at = range->offset; at < range->end();) {
    if (options.cancellation.stop_requested()) return absl::CancelledError(context());
    const ByteRange block = BlockAt(at);
    const uint64_t take = std::min(block.end(), range->end()) - at;
    char* const target = out.data() + (at - offset);
    absl::Status status;
    if (const PageSums* const sums = SumsAt(at)) {
      bool filled = false;
      status = ReadChecked(*sums, {at, take}, target, Patience::kWait, filled);
    } else if (take == block.length) {
      status = ReadAndCheck(block, target);
    } else {
      if (whole_block == nullptr) whole_block = std::make_unique_for_overwrite<char[]>(kBlock);
      status = ReadAndCheck(block, whole_block.get());
      if (status.ok()) std::memcpy(target, whole_block.get() + (at - block.offset), take);
    }
    if (!status.ok()) return Annotate(status, context());
    at += take;
  }
  return range->length;
}

bool LocalBuildFile::TryReadAt(uint64_t offset, absl::Span<char> out) {
  if (out.empty() || offset >= size() || out.size() > size() - offset) return false;
  const uint64_t end = offset + out.size();
  for (uint64_t at = offset; at < end; at = BlockAt(at).end()) {
    if (SumsAt(at) == nullptr) return false;
  }
  for (uint64_t at = offset; at < end;) {
    const uint64_t take = std::min(BlockAt(at).end(), end) - at;
    bool filled = false;
    const absl::Status status =
        ReadChecked(*SumsAt(at), {at, take}, out.data() + (at - offset), Patience::kNow, filled);
    if (!status.ok() || !filled) return false;  // ReadAt says why.
    at += take;
  }
  return true;
}

absl::StatusOr<std::vector<Run>> LocalBuildFile::ReadRuns(uint64_t offset, absl::Span<char> out,
                                                          const ReadOptions& options) {
  const uint64_t end = offset + out.size();
  // Of pages of one block, else byte by byte.
  const bool pages = offset < size() && out.size() <= BlockAt(offset).end() - offset &&
                     offset % kPageBytes == 0 && (end % kPageBytes == 0 || end == size());
  if (!pages || out.empty()) return BuildFile::ReadRuns(offset, out, options);
  const uint64_t in_block = offset % kBlock;
  const PageSums* const sums = SumsAt(offset);
  if (sums != nullptr && !sums->spoilt.load(std::memory_order_relaxed)) {
    std::vector<Run> runs = sums->Runs(in_block, out.size(), out.size());
    for (const Run& run : runs) {
      if (run.zero) continue;
      PEERCHUNK_RETURN_IF_ERROR(
          Annotate(ReadExactly({offset + run.offset, run.length}, out.data() + run.offset),
                   Context(offset, out.size())));
    }
    return runs;
  }
  PEERCHUNK_RETURN_IF_ERROR(ReadAt(offset, out, options));
  return SumsAt(offset)->Runs(in_block, out.size(), out.size());
}

std::vector<Run> LocalBuildFile::TryReadRuns(uint64_t offset, uint64_t length, absl::Span<char> out,
                                             const ReadOptions& options) {
  if (offset >= size() || length == 0) return {};
  const PageSums* const sums = SumsAt(offset);
  if (sums == nullptr || sums->spoilt.load(std::memory_order_relaxed)) return {};
  const uint64_t end = std::min(offset + std::min(length, size() - offset), BlockAt(offset).end());
  if (offset % kPageBytes != 0 || (end % kPageBytes != 0 && end != size())) {
    return BuildFile::TryReadRuns(offset, end - offset, out, options);
  }
  std::vector<Run> runs = sums->Runs(offset % kBlock, end - offset, out.size());
  uint64_t packed = 0;
  for (const Run& run : runs) {
    if (run.zero) continue;
    if (!ReadAtOnce({offset + run.offset, run.length}, out.data() + packed)) return {};
    packed += run.length;
  }
  return runs;
}

std::string LocalBuildFile::Context(uint64_t offset, size_t length) const {
  return absl::StrCat("read ", id_.ObjectPath(), " [", offset, ", +", length, ")");
}

absl::Status LocalBuildFile::ReadExactly(ByteRange range, char* out) {
  PEERCHUNK_ASSIGN_OR_RETURN(const size_t got,
                             file_.ReadAt(range.offset, absl::MakeSpan(out, range.length)));
  if (got == range.length) return absl::OkStatus();
  return ReportCorrupt(
      absl::StrCat("the file ends at ", range.offset + got, ", its record says ", size()));
}

bool LocalBuildFile::ReadAtOnce(ByteRange range, char* out) {
  const auto into = absl::MakeSpan(out, range.length);
  if (!memory_backed_) return file_.ReadAtIfInMemory(range.offset, into);
  const absl::StatusOr<size_t> got = file_.ReadAt(range.offset, into);
  return got.ok() && *got == range.length;
}

absl::Status LocalBuildFile::ReadAndCheck(ByteRange block, char* out) {
  PEERCHUNK_RETURN_IF_ERROR(ReadExactly(block, out));
  auto sums = std::make_unique<const PageSums>(std::string_view(out, block.length));
  const uint64_t index = block.offset / kBlock;
  if (sums->OfBlock(block.length) != checksums_->block_crc32c[index]) {
    return ReportCorrupt(absl::StrCat("the block at ", block.offset,
                                      " no longer has the checksum recorded at pause"));
  }
  const PageSums* none = nullptr;
  if (sums_[index].compare_exchange_strong(none, sums.get(), std::memory_order_acq_rel)) {
    static_cast<void>(sums.release());
  }
  return absl::OkStatus();
}

absl::Status LocalBuildFile::ReadChecked(const PageSums& sums, ByteRange range, char* out,
                                         Patience patience, bool& filled) {
  const ByteRange block = BlockAt(range.offset);
  const auto read = [&](ByteRange part, char* to) -> absl::Status {
    filled = patience == Patience::kWait || ReadAtOnce(part, to);
    return patience == Patience::kWait ? ReadExactly(part, to) : absl::OkStatus();
  };
  const auto check = [&](ByteRange pages, const char* bytes) -> absl::Status {
    for (uint64_t at = pages.offset; at < pages.end(); at += kPageBytes) {
      const std::string_view page(bytes + (at - pages.offset),
                                  std::min(kPageBytes, pages.end() - at));
      if (sums.Matches((at - block.offset) / kPageBytes, page)) continue;
      sums.spoilt.store(true, std::memory_order_relaxed);
      return ReportCorrupt(absl::StrCat("the page at ", at, " changed after it had been checked"));
    }
    return absl::OkStatus();
  };
  absl::Status status;
  ReadInWholePages(range, size(), out, [&](ByteRange pages, char* to) {
    status = read(pages, to);
    if (status.ok() && filled) status = check(pages, to);
    return status.ok() && filled;
  });
  return status;
}

absl::Status LocalBuildFile::ReportCorrupt(std::string_view what) {
  absl::Status lost = absl::DataLossError(AbslView(what));
  if (!corrupt_reported_.exchange(true) && on_corrupt_) {
    on_corrupt_(Annotate(lost, id_.ObjectPath()));
  }
  return lost;
}

uint64_t LocalBuildFile::PresentBytes(uint64_t offset, uint64_t limit) const {
  return offset >= size() ? 0 : std::min(limit, size() - offset);
}

}  // namespace peerchunk
