#include "storage/local_reader.h"

#include <algorithm>
#include <utility>

#include "base/sparse_file.h"
#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/status.h"
#include "storage/still_wanted.h"

namespace peerchunk {

LocalReader::LocalReader(LocalObject object, ByteRange range, Clock& clock, RateLimit& limit,
                         ReadOptions options)
    : object_(std::move(object)),
      range_(range),
      clock_(&clock),
      limit_(&limit),
      options_(std::move(options)),
      max_piece_bytes_(std::clamp<uint64_t>(range.length, 1, kMiB)),
      position_(range.offset) {}

absl::StatusOr<size_t> LocalReader::Read(absl::Span<char> out) {
  const absl::Span<char> piece =
      out.subspan(0, static_cast<size_t>(std::min<uint64_t>(rest(), max_piece_bytes_)));
  if (piece.empty()) return 0;
  PEERCHUNK_RETURN_IF_ERROR(ReadPiece(piece));
  return piece.size();
}

absl::StatusOr<std::optional<Extent>> LocalReader::NextExtent() {
  if (rest() == 0) return std::nullopt;
  PEERCHUNK_ASSIGN_OR_RETURN(const FileSegment segment,
                             SegmentAt(object_.file, position_, range_.end()));
  Extent extent{.offset = position_, .length = segment.end - segment.begin, .zero = segment.hole};
  if (extent.zero) {
    PEERCHUNK_RETURN_IF_ERROR(Admit(extent.length));
    if (whole()) {
      crc32c_ = CombineCrc32c(crc32c_, Crc32cOfZeros(extent.length), extent.length);
    }
    PEERCHUNK_RETURN_IF_ERROR(Accept(extent.length));
    return extent;
  }
  extent.length = std::min<uint64_t>(extent.length, max_piece_bytes_);
  if (buffer_ == nullptr) buffer_ = std::make_unique_for_overwrite<char[]>(max_piece_bytes_);
  PEERCHUNK_RETURN_IF_ERROR(ReadPiece(absl::MakeSpan(buffer_.get(), extent.length)));
  piece_ = std::string_view(buffer_.get(), extent.length);
  extent.pieces = absl::MakeConstSpan(&piece_, 1);
  return extent;
}

absl::Status LocalReader::ReadPiece(absl::Span<char> out) {
  PEERCHUNK_RETURN_IF_ERROR(Admit(out.size()));
  PEERCHUNK_ASSIGN_OR_RETURN(const size_t read, object_.file.ReadAt(position_, out));
  if (read != out.size()) return absl::AbortedError("the file shrank while it was read");
  if (whole()) crc32c_ = ExtendCrc32c(crc32c_, std::string_view(out.data(), out.size()));
  return Accept(out.size());
}

absl::Status LocalReader::Admit(uint64_t length) {
  PEERCHUNK_RETURN_IF_ERROR(CheckStillWanted(*clock_, options_));
  return limit_->Spend(length, options_.deadline, options_.cancellation);
}

// Counts what was read; at the end of the range, says whether it was right.
absl::Status LocalReader::Accept(uint64_t length) {
  position_ += length;
  if (rest() != 0) return absl::OkStatus();
  PEERCHUNK_RETURN_IF_ERROR(object_.CheckUnchanged());
  if (whole() && object_.stat.crc32c && *object_.stat.crc32c != crc32c_) {
    return absl::DataLossError("the bytes do not have the recorded checksum");
  }
  return absl::OkStatus();
}

}  // namespace peerchunk
