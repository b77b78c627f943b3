#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "peerchunk/peer/peer_directory.h"
#include "tests/service/served_builds.h"
#include "tests/support/memory_storage.h"
#include "tests/support/storage_conformance.h"

// The storage contract over the real wire: a PeerStorageProvider, gRPC, a ChunkService, files.

namespace peerchunk::test {
namespace {

class WireFixture final : public StorageFixture {
 public:
  WireFixture() {
    AddressPolicy policy =
        *AddressPolicy::Create({.networks = {"127.0.0.0/8"}, .own_addresses = {"127.0.0.1:1"}});
    PeerDirectory::Options options{.policy = policy};
    options.connector = served_.connector;
    options.executor = &served_.pool;
    options.metrics = &served_.metrics;
    directory_ = *PeerDirectory::Create(std::move(options));
    provider_ = *directory_->OpenBuild(build_, {served_.address()}, base_);
  }

  StorageProvider& storage() override { return *provider_; }

  // The build is paused with these bytes as its snapfile or memfile. Its headers map zeros alone,
  // so they agree with any bytes.
  absl::Status Seed(const std::string& path, std::string_view bytes) override {
    const auto file = BuildFileId::FromObjectPath(path);
    if (!file || file->build != build_) return absl::InvalidArgumentError("not of this build");
    if (files_.empty()) {
      HeaderMetadata metadata{
          .block_size = 4096, .size = 4096, .build_id = build_, .base_build_id = build_};
      const std::string header = Header::Create(metadata, {{0, 4096, BuildId(), 0}})->Encode();
      files_ = {{FileKind::kSnapfile, ""},          {FileKind::kMetadata, "{}"},
                {FileKind::kMemfileHeader, header}, {FileKind::kMemfile, ""},
                {FileKind::kRootfsHeader, header},  {FileKind::kRootfs, ""}};
    } else if (absl::Status removed = served_.registry->Remove(build_); !removed.ok()) {
      return removed;
    }
    files_[file->kind] = std::string(bytes);
    TestBuild build;
    build.id = build_;
    build.files = files_;
    return served_.registry
        ->Add(build_, build.WriteTo(served_.dir, "seed-" + std::to_string(++seeds_)), false)
        .status();
  }

 private:
  const BuildId build_ = *BuildId::Parse(kConformanceBuild);
  ServedBuilds served_;
  std::shared_ptr<MemoryStorageProvider> base_ = std::make_shared<MemoryStorageProvider>();
  std::map<FileKind, std::string> files_;
  int seeds_ = 0;
  std::unique_ptr<PeerDirectory> directory_;
  std::shared_ptr<StorageProvider> provider_;
};

constexpr StorageCapabilities kOverTheWire{.read_only = true,
                                           .replaces = false,
                                           .knows_crc = true,
                                           .keeps_metadata = false,
                                           .pins_versions = false,
                                           .any_path = false};

INSTANTIATE_TEST_SUITE_P(Wire, StorageConformanceTest,
                         testing::Values(StorageConformanceParam{
                             "PeerOverGrpc", [] { return std::make_unique<WireFixture>(); },
                             kOverTheWire}),
                         StorageConformanceName);

}  // namespace
}  // namespace peerchunk::test
