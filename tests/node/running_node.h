#pragma once

#include <memory>
#include <string>
#include <vector>

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "peerchunk/base/clock.h"
#include "peerchunk/node/node.h"
#include "peerchunk/storage/local_storage.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_build.h"

namespace peerchunk::test {

// Bytes per second: an upload that does not end in a test, on however slow a machine.
inline constexpr uint64_t kSlow = 1024;
// Of reads that must not be what fails there.
inline constexpr absl::Duration kPatience = absl::Minutes(3);

// A read ends as soon as it has its bytes; the rest of its last chunk may come after it.
inline const uint64_t kUnderWay = NodeOptions().chunk_bytes;

inline std::shared_ptr<StorageProvider> OpenFolder(const std::string& folder,
                                                   uint64_t write_bytes_per_second = 0) {
  auto opened = LocalStorageProvider::Open(
      {.folder = folder, .write_bytes_per_second = write_bytes_per_second});
  EXPECT_TRUE(opened.ok()) << opened.status();
  return *std::move(opened);
}

// Tests compare metadata byte by byte; those of working sets say otherwise.
inline NodeOptions WithoutWorkingSets() {
  NodeOptions options;
  options.record_working_sets = false;
  return options;
}

// A node with its server on a loopback port of its own, as a daemon runs one.
class RunningNode {
 public:
  RunningNode(const std::string& data_folder, std::shared_ptr<StorageProvider> base,
              NodeOptions options = WithoutWorkingSets()) {
    options.data_folder = data_folder;
    options.base = std::move(base);
    options.peer_networks = {"127.0.0.0/8"};
    options.metrics = &metrics;
    auto created = Node::Create(std::move(options));
    EXPECT_TRUE(created.ok()) << created.status();
    node = *std::move(created);
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    node->RegisterWith(builder);
    server = builder.BuildAndStart();
    address = "127.0.0.1:" + std::to_string(port);
    const absl::Status started = node->Start({address});
    EXPECT_TRUE(started.ok()) << started;
  }
  ~RunningNode() { Stop(); }

  // Peers' calls are cancelled and the port is closed: to them the node is gone.
  void StopServing() {
    if (server != nullptr) server->Shutdown(std::chrono::system_clock::now());
  }
  void Stop() {
    if (node == nullptr) return;
    StopServing();
    node->Shutdown(absl::InfinitePast());
    server.reset();
    node.reset();
  }

  // Waits until every upload is done.
  void Settle() { EXPECT_TRUE(node->Drain(Clock::Real().Now() + kPatience).empty()); }

  Metrics metrics;
  std::string address;
  std::unique_ptr<Node> node;
  std::unique_ptr<grpc::Server> server;
};

inline std::string ReadDevice(Device& device) {
  std::string bytes(device.size(), 'x');
  const auto got =
      device.ReadAt(0, absl::MakeSpan(bytes), {.deadline = Clock::Real().Now() + kPatience});
  EXPECT_TRUE(got.ok()) << got.status();
  if (got.ok()) bytes.resize(*got);
  return bytes;
}

// Every byte of a loaded template against the build it must be.
inline void ExpectSame(const Template& loaded, const TestBuild& build) {
  EXPECT_EQ(loaded.MetadataFile(), build.files.at(FileKind::kMetadata));
  // Compared by hand: a failure must not print megabytes.
  EXPECT_TRUE(ReadDevice(loaded.Rootfs()) == build.rootfs);
  EXPECT_EQ(loaded.filesystem_only(), build.filesystem_only());
  if (build.filesystem_only()) {
    EXPECT_EQ(loaded.Memfile(), nullptr);
    EXPECT_EQ(loaded.Snapfile(), nullptr);
    return;
  }
  ASSERT_NE(loaded.Memfile(), nullptr);
  EXPECT_TRUE(ReadDevice(*loaded.Memfile()) == build.memfile);
  EXPECT_TRUE(*loaded.Snapfile() == build.files.at(FileKind::kSnapfile));
}

}  // namespace peerchunk::test
