#pragma once

#include <stop_token>
#include <thread>

#include "peerchunk/base/clock.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/storage/storage.h"
#include "peerchunk/template/build_registry.h"

namespace peerchunk {

// Has the base give up what unfinished writes left there of files that will not be sent again:
// those that are confirmed, and those of builds that are not recorded any more. In a thread of its
// own, once at first and whenever it is asked to; again after a while when the base could not do
// it. Owned by the uploader; thread-safe.
class LeftoverSweep {
 public:
  // All borrowed.
  LeftoverSweep(BuildRegistry* registry, StorageProvider* base, Clock* clock);
  ~LeftoverSweep() { Stop(); }
  LeftoverSweep(const LeftoverSweep&) = delete;
  LeftoverSweep& operator=(const LeftoverSweep&) = delete;

  // What is left may have changed: an upload has ended, or a build was removed.
  void Request();
  // Cancels what is under way; a later Request does nothing. Not beside another call of it.
  void Stop();

 private:
  void Work();
  bool GoesOn(std::string_view path) const;

  BuildRegistry* const registry_;
  StorageProvider* const base_;
  Clock* const clock_;
  std::stop_source stop_;
  Mutex mutex_;
  CondVar changed_;
  absl::Time due_ PEERCHUNK_GUARDED_BY(mutex_);
  bool stopping_ PEERCHUNK_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // Last: it uses all of the above.
};

}  // namespace peerchunk
