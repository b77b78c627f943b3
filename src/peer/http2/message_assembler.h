#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
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
  // Asked once for each message, with its first bytes, at most `head_bytes`, and its size: where
  // its last bytes go, which begin in the head or right behind it; empty: where the others are.
  using PlaceTail = std::function<absl::Span<char>(std::string_view head, size_t message_bytes)>;

  explicit MessageAssembler(std::shared_ptr<BufferPool> pool) : pool_(std::move(pool)) {}
  MessageAssembler(std::shared_ptr<BufferPool> pool, size_t head_bytes, PlaceTail place_tail)
      : pool_(std::move(pool)), head_bytes_(head_bytes), place_tail_(std::move(place_tail)) {}

  // Where the next bytes go; never empty.
  absl::Span<char> Target();
  // `bytes` of the target were filled. A message, when it is complete; an error when it is
  // compressed or over the limit: nothing more may be taken then.
  absl::StatusOr<std::optional<MessageBytes>> Filled(size_t bytes);
  // True between two messages.
  bool idle() const { return prefix_have_ == 0; }
  // Of the message under way, or the last one.
  size_t message_bytes() const { return size_; }

 private:
  static constexpr size_t kPrefixBytes = 5;

  void BeginMessage();
  void PlaceRest();

  const std::shared_ptr<BufferPool> pool_;
  const size_t head_bytes_ = 0;
  const PlaceTail place_tail_;
  char prefix_[kPrefixBytes] = {};
  size_t prefix_have_ = 0;
  std::shared_ptr<char[]> message_;
  size_t own_bytes_ = 0;  // Of the message, that go to `message_`; what is behind them to `tail_`.
  absl::Span<char> tail_;
  bool placed_ = false;  // It is known what goes where.
  size_t size_ = 0;
  size_t have_ = 0;
};

}  // namespace peerchunk::http2
