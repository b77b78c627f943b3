#include "tests/support/simulated_peer.h"

#include <algorithm>
#include <utility>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/range.h"

namespace peerchunk::test {

// One GetBuildFile call to a simulated node.
class SimulatedStream final : public PeerStream {
 public:
  SimulatedStream(std::shared_ptr<SimulatedNode> node, PeerRequest request,
                  const PeerCallOptions& options)
      : node_(std::move(node)),
        request_(std::move(request)),
        deadline_(options.deadline),
        next_(request_.offset),
        on_cancel_(options.cancellation, [this] { Cancel(); }) {
    const MutexLock lock(node_->mutex_);
    kills_ = node_->kills_;
    fault_ = node_->TakeFault(request_);
    ready_at_ = node_->clock_.Now() + node_->latency_;
    ++node_->open_streams_;
  }

  ~SimulatedStream() override {
    const MutexLock lock(node_->mutex_);
    --node_->open_streams_;
    if (!ended_) ++node_->cancelled_;
  }

  absl::StatusOr<std::optional<PeerMessage>> Next(absl::Time wait_until) override {
    const MutexLock lock(node_->mutex_);
    while (true) {
      if (ended_) return *ended_;
      const bool deaf = fault_ && fault_->deaf;
      if (cancelled_ && !deaf) return End(absl::CancelledError("cancelled"));
      const absl::Time now = node_->clock_.Now();
      if (now >= deadline_) return End(absl::DeadlineExceededError("deadline exceeded"));
      const bool mute = node_->frozen_ || Muted();
      if (!mute && (node_->dead_ || node_->kills_ != kills_)) {
        return End(absl::UnavailableError("connection refused"));
      }
      if (!mute && now >= ready_at_) return Produce(now);
      if (now >= wait_until) return absl::DeadlineExceededError("no message yet");
      absl::Time until = std::min(wait_until, deadline_);
      if (!mute) until = std::min(until, ready_at_);
      if (mute) {
        ++node_->stalled_;
        node_->changed_.NotifyAll();
      }
      node_->clock_.WaitUntil(node_->changed_, node_->mutex_, until);
      if (mute) --node_->stalled_;
    }
  }

  bool IsAlive() const override {
    const MutexLock lock(node_->mutex_);
    return !ended_;
  }

  void Cancel() override {
    const MutexLock lock(node_->mutex_);
    cancelled_ = true;
    node_->changed_.NotifyAll();
  }

 private:
  using Result = absl::StatusOr<std::optional<PeerMessage>>;

  bool Due() const { return fault_ && next_ - request_.offset >= fault_->after_bytes; }
  bool Muted() const { return Due() && fault_->stall; }

  Result End(absl::Status status) {
    ended_ = status.ok() ? Result(std::optional<PeerMessage>()) : Result(std::move(status));
    return *ended_;
  }

  Result Produce(absl::Time now) PEERCHUNK_REQUIRES(node_->mutex_) {
    if (sent_last_) return End(absl::OkStatus());
    if (Due() && !fault_->error.ok()) return End(fault_->error);
    if (Due() && fault_->cut) return End(absl::OkStatus());
    PeerMessage message;
    if (!started_) {
      started_ = true;
      message.head = node_->Head(request_, &bytes_);
      if (message.head->availability == Availability::kAvailable) {
        const auto range = ByteRange::Clip(request_.offset, request_.length, bytes_->size());
        if (!range) return End(absl::OutOfRangeError("offset beyond the end"));
        end_ = range->end();
      } else {
        end_ = request_.offset;
      }
    }
    if (next_ < end_ && !(Due() && fault_->partial)) FillExtent(message);
    if (next_ == end_ || (Due() && fault_->partial)) {
      sent_last_ = true;
      message.last = true;
      message.next_offset = next_;
      message.stopped_short = next_ != end_;
      message.status = node_->Head(request_, nullptr).status;
    }
    if (Due() && fault_->alter) fault_->alter(message);
    ready_at_ = now + Pace(message);
    return std::optional<PeerMessage>(std::move(message));
  }

  absl::Duration Pace(const PeerMessage& message) const PEERCHUNK_REQUIRES(node_->mutex_) {
    uint64_t rate = node_->bytes_per_second_;
    if (Due() && fault_->trickle_bytes_per_second > 0) rate = fault_->trickle_bytes_per_second;
    if (rate == 0 || !message.extent) return absl::ZeroDuration();
    return absl::Seconds(static_cast<double>(message.extent->length) / static_cast<double>(rate));
  }

  bool ZeroPage(uint64_t offset) const {
    return IsAllZero(std::string_view(*bytes_).substr(offset, kPageBytes - offset % kPageBytes));
  }

  void FillExtent(PeerMessage& message) PEERCHUNK_REQUIRES(node_->mutex_) {
    uint64_t limit = end_;
    if (fault_ && !Due()) limit = std::min(limit, request_.offset + fault_->after_bytes);
    PeerExtent extent{.offset = next_, .zero = ZeroPage(next_)};
    uint64_t to = next_;
    while (to < limit && ZeroPage(to) == extent.zero &&
           (extent.zero || to - next_ < node_->extent_bytes_)) {
      to = std::min(limit, (to / kPageBytes + 1) * kPageBytes);
    }
    extent.length = to - next_;
    if (!extent.zero) {
      data_ = bytes_->substr(next_, extent.length);
      extent.crc32c = Crc32c(data_);
      if (Due() && fault_->corrupt && !std::exchange(corrupted_, true))
        data_[data_.size() / 2] ^= 1;
      const size_t half = data_.size() / 2;  // In two pieces, as slices come.
      pieces_ = {std::string_view(data_).substr(0, half), std::string_view(data_).substr(half)};
      extent.pieces = pieces_;
      node_->bytes_sent_ += extent.length;
    }
    next_ = to;
    message.extent = extent;
  }

  const std::shared_ptr<SimulatedNode> node_;
  const PeerRequest request_;
  const absl::Time deadline_;
  uint64_t kills_ = 0;
  std::optional<PeerFault> fault_;
  std::shared_ptr<const std::string> bytes_;
  uint64_t next_;
  uint64_t end_ = 0;
  bool started_ = false;
  bool sent_last_ = false;
  bool cancelled_ = false;
  bool corrupted_ = false;
  absl::Time ready_at_;
  std::string data_;
  std::array<std::string_view, 2> pieces_;
  std::optional<Result> ended_;
  std::stop_callback<std::function<void()>> on_cancel_;  // Last: it uses the rest.
};

class SimulatedClient final : public ChunkServiceClient {
 public:
  explicit SimulatedClient(std::shared_ptr<SimulatedNode> node) : node_(std::move(node)) {}

  absl::StatusOr<FileHead> GetBuildFileInfo(const PeerRequest& request,
                                            const PeerCallOptions& options) override {
    PeerRequest head = request;
    head.offset = 0;
    head.length = 0;
    const std::unique_ptr<PeerStream> stream = GetBuildFile(head, options);
    const auto message = stream->Next(options.deadline);
    if (!message.ok()) return message.status();
    if (!message->has_value() || !(*message)->head) return absl::UnavailableError("no head");
    return *(*message)->head;
  }

  std::unique_ptr<PeerStream> GetBuildFile(const PeerRequest& request,
                                           const PeerCallOptions& options) override {
    {
      const MutexLock lock(node_->mutex_);
      node_->requests_.push_back(request);
      if (!request.length || *request.length > 0) ++node_->byte_calls_;
    }
    return std::make_unique<SimulatedStream>(node_, request, options);
  }

  bool IsConnected() const override {
    const MutexLock lock(node_->mutex_);
    return !node_->frozen_;
  }

 private:
  const std::shared_ptr<SimulatedNode> node_;
};

void SimulatedNode::PutFile(const BuildFileId& file, std::string bytes, uint64_t version) {
  const MutexLock lock(mutex_);
  files_[file] = {.bytes = std::make_shared<const std::string>(std::move(bytes)),
                  .version = version};
  states_.try_emplace(file.build, BuildState::kLocal);
}

void SimulatedNode::PutAbsent(const BuildFileId& file) {
  const MutexLock lock(mutex_);
  files_[file] = {.availability = Availability::kAbsent};
  states_.try_emplace(file.build, BuildState::kLocal);
}

void SimulatedNode::PutNotYet(const BuildFileId& file, absl::Duration retry_after) {
  const MutexLock lock(mutex_);
  files_[file] = {.availability = Availability::kNotYet, .retry_after = retry_after};
  states_.try_emplace(file.build, BuildState::kLocal);
}

void SimulatedNode::RemoveBuild(const BuildId& build) {
  const MutexLock lock(mutex_);
  std::erase_if(files_, [&](const auto& entry) { return entry.first.build == build; });
  states_.erase(build);
}

void SimulatedNode::SetState(const BuildId& build, BuildState state) {
  const MutexLock lock(mutex_);
  states_[build] = state;
  ++sequence_;
}

void SimulatedNode::SetInBase(const BuildFileId& file) {
  const MutexLock lock(mutex_);
  files_[file].in_base = true;
}

void SimulatedNode::ServeFrom(
    std::function<std::optional<std::string>(const BuildFileId&)> source) {
  const MutexLock lock(mutex_);
  source_ = std::move(source);
}

void SimulatedNode::SetLatency(absl::Duration latency) {
  const MutexLock lock(mutex_);
  latency_ = latency;
}

void SimulatedNode::SetBytesPerSecond(uint64_t rate) {
  const MutexLock lock(mutex_);
  bytes_per_second_ = rate;
}

void SimulatedNode::SetExtentBytes(uint64_t bytes) {
  const MutexLock lock(mutex_);
  extent_bytes_ = bytes;
}

void SimulatedNode::AddFault(PeerFault fault) {
  const MutexLock lock(mutex_);
  faults_.push_back(std::move(fault));
}

void SimulatedNode::ClearFaults() {
  const MutexLock lock(mutex_);
  faults_.clear();
}

void SimulatedNode::Kill() {
  const MutexLock lock(mutex_);
  dead_ = true;
  ++kills_;
  changed_.NotifyAll();
}

void SimulatedNode::Revive() {
  const MutexLock lock(mutex_);
  dead_ = false;
  ++incarnation_;
  sequence_ = 0;
}

void SimulatedNode::Freeze(bool frozen) {
  const MutexLock lock(mutex_);
  frozen_ = frozen;
  changed_.NotifyAll();
}

uint64_t SimulatedNode::calls() const {
  const MutexLock lock(mutex_);
  return requests_.size();
}
uint64_t SimulatedNode::byte_calls() const {
  const MutexLock lock(mutex_);
  return byte_calls_;
}
uint64_t SimulatedNode::cancelled() const {
  const MutexLock lock(mutex_);
  return cancelled_;
}
uint64_t SimulatedNode::open_streams() const {
  const MutexLock lock(mutex_);
  return open_streams_;
}
uint64_t SimulatedNode::bytes_sent() const {
  const MutexLock lock(mutex_);
  return bytes_sent_;
}
std::vector<PeerRequest> SimulatedNode::requests() const {
  const MutexLock lock(mutex_);
  return requests_;
}

void SimulatedNode::AwaitStalled(uint64_t count) {
  const MutexLock lock(mutex_);
  while (stalled_ < count) changed_.Wait(mutex_);
}

FileHead SimulatedNode::Head(const PeerRequest& request,
                             std::shared_ptr<const std::string>* bytes) const {
  FileHead head;
  const auto state = states_.find(request.file.build);
  File file;
  if (const auto found = files_.find(request.file); found != files_.end()) {
    file = found->second;
  } else if (source_) {
    if (auto from_source = source_(request.file)) {
      file.bytes = std::make_shared<const std::string>(*std::move(from_source));
    } else {
      file.availability = Availability::kNotAvailable;
    }
  } else {
    file.availability = Availability::kNotAvailable;
  }
  head.availability = file.availability;
  if (head.availability == Availability::kNotAvailable && state == states_.end()) return head;
  head.status = {.state = state == states_.end() ? BuildState::kUnknown : state->second,
                 .incarnation = incarnation_,
                 .sequence = sequence_};
  head.in_base = file.in_base;
  head.retry_after = file.retry_after;
  head.version = file.version;
  if (file.bytes == nullptr) return head;
  head.total_size = file.bytes->size();
  head.file_crc32c = Crc32c(*file.bytes);
  if (head.status.state == BuildState::kDurable) {
    head.in_base = true;
    if (!request.even_if_durable) head.availability = Availability::kUseStorage;
  }
  if (bytes != nullptr) *bytes = file.bytes;
  return head;
}

std::optional<PeerFault> SimulatedNode::TakeFault(const PeerRequest& request) {
  const bool head_only = request.length && *request.length == 0;
  for (PeerFault& fault : faults_) {
    if (fault.file && *fault.file != request.file.kind) continue;
    if (head_only && !fault.heads_too) continue;
    if (fault.skip > 0) {
      --fault.skip;
      continue;
    }
    if (fault.times == 0) continue;
    --fault.times;
    return fault;
  }
  return std::nullopt;
}

SimulatedNode& SimulatedNetwork::Node(const std::string& address) {
  const MutexLock lock(mutex_);
  std::shared_ptr<SimulatedNode>& node = nodes_[address];
  if (node == nullptr) node = std::make_shared<SimulatedNode>(clock_, 1000 * nodes_.size());
  return *node;
}

void SimulatedNetwork::Forbid(const std::string& address) {
  const MutexLock lock(mutex_);
  forbidden_[address] = true;
}

uint64_t SimulatedNetwork::clients(PeerLane lane) const {
  const MutexLock lock(mutex_);
  return clients_[static_cast<size_t>(lane)];
}

absl::StatusOr<std::shared_ptr<ChunkServiceClient>> SimulatedNetwork::Connect(
    const PeerAddress& address, PeerLane lane) {
  const MutexLock lock(mutex_);
  if (forbidden_.contains(address.ToString())) {
    return absl::PermissionDeniedError("plaintext to this address is not allowed");
  }
  ++clients_[static_cast<size_t>(lane)];
  std::shared_ptr<SimulatedNode>& node = nodes_[address.ToString()];
  if (node == nullptr) {
    node = std::make_shared<SimulatedNode>(clock_, 1000 * nodes_.size());
    node->Kill();
  }
  return std::make_shared<SimulatedClient>(node);
}

}  // namespace peerchunk::test
