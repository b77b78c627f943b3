#include "build/read_ahead.h"

#include <algorithm>

namespace peerchunk {
namespace {

// Reads of one sequence come in this much out of order, or leave this much out.
constexpr uint64_t kSlackBytes = 64 * kKiB;
// What may lie unused before anything has been used.
constexpr uint64_t kFreeChunks = 4;
// Reads that continue no sequence, after which one that had been read ahead of is over.
constexpr uint64_t kForgottenAfter = 64;

}  // namespace

ReadAhead::Sequence* ReadAhead::Find(ByteRange read) {
  for (Sequence& sequence : sequences_) {
    uint64_t next = sequence.next.load(std::memory_order_relaxed);
    if (next == kNowhere) continue;
    const uint64_t gap = read.offset > next ? read.offset - next : next - read.offset;
    if (gap > kSlackBytes) continue;
    sequence.last_read.store(beginnings_.load(std::memory_order_relaxed),
                             std::memory_order_relaxed);
    while (read.end() > next &&
           !sequence.next.compare_exchange_weak(next, read.end(), std::memory_order_relaxed)) {
    }
    return &sequence;
  }
  return nullptr;
}

ByteRange ReadAhead::OnRead(ByteRange read, bool missed) {
  if (options_.max_window_bytes < options_.chunk_bytes || read.length == 0) return {};
  Sequence* const found = Find(read);
  if (found == nullptr ? !missed : read.end() < found->due.load(std::memory_order_relaxed)) {
    return {};
  }
  const MutexLock lock(mutex_);
  if (found != nullptr) return Decide(*found);
  Begin(read);
  return {};
}

void ReadAhead::Begin(ByteRange read) {
  const uint64_t now = beginnings_.fetch_add(1, std::memory_order_relaxed) + 1;
  const auto age = [now](const Sequence& sequence) {
    return now - sequence.last_read.load(std::memory_order_relaxed);
  };
  const auto keep = [&](const Sequence& sequence) {
    return sequence.window > 0 && age(sequence) < kForgottenAfter;
  };
  Sequence& given = *std::min_element(sequences_.begin(), sequences_.end(),
                                      [&](const Sequence& a, const Sequence& b) {
                                        return keep(a) != keep(b) ? keep(b) : age(a) > age(b);
                                      });
  totals_.used += UsedOf(given);
  given.window = given.ahead_begin = given.ahead_end = 0;
  given.last_read.store(now, std::memory_order_relaxed);
  given.due.store(std::max(read.offset + options_.chunk_bytes, read.end() + 1),
                  std::memory_order_relaxed);
  given.next.store(read.end(), std::memory_order_relaxed);
}

// The sequence was read up to its `due`, or another thread has just decided for it.
ByteRange ReadAhead::Decide(Sequence& sequence) {
  const uint64_t next = sequence.next.load(std::memory_order_relaxed);
  if (next < sequence.due.load(std::memory_order_relaxed)) return {};

  const uint64_t used = UsedOf(sequence);
  totals_.used += used;
  sequence.ahead_begin += used;
  sequence.window = sequence.window == 0 ? options_.chunk_bytes
                                         : std::min(2 * sequence.window, options_.max_window_bytes);

  const uint64_t chunk = options_.chunk_bytes;
  const uint64_t begin = std::max(RoundUp(next, chunk), sequence.ahead_end);
  const uint64_t wanted_end =
      std::min(RoundUp(next, chunk) + sequence.window / chunk * chunk, options_.file_bytes);
  const Totals now = TotalsLocked();
  const uint64_t unused = now.asked - now.used;
  const uint64_t allowed = kFreeChunks * chunk + now.used / 2;
  const uint64_t room = allowed > unused ? (allowed - unused) / chunk * chunk : 0;
  const uint64_t length = wanted_end > begin ? std::min(wanted_end - begin, room) : 0;
  if (length > 0) {
    if (begin > sequence.ahead_end) sequence.ahead_begin = begin;
    sequence.ahead_end = begin + length;
    totals_.asked += length;
  }
  const uint64_t ahead = sequence.ahead_end > next ? sequence.ahead_end - next : 0;
  sequence.due.store(next + std::max(chunk / 2, ahead / 2), std::memory_order_relaxed);
  return {begin, length};
}

uint64_t ReadAhead::UsedOf(const Sequence& sequence) {
  const uint64_t next = sequence.next.load(std::memory_order_relaxed);
  return std::clamp(next, sequence.ahead_begin, sequence.ahead_end) - sequence.ahead_begin;
}

ReadAhead::Totals ReadAhead::TotalsLocked() const {
  Totals now = totals_;
  for (const Sequence& sequence : sequences_) {
    if (sequence.next.load(std::memory_order_relaxed) != kNowhere) now.used += UsedOf(sequence);
  }
  return now;
}

ReadAhead::Totals ReadAhead::totals() const {
  const MutexLock lock(mutex_);
  return TotalsLocked();
}

}  // namespace peerchunk
