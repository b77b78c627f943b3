#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>

#include "peer/http2/connection.h"
#include "peer/http2/socket.h"
#include "peerchunk/base/file.h"

namespace peerchunk::http2 {
namespace {

// Gives out the input, and then closes; always ready.
class InputSocket final : public Socket {
 public:
  InputSocket(std::string_view input, size_t step)
      : input_(input), step_(step), ready_(eventfd(1, EFD_CLOEXEC)) {}

  int fd() const override { return ready_.fd(); }
  absl::StatusOr<bool> Open() override { return true; }
  short OpenEvents() const override { return POLLIN; }
  absl::StatusOr<size_t> Read(absl::Span<char> first, absl::Span<char> second) override {
    if (input_.empty()) return absl::UnavailableError("closed");
    size_t total = 0;
    for (const absl::Span<char> to : {first, second}) {
      const size_t size = std::min({to.size(), input_.size(), step_});
      std::memcpy(to.data(), input_.data(), size);
      input_.remove_prefix(size);
      total += size;
      if (size < to.size()) break;
    }
    return total;
  }
  absl::StatusOr<size_t> Write(std::string_view bytes) override { return bytes.size(); }
  void Shutdown() override { input_ = {}; }

 private:
  std::string_view input_;
  const size_t step_;
  const File ready_;
};

class CountingSink final : public CallSink {
 public:
  void OnMessage(const std::shared_ptr<Connection::Call>&, MessageBytes, Waiters& ready) override {
    ready.push_back(waiter);
  }
  void OnEnd(const absl::Status&, bool, Waiters& ready) override {
    if (ended) __builtin_trap();
    ended = true;
    ready.push_back(waiter);
  }

  const std::shared_ptr<Waiter> waiter = std::make_shared<Waiter>();
  bool ended = false;
};

}  // namespace
}  // namespace peerchunk::http2

// Whatever a server sends, each call ends once. The first byte says in which steps it comes.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace peerchunk::http2;
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto connection = std::make_shared<Connection>(
      std::make_unique<InputSocket>(rest, data[0] + 1), "fuzz:1", false, peerchunk::Clock::Real());
  const auto first = std::make_shared<CountingSink>();
  const auto second = std::make_shared<CountingSink>();
  const auto a = connection->Start({.method = "/a/b", .message = "ask"}, first);
  const auto b = connection->Start({.method = "/a/b", .message = "ask"}, second);
  for (const auto& sink : {first, second}) {
    while (!sink->ended) {
      if (!connection->Wait(sink->waiter, absl::InfiniteFuture()).ok()) __builtin_trap();
    }
  }
  return 0;
}
