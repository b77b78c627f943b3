#pragma once

#include <memory>
#include <optional>

#include <gmock/gmock.h>

#include "peerchunk/peer/chunk_service_client.h"

namespace peerchunk::test {

// gmock doubles of the wire, for tests that script single messages. simulated_peer.h has whole
// nodes.
class MockPeerStream : public PeerStream {
 public:
  MOCK_METHOD(absl::StatusOr<std::optional<PeerMessage>>, Next, (absl::Time wait_until),
              (override));
  MOCK_METHOD(bool, IsAlive, (), (const, override));
  MOCK_METHOD(void, Cancel, (), (override));
};

class MockChunkServiceClient : public ChunkServiceClient {
 public:
  MOCK_METHOD(absl::StatusOr<FileHead>, GetBuildFileInfo,
              (const PeerRequest& request, const PeerCallOptions& options), (override));
  MOCK_METHOD(std::unique_ptr<PeerStream>, GetBuildFile,
              (const PeerRequest& request, const PeerCallOptions& options), (override));
  MOCK_METHOD(bool, IsConnected, (), (const, override));
};

class MockChunkServiceConnector : public ChunkServiceConnector {
 public:
  MOCK_METHOD(absl::StatusOr<std::shared_ptr<ChunkServiceClient>>, Connect,
              (const PeerAddress& address, PeerLane lane), (override));
};

}  // namespace peerchunk::test
