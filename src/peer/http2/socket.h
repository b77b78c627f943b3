#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include <absl/status/statusor.h>
#include <absl/types/span.h>

#include "peerchunk/peer/address_policy.h"

namespace peerchunk::http2 {

// A connection being made or made. It never blocks: what cannot be done at once asks to be called
// again when the descriptor is ready. Read and Write may run at the same time, on one thread each;
// Open runs before both.
class Socket {
 public:
  virtual ~Socket() = default;

  virtual int fd() const = 0;
  // Goes on with the dial, and the handshake of TLS; true when the connection is open.
  virtual absl::StatusOr<bool> Open() = 0;
  // What poll(2) should wait for before Open is called again.
  virtual short OpenEvents() const = 0;
  // Fills `first`, then `second`; 0: nothing is there now. Unavailable when the peer closed.
  virtual absl::StatusOr<size_t> Read(absl::Span<char> first, absl::Span<char> second) = 0;
  // Takes what it can of `bytes`; 0: nothing now.
  virtual absl::StatusOr<size_t> Write(std::string_view bytes) = 0;
  // Bytes are here that poll(2) does not know of.
  virtual bool HasBuffered() const { return false; }
  // Ends the connection; the descriptor stays until the destructor.
  virtual void Shutdown() = 0;
};

// Begins to dial. Connections whose peer does not confirm what it was sent for
// `kUnconfirmedLimitMs` end, however patient TCP would be: a peer that comes back after its cable
// was out is found again by a new one.
inline constexpr unsigned kUnconfirmedLimitMs = 20'000;
absl::StatusOr<std::unique_ptr<Socket>> DialTcp(const PeerAddress& address);

}  // namespace peerchunk::http2
