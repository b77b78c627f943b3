#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include "base/chunk_service_limits.h"
#include "peerchunk/base/clock.h"
#include "peerchunk/base/file_head.h"
#include "peerchunk/base/range.h"
#include "peerchunk/peer/chunk_service_client.h"

// ChunkService's messages as this library's own values, and back: what every transport shares. The
// generated code stays behind this header.
namespace peerchunk {

inline constexpr char kGetBuildFileMethod[] = "/peerchunk.v1.ChunkService/GetBuildFile";
inline constexpr char kGetBuildFileInfoMethod[] = "/peerchunk.v1.ChunkService/GetBuildFileInfo";
inline constexpr char kReadBuildFileMethod[] = "/peerchunk.v1.ChunkService/ReadBuildFile";
// Trailing metadata of RESOURCE_EXHAUSTED: how long to stay away.
inline constexpr char kRetryAfterKey[] = "peerchunk-retry-after-ms";
// Above the 1 MiB of data that a message may carry, with room for the rest of it.
inline constexpr int kMaxMessageBytes = 2 * 1024 * 1024;
// The longest range that is read over a stream shared with others.
inline constexpr uint64_t kMaxSharedReadBytes = 256 * kKiB;

// DataLoss for an answer that a correct peer cannot give (an availability that does not exist,
// say).
absl::StatusOr<FileHead> DecodeHead(const std::string& bytes);
absl::StatusOr<BuildStatus> DecodeStatus(const std::string& bytes);

std::string EncodeGetBuildFile(const PeerRequest& request);
std::string EncodeGetBuildFileInfo(const PeerRequest& request);

// `text` from a peer as it may stand in an error and, between double quotes, in a line of the log:
// at most 1 KiB, and '?' for whatever is not printable ASCII or could end the quotes.
std::string PeerText(std::string_view text);
// A google.rpc.Code from a peer, whose `message` becomes PeerText; a number that is none becomes
// Unknown.
absl::Status StatusFromCode(int code, std::string_view message);
// `status` with the hint that `milliseconds`, a decimal number, gives; as it is when it is none.
absl::Status WithRetryAfterText(absl::Status status, std::string_view milliseconds);
// A message over kMaxMessageBytes is the peer's mistake: DataLoss. `what` says which limit.
absl::Status MessageTooLarge(std::string_view what);

// Why an address beyond loopback is not dialled without TLS, and what to do.
absl::Status PlaintextRefused(const PeerAddress& address);

// Gathers reads, and ids that nobody waits for any more, into ReadBuildFileRequests, and keeps to
// what a peer takes of one stream: reads beyond that wait here, in their order, until others are
// done. Not thread-safe.
class ReadRequests {
 public:
  // Half of what a peer takes: it may be busy for a while with reads that were given up.
  static constexpr size_t kMostUnderWay = kMostReadsUnderWay / 2;
  static constexpr size_t kMostMessageBytes = kMaxPeerRequestBytes / 2;

  // `clock` outlives it.
  explicit ReadRequests(Clock& clock) : clock_(clock) {}

  // `id` is higher than any before. The peer is told how long it has when the read goes out.
  void Add(uint64_t id, const PeerRequest& request, absl::Time deadline);
  // A read that was added is done: `answered`, nothing more comes of it; else the peer is told that
  // nobody waits for it, if it knows of it.
  void Remove(uint64_t id, bool answered);

  // Nothing is to be sent now.
  bool empty() const { return bytes_.empty(); }
  // How many reads and ids are to be sent now.
  size_t size() const { return entries_.size(); }
  // Reads that the peer knows of, or will with the next messages.
  size_t under_way() const { return under_way_; }

  struct Message {
    std::string bytes;
    std::optional<uint64_t> last_read;  // Its id; none: it asks for nothing.
  };
  // A message of the `count` that came first, or fewer if it would be too long; the rest goes in
  // the next one.
  Message Take(size_t count);
  Message Take() { return Take(size()); }

 private:
  struct Entry {
    size_t end = 0;  // In `bytes_`.
    std::optional<uint64_t> read;
  };
  struct Held {
    PeerRequest request;
    absl::Time deadline;
  };
  void Append(uint64_t id, const PeerRequest& request, absl::Time deadline);

  Clock& clock_;
  std::string bytes_;
  std::vector<Entry> entries_;
  size_t under_way_ = 0;
  std::map<uint64_t, Held> held_;  // By id, which is the order in which they came.
};

}  // namespace peerchunk
