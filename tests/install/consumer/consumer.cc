// Pauses a build on a node and reads it back as another node would: over the wire, through a
// PeerStorageProvider, whose base is an empty folder, so that every byte can only be the peer's.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <absl/time/clock.h>
#include <grpcpp/grpcpp.h>

#include "peerchunk/base/executor.h"
#include "peerchunk/header/header.h"
#include "peerchunk/node/node.h"
#include "peerchunk/peer/grpc_connector.h"
#include "peerchunk/peer/peer_directory.h"
#include "peerchunk/storage/local_storage.h"

namespace {

using peerchunk::BuildFileId;
using peerchunk::FileKind;

void Check(const absl::Status& status, const char* what) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s: %s\n", what, status.ToString().c_str());
  std::exit(1);
}

template <typename T>
T Check(absl::StatusOr<T> result, const char* what) {
  Check(result.status(), what);
  return *std::move(result);
}

// Every page another one, so that misplaced bytes are seen; one MiB of zeros in the middle.
std::string DiffBytes() {
  std::string bytes(3'000'000, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i / 1'000'000 != 1) bytes[i] = static_cast<char>(i / 4096 * 31 + i);
  }
  bytes.resize(2'998'272);  // Whole pages.
  return bytes;
}

std::string WriteFile(const std::string& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

std::string ReadBlob(peerchunk::StorageProvider& provider, const BuildFileId& file) {
  auto blob = Check(provider.OpenBlob(file.ObjectPath()), "open a blob");
  peerchunk::StringSink sink(1 << 20);
  Check(blob->WriteTo(sink, {}), "read a blob");
  return std::move(sink.bytes());
}

std::string ReadSeekable(peerchunk::StorageProvider& provider, const BuildFileId& file) {
  auto seekable = Check(provider.OpenSeekable(file.ObjectPath()), "open a diff");
  const uint64_t size = Check(seekable->Size({}), "size of a diff");
  auto reader = Check(seekable->OpenRangeReader(0, size, {}), "read a diff");
  std::string bytes(size, '?');
  while (const auto extent = Check(reader->Next(), "read a diff")) {
    extent->CopyTo(bytes.data() + extent->offset);
  }
  return bytes;
}

void Expect(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::exit(1);
}

void Run(const std::string& folder) {
  // The node that pauses. Its base takes so long that the upload is under way while we read.
  auto base = Check(peerchunk::LocalStorageProvider::Open(
                        {.folder = folder + "/base", .write_bytes_per_second = 64 * 1024}),
                    "open the base");
  auto node = Check(peerchunk::Node::Create({.data_folder = folder + "/node",
                                             .base = std::move(base),
                                             .listen_addresses = {"127.0.0.1:0"}}),
                    "create the node");
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  node->RegisterWith(builder);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  Expect(server != nullptr && port != 0, "the server listens");
  const std::string address = "127.0.0.1:" + std::to_string(port);
  Check(node->Start({address}), "start the node");

  const auto id = peerchunk::BuildId::Random();
  const std::string diff = DiffBytes();
  const std::string metadata = R"({"version":2,"filesystem_only":true})";
  const std::string header = Check(peerchunk::Header::CreateIdentity(
                                       {.block_size = 4096, .size = diff.size(), .build_id = id}),
                                   "make a header")
                                 .Encode();
  peerchunk::SnapshotFiles files;
  files.paths[FileKind::kMetadata] = WriteFile(folder + "/metadata.json", metadata);
  files.paths[FileKind::kRootfsHeader] = WriteFile(folder + "/rootfs.header", header);
  files.paths[FileKind::kRootfs] = WriteFile(folder + "/rootfs", diff);
  Check(node->Pause(id, files).status(), "pause");

  // The node that resumes.
  peerchunk::Metrics metrics;
  peerchunk::ThreadPool threads("consumer", 2);
  auto policy = Check(peerchunk::AddressPolicy::Create(
                          {.networks = {"127.0.0.0/8"}, .own_addresses = {"127.0.0.1:1"}}),
                      "make a policy");
  auto peers =
      Check(peerchunk::PeerDirectory::Create({.policy = std::move(policy),
                                              .connector = peerchunk::GrpcConnector::Create({}),
                                              .executor = &threads,
                                              .metrics = &metrics}),
            "create the directory of peers");
  auto nothing = Check(peerchunk::LocalStorageProvider::Open({.folder = folder + "/nothing"}),
                       "open an empty base");
  {
    auto provider = Check(peers->OpenBuild(id, {address}, std::shared_ptr(std::move(nothing))),
                          "open the build");
    Expect(ReadBlob(*provider, {id, FileKind::kMetadata}) == metadata, "metadata.json is the same");
    Expect(ReadBlob(*provider, {id, FileKind::kRootfsHeader}) == header, "the header is the same");
    const BuildFileId rootfs{id, FileKind::kRootfs};
    Expect(ReadSeekable(*provider, rootfs) == diff, "the diff is the same");
    const peerchunk::SourceBytes bytes = peers->BytesOf(rootfs);
    Expect(bytes.peer > 0 && bytes.base == 0, "every byte came from the peer");
  }

  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(10));
  node->Shutdown(deadline);
  std::printf("read %zu bytes from the peer\n", diff.size());
}

}  // namespace

int main() {
  const char* const parent = std::getenv("TMPDIR");
  std::string folder = std::string(parent == nullptr ? "/tmp" : parent) + "/consumer-XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) return 1;
  Run(folder);
  return 0;
}
