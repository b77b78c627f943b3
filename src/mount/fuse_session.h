#pragma once

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <absl/status/statusor.h>

#include "mount/fuse_files.h"
#include "peerchunk/base/file.h"

namespace peerchunk {

// A mounted FUSE connection and the threads that answer it. The threads take requests through one
// descriptor and an event of our own, so that they can be ended whatever the kernel does: a read of
// /dev/fuse itself ends only when the file system is unmounted, which an open file puts off.
class FuseSession {
 public:
  // Mounts at `path`; `source` is what the table of mounts shows. `files` outlives this.
  static absl::StatusOr<std::unique_ptr<FuseSession>> Mount(FuseFiles& files,
                                                            const std::string& path,
                                                            const std::string& source,
                                                            size_t threads);
  // Ends the threads, and with them the connection. Unmounts if that was not done, which for others
  // than root takes fusermount3.
  ~FuseSession();

 private:
  struct SessionDeleter {
    void operator()(fuse_session* session) const { fuse_session_destroy(session); }
  };

  FuseSession() = default;
  void Serve();

  std::unique_ptr<fuse_session, SessionDeleter> session_;
  File stop_;   // An eventfd, readable once the threads are to end.
  File ready_;  // An epoll descriptor over the connection and stop_.
  std::vector<std::thread> threads_;
};

}  // namespace peerchunk
