#include "bench/running.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "bench/usage.h"
#include "peerchunk/base/status.h"

namespace peerchunk::bench {
namespace {

// No turn takes so long, however slow the machine.
constexpr timeval kPatience{.tv_sec = 60, .tv_usec = 0};

struct Answer {
  int code = 0;
  char message[400] = {};
  Outcome outcome;
};

// Memory with its pages in place.
class WarmMemory {
 public:
  explicit WarmMemory(size_t size)
      : size_(size),
        data_(mmap(nullptr, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0)) {}
  ~WarmMemory() {
    if (data_ != MAP_FAILED) munmap(data_, size_);
  }
  WarmMemory(const WarmMemory&) = delete;
  WarmMemory& operator=(const WarmMemory&) = delete;

  absl::StatusOr<absl::Span<char>> bytes() const {
    if (data_ == MAP_FAILED) return absl::ResourceExhaustedError("no memory to read into");
    return absl::MakeSpan(static_cast<char*>(data_), size_);
  }

 private:
  const size_t size_;
  void* const data_;
};

// The client's process: takes orders until the other end is closed.
class Taker {
 public:
  Taker(const Samples& samples, std::unique_ptr<Client> client)
      : samples_(samples), client_(std::move(client)) {}

  void TakeOrders(int socket) {
    Order order;
    while (recv(socket, &order, sizeof(order), MSG_WAITALL) == sizeof(order)) {
      Answer answer;
      const absl::StatusOr<Outcome> outcome = Do(order);
      if (outcome.ok()) {
        answer.outcome = *outcome;
      } else {
        answer.code = static_cast<int>(outcome.status().code());
        const std::string message(outcome.status().message());
        std::snprintf(answer.message, sizeof(answer.message), "%s", message.c_str());
      }
      if (send(socket, &answer, sizeof(answer), 0) != sizeof(answer)) return;
    }
  }

 private:
  absl::StatusOr<Outcome> Do(const Order& order) {
    BulkRead bulk{.sample = samples_.files[order.sample], .to = order.to, .streams = order.streams};
    // Kept from round to round: that is what makes it warm.
    if (order.to != Destination::kMemory) {
      memory_.reset();
    } else {
      if (memory_ == nullptr) memory_ = std::make_unique<WarmMemory>(bulk.sample.size);
      PEERCHUNK_ASSIGN_OR_RETURN(bulk.memory, memory_->bytes());
    }
    const std::filesystem::path folder = absl::StrCat(samples_.folder, "/out-", getpid());
    std::filesystem::create_directory(folder);
    bulk.path = folder / "memfile";
    if (order.to == Destination::kAllocatedFile) {
      PEERCHUNK_ASSIGN_OR_RETURN(const File file, File::Open(bulk.path, O_RDWR | O_CREAT));
      if (posix_fallocate(file.fd(), 0, static_cast<off_t>(bulk.sample.size)) != 0) {
        return absl::ResourceExhaustedError("no disk to read into");
      }
    }

    Outcome outcome;
    ResetPeak(getpid());
    const double cpu_before = OwnCpuSeconds();
    const auto start = std::chrono::steady_clock::now();
    const absl::Status end = Work(order, bulk, outcome.reads);
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    outcome.seconds = time.count();
    outcome.client_cpu_seconds = OwnCpuSeconds() - cpu_before;
    std::filesystem::remove_all(folder);
    PEERCHUNK_RETURN_IF_ERROR(end);
    outcome.client_bytes = client_->programs_peak_bytes();
    if (outcome.client_bytes == 0) {
      PEERCHUNK_ASSIGN_OR_RETURN(const uint64_t peak, PeakResidentBytes(getpid()));
      outcome.client_bytes = peak - bulk.memory.size();
    }
    return outcome;
  }

  absl::Status Work(const Order& order, const BulkRead& bulk, ReadFigures& figures) {
    const RandomReads reads{.sample = bulk.sample,
                            .bytes = order.bytes,
                            .depth = order.depth,
                            .seconds = order.seconds,
                            .seed = order.seed};
    switch (order.kind) {
      case Order::Kind::kBulk:
        return client_->ReadAll(bulk);
      case Order::Kind::kManyClients:
        return client_->ReadAllByMany(bulk.sample, order.clients);
      case Order::Kind::kReads: {
        PEERCHUNK_ASSIGN_OR_RETURN(figures, client_->Read(reads));
        return absl::OkStatus();
      }
      case Order::Kind::kReadsUnderBulk: {
        PEERCHUNK_ASSIGN_OR_RETURN(figures, client_->ReadUnderBulk(reads));
        return absl::OkStatus();
      }
    }
    return absl::InternalError("no such order");
  }

  const Samples& samples_;
  const std::unique_ptr<Client> client_;
  std::unique_ptr<WarmMemory> memory_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RunningContender>> RunningContender::Start(
    const Contender& contender, const Samples& samples, const Cores& cores) {
  std::unique_ptr<RunningContender> running(new RunningContender);
  running->name_ = contender.name;
  {
    const Cores::Bound bound = cores.BindToServers();
    PEERCHUNK_ASSIGN_OR_RETURN(running->server_, contender.serve(samples));
  }
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return ErrnoStatus(errno, "socketpair");
  }
  setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof(kPatience));
  running->client_ = File(ends[0]);
  File other(ends[1]);
  const Cores::Bound bound = cores.BindToClients();
  PEERCHUNK_ASSIGN_OR_RETURN(running->client_pid_, Fork([&] {
                               running->client_ = File();
                               auto client = contender.connect(samples, running->server_->port());
                               if (!client.ok()) {
                                 std::fprintf(stderr, "bench client: %s\n",
                                              client.status().ToString().c_str());
                                 return;
                               }
                               Taker(samples, *std::move(client)).TakeOrders(other.fd());
                             }));
  return running;
}

RunningContender::~RunningContender() {
  if (client_pid_ == 0) return;
  kill(client_pid_, SIGKILL);
  waitpid(client_pid_, nullptr, 0);
}

absl::StatusOr<uint64_t> RunningContender::ServerBytes() const {
  return ResidentBytes(server_->pid());
}

absl::StatusOr<Outcome> RunningContender::Do(const Order& order) {
  ResetPeak(server_->pid());
  const double cpu_before = CpuSecondsOf(server_->pid());
  Answer answer;
  errno = 0;
  if (send(client_.fd(), &order, sizeof(order), MSG_NOSIGNAL) != sizeof(order) ||
      recv(client_.fd(), &answer, sizeof(answer), 0) != sizeof(answer)) {
    const bool silent = errno == EAGAIN || errno == EWOULDBLOCK;
    kill(client_pid_, SIGKILL);  // What it answers later is for no question.
    return absl::InternalError(name_ + (silent ? ": hangs" : ": its client's process has ended"));
  }
  if (answer.code != 0) {
    return absl::Status(static_cast<absl::StatusCode>(answer.code),
                        absl::StrCat(name_, ": ", answer.message));
  }
  answer.outcome.server_cpu_seconds = CpuSecondsOf(server_->pid()) - cpu_before;
  PEERCHUNK_ASSIGN_OR_RETURN(answer.outcome.server_bytes, PeakResidentBytes(server_->pid()));
  return answer.outcome;
}

}  // namespace peerchunk::bench
