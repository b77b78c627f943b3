#pragma once

#include <fcntl.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "peerchunk/base/file.h"
#include "peerchunk/base/range.h"
#include "peerchunk/storage/local_storage.h"
#include "tests/support/status_asserts.h"
#include "tests/support/temp_dir.h"

namespace peerchunk::test {

// A folder for a local provider, and one for files to store in it.
class LocalStorageTest : public testing::Test {
 protected:
  std::unique_ptr<StorageProvider> Open(LocalStorageOptions options = {}) {
    options.folder = dir_.path();
    absl::StatusOr<std::unique_ptr<StorageProvider>> opened = LocalStorageProvider::Open(options);
    EXPECT_OK(opened);
    return *std::move(opened);
  }

  absl::StatusOr<std::string> Read(StorageProvider& storage, std::string_view path) {
    PEERCHUNK_ASSIGN_OR_RETURN(const std::unique_ptr<Blob> blob, storage.OpenBlob(path));
    StringSink sink(kGiB);
    PEERCHUNK_RETURN_IF_ERROR(blob->WriteTo(sink, {}));
    return std::move(sink.bytes());
  }

  std::vector<std::string> List(const std::string& folder) {
    const absl::StatusOr<File> opened = dir_.folder().OpenAt(folder, O_RDONLY | O_DIRECTORY);
    if (!opened.ok()) return {};
    return *opened->List();
  }

  // The sidecar of the one object that was written at `path`.
  std::string SidecarOf(const std::string& path) {
    const std::string folder = ".peerchunk/objects/" + path;
    const std::vector<std::string> names = List(folder);
    EXPECT_EQ(names.size(), 1u);
    return names.empty() ? "" : folder + "/" + names[0];
  }

  const TempDir dir_{TempDir::Place::kMemory};
  const TempDir files_;
};

}  // namespace peerchunk::test
