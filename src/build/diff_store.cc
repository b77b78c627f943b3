#include "peerchunk/build/diff_store.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "build/task_group.h"
#include "peerchunk/base/status.h"

namespace peerchunk {

namespace {

absl::Status Closed(const BuildFileId& id) {
  return absl::UnavailableError(absl::StrCat("open ", id.ObjectPath(), ": shutting down"));
}

}  // namespace

// One attempt to open a file. Guarded by the store's mutex.
struct DiffStore::Opening {
  std::optional<absl::StatusOr<std::shared_ptr<BuildFile>>> result;
  CondVar done;
};

DiffStore::DiffStore(Options options)
    : options_(std::move(options)),
      tasks_(options_.executor == nullptr ? nullptr
                                          : std::make_unique<TaskGroup>(options_.executor)) {}

DiffStore::~DiffStore() { Close(); }

void DiffStore::Close() {
  {
    const MutexLock lock(mutex_);
    closed_ = true;
  }
  if (tasks_ != nullptr) tasks_->Close();
  absl::flat_hash_map<BuildFileId, Entry> dropped;  // Goes after the lock.
  const MutexLock lock(mutex_);
  dropped.swap(entries_);
  for (auto& [id, entry] : dropped) {
    if (entry.opening == nullptr) continue;
    entry.opening->result = Closed(id);  // It never began.
    entry.opening->done.NotifyAll();
  }
}

std::shared_ptr<BuildFile> DiffStore::Lookup(const BuildFileId& id) {
  const MutexLock lock(mutex_);
  const auto found = entries_.find(id);
  if (found == entries_.end()) return nullptr;
  found->second.last_use = ++use_clock_;
  return found->second.file;
}

DiffStore::FileOrOpening DiffStore::FindOrStart(const BuildFileId& id, const Opener& open,
                                                Priority priority) {
  std::shared_ptr<Opening> opening;
  {
    const MutexLock lock(mutex_);
    if (closed_) {
      opening = std::make_shared<Opening>();
      opening->result = Closed(id);
      return {nullptr, opening};
    }
    Entry& entry = entries_[id];
    entry.last_use = ++use_clock_;
    if (entry.file != nullptr) return {entry.file, nullptr};
    if (entry.opening != nullptr) return {nullptr, entry.opening};
    opening = entry.opening = std::make_shared<Opening>();
  }
  if (tasks_ == nullptr) {
    RunOpening(id, opening, open);
  } else {
    tasks_->Run(priority, [this, id, opening, open] { RunOpening(id, opening, open); });
  }
  return {nullptr, opening};
}

absl::StatusOr<std::shared_ptr<BuildFile>> DiffStore::GetOrOpen(const BuildFileId& id,
                                                                const Opener& open,
                                                                const ReadOptions& options) {
  FileOrOpening found = FindOrStart(id, open, options.priority);
  if (found.file != nullptr) return std::move(found.file);
  return Await(id, *found.opening, options);
}

void DiffStore::StartOpen(const BuildFileId& id, const Opener& open, Priority priority) {
  FindOrStart(id, open, priority);
}

void DiffStore::RunOpening(const BuildFileId& id, const std::shared_ptr<Opening>& opening,
                           const Opener& open) {
  absl::StatusOr<std::shared_ptr<BuildFile>> file = open();
  const MutexLock lock(mutex_);
  const auto found = entries_.find(id);
  // Insert or Remove may have come in between; the waiters get what was opened for them all the
  // same.
  if (found != entries_.end() && found->second.opening == opening) {
    if (file.ok()) {
      most_held_ += (*file)->AllocatedBytes();
      found->second.file = *file;
      found->second.opening = nullptr;
    } else {
      entries_.erase(found);
    }
  }
  opening->result = std::move(file);
  opening->done.NotifyAll();
}

absl::StatusOr<std::shared_ptr<BuildFile>> DiffStore::Await(const BuildFileId& id, Opening& opening,
                                                            const ReadOptions& options) {
  // Made and destroyed without the lock, which its callback takes.
  const std::stop_callback wake(options.cancellation, [&] {
    const MutexLock lock(mutex_);
    opening.done.NotifyAll();
  });
  const MutexLock lock(mutex_);
  while (!opening.result) {
    if (options.cancellation.stop_requested()) {
      return absl::CancelledError(absl::StrCat("open ", id.ObjectPath()));
    }
    if (options_.clock->Now() >= options.deadline) {
      return absl::DeadlineExceededError(absl::StrCat("open ", id.ObjectPath(), ": still waiting"));
    }
    options_.clock->WaitUntil(opening.done, mutex_, options.deadline);
  }
  return *opening.result;
}

void DiffStore::Insert(const BuildFileId& id, std::shared_ptr<BuildFile> file, bool only_copy,
                       uint64_t beside_bytes) {
  std::shared_ptr<BuildFile> replaced;  // Goes after the lock.
  const MutexLock lock(mutex_);
  if (closed_) return;
  most_held_ += file->AllocatedBytes();
  Entry& entry = entries_[id];
  replaced = std::exchange(entry.file, std::move(file));
  entry.opening = nullptr;
  entry.last_use = ++use_clock_;
  entry.inserted = true;
  entry.only_copy = only_copy;
  entry.beside_bytes = beside_bytes;
}

void DiffStore::SetOnlyCopy(const BuildId& build, bool only_copy) {
  const MutexLock lock(mutex_);
  for (auto& [id, entry] : entries_) {
    if (id.build == build) entry.only_copy = only_copy;
  }
}

void DiffStore::Remove(const BuildFileId& id) {
  std::shared_ptr<BuildFile> removed;  // Goes after the lock.
  const MutexLock lock(mutex_);
  const auto found = entries_.find(id);
  if (found == entries_.end()) return;
  removed = std::move(found->second.file);
  entries_.erase(found);
}

bool DiffStore::MakeRoom(uint64_t bytes) {
  std::vector<std::shared_ptr<BuildFile>> evicted;
  bool fits = false;
  {
    const MutexLock lock(mutex_);
    if (bytes > 0 && GrantLocked(bytes)) return true;
    const auto within = [&](uint64_t held, uint64_t limit) {
      return held <= limit && bytes <= limit - held;
    };
    uint64_t held = AllocatedLocked();
    fits = within(held, options_.capacity_bytes);
    if (!fits) {
      const absl::flat_hash_set<BuildId> kept = KeptBuildsLocked();
      std::vector<std::pair<uint64_t, BuildFileId>> oldest_first;
      for (const auto& [id, entry] : entries_) {
        if (entry.evictable(id.build, kept)) oldest_first.emplace_back(entry.last_use, id);
      }
      std::sort(oldest_first.begin(), oldest_first.end());
      const auto low_water = static_cast<uint64_t>(static_cast<double>(options_.capacity_bytes) *
                                                   std::clamp(options_.low_water, 0.0, 1.0));
      for (const auto& [last_use, id] : oldest_first) {
        if (within(held, low_water)) break;
        const auto found = entries_.find(id);
        held -= found->second.held_bytes();
        evicted.push_back(std::move(found->second.file));
        entries_.erase(found);
      }
      fits = within(held, options_.capacity_bytes);
    }
    most_held_ = held + (fits ? bytes : 0);
  }
  if (evicted.empty()) return fits;
  auto drop = [this, evicted = std::move(evicted)]() mutable {
    for (std::shared_ptr<BuildFile>& file : evicted) {
      const BuildFileId id = file->id();
      file = nullptr;
      if (options_.on_evict) options_.on_evict(id);
    }
  };
  if (tasks_ == nullptr) {
    drop();
  } else {
    tasks_->Run(Priority::kPrefetch, std::move(drop));
  }
  return fits;
}

bool DiffStore::HasRoom(uint64_t bytes) {
  const MutexLock lock(mutex_);
  if (GrantLocked(bytes)) return true;
  most_held_ = AllocatedLocked();
  return GrantLocked(bytes);
}

bool DiffStore::GrantLocked(uint64_t bytes) {
  if (most_held_ > options_.capacity_bytes || bytes > options_.capacity_bytes - most_held_) {
    return false;
  }
  most_held_ += bytes;
  return true;
}

absl::flat_hash_set<BuildId> DiffStore::KeptBuildsLocked() const {
  absl::flat_hash_set<BuildId> kept;
  for (const auto& [id, entry] : entries_) {
    if (entry.inserted && !entry.may_go()) kept.insert(id.build);
  }
  return kept;
}

bool DiffStore::InUse(const BuildId& build) const {
  const MutexLock lock(mutex_);
  return std::any_of(entries_.begin(), entries_.end(), [&](const auto& item) {
    return item.first.build == build && item.second.in_use();
  });
}

uint64_t DiffStore::AllocatedLocked() const {
  uint64_t held = 0;
  for (const auto& [id, entry] : entries_) held += entry.held_bytes();
  return held;
}

uint64_t DiffStore::AllocatedBytes() const {
  const MutexLock lock(mutex_);
  return AllocatedLocked();
}

bool DiffStore::Full() const {
  const MutexLock lock(mutex_);
  const absl::flat_hash_set<BuildId> kept = KeptBuildsLocked();
  uint64_t held = 0;
  for (const auto& [id, entry] : entries_) {
    if (!entry.evictable(id.build, kept)) held += entry.held_bytes();
  }
  return held > options_.capacity_bytes;
}

}  // namespace peerchunk
