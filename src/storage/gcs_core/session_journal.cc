#include "storage/gcs_core/session_journal.h"

#include <fcntl.h>

#include <utility>

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include "base/logging.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

constexpr uint64_t kMaxRecordBytes = 256 * kKiB;
constexpr char kSuffix[] = ".upload.json";
constexpr absl::Duration kSessionLife = absl::Hours(24 * 7);  // As long as the server keeps one.

bool SameContent(const UploadRecord& a, const UploadRecord& b) {
  return a.object == b.object && a.size == b.size && a.fingerprint == b.fingerprint;
}

// FNV-1a: names a file; the record inside says what it is about.
uint64_t Fnv1a(std::string_view text) {
  uint64_t hash = 0xCBF29CE484222325;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3;
  return hash;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SessionJournal>> SessionJournal::Open(const std::string& folder,
                                                                     std::string bucket,
                                                                     Clock& clock) {
  std::optional<File> handle;
  if (!folder.empty()) {
    PEERCHUNK_ASSIGN_OR_RETURN(File root, File::Open("/", O_RDONLY | O_DIRECTORY));
    if (folder.front() != '/') {
      return absl::InvalidArgumentError(
          absl::StrCat("session folder '", folder, "': an absolute path is needed"));
    }
    absl::StatusOr<File> opened = File::Open(folder, O_RDONLY | O_DIRECTORY);
    if (absl::IsNotFound(opened.status())) {
      PEERCHUNK_RETURN_IF_ERROR(Annotate(root.MakeFolder(folder.substr(1)), "session folder"));
      opened = File::Open(folder, O_RDONLY | O_DIRECTORY);
    }
    if (!opened.ok())
      return Annotate(opened.status(), absl::StrCat("session folder '", folder, "'"));
    handle = *std::move(opened);
  }
  std::unique_ptr<SessionJournal> journal(
      new SessionJournal(std::move(handle), std::move(bucket), clock));
  journal->DropUselessRecords();
  return journal;
}

std::string SessionJournal::FileNameOf(const std::string& object) const {
  return absl::StrFormat("%016x%s", Fnv1a(absl::StrCat(bucket_, "/", object)), kSuffix);
}

std::optional<StoredUploadRecord> SessionJournal::ReadFile(const std::string& name) const {
  const absl::StatusOr<std::string> text = folder_->ReadSmallFile(name, kMaxRecordBytes);
  return text.ok() ? DecodeUploadRecord(*text) : std::nullopt;
}

std::vector<std::string> SessionJournal::RecordFiles() const {
  if (!folder_) return {};
  absl::StatusOr<std::vector<std::string>> names = folder_->List();
  if (!names.ok()) return {};
  std::erase_if(*names, [](const std::string& name) { return !absl::EndsWith(name, kSuffix); });
  return *std::move(names);
}

void SessionJournal::DropUselessRecords() const {
  for (const std::string& name : RecordFiles()) {
    const std::optional<StoredUploadRecord> found = ReadFile(name);
    // What one of this bucket names is taken from the server before it goes.
    if (found && (found->bucket == bucket_ || !IsOld(found->record))) continue;
    folder_->Remove(name).IgnoreError();
  }
}

std::optional<UploadRecord> SessionJournal::Load(const std::string& object) const {
  if (!folder_) return std::nullopt;
  std::optional<StoredUploadRecord> found = ReadFile(FileNameOf(object));
  if (!found || found->bucket != bucket_ || found->record.object != object) return std::nullopt;
  return std::move(found->record);
}

void SessionJournal::Write(const UploadRecord& record) const {
  if (!folder_) return;
  const absl::Status status =
      folder_->ReplaceFile(FileNameOf(record.object), EncodeUploadRecord({bucket_, record}));
  if (!status.ok()) {
    Logger("storage").warn("event=session_not_recorded object={} cause=\"{}\"", record.object,
                           status.ToString());
  }
}

void SessionJournal::Remove(const std::string& object) const {
  if (folder_) folder_->Remove(FileNameOf(object)).IgnoreError();
}

bool SessionJournal::Hold(const std::string& object, std::optional<UploadRecord>& left) {
  {
    const MutexLock lock(mutex_);
    if (!claimed_.insert(object).second) return false;
    if (const auto it = records_.find(object); it != records_.end()) left = it->second;
  }
  if (!left) left = Load(object);
  return true;
}

std::unique_ptr<SessionJournal::Claim> SessionJournal::Begin(UploadRecord plan) {
  plan.written = clock_.Now();
  std::optional<UploadRecord> left;
  if (!Hold(plan.object, left)) {
    return std::unique_ptr<Claim>(new Claim(nullptr, std::move(plan), false, std::nullopt));
  }
  if (left && SameContent(*left, plan) && !IsOld(*left)) {
    return std::unique_ptr<Claim>(new Claim(this, *std::move(left), true, std::nullopt));
  }
  return std::unique_ptr<Claim>(new Claim(this, std::move(plan), false, std::move(left)));
}

std::unique_ptr<SessionJournal::Claim> SessionJournal::Take(const std::string& object) {
  std::optional<UploadRecord> left;
  if (!Hold(object, left)) return nullptr;
  if (left) return std::unique_ptr<Claim>(new Claim(this, *std::move(left), true, std::nullopt));
  const MutexLock lock(mutex_);
  claimed_.erase(object);
  return nullptr;
}

std::vector<UploadRecord> SessionJournal::Left() const {
  std::map<std::string, UploadRecord> left;  // By object.
  for (const std::string& name : RecordFiles()) {
    std::optional<StoredUploadRecord> found = ReadFile(name);
    if (!found || found->bucket != bucket_ || name != FileNameOf(found->record.object)) continue;
    left[found->record.object] = std::move(found->record);
  }
  const MutexLock lock(mutex_);
  for (const auto& [object, record] : records_) left[object] = record;
  std::vector<UploadRecord> records;
  for (auto& [object, record] : left) {
    if (!claimed_.contains(object)) records.push_back(std::move(record));
  }
  return records;
}

bool SessionJournal::IsOld(const UploadRecord& record) const {
  return clock_.Now() - record.written >= kSessionLife;
}

SessionJournal::Claim::~Claim() {
  if (journal_ == nullptr) return;
  const MutexLock lock(mutex_);
  const MutexLock journal_lock(journal_->mutex_);
  journal_->claimed_.erase(record_.object);
  journal_->records_.erase(record_.object);
  if (!dropped_) journal_->records_[record_.object] = std::move(record_);
}

UploadRecord SessionJournal::Claim::record() const {
  const MutexLock lock(mutex_);
  return record_;
}

std::string SessionJournal::Claim::TakeSession(size_t part) {
  const MutexLock lock(mutex_);
  taken_[part] = true;
  return record_.sessions[part];
}

std::vector<std::string> SessionJournal::Claim::Untaken() const {
  const MutexLock lock(mutex_);
  std::vector<std::string> untaken;
  for (size_t part = 0; part < taken_.size(); ++part) {
    if (!taken_[part] && !record_.sessions[part].empty()) {
      untaken.push_back(record_.sessions[part]);
    }
  }
  return untaken;
}

bool SessionJournal::Claim::abandoned() const {
  const MutexLock lock(mutex_);
  return abandoned_;
}

void SessionJournal::Claim::Abandon() {
  {
    const MutexLock lock(mutex_);
    abandoned_ = true;
    record_.fingerprint.clear();  // As no content has it.
    changed_ = true;
  }
  Save();
}

void SessionJournal::Claim::SetSession(size_t part, const std::string& upload_id) {
  {
    const MutexLock lock(mutex_);
    record_.sessions[part] = upload_id;
    changed_ = true;
  }
  Save();
}

// One thread writes at a time, without the lock, until nothing new is there.
void SessionJournal::Claim::Save() {
  if (journal_ == nullptr) return;
  MutexLock lock(mutex_);
  if (saving_) return;
  saving_ = true;
  while (changed_) {
    changed_ = false;
    record_.written = journal_->clock_.Now();
    const UploadRecord record = record_;
    lock.Unlock();
    journal_->Write(record);
    lock.Lock();
  }
  saving_ = false;
}

void SessionJournal::Claim::Drop() {
  std::string object;
  {
    const MutexLock lock(mutex_);
    dropped_ = true;
    object = record_.object;
  }
  if (journal_ != nullptr) journal_->Remove(object);
}

}  // namespace peerchunk
