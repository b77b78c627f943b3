#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <absl/status/statusor.h>
#include <absl/types/span.h>

#include "peerchunk/base/build_id.h"
#include "peerchunk/base/file_kind.h"
#include "peerchunk/base/range.h"
#include "peerchunk/build/runs.h"
#include "peerchunk/storage/storage.h"

namespace peerchunk {

// One readable file of one build, on this disk whole or filled on demand. A shared_ptr to it is a
// pin: while one is held the bytes stay readable, whatever is evicted or deleted meanwhile.
// Thread-safe.
class BuildFile {
 public:
  virtual ~BuildFile() = default;

  virtual const BuildFileId& id() const = 0;
  virtual uint64_t size() const = 0;
  // Of the whole file, where it is known.
  virtual std::optional<uint32_t> crc32c() const = 0;

  // Fills `out` from `offset`; short only at the end of the file; OutOfRange beyond it. Bytes were
  // checked. DataLoss when this node's copy no longer matches its record.
  virtual absl::StatusOr<size_t> ReadAt(uint64_t offset, absl::Span<char> out,
                                        const ReadOptions& options) = 0;

  // True when all of `out` could be filled at once: the bytes are here, checked and in memory.
  // False: ReadAt would have to wait for something, or knows why not. Never blocks.
  virtual bool TryReadAt(uint64_t /*offset*/, absl::Span<char> /*out*/) { return false; }

  // As ReadAt, for a caller that sends the bytes to another node, which checks each run against its
  // checksum: the runs that make them up. Only those of data are filled in. A checksum is that of
  // bytes that were checked when they came to this node: what has changed since is found here, or
  // by the receiver.
  virtual absl::StatusOr<std::vector<Run>> ReadRuns(uint64_t offset, absl::Span<char> out,
                                                    const ReadOptions& options);

  // As ReadRuns, as TryReadAt: the runs of what can be had at once of [offset, offset + length), as
  // far as their data, which lie one after the other, fit into `out`. None: ReadRuns would have to
  // wait for something, or knows why not. Never blocks.
  virtual std::vector<Run> TryReadRuns(uint64_t offset, uint64_t length, absl::Span<char> out,
                                       const ReadOptions& options);

  // Brings the chunks that `range` touches here, as far as they are missing and nobody brings them
  // already, on the caller's thread. For bytes that nobody has asked for yet: ResourceExhausted
  // when the disk has no room to spare for them.
  virtual absl::Status Prefetch(ByteRange /*range*/, const ReadOptions& /*options*/) {
    return absl::OkStatus();
  }

  // How many bytes from `offset` on, at most `limit`, can be read without asking any other node or
  // store. 0 when the block at `offset` is not here. Starts no fetch and joins none.
  virtual uint64_t PresentBytes(uint64_t offset, uint64_t limit) const = 0;

  // Disk space held, in bytes: what evicting it would give back.
  virtual uint64_t AllocatedBytes() const = 0;
};

}  // namespace peerchunk
