#include "template/working_set_fetch.h"

#include <atomic>
#include <functional>
#include <optional>
#include <stop_token>
#include <utility>

#include "peerchunk/base/mutex.h"
#include "peerchunk/base/range.h"

namespace peerchunk {
namespace {

constexpr int kPiecesAtOnce = 4;
constexpr uint64_t kMaxPieceBytes = 256 * kKiB;
constexpr int kFailuresAllowed = 3;

}  // namespace

struct WorkingSetFetch::State : std::enable_shared_from_this<State> {
  State(std::weak_ptr<Template> given, WorkingSet set, const Options& given_options)
      : fetched(std::move(given)),
        wanted(std::move(set)),
        options(given_options),
        stop_with_owner(options.tasks->stop(), [this] { stop.request_stop(); }) {}

  void Queue() {
    options.tasks->Run(Priority::kPrefetch, [self = shared_from_this()] { self->Step(); });
  }

  // Neighbours in the order make one piece.
  std::optional<ByteRange> Take() {
    const MutexLock lock(mutex);
    if (next == wanted.blocks.size()) return std::nullopt;
    const uint64_t first = wanted.blocks[next++];
    uint64_t end = first + 1;
    while (next < wanted.blocks.size() && wanted.blocks[next] == end &&
           (end - first) * wanted.block_bytes < kMaxPieceBytes) {
      ++next;
      ++end;
    }
    return ByteRange{first * wanted.block_bytes, (end - first) * wanted.block_bytes};
  }

  void Step() {
    if (stop.stop_requested()) return;
    const std::optional<ByteRange> piece = Take();
    if (!piece) return;
    // A pin for as long as one piece takes.
    const std::shared_ptr<Template> pinned = fetched.lock();
    if (pinned == nullptr || pinned->Memfile() == nullptr) return;
    ReadOptions read;
    read.priority = Priority::kPrefetch;
    read.cancellation = stop.get_token();
    read.deadline = options.clock->Now() + options.timeout;
    const absl::Status brought = pinned->Memfile()->Prefetch(*piece, read);
    if (stop.stop_requested()) return;
    const bool refused = absl::IsResourceExhausted(brought);
    Count(brought.ok() ? "ok" : refused ? "refused" : "error", piece->length);
    if (refused || (!brought.ok() && ++failures > kFailuresAllowed)) {
      stop.request_stop();
      return;
    }
    Queue();
  }

  void Count(const char* outcome, uint64_t bytes) {
    if (options.metrics == nullptr) return;
    options.metrics->counter("peerchunk_working_set_bytes_total", {{"outcome", outcome}})
        .Add(bytes);
  }

  const std::weak_ptr<Template> fetched;
  const WorkingSet wanted;
  const Options options;
  std::atomic<int> failures{0};
  std::stop_source stop;
  const std::stop_callback<std::function<void()>> stop_with_owner;

  Mutex mutex;
  size_t next PEERCHUNK_GUARDED_BY(mutex) = 0;
};

std::unique_ptr<WorkingSetFetch> WorkingSetFetch::Start(std::weak_ptr<Template> fetched,
                                                        WorkingSet set, const Options& options) {
  auto state = std::make_shared<State>(std::move(fetched), std::move(set), options);
  for (int i = 0; i < kPiecesAtOnce; ++i) state->Queue();
  return std::unique_ptr<WorkingSetFetch>(new WorkingSetFetch(std::move(state)));
}

WorkingSetFetch::~WorkingSetFetch() { state_->stop.request_stop(); }

}  // namespace peerchunk
