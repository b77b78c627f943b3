#include <memory>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "peerchunk/base/status.h"
#include "peerchunk/storage/local_storage.h"
#include "tests/support/fault_storage.h"
#include "tests/support/memory_storage.h"
#include "tests/support/storage_conformance.h"
#include "tests/support/temp_dir.h"

namespace peerchunk::test {
namespace {

class MemoryFixture final : public StorageFixture {
 public:
  explicit MemoryFixture(bool knows_crc) : storage_(Clock::Real(), knows_crc) {}
  StorageProvider& storage() override { return storage_; }
  absl::Status Seed(const std::string& path, std::string_view bytes) override {
    storage_.Seed(path, std::string(bytes));
    return absl::OkStatus();
  }

 private:
  MemoryStorageProvider storage_;
};

class FaultlessFixture final : public StorageFixture {
 public:
  StorageProvider& storage() override { return storage_; }
  absl::Status Seed(const std::string& path, std::string_view bytes) override {
    memory_.Seed(path, std::string(bytes));
    return absl::OkStatus();
  }

 private:
  MemoryStorageProvider memory_;
  FaultStorageProvider storage_{memory_};
};

enum class LocalSeed { kPut, kStoreFile, kByHand };

class LocalFixture final : public StorageFixture {
 public:
  explicit LocalFixture(LocalSeed seed)
      : seed_(seed),
        base_(seed == LocalSeed::kPut ? TempDir::Place::kDisk : TempDir::Place::kMemory) {
    LocalStorageOptions options;
    options.folder = base_.path();
    absl::StatusOr<std::unique_ptr<StorageProvider>> opened = LocalStorageProvider::Open(options);
    EXPECT_TRUE(opened.ok()) << opened.status();
    if (opened.ok()) storage_ = *std::move(opened);
  }
  StorageProvider& storage() override { return *storage_; }
  absl::Status Seed(const std::string& path, std::string_view bytes) override {
    if (seed_ == LocalSeed::kPut) {
      PEERCHUNK_ASSIGN_OR_RETURN(const std::unique_ptr<Blob> blob, storage_->OpenBlob(path));
      return blob->Put(bytes, {}).status();
    }
    if (seed_ == LocalSeed::kStoreFile) {
      PEERCHUNK_ASSIGN_OR_RETURN(const std::unique_ptr<Seekable> object,
                                 storage_->OpenSeekable(path));
      return object->StoreFile(files_.Write("file", bytes), {}).status();
    }
    PEERCHUNK_RETURN_IF_ERROR(base_.folder().MakeFolder(path.substr(0, path.rfind('/'))));
    return base_.folder().ReplaceFile(path, bytes);
  }

 private:
  const LocalSeed seed_;
  const TempDir base_;
  const TempDir files_;
  std::unique_ptr<StorageProvider> storage_;
};

StorageConformanceParam Local(std::string name, LocalSeed seed, StorageCapabilities capabilities) {
  return {std::move(name), [seed] { return std::make_unique<LocalFixture>(seed); }, capabilities};
}

INSTANTIATE_TEST_SUITE_P(
    Storage, StorageConformanceTest,
    testing::Values(
        StorageConformanceParam{"Memory", [] { return std::make_unique<MemoryFixture>(true); }, {}},
        StorageConformanceParam{"MemoryWithoutChecksums",
                                [] { return std::make_unique<MemoryFixture>(false); },
                                {.knows_crc = false}},
        StorageConformanceParam{
            "FaultsNotStruck", [] { return std::make_unique<FaultlessFixture>(); }, {}},
        Local("LocalPut", LocalSeed::kPut, {}), Local("LocalStoreFile", LocalSeed::kStoreFile, {}),
        // Files put there by hand have no checksum; what the kernel stamps on them does not tell
        // two writes within one tick apart.
        Local("LocalByHand", LocalSeed::kByHand, {.knows_crc = false, .pins_versions = false})),
    StorageConformanceName);

}  // namespace
}  // namespace peerchunk::test
