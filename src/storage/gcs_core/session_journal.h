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

namespace peerchunk {

// How far a large upload was planned: enough to go on with its sessions.
struct UploadRecord {
  std::string object;
  uint64_t size = 0;
  std::string fingerprint;            // Of the content and of how it is to be written.
  uint64_t part_bytes = 0;            // == size for an upload in one session.
  std::string id;                     // A UUID; names the parts.
  std::vector<std::string> sessions;  // One upload id per part, empty before it begins.
};

// Remembers upload sessions over failed attempts and, with a folder, over restarts of the process.
// It speeds up an upload and is never needed for its success: a record that cannot be read or
// written is as good as none. Owned by the context; thread-safe.
class SessionJournal {
 public:
  // `folder` may be empty: memory only. Records older than the server keeps sessions are dropped.
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
    void Drop();
    bool dropped() const;

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
    bool dropped_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  };

  // The record left for `plan.object` when it is of the same content, else `plan`.
  std::unique_ptr<Claim> Begin(UploadRecord plan);

 private:
  SessionJournal(std::optional<File> folder, std::string bucket, Clock& clock)
      : folder_(std::move(folder)), bucket_(std::move(bucket)), clock_(clock) {}

  std::string FileNameOf(const std::string& object) const;
  std::optional<UploadRecord> Load(const std::string& object) const;
  void Write(const UploadRecord& record) const;
  void Remove(const std::string& object) const;
  void DropOldRecords() const;

  const std::optional<File> folder_;
  const std::string bucket_;
  Clock& clock_;
  Mutex mutex_;
  std::set<std::string> claimed_ PEERCHUNK_GUARDED_BY(mutex_);
  std::map<std::string, UploadRecord> records_ PEERCHUNK_GUARDED_BY(mutex_);
};

}  // namespace peerchunk
