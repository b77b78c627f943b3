#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include <absl/status/statusor.h>

#include "peer/wire/message_bytes.h"
#include "peer/wire/wire.h"
#include "peerchunk/base/range.h"

namespace peerchunk {

// One part of a ReadBuildFileResponse.
struct ReadPart {
  uint64_t id = 0;
  absl::Status error;    // OK: there is a message, a GetBuildFileResponse, not looked into yet.
  MessageBytes message;  // Shares the memory of what it came in.
};

// Takes a ReadBuildFileResponse apart. Total: any bytes give parts or DataLoss, which more parts
// than an honest peer has for one message are, too.
absl::StatusOr<std::vector<ReadPart>> DecodeReadParts(const MessageBytes& bytes);

// Takes the messages of one stream apart and sees to it that no more memory is kept than what the
// parts are: a part keeps the whole message that it lies in, so where much is kept already those
// that are little of theirs are copied. One thread at a time; parts may outlive it.
class ReadPartDecoder {
 public:
  // Of messages, at most, in which parts lie that are less than a quarter of theirs.
  static constexpr size_t kMostKeptBytes = 8 * kMiB;

  absl::StatusOr<std::vector<ReadPart>> Decode(MessageBytes bytes);

 private:
  const std::shared_ptr<std::atomic<size_t>> kept_bytes_ = std::make_shared<std::atomic<size_t>>(0);
};

// The parts of one read that came and were not taken yet. Not thread-safe.
class WaitingParts {
 public:
  // What a peer may send of one read before it is taken: the longest read, and what is around it.
  static constexpr size_t kMostBytes = 2 * kMaxSharedReadBytes;

  // DataLoss, and the part is dropped, when that is more than any read asks for. What comes behind
  // an error is dropped: nothing should.
  absl::Status Add(ReadPart part);
  bool empty() const { return parts_.empty(); }
  // The first one; there is one.
  ReadPart Take();

 private:
  std::deque<ReadPart> parts_;
  size_t bytes_ = 0;
  bool has_error_ = false;
};

}  // namespace peerchunk
