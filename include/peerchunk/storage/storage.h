#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>
#include <absl/types/span.h>

#include "peerchunk/base/executor.h"

namespace peerchunk {

// Which sources a read may use, where there is more than one.
enum class SourcePolicy : uint8_t { kPeerAndBase, kPeerOnly, kBaseOnly };

// What every read carries. Deadline and cancellation reach every stream and thread that works for
// the call; a call ends with DeadlineExceeded or Cancelled soon after.
struct ReadOptions {
  absl::Time deadline = absl::InfiniteFuture();
  std::stop_token cancellation;
  Priority priority = Priority::kDemand;
  SourcePolicy sources = SourcePolicy::kPeerAndBase;
  // How many further nodes may fetch on behalf of this read: 0 or 1, so that no wait forms a cycle.
  uint32_t relays_left = 1;
  // This read is for another node, which asked with `relays_left`: what it fetches is asked for
  // with one less, and it joins no fetch that may itself be relayed.
  bool relayed = false;
  // Read exactly this version of the object (ObjectStat::version); Aborted when it was replaced.
  std::optional<std::string> version;
  // What is known to be in the object reaches to here: where there is a choice of sources, one that
  // has fewer bytes is left for another. A provider of one source need not look at it.
  uint64_t least_size = 0;
};

// User metadata kept with an object, as Cloud Storage keeps it.
using ObjectMetadata = std::map<std::string, std::string>;

// What is known of an object without reading it.
struct ObjectStat {
  uint64_t size = 0;
  std::optional<uint32_t> crc32c;  // Of the whole object, where the store knows it.
  std::string version;  // Opaque; differs between any two contents ever seen at one path.
  ObjectMetadata metadata;
};

// What every write carries. At most one of if_absent and if_version.
struct WriteOptions {
  absl::Time deadline = absl::InfiniteFuture();
  std::stop_token cancellation;
  // Requested before `cancellation`: the same write will be made again, maybe by the next process.
  // What it brought to the store is kept for that, where the store can go on with it.
  std::stop_token suspension;
  bool if_absent = false;                 // AlreadyExists when the object is there.
  std::optional<std::string> if_version;  // Aborted when the object is gone or of another version.
  std::optional<uint32_t> crc32c;         // DataLoss, and nothing written, when the bytes differ.
  ObjectMetadata metadata;
};

// Takes the bytes of a blob, in order, each once.
class ByteSink {
 public:
  virtual ~ByteSink() = default;
  // `data` is valid during the call only. An error ends the read, which returns it.
  virtual absl::Status Write(std::string_view data) = 0;
};

// A sink into memory that refuses (ResourceExhausted) to grow beyond `limit_bytes`.
class StringSink final : public ByteSink {
 public:
  explicit StringSink(uint64_t limit_bytes) : limit_bytes_(limit_bytes) {}
  absl::Status Write(std::string_view data) override;
  std::string& bytes() { return bytes_; }

 private:
  uint64_t limit_bytes_;
  std::string bytes_;
};

// A run of an object's bytes: either zeros, which take no memory, or data in one or more pieces.
struct Extent {
  uint64_t offset = 0;
  uint64_t length = 0;
  bool zero = false;
  absl::Span<const std::string_view> pieces;  // Sum of sizes == length; empty when zero.

  void CopyTo(char* out) const;  // Writes `length` bytes.
};

// One pass over a range of an object. Used by one thread at a time; destroying it cancels what is
// under way.
class RangeReader {
 public:
  virtual ~RangeReader() = default;
  // The next extent: contiguous, in order, checked, never empty; nothing at the end of the range.
  // Pieces are valid until the next call or the reader's end. After an error every call returns it.
  virtual absl::StatusOr<std::optional<Extent>> Next() = 0;
};

// Below: blocking calls, all thread-safe. Missing is NotFound; "could not tell" never is: that is
// Unavailable or its cause. Bytes handed out were checked against each checksum the store knows.

// An object read whole: snapfile, metadata.json, a header.
class Blob {
 public:
  virtual ~Blob() = default;
  virtual absl::Status WriteTo(ByteSink& sink, const ReadOptions& options) = 0;
  // Writes the object whole or not at all; returns what the store confirmed.
  virtual absl::StatusOr<ObjectStat> Put(std::string_view bytes, const WriteOptions& options) = 0;
  virtual absl::StatusOr<bool> Exists(const ReadOptions& options) = 0;
  virtual absl::StatusOr<ObjectStat> Stat(const ReadOptions& options) = 0;
};

// An object read by range: memfile, rootfs.ext4.
class Seekable {
 public:
  virtual ~Seekable() = default;
  virtual absl::StatusOr<uint64_t> Size(const ReadOptions& options) = 0;
  // Fills `out` from `offset`; short only at the end of the object. offset == size: 0 bytes; beyond
  // it: OutOfRange.
  virtual absl::StatusOr<size_t> ReadAt(uint64_t offset, absl::Span<char> out,
                                        const ReadOptions& options) = 0;
  // Reads [offset, offset + length), cut at the end of the object. offset > size: OutOfRange, here
  // or from the first Next().
  virtual absl::StatusOr<std::unique_ptr<RangeReader>> OpenRangeReader(
      uint64_t offset, uint64_t length, const ReadOptions& options) = 0;
  // Stores the local file at `path`, in bounded memory, whole or not at all. A file that changes
  // while it is read fails the write (DataLoss or FailedPrecondition).
  virtual absl::StatusOr<ObjectStat> StoreFile(const std::string& path,
                                               const WriteOptions& options) = 0;
  virtual absl::StatusOr<ObjectStat> Stat(const ReadOptions& options) = 0;
};

// A bucket or what plays one. Paths are "<build id>/<name>" or any other relative path without
// segments that are empty, "." or ".." (InvalidArgument otherwise). Opening touches no object;
// objects opened from a provider must not outlive it.
class StorageProvider {
 public:
  virtual ~StorageProvider() = default;
  virtual absl::StatusOr<std::unique_ptr<Blob>> OpenBlob(std::string_view path) = 0;
  virtual absl::StatusOr<std::unique_ptr<Seekable>> OpenSeekable(std::string_view path) = 0;
  // Deletes every object whose path begins with `prefix`, which must end in '/' and not be "/"
  // alone (InvalidArgument). Returns how many were deleted.
  virtual absl::StatusOr<uint64_t> DeleteObjectsWithPrefix(std::string_view prefix,
                                                           const WriteOptions& options) = 0;
  // Takes from the store what writes left there that ended before they were done (on an error,
  // suspended, with their process), of every path of which `goes_on` says that the same write will
  // not be made again. Writes under way are left alone. Returns of how many writes; an error when
  // something stayed that another call may take. A store that keeps nothing of such writes: 0.
  virtual absl::StatusOr<uint64_t> DiscardUnfinishedWrites(
      const std::function<bool(std::string_view path)>& goes_on, const WriteOptions& options) = 0;
  // For people: "folder /srv/base", "gs://bucket/prefix".
  virtual std::string Describe() const = 0;
};

// OK for an object path as above, InvalidArgument otherwise. Providers call it first.
absl::Status CheckObjectPath(std::string_view path);

}  // namespace peerchunk
