#pragma once

#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "mount/fuse_api.h"
#include "mount/request_lanes.h"
#include "mount/writable_device.h"
#include "peerchunk/base/clock.h"

namespace peerchunk {

// The file system's answers to the kernel: one folder of fixed files. Every method answers its
// request exactly once. Owned by a mount, outlives its session; called by the session's threads.
class FuseFiles {
 public:
  struct Options {
    uint32_t readahead_bytes = 0;
    size_t tasks_at_a_time = 1;
    std::stop_token unmounting;  // Ends every read.
    absl::Time changed;          // The time that files show.
  };
  explicit FuseFiles(Options options)
      : options_(std::move(options)), lanes_(options_.tasks_at_a_time) {}

  // Before the session begins. `bytes` outlives this.
  void AddBytes(std::string_view name, std::string_view bytes);
  void AddDevice(std::unique_ptr<WritableDevice> device);

  WritableDevice* device(FileKind kind) const;  // Null: none of this kind.

  // What libfuse calls, with a FuseFiles as user data.
  static const fuse_lowlevel_ops kOperations;

 private:
  struct MountedFile {
    std::string name;
    std::string_view bytes;                  // Unless there is a device.
    std::unique_ptr<WritableDevice> device;  // Null: read-only bytes.

    uint64_t size() const { return device != nullptr ? device->size() : bytes.size(); }
  };

  void Init(fuse_conn_info& connection) const;
  void Lookup(fuse_req_t request, fuse_ino_t parent, std::string_view name) const;
  void GetAttributes(fuse_req_t request, fuse_ino_t inode) const;
  void SetAttributes(fuse_req_t request, fuse_ino_t inode, const struct stat& wanted,
                     int which) const;
  void Open(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) const;
  void Read(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset);
  void ReadDevice(fuse_req_t request, WritableDevice& device, size_t size, uint64_t offset) const;
  void Write(fuse_req_t request, fuse_ino_t inode, std::string_view data, off_t offset);
  void List(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset) const;

  const MountedFile* Find(fuse_ino_t inode) const;
  struct stat Attributes(fuse_ino_t inode) const;

  const Options options_;
  RequestLanes lanes_;
  std::vector<MountedFile> files_;  // Fixed once the session begins; index + 2 is the inode.
};

}  // namespace peerchunk
