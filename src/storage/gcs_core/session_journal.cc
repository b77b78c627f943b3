#include "storage/gcs_core/session_journal.h"

#include <fcntl.h>

#include <utility>

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <nlohmann/json.hpp>

#include "base/logging.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"
#include "storage/gcs_core/gcs_stub.h"

namespace peerchunk {
namespace {

constexpr absl::Duration kSessionLife = absl::Hours(24 * 7);  // As long as the server keeps one.
constexpr uint64_t kMaxRecordBytes = 256 * kKiB;
constexpr char kSuffix[] = ".upload.json";

bool SameContent(const UploadRecord& a, const UploadRecord& b) {
  return a.object == b.object && a.size == b.size && a.fingerprint == b.fingerprint;
}

// A record that does not hang together is none.
bool IsSound(const UploadRecord& record) {
  return record.size > 0 && record.part_bytes > 0 && !record.id.empty() &&
         record.sessions.size() == CeilDiv(record.size, record.part_bytes) &&
         record.sessions.size() <= kGcsComposeSources;
}

struct Dated {
  UploadRecord record;
  std::string bucket;
  absl::Time written;
};

std::string Encode(const Dated& dated) {
  const UploadRecord& record = dated.record;
  return nlohmann::json{{"bucket", dated.bucket},
                        {"object", record.object},
                        {"size", record.size},
                        {"fingerprint", record.fingerprint},
                        {"part_bytes", record.part_bytes},
                        {"id", record.id},
                        {"sessions", record.sessions},
                        {"written", absl::ToUnixSeconds(dated.written)}}
      .dump(1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::optional<Dated> Decode(const std::string& text) {
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return std::nullopt;
  const auto has = [&](const char* key, bool (nlohmann::json::*is)() const noexcept) {
    return json.contains(key) && (json[key].*is)();
  };
  for (const char* key : {"bucket", "object", "fingerprint", "id"}) {
    if (!has(key, &nlohmann::json::is_string)) return std::nullopt;
  }
  for (const char* key : {"size", "part_bytes", "written"}) {
    if (!has(key, &nlohmann::json::is_number_unsigned)) return std::nullopt;
  }
  if (!has("sessions", &nlohmann::json::is_array)) return std::nullopt;
  Dated dated;
  dated.bucket = json["bucket"].get<std::string>();
  dated.written = absl::FromUnixSeconds(json["written"].get<int64_t>());
  UploadRecord& record = dated.record;
  record.object = json["object"].get<std::string>();
  record.size = json["size"].get<uint64_t>();
  record.fingerprint = json["fingerprint"].get<std::string>();
  record.part_bytes = json["part_bytes"].get<uint64_t>();
  record.id = json["id"].get<std::string>();
  for (const nlohmann::json& session : json["sessions"]) {
    if (!session.is_string()) return std::nullopt;
    record.sessions.push_back(session.get<std::string>());
  }
  if (!IsSound(record)) return std::nullopt;
  return dated;
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
  journal->DropOldRecords();
  return journal;
}

std::string SessionJournal::FileNameOf(const std::string& object) const {
  return absl::StrFormat("%016x%s", Fnv1a(absl::StrCat(bucket_, "/", object)), kSuffix);
}

void SessionJournal::DropOldRecords() const {
  if (!folder_) return;
  const absl::StatusOr<std::vector<std::string>> names = folder_->List();
  if (!names.ok()) return;
  for (const std::string& name : *names) {
    if (!absl::EndsWith(name, kSuffix)) continue;
    const absl::StatusOr<std::string> text = folder_->ReadSmallFile(name, kMaxRecordBytes);
    const std::optional<Dated> dated = text.ok() ? Decode(*text) : std::nullopt;
    if (dated && clock_.Now() - dated->written < kSessionLife) continue;
    folder_->Remove(name).IgnoreError();
  }
}

std::optional<UploadRecord> SessionJournal::Load(const std::string& object) const {
  if (!folder_) return std::nullopt;
  const absl::StatusOr<std::string> text =
      folder_->ReadSmallFile(FileNameOf(object), kMaxRecordBytes);
  if (!text.ok()) return std::nullopt;
  std::optional<Dated> dated = Decode(*text);
  if (!dated || dated->bucket != bucket_) return std::nullopt;
  return std::move(dated->record);
}

void SessionJournal::Write(const UploadRecord& record) const {
  if (!folder_) return;
  const absl::Status status =
      folder_->ReplaceFile(FileNameOf(record.object), Encode({record, bucket_, clock_.Now()}));
  if (!status.ok()) {
    Logger("storage").warn("event=session_not_recorded object={} cause=\"{}\"", record.object,
                           status.ToString());
  }
}

void SessionJournal::Remove(const std::string& object) const {
  if (folder_) folder_->Remove(FileNameOf(object)).IgnoreError();
}

std::unique_ptr<SessionJournal::Claim> SessionJournal::Begin(UploadRecord plan) {
  std::optional<UploadRecord> left;
  {
    const MutexLock lock(mutex_);
    if (!claimed_.insert(plan.object).second) {
      return std::unique_ptr<Claim>(new Claim(nullptr, std::move(plan), false, std::nullopt));
    }
    if (const auto it = records_.find(plan.object); it != records_.end()) left = it->second;
  }
  if (!left) left = Load(plan.object);
  if (left && SameContent(*left, plan)) {
    return std::unique_ptr<Claim>(new Claim(this, *std::move(left), true, std::nullopt));
  }
  return std::unique_ptr<Claim>(new Claim(this, std::move(plan), false, std::move(left)));
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

bool SessionJournal::Claim::dropped() const {
  const MutexLock lock(mutex_);
  return dropped_;
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
