#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "peer/http2/connection.h"
#include "peer/http2/frame.h"
#include "peer/http2/socket.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/mutex.h"

namespace peerchunk::test {

// Both ends of a connection without a network.
struct SocketPair {
  std::unique_ptr<http2::Socket> client;
  File server;
};
SocketPair MakeSocketPair();

// A header block: each field as a literal that nobody remembers.
std::string HeaderBlock(const std::vector<std::pair<std::string, std::string>>& fields);

// The other end of an HTTP/2 connection, played frame by frame. Its calls block.
class ScriptedServer {
 public:
  struct Frame {
    http2::FrameHeader header;
    std::string payload;
  };

  explicit ScriptedServer(File socket) : socket_(std::move(socket)) {}

  // The preface; after it, frames.
  std::string ReadPreface();
  // The next frame; type 255 when the client has closed the connection.
  Frame ReadFrame();
  // The next frame of this type; others are passed over.
  Frame ReadFrame(http2::FrameType type);

  void Send(std::string_view bytes);
  void SendFrame(http2::FrameType type, uint8_t flags, uint32_t stream, std::string_view payload);
  void SendSettings(const std::vector<std::pair<http2::Setting, uint32_t>>& settings = {});
  void SendHeaders(uint32_t stream);
  void SendTrailers(uint32_t stream, const std::string& code = "0",
                    const std::vector<std::pair<std::string, std::string>>& more = {});
  // One message as one DATA frame.
  void SendMessage(uint32_t stream, std::string_view message);
  // Headers, the message, trailers.
  void Answer(uint32_t stream, std::string_view message);
  void Close() { socket_ = File(); }

 private:
  bool ReadExactly(char* to, size_t size);

  File socket_;
};

// With gRPC's prefix.
std::string Prefixed(std::string_view message);

// Keeps what comes of one call.
class RecordingSink final : public http2::CallSink {
 public:
  // `place`: for the call's messages from their first byte on, one after the other.
  explicit RecordingSink(absl::Span<char> place = {}) : place_(place) {}

  void OnMessage(const std::shared_ptr<http2::Connection::Call>& call, MessageBytes message,
                 http2::Waiters& ready) override;
  absl::Span<char> PlaceTail(std::string_view head, size_t message_bytes) override;
  void OnEnd(const absl::Status& status, bool unanswered, http2::Waiters& ready) override;

  std::vector<std::string> messages() const;
  std::optional<absl::Status> end() const;
  bool unanswered() const;

  // What is waited with.
  const std::shared_ptr<http2::Waiter> waiter = std::make_shared<http2::Waiter>();

 private:
  absl::Span<char> place_;  // What is left of it; the driver's.
  mutable Mutex mutex_;
  std::vector<std::string> messages_ PEERCHUNK_GUARDED_BY(mutex_);
  std::optional<absl::Status> end_ PEERCHUNK_GUARDED_BY(mutex_);
  bool unanswered_ PEERCHUNK_GUARDED_BY(mutex_) = false;
};

}  // namespace peerchunk::test
