#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include <absl/status/statusor.h>
#include <absl/types/span.h>

#include "peerchunk/base/clock.h"
#include "peerchunk/base/range.h"
#include "peerchunk/storage/storage.h"
#include "storage/local_folder.h"
#include "storage/rate_limit.h"

namespace peerchunk {

// One pass over a range of one version of a local object, in pieces of at most 1 MiB, each under
// the deadline, the cancellation and the rate limit. A pass over the whole object keeps the last
// piece back until the checksum was found right, so that no one ever holds a whole wrong object.
// Move-only; used by one thread.
class LocalReader {
 public:
  // `range` lies within the object. `clock` and `limit` must outlive this.
  LocalReader(LocalObject object, ByteRange range, Clock& clock, RateLimit& limit,
              ReadOptions options);

  // The largest number of bytes that Read returns; not 0.
  size_t MaxPieceBytes() const { return max_piece_bytes_; }

  // Reads the next bytes into the front of `out`; 0 at the end of the range.
  absl::StatusOr<size_t> Read(absl::Span<char> out);

  // The next data or hole; its pieces are valid until the next call.
  absl::StatusOr<std::optional<Extent>> NextExtent();

 private:
  uint64_t rest() const { return range_.end() - position_; }
  bool whole() const { return range_.length == object_.stat.size; }
  absl::Status Admit(uint64_t length);
  absl::Status Accept(uint64_t length);
  absl::Status ReadPiece(absl::Span<char> out);

  LocalObject object_;
  ByteRange range_;
  Clock* clock_;
  RateLimit* limit_;
  ReadOptions options_;
  size_t max_piece_bytes_;
  uint64_t position_;
  uint32_t crc32c_ = 0;  // Of what was read so far; kept only when that is the whole object.
  std::unique_ptr<char[]> buffer_;
  std::string_view piece_;
};

}  // namespace peerchunk
