#pragma once

namespace peerchunk {

// True when the open file `fd` lies in a file system that keeps its files in memory (tmpfs, ramfs,
// hugetlbfs): a read of it waits for no disk. Such file systems refuse RWF_NOWAIT.
bool IsMemoryBacked(int fd);

}  // namespace peerchunk
