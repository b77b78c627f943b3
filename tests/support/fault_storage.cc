#include "tests/support/fault_storage.h"

#include <fcntl.h>

#include <algorithm>
#include <vector>

#include "peerchunk/base/file.h"
#include "peerchunk/base/status.h"
#include "storage/still_wanted.h"

namespace peerchunk::test {
namespace {

// A status of its own. Copies share a count, which the library counts down where ThreadSanitizer
// does not look.
absl::Status Unshared(const absl::Status& status) {
  absl::Status own(status.code(), status.message());
  status.ForEachPayload(
      [&](absl::string_view type, const absl::Cord& payload) { own.SetPayload(type, payload); });
  return own;
}

}  // namespace

// One call under at most one fault. Used by one thread.
class FaultCall {
 public:
  FaultCall(FaultStorageProvider& storage, StorageCall call, const std::string& path)
      : storage_(storage),
        fault_(storage.Begin(call, path)),
        store_half_(fault_ && fault_->store_half) {}

  // Bytes that may still be handed out before the fault happens.
  uint64_t room() const {
    return fault_ ? fault_->after_bytes - done_ : std::numeric_limits<uint64_t>::max();
  }
  bool due() const { return fault_ && room() == 0; }
  bool store_half() const { return store_half_; }
  bool ended() const { return ended_; }
  bool corrupt_next() const { return corrupt_next_; }

  void HandOut(uint64_t bytes) {
    storage_.CountBytes(bytes);
    if (fault_) done_ += bytes;
    if (bytes > 0) corrupt_next_ = false;
  }

  // Makes the fault happen, once. Call when due.
  template <typename Options>
  absl::Status Strike(const Options& options) {
    const StorageFault fault = *std::move(fault_);
    fault_.reset();
    if (fault.delay > absl::ZeroDuration()) {
      storage_.clock_.SleepUntil(std::min(storage_.clock_.Now() + fault.delay, options.deadline),
                                 options.cancellation);
      PEERCHUNK_RETURN_IF_ERROR(CheckStillWanted(storage_.clock_, options));
    }
    if (fault.stall) {
      PEERCHUNK_RETURN_IF_ERROR(storage_.Stall(options.deadline, options.cancellation));
    }
    PEERCHUNK_RETURN_IF_ERROR(fault.error);
    ended_ = fault.truncate;
    corrupt_next_ = fault.corrupt;
    alter_stat_ = fault.alter_stat;
    return absl::OkStatus();
  }

  template <typename Options>
  absl::Status StrikeIfDue(const Options& options) {
    return due() ? Strike(options) : absl::OkStatus();
  }

  // Runs a call other than a read under the fault.
  template <typename Result, typename Options>
  absl::StatusOr<Result> Run(const Options& options,
                             const std::function<absl::StatusOr<Result>()>& call) {
    if (fault_ && !fault_->after_write) PEERCHUNK_RETURN_IF_ERROR(Strike(options));
    absl::StatusOr<Result> result = call();
    if (result.ok() && fault_) PEERCHUNK_RETURN_IF_ERROR(Strike(options));
    if constexpr (std::is_same_v<Result, ObjectStat>) {
      if (result.ok() && alter_stat_) alter_stat_(*result);
    }
    return result;
  }

 private:
  FaultStorageProvider& storage_;
  std::optional<StorageFault> fault_;
  const bool store_half_;
  uint64_t done_ = 0;
  bool ended_ = false;
  bool corrupt_next_ = false;
  std::function<void(ObjectStat&)> alter_stat_;
};

namespace {

constexpr char kFlippedBit = 0x10;

// Under the same conditions and with the same metadata, as a store that loses the rest would.
absl::StatusOr<ObjectStat> PutHalf(Blob& blob, std::string_view bytes, WriteOptions options) {
  options.crc32c.reset();
  return blob.Put(bytes.substr(0, bytes.size() / 2), options);
}

// What a sink returns to stop the base once a truncated read has its bytes.
absl::Status Truncated() { return absl::AbortedError("fault: truncated"); }

}  // namespace

// Passes bytes on until the fault is due, then goes on as the fault says.
class FaultSink final : public ByteSink {
 public:
  FaultSink(ByteSink& sink, FaultCall& call, const ReadOptions& options)
      : sink_(sink), call_(call), options_(options) {}

  absl::Status Write(std::string_view data) override {
    while (!data.empty()) {
      PEERCHUNK_RETURN_IF_ERROR(call_.StrikeIfDue(options_));
      if (call_.ended()) return Truncated();
      std::string piece(data.substr(0, std::min<uint64_t>(data.size(), call_.room())));
      data.remove_prefix(piece.size());
      if (call_.corrupt_next()) piece[0] = static_cast<char>(piece[0] ^ kFlippedBit);
      call_.HandOut(piece.size());
      PEERCHUNK_RETURN_IF_ERROR(sink_.Write(piece));
    }
    return absl::OkStatus();
  }

 private:
  ByteSink& sink_;
  FaultCall& call_;
  const ReadOptions& options_;
};

class FaultRangeReader final : public RangeReader {
 public:
  FaultRangeReader(FaultCall call, ReadOptions options, std::unique_ptr<RangeReader> base)
      : call_(std::move(call)), options_(std::move(options)), base_(std::move(base)) {}

  absl::StatusOr<std::optional<Extent>> Next() override {
    if (!failed_.ok()) return failed_;
    absl::StatusOr<std::optional<Extent>> extent = Step();
    failed_ = extent.status();
    return extent;
  }

 private:
  absl::StatusOr<std::optional<Extent>> Step() {
    PEERCHUNK_RETURN_IF_ERROR(call_.StrikeIfDue(options_));
    if (call_.ended()) return std::nullopt;
    if (rest_.length == 0) {
      PEERCHUNK_ASSIGN_OR_RETURN(const std::optional<Extent> next, base_->Next());
      if (!next) return std::nullopt;
      rest_ = *next;
      pieces_.assign(next->pieces.begin(), next->pieces.end());
      used_of_rest_ = 0;
    }
    Extent extent{.offset = rest_.offset,
                  .length = std::min(rest_.length, call_.room()),
                  .zero = rest_.zero && !call_.corrupt_next()};
    if (!extent.zero) Copy(extent);
    rest_.offset += extent.length;
    rest_.length -= extent.length;
    used_of_rest_ += extent.length;
    call_.HandOut(extent.length);
    return extent;
  }

  void Copy(Extent& extent) {
    if (rest_.zero) extent.length = std::min<uint64_t>(extent.length, 4096);
    bytes_.clear();
    uint64_t skip = used_of_rest_;
    for (const std::string_view piece : pieces_) {
      const uint64_t skipped = std::min<uint64_t>(skip, piece.size());
      skip -= skipped;
      bytes_ += piece.substr(skipped, extent.length - bytes_.size());
    }
    bytes_.resize(extent.length);  // Of a zero extent that gets a wrong bit.
    if (call_.corrupt_next()) bytes_[0] = static_cast<char>(bytes_[0] ^ kFlippedBit);
    view_ = bytes_;
    extent.pieces = absl::MakeConstSpan(&view_, 1);
  }

  FaultCall call_;
  const ReadOptions options_;
  const std::unique_ptr<RangeReader> base_;
  Extent rest_;  // What the base's last extent still holds.
  std::vector<std::string_view> pieces_;
  uint64_t used_of_rest_ = 0;
  std::string bytes_;
  std::string_view view_;
  absl::Status failed_;
};

class FaultBlob final : public Blob {
 public:
  FaultBlob(FaultStorageProvider& storage, std::string path, std::unique_ptr<Blob> base)
      : storage_(storage), path_(std::move(path)), base_(std::move(base)) {}

  absl::Status WriteTo(ByteSink& sink, const ReadOptions& options) override {
    FaultCall call(storage_, StorageCall::kRead, path_);
    PEERCHUNK_RETURN_IF_ERROR(call.StrikeIfDue(options));
    if (call.ended()) return absl::OkStatus();
    FaultSink faulty(sink, call, options);
    const absl::Status read = base_->WriteTo(faulty, options);
    if (call.ended() && read == Truncated()) return absl::OkStatus();
    PEERCHUNK_RETURN_IF_ERROR(read);
    return call.StrikeIfDue(options);  // A fault behind the last byte.
  }

  absl::StatusOr<ObjectStat> Put(std::string_view bytes, const WriteOptions& options) override {
    FaultCall call(storage_, StorageCall::kWrite, path_);
    return call.Run<ObjectStat>(options, [&] {
      return call.store_half() ? PutHalf(*base_, bytes, options) : base_->Put(bytes, options);
    });
  }

  absl::StatusOr<bool> Exists(const ReadOptions& options) override {
    return FaultCall(storage_, StorageCall::kStat, path_).Run<bool>(options, [&] {
      return base_->Exists(options);
    });
  }

  absl::StatusOr<ObjectStat> Stat(const ReadOptions& options) override {
    return FaultCall(storage_, StorageCall::kStat, path_).Run<ObjectStat>(options, [&] {
      return base_->Stat(options);
    });
  }

 private:
  FaultStorageProvider& storage_;
  const std::string path_;
  const std::unique_ptr<Blob> base_;
};

class FaultSeekable final : public Seekable {
 public:
  FaultSeekable(FaultStorageProvider& storage, std::string path, std::unique_ptr<Seekable> base)
      : storage_(storage), path_(std::move(path)), base_(std::move(base)) {}

  absl::StatusOr<uint64_t> Size(const ReadOptions& options) override {
    return FaultCall(storage_, StorageCall::kStat, path_).Run<uint64_t>(options, [&] {
      return base_->Size(options);
    });
  }

  absl::StatusOr<size_t> ReadAt(uint64_t offset, absl::Span<char> out,
                                const ReadOptions& options) override {
    FaultCall call(storage_, StorageCall::kRead, path_);
    PEERCHUNK_RETURN_IF_ERROR(call.StrikeIfDue(options));
    if (call.ended()) return 0;
    PEERCHUNK_ASSIGN_OR_RETURN(size_t read, base_->ReadAt(offset, out, options));
    uint64_t at = 0;
    if (call.room() <= read) {
      at = call.room();
      PEERCHUNK_RETURN_IF_ERROR(call.Strike(options));
      if (call.ended()) read = at;
    }
    if (call.corrupt_next() && at < read) out[at] = static_cast<char>(out[at] ^ kFlippedBit);
    call.HandOut(read);
    return read;
  }

  absl::StatusOr<std::unique_ptr<RangeReader>> OpenRangeReader(
      uint64_t offset, uint64_t length, const ReadOptions& options) override {
    FaultCall call(storage_, StorageCall::kRead, path_);
    PEERCHUNK_RETURN_IF_ERROR(call.StrikeIfDue(options));
    PEERCHUNK_ASSIGN_OR_RETURN(std::unique_ptr<RangeReader> base,
                               base_->OpenRangeReader(offset, length, options));
    return std::make_unique<FaultRangeReader>(std::move(call), options, std::move(base));
  }

  absl::StatusOr<ObjectStat> StoreFile(const std::string& path,
                                       const WriteOptions& options) override {
    FaultCall call(storage_, StorageCall::kWrite, path_);
    return call.Run<ObjectStat>(options, [&]() -> absl::StatusOr<ObjectStat> {
      if (!call.store_half()) return base_->StoreFile(path, options);
      PEERCHUNK_ASSIGN_OR_RETURN(const File file, File::Open(path, O_RDONLY));
      PEERCHUNK_ASSIGN_OR_RETURN(const uint64_t size, file.Size());
      std::string bytes(size, '\0');
      PEERCHUNK_RETURN_IF_ERROR(file.ReadAt(0, absl::MakeSpan(bytes)));
      PEERCHUNK_ASSIGN_OR_RETURN(const auto blob, storage_.base_.OpenBlob(path_));
      return PutHalf(*blob, bytes, options);
    });
  }

  absl::StatusOr<ObjectStat> Stat(const ReadOptions& options) override {
    return FaultCall(storage_, StorageCall::kStat, path_).Run<ObjectStat>(options, [&] {
      return base_->Stat(options);
    });
  }

 private:
  FaultStorageProvider& storage_;
  const std::string path_;
  const std::unique_ptr<Seekable> base_;
};

void FaultStorageProvider::AddFault(StorageFault fault) {
  const MutexLock lock(mutex_);
  faults_.push_back(std::move(fault));
}

void FaultStorageProvider::ClearFaults() {
  const MutexLock lock(mutex_);
  faults_.clear();
  ++clears_;
  changed_.NotifyAll();
}

uint64_t FaultStorageProvider::calls(StorageCall call, std::string_view path) const {
  const MutexLock lock(mutex_);
  uint64_t sum = 0;
  for (const auto& [key, count] : calls_) {
    if (key.first == call && (path.empty() || key.second == path)) sum += count;
  }
  return sum;
}

uint64_t FaultStorageProvider::bytes_read() const {
  const MutexLock lock(mutex_);
  return bytes_read_;
}

void FaultStorageProvider::AwaitStalled(uint64_t count) {
  const MutexLock lock(mutex_);
  while (stalled_ < count) changed_.Wait(mutex_);
}

absl::StatusOr<std::unique_ptr<Blob>> FaultStorageProvider::OpenBlob(std::string_view path) {
  PEERCHUNK_ASSIGN_OR_RETURN(std::unique_ptr<Blob> base, base_.OpenBlob(path));
  return std::make_unique<FaultBlob>(*this, std::string(path), std::move(base));
}

absl::StatusOr<std::unique_ptr<Seekable>> FaultStorageProvider::OpenSeekable(
    std::string_view path) {
  PEERCHUNK_ASSIGN_OR_RETURN(std::unique_ptr<Seekable> base, base_.OpenSeekable(path));
  return std::make_unique<FaultSeekable>(*this, std::string(path), std::move(base));
}

absl::StatusOr<uint64_t> FaultStorageProvider::DeleteObjectsWithPrefix(
    std::string_view prefix, const WriteOptions& options) {
  return FaultCall(*this, StorageCall::kDelete, std::string(prefix)).Run<uint64_t>(options, [&] {
    return base_.DeleteObjectsWithPrefix(prefix, options);
  });
}

absl::StatusOr<uint64_t> FaultStorageProvider::DiscardUnfinishedWrites(
    const std::function<bool(std::string_view path)>& goes_on, const WriteOptions& options) {
  return FaultCall(*this, StorageCall::kDiscard, "").Run<uint64_t>(options, [&] {
    return base_.DiscardUnfinishedWrites(goes_on, options);
  });
}

std::optional<StorageFault> FaultStorageProvider::Begin(StorageCall call, const std::string& path) {
  const MutexLock lock(mutex_);
  ++calls_[{call, path}];
  for (StorageFault& fault : faults_) {
    if (fault.call != call || (!fault.path.empty() && fault.path != path)) continue;
    if (fault.skip > 0) {
      --fault.skip;
      continue;
    }
    if (fault.times == 0) continue;
    --fault.times;
    StorageFault struck = fault;
    struck.error = Unshared(fault.error);
    return struck;
  }
  return std::nullopt;
}

absl::Status FaultStorageProvider::Stall(absl::Time deadline, const std::stop_token& cancellation) {
  const std::stop_callback wake(cancellation, [this] {
    const MutexLock lock(mutex_);
    changed_.NotifyAll();
  });
  const MutexLock lock(mutex_);
  const uint64_t clears = clears_;
  ++stalled_;
  changed_.NotifyAll();
  while (clears_ == clears && !cancellation.stop_requested() && clock_.Now() < deadline) {
    clock_.WaitUntil(changed_, mutex_, deadline);
  }
  --stalled_;
  if (cancellation.stop_requested()) return absl::CancelledError("cancelled by the caller");
  if (clears_ == clears) return absl::DeadlineExceededError("the caller's deadline has passed");
  return absl::OkStatus();
}

void FaultStorageProvider::CountBytes(uint64_t bytes) {
  const MutexLock lock(mutex_);
  bytes_read_ += bytes;
}

}  // namespace peerchunk::test
