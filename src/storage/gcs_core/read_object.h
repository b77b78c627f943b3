#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "peerchunk/storage/storage.h"
#include "storage/gcs_core/attempt.h"
#include "storage/gcs_core/gcs_context.h"
#include "storage/gcs_core/retry.h"

namespace peerchunk {

// One pass over a range of an object (ReadObject). A broken stream goes on at the byte reached, on
// another channel, of the generation that the first message named. Every message is checked against
// its CRC32C, and a pass over the whole object against the object's before its last bytes are
// handed out. Owned by the reading thread; the context outlives it.
class ObjectReader final : public RangeReader {
 public:
  // `length` absent: to the end. Opens nothing yet.
  ObjectReader(GcsContext& context, std::string object, uint64_t offset,
               std::optional<uint64_t> length, const ReadOptions& options);
  ~ObjectReader() override;

  absl::StatusOr<std::optional<Extent>> Next() override;

 private:
  absl::StatusOr<bool> ReadMessage();
  absl::Status Open();
  void Close(const absl::Status& status);
  absl::Status Accept();
  absl::Status CheckContent();
  absl::Status Recover(const absl::Status& status, size_t channel);
  absl::Status Locate();
  absl::Status ExplainNotFound(const absl::Status& not_found);
  uint64_t Limit() const;

  GcsContext& context_;
  const std::string object_;
  const uint64_t begin_;
  uint64_t offset_;                 // The next byte.
  std::optional<uint64_t> length_;  // Of the range as asked for.
  std::optional<uint64_t> end_;     // Of the range in the object, once its size is known.
  std::optional<uint64_t> size_;    // Of the object.
  int64_t generation_ = 0;          // 0: not known yet.
  std::optional<uint32_t> object_crc32c_;
  uint32_t crc32c_ = 0;  // Of what was handed out.
  CallLimits limits_;
  RetryLoop retry_;
  absl::Time handed_out_;  // When the consumer's own time began.
  const std::string token_ = GcsContext::NewToken();

  std::unique_ptr<Attempt> attempt_;  // Outlives stream_.
  std::unique_ptr<GcsReadStream> stream_;
  bool first_message_ = true;  // Of this attempt.
  absl::Time opened_;
  GcsReadMessage message_;
  absl::Status status_;  // Sticky.
};

}  // namespace peerchunk
