#include "service/extent_source.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "peerchunk/base/crc32c.h"
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

// Length of the run of zero pages at the start of `data`; a short last page counts when it is zero.
uint64_t LeadingZeros(std::string_view data) {
  uint64_t length = 0;
  while (length < data.size() && IsAllZero(data.substr(length, kPageBytes))) {
    length = std::min<uint64_t>(length + kPageBytes, data.size());
  }
  return length;
}

// Cuts `data` into data and long runs of zeros. `recorded` is the checksum of all of it, if known.
void Cut(const std::shared_ptr<Window>& window, uint64_t offset, std::string_view data,
         std::optional<uint32_t> recorded, std::deque<OutgoingExtent>& out) {
  uint64_t data_begin = 0;
  uint64_t at = 0;
  const auto emit_data = [&](uint64_t end) {
    if (end == data_begin) return;
    const std::string_view piece = data.substr(data_begin, end - data_begin);
    out.push_back({.offset = offset + data_begin,
                   .zero_length = 0,
                   .crc32c = recorded && piece.size() == data.size() ? *recorded : Crc32c(piece),
                   .data = SliceOf(window, piece)});
  };
  while (at < data.size()) {
    const uint64_t zeros = LeadingZeros(data.substr(at));
    if (zeros >= std::min<uint64_t>(ExtentSource::kMinZeroRunBytes, data.size())) {
      emit_data(at);
      out.push_back({.offset = offset + at, .zero_length = zeros, .crc32c = 0, .data = {}});
      at += zeros;
      data_begin = at;
    } else {
      at = std::min<uint64_t>(at + std::max(zeros, kPageBytes), data.size());
    }
  }
  emit_data(data.size());
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
      const BuildFile::ReadToSend got,
      file_->ReadAtToSend(next_, absl::MakeSpan(window->bytes.get(), want), options));
  if (got.length != want) {
    return absl::DataLossError(absl::StrCat("read ", file_->id().ObjectPath(), " [", next_, ", +",
                                            want, "): only ", got.length, " bytes are there"));
  }
  Cut(window, next_, std::string_view(window->bytes.get(), want), got.crc32c, out);
  next_ += want;
  return absl::OkStatus();
}

}  // namespace peerchunk
