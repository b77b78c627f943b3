#include "tests/peer/http2/scripted_server.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "peerchunk/base/status.h"

namespace peerchunk::test {
namespace {

class PairSocket final : public http2::Socket {
 public:
  explicit PairSocket(File file) : file_(std::move(file)) {}

  int fd() const override { return file_.fd(); }
  absl::StatusOr<bool> Open() override { return true; }
  short OpenEvents() const override { return 0; }
  absl::StatusOr<size_t> Read(absl::Span<char> first, absl::Span<char> second) override {
    const iovec to[] = {{first.data(), first.size()}, {second.data(), second.size()}};
    const ssize_t got = readv(file_.fd(), to, 2);
    if (got > 0) return static_cast<size_t>(got);
    if (got < 0 && errno == EAGAIN) return 0;
    return absl::UnavailableError("closed");
  }
  absl::StatusOr<size_t> Write(std::string_view bytes) override {
    const ssize_t sent = send(file_.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) return static_cast<size_t>(sent);
    if (errno == EAGAIN) return 0;
    return absl::UnavailableError("closed");
  }
  void Shutdown() override { shutdown(file_.fd(), SHUT_RDWR); }

 private:
  const File file_;
};

}  // namespace

SocketPair MakeSocketPair() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) std::abort();
  File client(ends[0]);
  File server(ends[1]);
  if (fcntl(client.fd(), F_SETFL, O_NONBLOCK) != 0) std::abort();
  return {.client = std::make_unique<PairSocket>(std::move(client)), .server = std::move(server)};
}

std::string HeaderBlock(const std::vector<std::pair<std::string, std::string>>& fields) {
  std::string block;
  for (const auto& [name, value] : fields) {
    block.push_back(0);
    for (const std::string& text : {name, value}) {
      // Lengths below 127 fit the prefix; longer ones go on behind it.
      if (text.size() < 127) {
        block.push_back(static_cast<char>(text.size()));
      } else {
        block.push_back(127);
        size_t rest = text.size() - 127;
        for (; rest >= 128; rest >>= 7) block.push_back(static_cast<char>(rest | 128));
        block.push_back(static_cast<char>(rest));
      }
      block += text;
    }
  }
  return block;
}

std::string Prefixed(std::string_view message) {
  std::string bytes(1, '\0');
  http2::AppendU32(bytes, static_cast<uint32_t>(message.size()));
  bytes.append(message);
  return bytes;
}

bool ScriptedServer::ReadExactly(char* to, size_t size) {
  while (size > 0) {
    const ssize_t got = recv(socket_.fd(), to, size, 0);
    if (got <= 0) return false;
    to += got;
    size -= static_cast<size_t>(got);
  }
  return true;
}

std::string ScriptedServer::ReadPreface() {
  std::string preface(http2::kPreface.size(), '\0');
  ReadExactly(preface.data(), preface.size());
  return preface;
}

ScriptedServer::Frame ScriptedServer::ReadFrame() {
  Frame frame;
  char head[http2::kFrameHeaderBytes];
  frame.header.type = 255;
  if (!ReadExactly(head, sizeof(head))) return frame;
  frame.header = http2::ParseFrameHeader(head);
  frame.payload.resize(frame.header.length);
  if (!ReadExactly(frame.payload.data(), frame.payload.size())) frame.header.type = 255;
  return frame;
}

ScriptedServer::Frame ScriptedServer::ReadFrame(http2::FrameType type) {
  while (true) {
    Frame frame = ReadFrame();
    if (frame.header.Is(type) || frame.header.type == 255) return frame;
  }
}

void ScriptedServer::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(socket_.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return;  // The client has gone.
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
}

void ScriptedServer::SendFrame(http2::FrameType type, uint8_t flags, uint32_t stream,
                               std::string_view payload) {
  std::string frame;
  http2::AppendFrameHeader(frame, type, flags, stream, payload.size());
  frame.append(payload);
  Send(frame);
}

void ScriptedServer::SendSettings(
    const std::vector<std::pair<http2::Setting, uint32_t>>& settings) {
  std::string frame;
  http2::AppendSettings(frame, settings);
  Send(frame);
}

void ScriptedServer::SendHeaders(uint32_t stream) {
  SendFrame(http2::FrameType::kHeaders, http2::kEndHeaders, stream,
            HeaderBlock({{":status", "200"}, {"content-type", "application/grpc"}}));
}

void ScriptedServer::SendTrailers(uint32_t stream, const std::string& code,
                                  const std::vector<std::pair<std::string, std::string>>& more) {
  std::vector<std::pair<std::string, std::string>> fields = {{"grpc-status", code}};
  fields.insert(fields.end(), more.begin(), more.end());
  SendFrame(http2::FrameType::kHeaders, http2::kEndHeaders | http2::kEndStream, stream,
            HeaderBlock(fields));
}

void ScriptedServer::SendMessage(uint32_t stream, std::string_view message) {
  SendFrame(http2::FrameType::kData, 0, stream, Prefixed(message));
}

void ScriptedServer::Answer(uint32_t stream, std::string_view message) {
  SendHeaders(stream);
  SendMessage(stream, message);
  SendTrailers(stream);
}

void RecordingSink::OnMessage(const std::shared_ptr<http2::Connection::Call>&, MessageBytes message,
                              http2::Waiters& ready) {
  MutexLock lock(mutex_);
  std::string& bytes = messages_.emplace_back();
  for (const std::string_view piece : message.pieces) bytes.append(piece);
  ready.push_back(waiter);
}

absl::Span<char> RecordingSink::PlaceTail(std::string_view, size_t message_bytes) {
  if (message_bytes > place_.size()) return {};
  const absl::Span<char> place = place_.first(message_bytes);
  place_.remove_prefix(message_bytes);
  return place;
}

void RecordingSink::OnEnd(const absl::Status& status, bool unanswered, http2::Waiters& ready) {
  MutexLock lock(mutex_);
  end_ = status;
  unanswered_ = unanswered;
  ready.push_back(waiter);
}

std::vector<std::string> RecordingSink::messages() const {
  MutexLock lock(mutex_);
  return messages_;
}

std::optional<absl::Status> RecordingSink::end() const {
  MutexLock lock(mutex_);
  return end_;
}

bool RecordingSink::unanswered() const {
  MutexLock lock(mutex_);
  return unanswered_;
}

}  // namespace peerchunk::test
