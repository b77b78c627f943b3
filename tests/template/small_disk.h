#pragma once

#include <fcntl.h>
#include <sys/mount.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "peerchunk/base/file.h"
#include "tests/support/temp_dir.h"

namespace peerchunk::test {

// A disk of a few MiB of its own, where this process may mount one. Used by one thread.
class SmallDisk {
 public:
  explicit SmallDisk(uint64_t bytes) {
    const std::string options = "size=" + std::to_string(bytes);
    if (mount("tmpfs", dir_.path().c_str(), "tmpfs", 0, options.c_str()) != 0) {
      why_not_ = std::string("cannot mount a small disk: ") + std::strerror(errno);
    }
  }
  ~SmallDisk() {
    if (why_not_.empty()) umount2(dir_.path().c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

  // Empty when it is there.
  const std::string& why_not() const { return why_not_; }
  std::string PathOf(const std::string& name) const { return dir_.PathOf(name); }

  // Leaves no room for another byte, and gives it back.
  void Fill() const {
    const auto file = File::Open(PathOf("filler"), O_WRONLY | O_CREAT);
    const std::string page(4096, 'f');
    for (uint64_t at = 0; file.ok() && file->WriteAt(at, page).ok(); at += page.size()) {
    }
  }
  void Free() const { unlink(PathOf("filler").c_str()); }

 private:
  TempDir dir_;
  std::string why_not_;
};

}  // namespace peerchunk::test
