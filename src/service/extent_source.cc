#include "service/extent_source.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

// The memory of one window, shared by the slices cut from it; the last one frees it, on any thread.
struct Window {
  Window(uint64_t size, ByteBudget::Lease given) : bytes(new char[size]), lease(std::move(given)) {}
  std::unique_ptr<char[]> bytes;
  ByteBudget::Lease lease;
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

absl::Status ExtentSource::Read(ByteBudget::Lease lease, const ReadOptions& options,
                                std::deque<OutgoingExtent>& out) {
  uint64_t want = NextWindowBytes();
  if (present_only_) {
    want = file_->PresentBytes(next_, want);
    if (want == 0) {
      stopped_short_ = true;
      return absl::OkStatus();
    }
  }
  auto window = std::make_shared<Window>(want, std::move(lease));
  PEERCHUNK_ASSIGN_OR_RETURN(
      const std::vector<Run> runs,
      file_->ReadRuns(next_, absl::MakeSpan(window->bytes.get(), want), options));
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
      extent.data = SliceOf(window, std::string_view(window->bytes.get() + run.offset, run.length));
    }
  }
  next_ += want;
  return absl::OkStatus();
}

}  // namespace peerchunk
