#include "mount/writable_device.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/logging.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

constexpr absl::Duration kFirstPause = absl::Milliseconds(50);
constexpr absl::Duration kLongestPause = absl::Seconds(2);

// Whether trying again is pointless: what was asked is wrong, and stays so. Everything else may
// pass, even NotFound (a source that comes back) and DataLoss (another source).
bool IsFinal(const absl::Status& status) {
  return absl::IsInvalidArgument(status) || absl::IsOutOfRange(status) ||
         absl::IsUnimplemented(status);
}

std::string Label(FileKind kind) { return std::string(FileName(kind)); }

Counter* FindCounter(Metrics* metrics, std::string_view name, FileKind kind) {
  return metrics == nullptr ? nullptr : &metrics->counter(name, {{"file", Label(kind)}});
}

void Add(Counter* counter, uint64_t n) {
  if (counter != nullptr) counter->Add(n);
}

}  // namespace

// The right to change a range of blocks, for one write: a block that is filled from the device must
// not be written by someone else at the same time. Waits for writes under way there.
class WritableDevice::Claim {
 public:
  Claim(WritableDevice& device, ByteRange blocks) : device_(device), blocks_(blocks) {
    const MutexLock lock(device_.mutex_);
    while (Overlaps()) device_.released_.Wait(device_.mutex_);
    device_.claimed_.push_back(blocks_);
  }
  ~Claim() {
    {
      const MutexLock lock(device_.mutex_);
      auto& claimed = device_.claimed_;
      claimed.erase(std::find(claimed.begin(), claimed.end(), blocks_));
    }
    device_.released_.NotifyAll();
  }
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;

 private:
  bool Overlaps() const PEERCHUNK_REQUIRES(device_.mutex_) {
    return std::any_of(device_.claimed_.begin(), device_.claimed_.end(),
                       [this](const ByteRange& other) {
                         return other.offset < blocks_.end() && blocks_.offset < other.end();
                       });
  }

  WritableDevice& device_;
  const ByteRange blocks_;
};

WritableDevice::WritableDevice(Device& base, Options options)
    : base_(base),
      options_(std::move(options)),
      read_bytes_(FindCounter(options_.metrics, "peerchunk_mount_read_bytes_total", options_.kind)),
      retries_(FindCounter(options_.metrics, "peerchunk_mount_retries_total", options_.kind)),
      failures_(FindCounter(options_.metrics, "peerchunk_mount_failures_total", options_.kind)),
      overlay_bytes_(options_.metrics == nullptr
                         ? nullptr
                         : &options_.metrics->gauge("peerchunk_mount_overlay_bytes",
                                                    {{"file", Label(options_.kind)}})) {}

WritableDevice::~WritableDevice() {
  const MutexLock lock(mutex_);
  CountOverlay(-static_cast<int64_t>(written_.size() * kPageBytes));
}

absl::StatusOr<size_t> WritableDevice::ReadAt(uint64_t offset, absl::Span<char> out,
                                              const std::stop_token& cancellation) {
  const std::optional<ByteRange> range = ByteRange::Clip(offset, out.size(), size());
  if (!range) {
    return absl::OutOfRangeError(absl::StrCat("read at ", offset, ": ", AbslView(FileName(kind())),
                                              " has ", size(), " bytes"));
  }
  uint64_t at = range->offset;
  while (at < range->end()) {
    bool written = false;
    uint64_t run_end = 0;
    {
      const MutexLock lock(mutex_);
      const uint64_t block = at / kPageBytes;
      written = written_.Contains(block);
      run_end = written_.EndOfRun(block, CeilDiv(range->end(), kPageBytes)) * kPageBytes;
    }
    const uint64_t length = std::min(run_end, range->end()) - at;
    const absl::Span<char> piece = out.subspan(at - offset, length);
    if (written) {
      PEERCHUNK_ASSIGN_OR_RETURN(const size_t got, options_.overlay.ReadAt(at, piece));
      if (got != length) return absl::DataLossError("the overlay was cut short");
    } else {
      PEERCHUNK_RETURN_IF_ERROR(ReadBase(at, piece, cancellation));
    }
    at += length;
  }
  Add(read_bytes_, range->length);
  return range->length;
}

absl::Status WritableDevice::WriteAt(uint64_t offset, std::string_view data,
                                     const std::stop_token& cancellation) {
  if (offset > size() || data.size() > size() - offset) {
    return absl::OutOfRangeError(absl::StrCat("write of ", data.size(), " bytes at ", offset, ": ",
                                              AbslView(FileName(kind())), " has ", size(),
                                              " bytes and keeps its size"));
  }
  if (data.empty()) return absl::OkStatus();
  const uint64_t end = offset + data.size();
  const uint64_t first = offset / kPageBytes;
  const uint64_t last = (end - 1) / kPageBytes;
  const Claim claim(*this, {.offset = first, .length = last - first + 1});
  // Only the first and the last block can be written in part.
  if (offset % kPageBytes != 0) PEERCHUNK_RETURN_IF_ERROR(FillBlock(first, cancellation));
  if (end % kPageBytes != 0 && end != size()) {
    PEERCHUNK_RETURN_IF_ERROR(FillBlock(last, cancellation));
  }
  PEERCHUNK_RETURN_IF_ERROR(options_.overlay.WriteAt(offset, data));
  const MutexLock lock(mutex_);
  const uint64_t before = written_.size();
  written_.Insert(first, last + 1);
  CountOverlay(static_cast<int64_t>((written_.size() - before) * kPageBytes));
  return absl::OkStatus();
}

std::vector<uint64_t> WritableDevice::DirtyBlocks() const {
  const MutexLock lock(mutex_);
  return written_.Sorted();
}

void WritableDevice::CountOverlay(int64_t bytes) {
  if (overlay_bytes_ != nullptr) overlay_bytes_->Add(bytes);
}

bool WritableDevice::Written(uint64_t block) const {
  const MutexLock lock(mutex_);
  return written_.Contains(block);
}

// Under a claim of the block. It counts as written only with the write that it is filled for.
absl::Status WritableDevice::FillBlock(uint64_t block, const std::stop_token& cancellation) {
  if (Written(block)) return absl::OkStatus();
  std::array<char, kPageBytes> bytes{};
  const uint64_t offset = block * kPageBytes;
  const absl::Span<char> piece(bytes.data(), std::min(kPageBytes, size() - offset));
  PEERCHUNK_RETURN_IF_ERROR(ReadBase(offset, piece, cancellation));
  return options_.overlay.WriteAt(offset, {piece.data(), piece.size()});
}

absl::Status WritableDevice::ReadBase(uint64_t offset, absl::Span<char> out,
                                      const std::stop_token& cancellation) {
  Clock& clock = *options_.clock;
  const absl::Time deadline = clock.Now() + options_.read_deadline;
  absl::Duration pause = kFirstPause;
  for (bool first = true;; first = false) {
    if (cancellation.stop_requested()) return absl::CancelledError("the reader has gone");
    const absl::StatusOr<size_t> got =
        base_.ReadAt(offset, out, {.deadline = deadline, .cancellation = cancellation});
    if (got.ok() && *got == out.size()) return absl::OkStatus();
    if (cancellation.stop_requested()) return absl::CancelledError("the reader has gone");
    const absl::Status why =
        got.ok() ? absl::DataLossError(absl::StrCat("only ", *got, " bytes")) : got.status();
    const absl::Time again = clock.Now() + pause;
    if (IsFinal(why) || again >= deadline) {
      Add(failures_, 1);
      Logger("mount").error("event=read_failed file={} offset={} length={} reason=\"{}\"",
                            FileName(kind()), offset, out.size(), why.ToString());
      return Annotate(why,
                      absl::StrCat("read ", Label(kind()), " [", offset, ", +", out.size(), ")"));
    }
    if (first) {
      Logger("mount").warn("event=read_retried file={} offset={} length={} reason=\"{}\"",
                           FileName(kind()), offset, out.size(), why.ToString());
    }
    Add(retries_, 1);
    if (!clock.SleepUntil(again, cancellation)) return absl::CancelledError("the reader has gone");
    pause = std::min(pause * 2, kLongestPause);
  }
}

}  // namespace peerchunk
