#include "service/extent_source.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

// The memory of one window, shared by the slices cut from it; the last one frees it, on any thread.
struct Window {
  Window(BufferPool::Buffer given_buffer, ByteBudget::Lease given_lease)
      : lease(std::move(given_lease)), buffer(std::move(given_buffer)) {}
  ByteBudget::Lease lease;
  BufferPool::Buffer buffer;  // Goes first: a lease given back is memory that is free.
};

grpc::Slice SliceOf(const std::shared_ptr<Window>& window, std::string_view data) {
  auto* owner = new std::shared_ptr<Window>(window);
  return grpc::Slice(
      const_cast<char*>(data.data()), data.size(),
      [](void* shared) { delete static_cast<std::shared_ptr<Window>*>(shared); }, owner);
}

}  // namespace

uint64_t ExtentSource::NextWindowBytes() const {
  if (done()) return 0;
  const uint64_t to_grid = kWindowBytes - next_ % kWindowBytes;
  return std::min(to_grid, range_.end() - next_);
}

uint64_t ExtentSource::NextPieceBytes() const { return std::min(kPieceBytes, NextWindowBytes()); }

bool ExtentSource::NextIsHere() const {
  return present_only_ || file_->PresentBytes(next_, NextWindowBytes()) > 0;
}

bool ExtentSource::TryRead(ByteBudget::Lease& lease, const ReadOptions& options,
                           std::deque<OutgoingExtent>& out) {
  const uint64_t piece = NextPieceBytes();
  BufferPool::Buffer buffer = pool_->Take(piece);
  const std::vector<Run> runs =
      file_->TryReadRuns(next_, NextWindowBytes(), absl::MakeSpan(buffer.data(), piece), options);
  if (runs.empty()) return false;
  auto window = std::make_shared<Window>(std::move(buffer), std::move(lease));
  const char* data = window->buffer.data();
  for (const Run& run : runs) {
    OutgoingExtent& extent = out.emplace_back();
    extent.offset = next_ + run.offset;
    if (run.zero) {
      extent.zero_length = run.length;
      continue;
    }
    extent.crc32c = run.crc32c;
    extent.data = SliceOf(window, std::string_view(data, run.length));
    data += run.length;
  }
  next_ += runs.back().offset + runs.back().length;
  return true;
}

absl::Status ExtentSource::Read(ByteBudget::Lease lease, const ReadOptions& options,
                                std::deque<OutgoingExtent>& out) {
  uint64_t want = NextWindowBytes();
  const uint64_t here = file_->PresentBytes(next_, want);
  if (here == 0 && present_only_) {
    stopped_short_ = true;
    return absl::OkStatus();
  }
  if (here > 0) want = here;  // What takes no fetch does not wait for what takes one.
  auto window = std::make_shared<Window>(pool_->Take(want), std::move(lease));
  PEERCHUNK_ASSIGN_OR_RETURN(
      const std::vector<Run> runs,
      file_->ReadRuns(next_, absl::MakeSpan(window->buffer.data(), want), options));
  const uint64_t got = runs.empty() ? 0 : runs.back().offset + runs.back().length;
  if (got != want) {
    return absl::DataLossError(absl::StrCat("read ", file_->id().ObjectPath(), " [", next_, ", +",
                                            want, "): only ", got, " bytes are there"));
  }
  for (const Run& run : runs) {
    OutgoingExtent& extent = out.emplace_back();
    extent.offset = next_ + run.offset;
    if (run.zero) {
      extent.zero_length = run.length;
    } else {
      extent.crc32c = run.crc32c;
      extent.data =
          SliceOf(window, std::string_view(window->buffer.data() + run.offset, run.length));
    }
  }
  next_ += want;
  return absl::OkStatus();
}

}  // namespace peerchunk
