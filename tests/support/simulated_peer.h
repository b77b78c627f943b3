#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "peerchunk/base/build_state.h"
#include "peerchunk/base/clock.h"
#include "peerchunk/base/file_head.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/peer/chunk_service_client.h"

namespace peerchunk::test {

// Something a node does wrong. Everything that is set happens, at `after_bytes` of the call.
struct PeerFault {
  std::optional<FileKind> file;                           // Absent: any.
  bool heads_too = true;                                  // Else only calls that ask for bytes.
  uint64_t skip = 0;                                      // Calls that go well first.
  uint64_t times = std::numeric_limits<uint64_t>::max();  // Calls that go wrong then.

  uint64_t after_bytes = 0;
  absl::Status error;    // Ends the call.
  bool stall = false;    // Says nothing more until cancelled.
  bool cut = false;      // Ends the call with OK and without `last`.
  bool partial = false;  // Ends properly, as at a block that is not present.
  bool deaf = false;     // What was ready when the call was cancelled comes all the same.
  bool corrupt = false;  // Flips a bit of the next extent with data, under the old checksum.
  // Bytes per second from there on; 0: as the node.
  uint64_t trickle_bytes_per_second = 0;
  // Of every message from there on.
  std::function<void(PeerMessage&)> alter;
};

// A node that serves builds, as ChunkService would, by the clock. Thread-safe; may be changed while
// calls are under way.
class SimulatedNode {
 public:
  SimulatedNode(Clock& clock, uint64_t incarnation) : clock_(clock), incarnation_(incarnation) {}

  void PutFile(const BuildFileId& file, std::string bytes, uint64_t version = 0);
  void PutAbsent(const BuildFileId& file);
  void PutNotYet(const BuildFileId& file, absl::Duration retry_after);
  void RemoveBuild(const BuildId& build);
  void SetState(const BuildId& build, BuildState state);
  void SetInBase(const BuildFileId& file);
  // Where to look for files that were not put here: the bytes, or nothing.
  void ServeFrom(std::function<std::optional<std::string>(const BuildFileId&)> source);

  // Before a call's first message, and its rate after; the largest extent.
  void SetLatency(absl::Duration latency);
  void SetBytesPerSecond(uint64_t rate);
  void SetExtentBytes(uint64_t bytes);

  void AddFault(PeerFault fault);
  void ClearFaults();
  // Calls under way and new ones fail as with a lost connection, until Revive, which is a new
  // incarnation.
  void Kill();
  void Revive();
  // Says nothing to anybody, and no connection comes about: a black hole or a stopped process.
  void Freeze(bool frozen);

  uint64_t calls() const;       // GetBuildFile and GetBuildFileInfo.
  uint64_t byte_calls() const;  // That asked for bytes.
  uint64_t cancelled() const;   // Streams that ended before their end.
  uint64_t open_streams() const;
  uint64_t bytes_sent() const;
  std::vector<PeerRequest> requests() const;
  // Blocks until that many streams wait with nothing to say.
  void AwaitStalled(uint64_t count);

 private:
  friend class SimulatedClient;
  friend class SimulatedStream;
  struct File {
    Availability availability = Availability::kAvailable;
    std::shared_ptr<const std::string> bytes;
    uint64_t version = 0;
    bool in_base = false;
    absl::Duration retry_after;
  };

  FileHead Head(const PeerRequest& request, std::shared_ptr<const std::string>* bytes) const
      PEERCHUNK_REQUIRES(mutex_);
  std::optional<PeerFault> TakeFault(const PeerRequest& request) PEERCHUNK_REQUIRES(mutex_);

  Clock& clock_;
  mutable Mutex mutex_;
  CondVar changed_;
  uint64_t incarnation_ PEERCHUNK_GUARDED_BY(mutex_);
  uint64_t sequence_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  bool dead_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  bool frozen_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  uint64_t kills_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  absl::Duration latency_ PEERCHUNK_GUARDED_BY(mutex_);
  uint64_t bytes_per_second_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  uint64_t extent_bytes_ PEERCHUNK_GUARDED_BY(mutex_) = 64 * 1024;
  std::map<BuildFileId, File> files_ PEERCHUNK_GUARDED_BY(mutex_);
  std::map<BuildId, BuildState> states_ PEERCHUNK_GUARDED_BY(mutex_);
  std::function<std::optional<std::string>(const BuildFileId&)> source_
      PEERCHUNK_GUARDED_BY(mutex_);
  std::list<PeerFault> faults_ PEERCHUNK_GUARDED_BY(mutex_);
  uint64_t byte_calls_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  uint64_t cancelled_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  uint64_t open_streams_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  uint64_t stalled_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  uint64_t bytes_sent_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  std::vector<PeerRequest> requests_ PEERCHUNK_GUARDED_BY(mutex_);
};

// All the nodes there are; an address without a node refuses the connection. Thread-safe.
class SimulatedNetwork final : public ChunkServiceConnector {
 public:
  explicit SimulatedNetwork(Clock& clock) : clock_(clock) {}

  // The node at `address` ("10.0.0.1:7070"), made when it is new.
  SimulatedNode& Node(const std::string& address);
  // Connections to this address are not allowed by the credentials in force.
  void Forbid(const std::string& address);
  // Clients made, by lane.
  uint64_t clients(PeerLane lane) const;

  absl::StatusOr<std::shared_ptr<ChunkServiceClient>> Connect(const PeerAddress& address,
                                                              PeerLane lane) override;

 private:
  Clock& clock_;
  mutable Mutex mutex_;
  std::map<std::string, std::shared_ptr<SimulatedNode>> nodes_ PEERCHUNK_GUARDED_BY(mutex_);
  std::map<std::string, bool> forbidden_ PEERCHUNK_GUARDED_BY(mutex_);
  uint64_t clients_[2] PEERCHUNK_GUARDED_BY(mutex_) = {0, 0};
};

}  // namespace peerchunk::test
