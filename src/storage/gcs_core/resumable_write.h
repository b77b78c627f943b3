#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "storage/gcs_core/object_write.h"
#include "storage/gcs_core/retry.h"
#include "storage/gcs_core/upload_source.h"

namespace peerchunk {

// Writes a range of a source as one object through a resumable session: in streams of limited
// length, each followed by the server's word on what it has, from where the next one goes on. Lives
// on the stack of the lane that runs it.
class ResumableWrite {
 public:
  struct Range {
    uint64_t begin = 0;
    uint64_t end = 0;  // > begin.
  };
  // `upload_id`: of a session that an earlier process began, or empty. `on_session` is told the id
  // of every session begun. `crc32c`: of the range, where it is known beforehand.
  ResumableWrite(GcsContext& context, ObjectWrite write, const UploadSource& source, Range range,
                 std::optional<uint32_t> crc32c, std::string upload_id,
                 std::function<void(const std::string&)> on_session);

  // Returns the object as the store holds it: of the size and CRC32C of what was sent, the latter
  // in crc32c(). An error worth resuming leaves the session; any other one cancels it.
  absl::StatusOr<GcsObject> Run();
  uint32_t crc32c() const { return *crc32c_; }

 private:
  // Where the next message begins, or the object when there is nothing left to send.
  struct Step {
    absl::Status local;   // What no further attempt mends.
    absl::Status server;  // What the server or the way to it said.
    std::optional<size_t> channel;
    std::optional<GcsObject> object;
  };

  Step Advance();
  Step BeginSession();
  Step Query();
  Step SendSegment();
  // Judges an answer that says how far the session is; `sent` bounds what it may say.
  Step Take(const GcsWriteStatus& answer, uint64_t sent);
  absl::Status SendMessages(Attempt& attempt, GcsWriteStream& stream, uint32_t crc32c,
                            uint64_t& position);
  absl::Status Confirm(GcsObject& object);
  absl::Status Recover(const Step& step, std::optional<GcsObject>& object);
  absl::Status RecoverFromMismatch(const absl::Status& status);
  absl::Status HashAgain();
  void Restart();
  void CancelSession();

  uint64_t length() const { return range_.end - range_.begin; }
  // The CRC32C of the first `position` bytes of the range, from checkpoints or from the source.
  absl::StatusOr<uint32_t> CrcUpTo(uint64_t position);
  // Notes it; DataLoss when another pass over the same bytes had found another one.
  absl::Status Checkpoint(uint64_t position, uint32_t crc32c);

  GcsContext& context_;
  ObjectWrite write_;
  const UploadSource& source_;
  const Range range_;
  const std::optional<uint32_t> expected_;
  const std::function<void(const std::string&)> on_session_;
  RetryLoop loop_;

  std::string upload_id_;
  bool known_ = false;      // persisted_ is the server's latest word.
  uint64_t persisted_ = 0;  // Relative to the range, as all positions here.
  uint64_t best_ = 0;       // The most that was ever persisted.
  // Idempotency tokens of requests that have not succeeded yet.
  std::string begin_token_, query_token_, write_token_;
  int sessions_lost_ = 0;
  int out_of_range_ = 0;
  bool mismatched_ = false;

  std::string buffer_;
  // CRC32C of the first (i + 1) * kGcsMessageBytes bytes.
  std::vector<uint32_t> checkpoints_;
  std::optional<uint32_t> crc32c_;  // Of the whole range, once it was sent or hashed.
};

}  // namespace peerchunk
