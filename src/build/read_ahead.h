#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "peerchunk/base/mutex.h"
#include "peerchunk/base/range.h"

namespace peerchunk {

// When, and how far, to read ahead in one file. Follows a few sequences of demand reads at once;
// one that has read a whole chunk in order gets the next chunk ahead, and more as long as it uses
// it, up to a limit. What was read ahead and is not used counts against every later sequence: in
// all, no more than a few chunks and half of what proved useful may lie unused, so read-ahead that
// is not used stops by itself. Pure: no I/O, no clock. Thread-safe; a read that continues a
// sequence, or that missed nothing, takes no lock.
class ReadAhead {
 public:
  struct Options {
    uint64_t file_bytes = 0;
    uint64_t chunk_bytes = 0;
    uint64_t max_window_bytes = 0;  // Of one sequence; less than a chunk: never reads ahead.
  };
  explicit ReadAhead(Options options) : options_(options) {}

  // Of a demand read; `missed`: not all of it was here. What to fetch now, in whole chunks (the
  // last one may be short); mostly empty.
  ByteRange OnRead(ByteRange read, bool missed);

  struct Totals {
    uint64_t asked = 0;  // Bytes that OnRead returned.
    uint64_t used = 0;   // Of these, what its sequence has come to.
  };
  Totals totals() const;

 private:
  static constexpr uint64_t kNowhere = UINT64_MAX;

  struct Sequence {
    std::atomic<uint64_t> next{kNowhere};  // Where its next read is expected.
    std::atomic<uint64_t> due{kNowhere};   // A read up to here needs a decision.
    std::atomic<uint64_t> last_read{0};    // In beginnings.
    // Guarded by mutex_.
    uint64_t window = 0;  // 0: not known to be one yet.
    uint64_t ahead_begin = 0;
    uint64_t ahead_end = 0;  // [ahead_begin, ahead_end) was asked for and is not used yet.
  };

  Sequence* Find(ByteRange read);
  static uint64_t UsedOf(const Sequence& sequence);  // With mutex_.
  void Begin(ByteRange read) PEERCHUNK_REQUIRES(mutex_);
  ByteRange Decide(Sequence& sequence) PEERCHUNK_REQUIRES(mutex_);
  Totals TotalsLocked() const PEERCHUNK_REQUIRES(mutex_);

  const Options options_;
  std::array<Sequence, 4> sequences_;

  std::atomic<uint64_t> beginnings_{0};  // Reads that continued no sequence: what age is told by.
  mutable Mutex mutex_;
  Totals totals_ PEERCHUNK_GUARDED_BY(mutex_);  // `used` without what [ahead_begin, next) adds.
};

}  // namespace peerchunk
