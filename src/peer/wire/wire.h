#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>

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

// Gathers reads, and ids that nobody waits for any more, into one ReadBuildFileRequest.
class ReadRequest {
 public:
  // `timeout`: zero for none.
  void Add(uint64_t id, const PeerRequest& request, absl::Duration timeout);
  void Cancel(uint64_t id);
  bool empty() const { return bytes_.empty(); }
  // How many reads and ids there are.
  size_t size() const { return entries_.size(); }

  struct Message {
    std::string bytes;
    std::optional<uint64_t> last_read;  // Its id; none: it asks for nothing.
  };
  // A message of the `count` that came first; the rest goes in the next one.
  Message Take(size_t count);
  Message Take() { return Take(size()); }

 private:
  struct Entry {
    size_t end = 0;  // In `bytes_`.
    std::optional<uint64_t> read;
  };

  std::string bytes_;
  std::vector<Entry> entries_;
};

}  // namespace peerchunk
