#include "peer/http2/message_assembler.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>
#include <utility>

#include "peer/http2/frame.h"
#include "peer/wire/wire.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk::http2 {
namespace {

// Smaller ones are quick to get from malloc.
constexpr size_t kPooledBytes = 32 * kKiB;

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
  if (have_ < own_bytes_) return absl::MakeSpan(message_.get() + have_, own_bytes_ - have_);
  return tail_.subspan(have_ - own_bytes_);
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
    BeginMessage();
  } else {
    have_ += bytes;
  }
  if (!placed_ && have_ == own_bytes_) PlaceRest();
  if (have_ < size_) return std::nullopt;
  prefix_have_ = 0;
  MessageBytes message;
  if (own_bytes_ > 0) message.pieces.emplace_back(message_.get(), own_bytes_);
  if (!tail_.empty()) message.pieces.emplace_back(tail_.data(), tail_.size());
  message.owner = std::exchange(message_, nullptr);
  return message;
}

void MessageAssembler::BeginMessage() {
  have_ = 0;
  tail_ = {};
  placed_ = !place_tail_;
  own_bytes_ = placed_ ? size_ : std::min(size_, head_bytes_);
  message_ = own_bytes_ == 0 ? nullptr : pool_->Get(own_bytes_);
}

// The head is there.
void MessageAssembler::PlaceRest() {
  placed_ = true;
  const std::string_view head(message_.get(), have_);
  tail_ = place_tail_(head, size_);
  if (!tail_.empty()) {
    own_bytes_ = size_ - tail_.size();
    const std::string_view early = head.substr(own_bytes_);
    std::memcpy(tail_.data(), early.data(), early.size());
  } else if (have_ < size_) {
    std::shared_ptr<char[]> whole = pool_->Get(size_);
    std::memcpy(whole.get(), head.data(), head.size());
    message_ = std::move(whole);
    own_bytes_ = size_;
  }
}

}  // namespace peerchunk::http2
