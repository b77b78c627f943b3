#pragma once

#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include <absl/status/statusor.h>
#include <absl/time/time.h>
#include <absl/types/span.h>

#include "peerchunk/base/clock.h"
#include "peerchunk/base/file_kind.h"
#include "peerchunk/base/metrics.h"
#include "peerchunk/template/template.h"

namespace peerchunk {

struct TemplateMountOptions {
  std::string mount_path;      // Created when missing; it stays.
  std::string overlay_folder;  // For what is written; created when missing, removed when empty.
  // How long a read goes on asking before it answers EIO, which kills a guest.
  absl::Duration read_deadline = absl::Seconds(60);
  // What the kernel may read around a page that was touched. A device is fetched in chunks anyway,
  // and a window that crosses into the next chunk costs all of it.
  uint32_t readahead_bytes = 16 * 1024;
  // Requests worked on at a time. One more thread answers what never waits.
  size_t threads = 16;
  Metrics* metrics = nullptr;  // Borrowed; null: nothing is counted.
  Clock* clock = &Clock::Real();
};

// A template's files as a FUSE file system: memfile and rootfs.ext4 (as large as their devices,
// read from the template when touched, writable through a private overlay that ends with the
// mount), snapfile and metadata.json (read-only). A filesystem-only build has rootfs.ext4 and
// metadata.json.
//
// A read tries again inside itself, whatever failed, until the read deadline; a killed reader's
// read ends at once. Owned by whoever mounted; holds the template. Thread-safe.
class TemplateMount {
 public:
  // FailedPrecondition: no FUSE here (and what to do). AlreadyExists: something is mounted at the
  // path, or about to be. What a dead process of ours left mounted there is unmounted first.
  static absl::StatusOr<std::unique_ptr<TemplateMount>> Mount(std::shared_ptr<Template> build,
                                                              TemplateMountOptions options);
  // Unmounts. Files that a process still has open answer it ENOTCONN from then on; nothing waits
  // for it. The overlay is gone.
  ~TemplateMount();
  TemplateMount(const TemplateMount&) = delete;
  TemplateMount& operator=(const TemplateMount&) = delete;

  // The mount point, absolute and without symbolic links.
  const std::string& path() const;
  // False once someone else has unmounted it.
  bool mounted() const;

  // For pausing the guest again; `device` is kMemfile or kRootfs. What a process wrote through a
  // mapping is here after its msync, or when it has ended.

  // The 4 KiB blocks written since the mount, ascending. NotFound: the build has no such device.
  absl::StatusOr<std::vector<uint64_t>> DirtyBlocks(FileKind device) const;
  // The device as the guest sees it, at `offset`; short only at its end; OutOfRange beyond it.
  absl::StatusOr<size_t> ReadAt(FileKind device, uint64_t offset, absl::Span<char> out,
                                const std::stop_token& cancellation = {}) const;

 private:
  struct Impl;
  explicit TemplateMount(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace peerchunk
