#include "peer/http2/message_assembler.h"

#include <bit>
#include <string_view>
#include <utility>

#include "peer/http2/frame.h"
#include "peer/wire/wire.h"
#include "peerchunk/base/status.h"

namespace peerchunk::http2 {
namespace {

// Smaller ones are quick to get from malloc.
constexpr size_t kPooledBytes = 32 * 1024;

}  // namespace

std::shared_ptr<char[]> BufferPool::Get(size_t bytes) {
  if (bytes < kPooledBytes) return std::shared_ptr<char[]>(new char[bytes]);
  const size_t wanted = std::bit_ceil(bytes);
  std::unique_ptr<char[]> memory;
  {
    MutexLock lock(mutex_);
    // The one given back last is the likeliest to be in a cache still.
    for (size_t i = free_.size(); i > 0 && memory == nullptr; --i) {
      if (free_[i - 1].bytes != wanted) continue;
      memory = std::move(free_[i - 1].memory);
      free_.erase(free_.begin() + static_cast<std::ptrdiff_t>(i - 1));
    }
  }
  if (memory == nullptr) memory.reset(new char[wanted]);
  char* const block = memory.get();
  return std::shared_ptr<char[]>(memory.release(),
                                 [pool = shared_from_this(), block, wanted](char*) {
                                   pool->GiveBack(std::unique_ptr<char[]>(block), wanted);
                                 });
}

void BufferPool::GiveBack(std::unique_ptr<char[]> block, size_t bytes) {
  Block oldest;  // Freed without the lock.
  MutexLock lock(mutex_);
  if (free_.size() == kKept) {
    oldest = std::move(free_.front());
    free_.erase(free_.begin());
  }
  free_.push_back({std::move(block), bytes});
}

absl::Span<char> MessageAssembler::Target() {
  if (prefix_have_ < kPrefixBytes) {
    return absl::MakeSpan(prefix_ + prefix_have_, kPrefixBytes - prefix_have_);
  }
  return absl::MakeSpan(message_.get() + have_, size_ - have_);
}

absl::StatusOr<std::optional<MessageBytes>> MessageAssembler::Filled(size_t bytes) {
  if (prefix_have_ < kPrefixBytes) {
    prefix_have_ += bytes;
    if (prefix_have_ < kPrefixBytes) return std::nullopt;
    if (prefix_[0] != 0) {
      return absl::DataLossError("the peer sent a compressed message, which nobody asked for");
    }
    size_ = ReadU32(prefix_ + 1);
    if (size_ > static_cast<size_t>(kMaxMessageBytes)) {
      return MessageTooLarge(absl::StrCat(size_, " bytes"));
    }
    have_ = 0;
    message_ = size_ == 0 ? nullptr : pool_->Get(size_);
  } else {
    have_ += bytes;
  }
  if (have_ < size_) return std::nullopt;
  prefix_have_ = 0;
  MessageBytes message;
  if (size_ > 0) message.pieces.emplace_back(message_.get(), size_);
  message.owner = std::exchange(message_, nullptr);
  return message;
}

}  // namespace peerchunk::http2
