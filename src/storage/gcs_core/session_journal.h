#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "peerchunk/base/clock.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/mutex.h"
#include "storage/gcs_core/upload_record.h"

namespace peerchunk {

// Remembers upload sessions over failed attempts and, with a folder, over restarts of the process.
// It speeds up an upload, and says what to clean up after one; it is never needed for an upload's
// success: a record that cannot be read or written is as good as none. Owned by the context;
// thread-safe.
class SessionJournal {
 public:
  // `folder` may be empty: memory only.
  static absl::StatusOr<std::unique_ptr<SessionJournal>> Open(const std::string& folder,
                                                              std::string bucket, Clock& clock);

  // One upload's hold on its record, by one StoreFile or Put. Thread-safe.
  class Claim {
   public:
    ~Claim();  // Leaves the record for the next attempt.
    // True when the record is of an earlier attempt.
    bool resumed() const { return resumed_; }
    UploadRecord record() const;
    // What an upload of something else under this name left, which nobody will go on with.
    const std::optional<UploadRecord>& superseded() const { return superseded_; }
    // The id recorded for a part, whose lane answers for that session from now on.
    std::string TakeSession(size_t part);
    // Sessions that were recorded and that no lane has taken.
    std::vector<std::string> Untaken() const;
    void SetSession(size_t part, const std::string& upload_id);
    // From now on no upload goes on with it; the record stays, for what is to be cleaned up.
    void Abandon();
    bool abandoned() const;
    void Drop();  // Nothing is left of it at the server, or nothing more can be done.

   private:
    friend class SessionJournal;
    Claim(SessionJournal* journal, UploadRecord record, bool resumed,
          std::optional<UploadRecord> superseded)
        : journal_(journal),
          resumed_(resumed),
          superseded_(std::move(superseded)),
          record_(std::move(record)),
          taken_(record_.sessions.size()) {}
    void Save();

    SessionJournal* const journal_;  // Null: another upload of the object holds the record.
    const bool resumed_;
    const std::optional<UploadRecord> superseded_;
    mutable Mutex mutex_;
    UploadRecord record_ PEERCHUNK_GUARDED_BY(mutex_);
    std::vector<bool> taken_ PEERCHUNK_GUARDED_BY(mutex_);  // By part.
    bool saving_ PEERCHUNK_GUARDED_BY(mutex_) = false;
    bool changed_ PEERCHUNK_GUARDED_BY(mutex_) = false;
    bool abandoned_ PEERCHUNK_GUARDED_BY(mutex_) = false;
    bool dropped_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  };

  // The record left for `plan.object` when it is of the same content and not old, else `plan`.
  std::unique_ptr<Claim> Begin(UploadRecord plan);

  // The record left for this object, whatever its content. Null: none, or an upload holds it.
  std::unique_ptr<Claim> Take(const std::string& object);

  // Records of this bucket that no upload of this process holds.
  std::vector<UploadRecord> Left() const;
  // The server has forgotten its sessions.
  bool IsOld(const UploadRecord& record) const;

 private:
  SessionJournal(std::optional<File> folder, std::string bucket, Clock& clock)
      : folder_(std::move(folder)), bucket_(std::move(bucket)), clock_(clock) {}

  std::string FileNameOf(const std::string& object) const;
  std::optional<UploadRecord> Load(const std::string& object) const;
  void Write(const UploadRecord& record) const;
  void Remove(const std::string& object) const;
  // Unreadable ones, and old ones of other buckets.
  void DropUselessRecords() const;
  std::vector<std::string> RecordFiles() const;
  std::optional<StoredUploadRecord> ReadFile(const std::string& name) const;
  // Claims the object, and finds what was left of it. False: an upload holds it.
  bool Hold(const std::string& object, std::optional<UploadRecord>& left);

  const std::optional<File> folder_;
  const std::string bucket_;
  Clock& clock_;
  mutable Mutex mutex_;
  std::set<std::string> claimed_ PEERCHUNK_GUARDED_BY(mutex_);
  std::map<std::string, UploadRecord> records_ PEERCHUNK_GUARDED_BY(mutex_);
};

}  // namespace peerchunk
