#include "peer/stream_check.h"

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

constexpr uint64_t kMaxExtentDataBytes = kMiB;

template <typename... Parts>
absl::Status Wrong(const Parts&... parts) {
  return absl::DataLossError(absl::StrCat("the peer sent ", parts...));
}

}  // namespace

absl::Status StreamCheck::Check(const PeerMessage& message) {
  if (finished_) return Wrong("a message after the last one");
  if (!head_) {
    if (!message.head) return Wrong("a first message without a head");
    PEERCHUNK_RETURN_IF_ERROR(CheckHead(*message.head));
  } else if (message.head) {
    return Wrong("a second head");
  }
  if (message.extent) PEERCHUNK_RETURN_IF_ERROR(CheckExtent(*message.extent));
  if (!message.last) return absl::OkStatus();
  if (head_->availability == Availability::kAvailable && !past_the_end_) {
    if (message.next_offset != next_) {
      return Wrong("offset ", message.next_offset, " as reached where ", next_, " was");
    }
    if (next_ != end_ && !message.stopped_short) {
      return Wrong("an end at ", next_, " of a range that ends at ", end_);
    }
    stopped_short_ = next_ != end_;
  }
  finished_ = true;
  return absl::OkStatus();
}

absl::Status StreamCheck::CheckHead(const FileHead& head) {
  head_ = head;
  if (head.availability != Availability::kAvailable) return absl::OkStatus();
  const auto range = ByteRange::Clip(start_, asked_length_, head.total_size);
  past_the_end_ = !range.has_value();
  end_ = range ? range->end() : start_;
  return absl::OkStatus();
}

absl::Status StreamCheck::CheckExtent(const PeerExtent& extent) {
  if (head_->availability != Availability::kAvailable) return Wrong("bytes of a file it denies");
  if (extent.offset != next_) {
    return Wrong("bytes at offset ", extent.offset, " where ", next_, " was due");
  }
  if (extent.length == 0) return Wrong("an empty extent");
  if (extent.length > end_ - next_) {
    return Wrong(extent.length, " bytes at ", extent.offset, ", beyond the end at ", end_);
  }
  if (!extent.zero) {
    if (extent.length > kMaxExtentDataBytes) {
      return Wrong("an extent of ", extent.length, " bytes");
    }
    uint64_t bytes = 0;
    uint32_t crc = 0;
    for (const std::string_view piece : extent.pieces) {
      bytes += piece.size();
      crc = ExtendCrc32c(crc, piece);
    }
    if (bytes != extent.length) {
      return Wrong(bytes, " bytes in an extent of ", extent.length);
    }
    if (crc != extent.crc32c) {
      return Wrong("bytes [", extent.offset, ", +", extent.length, ") with a wrong CRC32C");
    }
  }
  next_ += extent.length;
  return absl::OkStatus();
}

}  // namespace peerchunk
