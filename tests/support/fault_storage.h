#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "peerchunk/base/clock.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/storage/storage.h"

namespace peerchunk::test {

// Which calls of a provider a fault or a count is about.
enum class StorageCall : uint8_t {
  kRead,   // WriteTo, ReadAt, and a range reader from its opening to its end.
  kStat,   // Stat, Size, Exists.
  kWrite,  // Put, StoreFile.
  kDelete,
  kDiscard,  // DiscardUnfinishedWrites, of no path.
};

// What goes wrong with calls. Everything that is set happens, in the order of the fields.
struct StorageFault {
  StorageCall call = StorageCall::kRead;
  std::string path;   // Exactly this object (for kDelete, this prefix); empty: any.
  uint64_t skip = 0;  // Calls that go well first.
  uint64_t times = std::numeric_limits<uint64_t>::max();  // Calls that go wrong then.

  // Where in the call it happens: kRead after this many bytes of this call were handed out (ReadAt
  // hands out nothing when it fails). Beyond what the call reads: not at all. Other calls: before.
  uint64_t after_bytes = 0;
  bool after_write = false;  // kWrite and kDelete: once the base has done the work.
  bool store_half = false;   // kWrite: the base keeps the first half, and answers for that.

  absl::Duration delay = absl::ZeroDuration();  // On the clock, cut short by the caller's limits.
  bool stall = false;     // Until the caller cancels or runs out of time, or until ClearFaults().
  absl::Status error;     // Ends the call.
  bool truncate = false;  // kRead: ends here, as if the object did.
  bool corrupt = false;   // kRead: flips one bit of the next byte and goes on.
  std::function<void(ObjectStat&)>
      alter_stat;  // kStat and kWrite: of the answer of Stat, Put, StoreFile.
};

// A decorator over any provider, with scripted faults and counts. The first fault in order of
// AddFault that matches a call takes it. Borrows the base and the clock. Thread-safe; faults may be
// changed while calls are under way and then hold for later calls.
class FaultStorageProvider final : public StorageProvider {
 public:
  explicit FaultStorageProvider(StorageProvider& base, Clock& clock = Clock::Real())
      : base_(base), clock_(clock) {}

  void AddFault(StorageFault fault);
  void ClearFaults();  // Also lets go what is stalled, which then continues well.

  // Calls begun so far, on one object or (empty path) on all.
  uint64_t calls(StorageCall call, std::string_view path = {}) const;
  // Bytes handed to readers so far.
  uint64_t bytes_read() const;
  // Blocks until `count` calls are stalled at once.
  void AwaitStalled(uint64_t count);

  absl::StatusOr<std::unique_ptr<Blob>> OpenBlob(std::string_view path) override;
  absl::StatusOr<std::unique_ptr<Seekable>> OpenSeekable(std::string_view path) override;
  absl::StatusOr<uint64_t> DeleteObjectsWithPrefix(std::string_view prefix,
                                                   const WriteOptions& options) override;
  absl::StatusOr<uint64_t> DiscardUnfinishedWrites(
      const std::function<bool(std::string_view path)>& goes_on,
      const WriteOptions& options) override;
  std::string Describe() const override { return base_.Describe(); }

 private:
  friend class FaultCall;
  friend class FaultBlob;
  friend class FaultSeekable;
  friend class FaultRangeReader;
  friend class FaultSink;

  std::optional<StorageFault> Begin(StorageCall call, const std::string& path);
  absl::Status Stall(absl::Time deadline, const std::stop_token& cancellation);
  void CountBytes(uint64_t bytes);

  StorageProvider& base_;
  Clock& clock_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::list<StorageFault> faults_ PEERCHUNK_GUARDED_BY(mutex_);
  uint64_t clears_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  uint64_t stalled_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  uint64_t bytes_read_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  std::map<std::pair<StorageCall, std::string>, uint64_t> calls_ PEERCHUNK_GUARDED_BY(mutex_);
};

}  // namespace peerchunk::test
