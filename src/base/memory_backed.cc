#include "base/memory_backed.h"

#include <linux/magic.h>
#include <sys/vfs.h>

#include <cerrno>

namespace peerchunk {

bool IsMemoryBacked(int fd) {
  struct statfs about = {};
  int result = 0;
  do {
    result = fstatfs(fd, &about);
  } while (result != 0 && errno == EINTR);
  if (result != 0) return false;
  return about.f_type == TMPFS_MAGIC || about.f_type == RAMFS_MAGIC ||
         about.f_type == HUGETLBFS_MAGIC;
}

}  // namespace peerchunk
