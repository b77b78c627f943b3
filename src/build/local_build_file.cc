#include "peerchunk/build/local_build_file.h"

#include <algorithm>
#include <cstring>
#include <utility>

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
      allocated_bytes_(allocated_bytes),
      checksums_(std::move(checksums)),
      on_corrupt_(std::move(on_corrupt)),
      checked_(new std::atomic<bool>[checksums_->block_crc32c.size()]()),
      runs_(new std::atomic<const std::vector<Run>*>[checksums_->block_crc32c.size()]()) {}

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
    const uint64_t block = at / kBlock;
    const ByteRange extent{block * kBlock, std::min(kBlock, size() - block * kBlock)};
    const uint64_t take = std::min(extent.end(), range->end()) - at;
    char* const target = out.data() + (at - offset);
    absl::Status status;
    if (take == extent.length) {
      status = ReadAndCheck(block, extent, target);
    } else if (checked_[block].load(std::memory_order_acquire)) {
      status = ReadExactly({at, take}, target);
    } else {
      if (whole_block == nullptr) whole_block = std::make_unique_for_overwrite<char[]>(kBlock);
      status = ReadAndCheck(block, extent, whole_block.get());
      if (status.ok()) std::memcpy(target, whole_block.get() + (at - extent.offset), take);
    }
    if (!status.ok()) return Annotate(status, context());
    at += take;
  }
  return range->length;
}

bool LocalBuildFile::TryReadAt(uint64_t offset, absl::Span<char> out) {
  if (out.empty() || offset >= size() || out.size() > size() - offset) return false;
  const uint64_t last = (offset + out.size() - 1) / kBlock;
  for (uint64_t block = offset / kBlock; block <= last; ++block) {
    if (!checked_[block].load(std::memory_order_acquire)) return false;
  }
  return file_.ReadAtIfInMemory(offset, out);
}

absl::StatusOr<std::vector<Run>> LocalBuildFile::ReadRuns(uint64_t offset, absl::Span<char> out,
                                                          const ReadOptions& options) {
  const uint64_t block = offset / kBlock;
  const bool whole =
      offset % kBlock == 0 && offset < size() && out.size() == std::min(kBlock, size() - offset);
  if (!whole) return BuildFile::ReadRuns(offset, out, options);
  const std::vector<Run>* known = runs_[block].load(std::memory_order_acquire);
  if (known != nullptr && checked_[block].load(std::memory_order_acquire)) {
    for (const Run& run : *known) {
      if (run.zero) continue;
      PEERCHUNK_RETURN_IF_ERROR(
          Annotate(ReadExactly({offset + run.offset, run.length}, out.data() + run.offset),
                   Context(offset, out.size())));
    }
    return *known;
  }
  PEERCHUNK_ASSIGN_OR_RETURN(std::vector<Run> runs, BuildFile::ReadRuns(offset, out, options));
  if (known == nullptr) {
    auto made = std::make_unique<const std::vector<Run>>(runs);
    if (runs_[block].compare_exchange_strong(known, made.get(), std::memory_order_acq_rel)) {
      static_cast<void>(made.release());
    }
  }
  return runs;
}

LocalBuildFile::~LocalBuildFile() {
  for (size_t block = 0; block < checksums_->block_crc32c.size(); ++block)
    delete runs_[block].load();
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

absl::Status LocalBuildFile::ReadAndCheck(uint64_t block, ByteRange extent, char* out) {
  PEERCHUNK_RETURN_IF_ERROR(ReadExactly(extent, out));
  const bool matches =
      Crc32c(std::string_view(out, extent.length)) == checksums_->block_crc32c[block];
  checked_[block].store(matches, std::memory_order_release);
  if (matches) return absl::OkStatus();
  return ReportCorrupt(absl::StrCat("the block at ", extent.offset,
                                    " no longer has the checksum recorded at pause"));
}

absl::Status LocalBuildFile::ReportCorrupt(std::string_view what) {
  const absl::Status lost = absl::DataLossError(AbslView(what));
  if (!corrupt_reported_.exchange(true) && on_corrupt_) {
    on_corrupt_(Annotate(lost, id_.ObjectPath()));
  }
  return lost;
}

uint64_t LocalBuildFile::PresentBytes(uint64_t offset, uint64_t limit) const {
  return offset >= size() ? 0 : std::min(limit, size() - offset);
}

}  // namespace peerchunk
