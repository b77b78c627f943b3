#include "peer/build_knowledge.h"

#include <algorithm>

namespace peerchunk {
namespace {

constexpr absl::Duration kLogPause = absl::Seconds(10);
constexpr absl::Duration kBaseMissingPause = absl::Seconds(1);
constexpr absl::Duration kLongestHint = absl::Seconds(5);

}  // namespace

PeerStanding* BuildKnowledge::StandingOf(const std::string& address) {
  const MutexLock lock(mutex_);
  std::unique_ptr<PeerStanding>& standing = standings_[address];
  if (standing == nullptr) {
    standing = std::make_unique<PeerStanding>();
    standing->address = address;
  }
  return standing.get();
}

void BuildKnowledge::Note(PeerStanding* peer, const BuildStatus& status) {
  if (status.state == BuildState::kDurable) MarkDurable();
  const bool older =
      status.incarnation == peer->status.incarnation && status.sequence < peer->status.sequence;
  if (status.state != BuildState::kUnknown && !older) peer->status = status;
}

void BuildKnowledge::ObserveStatus(PeerStanding* peer, const BuildStatus& status) {
  const MutexLock lock(mutex_);
  Note(peer, status);
}

bool BuildKnowledge::ObserveHead(PeerStanding* peer, FileKind kind, const FileHead& head,
                                 uint64_t least_size) {
  const MutexLock lock(mutex_);
  Note(peer, head.status);
  FileFacts& file = files_[Index(kind)];
  switch (head.availability) {
    case Availability::kAvailable:
    case Availability::kUseStorage:
      if (!Declare(peer, kind, head, least_size)) return false;
      break;
    case Availability::kAbsent:
      return !file.declared;
    case Availability::kNotAvailable:
    case Availability::kNotYet:
      break;
  }
  if (head.in_base) file.in_base = true;
  return true;
}

bool BuildKnowledge::Declare(PeerStanding* peer, FileKind kind, const FileHead& head,
                             uint64_t least_size) {
  FileFacts& file = files_[Index(kind)];
  // USE_STORAGE need not say a size.
  if (head.availability == Availability::kUseStorage && head.total_size == 0 && !head.file_crc32c) {
    return true;
  }
  if (head.total_size < least_size) return false;
  const DeclaredFile told{head.total_size, head.file_crc32c, head.version, peer};
  if (!file.declared) {
    file.declared = told;
    file.base_equal = false;
    return true;
  }
  DeclaredFile& known = *file.declared;
  const bool same =
      known.size == told.size && (!known.crc32c || !told.crc32c || *known.crc32c == *told.crc32c);
  if (same) {
    if (!known.crc32c) known.crc32c = told.crc32c;
    known.version = std::max(known.version, told.version);
    return true;
  }
  if (kind == FileKind::kMetadata && known.version != told.version) {
    // Replaced while the build lives; an older copy elsewhere is not what readers compare with.
    if (told.version > known.version) file = {.declared = told};
    return true;
  }
  return false;
}

void BuildKnowledge::Apply(PeerStanding* peer, const PeerReaction& reaction, absl::Duration hint,
                           absl::Time now) {
  if (reaction.durable) MarkDurable();
  const MutexLock lock(mutex_);
  if (reaction.quarantine) Quarantine(peer, now);
  if (reaction.deny) peer->denied = true;
  if (reaction.pause) peer->paused_until = now + budgets_.not_available_pause;
  if (reaction.hold_off) {
    peer->overloaded_until = now + std::clamp(hint, absl::ZeroDuration(), kLongestHint);
  }
}

void BuildKnowledge::Quarantine(PeerStanding* peer, absl::Time now) {
  peer->quarantined_until = now + budgets_.quarantine;
  for (FileFacts& file : files_) {
    if (file.declared && file.declared->by == peer && !file.base_equal) file = {};
  }
}

void BuildKnowledge::OnBytes(PeerStanding* peer) {
  const MutexLock lock(mutex_);
  peer->denied = false;
  peer->paused_until = absl::InfinitePast();
}

BuildKnowledge::View BuildKnowledge::ViewOf(const PeerStanding* peer, absl::Time now) const {
  const MutexLock lock(mutex_);
  const bool paused = now < peer->paused_until;
  return {.demoted = peer->denied || paused || now < peer->quarantined_until,
          .has_not = paused,
          .not_before = peer->overloaded_until};
}

std::optional<DeclaredFile> BuildKnowledge::Declared(FileKind kind) const {
  const MutexLock lock(mutex_);
  return files_[Index(kind)].declared;
}

bool BuildKnowledge::InBase(FileKind kind) const {
  const MutexLock lock(mutex_);
  return files_[Index(kind)].in_base;
}

bool BuildKnowledge::BaseFoundEqual(FileKind kind) const {
  const MutexLock lock(mutex_);
  return files_[Index(kind)].base_equal;
}

bool BuildKnowledge::MarkBaseEqual(FileKind kind, const DeclaredFile& declared) {
  const MutexLock lock(mutex_);
  FileFacts& file = files_[Index(kind)];
  if (file.declared != declared) return false;
  file.base_equal = true;
  return true;
}

void BuildKnowledge::NoteBaseMissing(FileKind kind, absl::Time now) {
  const MutexLock lock(mutex_);
  files_[Index(kind)].base_missing_until = now + kBaseMissingPause;
}

bool BuildKnowledge::HedgeWorthwhile(FileKind kind, absl::Time now) const {
  const MutexLock lock(mutex_);
  return now >= files_[Index(kind)].base_missing_until;
}

std::optional<std::string> BuildKnowledge::Refute(FileKind kind, const DeclaredFile& declared,
                                                  absl::Time now) {
  const MutexLock lock(mutex_);
  FileFacts& file = files_[Index(kind)];
  if (file.declared != declared) return std::nullopt;
  file = {};
  const auto author = standings_.find(declared.by->address);
  Quarantine(author->second.get(), now);
  return author->first;
}

void BuildKnowledge::Forget(FileKind kind) {
  const MutexLock lock(mutex_);
  files_[Index(kind)] = {};
}

std::optional<uint64_t> BuildKnowledge::MayLog(PeerStanding* peer, PeerEvent event,
                                               absl::Time now) {
  const MutexLock lock(mutex_);
  const auto index = static_cast<size_t>(event);
  if (now < peer->next_log[index]) {
    ++peer->unlogged[index];
    return std::nullopt;
  }
  peer->next_log[index] = now + kLogPause;
  return std::exchange(peer->unlogged[index], 0);
}

std::optional<uint64_t> BuildKnowledge::MayLogBase(absl::Time now) {
  const MutexLock lock(mutex_);
  if (now < next_base_log_) {
    ++unlogged_base_;
    return std::nullopt;
  }
  next_base_log_ = now + kLogPause;
  return std::exchange(unlogged_base_, 0);
}

}  // namespace peerchunk
