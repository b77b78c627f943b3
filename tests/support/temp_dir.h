#pragma once

#include <string>
#include <string_view>

#include "peerchunk/base/file.h"

namespace peerchunk::test {

// A fresh folder, removed with all it holds when this goes away. Used by one thread; what is inside
// may be used by any.
class TempDir {
 public:
  enum class Place {
    kDisk,    // Under $TMPDIR or /tmp.
    kMemory,  // Under /dev/shm, where an fsync costs nothing; as kDisk where there is none.
  };

  explicit TempDir(Place place = Place::kDisk);
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  const File& folder() const { return folder_; }
  std::string PathOf(std::string_view name) const;

  // Writes a file (folders made as needed) and returns its path.
  std::string Write(std::string_view name, std::string_view data) const;
  // The bytes of the file `name`; aborts when it cannot be read.
  std::string Read(std::string_view name) const;

 private:
  std::string path_;
  File folder_;
};

}  // namespace peerchunk::test
