#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include <absl/status/statusor.h>
#include <absl/types/span.h>

#include "peer/wire/message_bytes.h"
#include "peerchunk/base/mutex.h"

namespace peerchunk::http2 {

// Memory for messages on their way in. Large blocks are kept for the next ones: fresh memory costs
// as much as what is read into it. Thread-safe; blocks may outlive the pool's owner.
class BufferPool : public std::enable_shared_from_this<BufferPool> {
 public:
  std::shared_ptr<char[]> Get(size_t bytes);

 private:
  static constexpr size_t kKept = 8;
  void GiveBack(std::unique_ptr<char[]> block, size_t bytes);

  struct Block {
    std::unique_ptr<char[]> memory;
    size_t bytes = 0;
  };
  Mutex mutex_;
  std::vector<Block> free_ PEERCHUNK_GUARDED_BY(mutex_);
};

// Puts the messages of one call together from the bytes of its DATA frames: a flag, a length and
// the message (grpc/doc/PROTOCOL-HTTP2.md). Used by one thread at a time.
class MessageAssembler {
 public:
  explicit MessageAssembler(std::shared_ptr<BufferPool> pool) : pool_(std::move(pool)) {}

  // Where the next bytes go; never empty.
  absl::Span<char> Target();
  // `bytes` of the target were filled. A message, when it is complete; an error when it is
  // compressed or over the limit: nothing more may be taken then.
  absl::StatusOr<std::optional<MessageBytes>> Filled(size_t bytes);
  // True between two messages.
  bool idle() const { return prefix_have_ == 0; }

 private:
  static constexpr size_t kPrefixBytes = 5;

  const std::shared_ptr<BufferPool> pool_;
  char prefix_[kPrefixBytes] = {};
  size_t prefix_have_ = 0;
  std::shared_ptr<char[]> message_;
  size_t size_ = 0;
  size_t have_ = 0;
};

}  // namespace peerchunk::http2
