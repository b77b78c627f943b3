// peerchunk itself: what a node serves from on one side; on the other the providers through which
// it copies a build, and its client for demand reads.
#include "bench/ours.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/executor.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"
#include "peerchunk/peer/grpc_connector.h"
#include "peerchunk/peer/http2_connector.h"
#include "peerchunk/peer/peer_directory.h"
#include "peerchunk/storage/local_storage.h"
#include "tests/support/certificates.h"

namespace peerchunk::bench {
namespace {

// As a reader must: every extent's place and checksum, and the declared end.
absl::Status CheckedRead(ChunkServiceClient& client, const BuildFileId& file, uint64_t offset,
                         uint64_t length) {
  const auto stream = client.GetBuildFile({.file = file, .offset = offset, .length = length}, {});
  uint64_t next = offset;
  bool last = false;
  while (true) {
    PEERCHUNK_ASSIGN_OR_RETURN(const auto message, stream->Next(absl::InfiniteFuture()));
    if (!message.has_value()) break;
    last = message->last;
    if (!message->extent) continue;
    if (message->extent->offset != next) return absl::DataLossError("out of order");
    if (!message->extent->zero) {
      uint32_t crc = 0;
      for (const std::string_view piece : message->extent->pieces) crc = ExtendCrc32c(crc, piece);
      if (crc != message->extent->crc32c) return absl::DataLossError("wrong checksum");
    }
    next += message->extent->length;
  }
  if (!last || next != offset + length) return absl::DataLossError("cut short");
  return absl::OkStatus();
}

// Which client dials the server.
enum class Dialler { kHttp2, kGrpc };

std::shared_ptr<ChunkServiceConnector> MakeConnector(const TransportCredentials& credentials,
                                                     Dialler dialler) {
  if (dialler == Dialler::kGrpc) return GrpcConnector::Create({.credentials = credentials.channel});
  return Http2Connector::Create({.tls = credentials.identity});
}

class PeerchunkClient final : public Client {
 public:
  static absl::StatusOr<std::unique_ptr<Client>> Make(const Samples& samples, int port,
                                                      const std::string& folder,
                                                      const TlsFiles& tls, Dialler dialler) {
    PEERCHUNK_ASSIGN_OR_RETURN(
        const AddressPolicy policy,
        AddressPolicy::Create({.networks = {"127.0.0.0/8"}, .own_addresses = {"127.0.0.1:1"}}));
    PEERCHUNK_ASSIGN_OR_RETURN(const PeerAddress address,
                               policy.Check(absl::StrCat("127.0.0.1:", port)));
    PEERCHUNK_ASSIGN_OR_RETURN(const TransportCredentials credentials,
                               MakeTransportCredentials(tls));
    std::unique_ptr<PeerchunkClient> client(
        new PeerchunkClient(samples, address, credentials, dialler));
    PEERCHUNK_ASSIGN_OR_RETURN(client->demand_,
                               client->connector_->Connect(address, PeerLane::kDemand));
    PEERCHUNK_ASSIGN_OR_RETURN(client->directory_,
                               PeerDirectory::Create({.policy = policy,
                                                      .connector = client->connector_,
                                                      .executor = &client->pool_,
                                                      .metrics = &client->metrics_}));
    PEERCHUNK_ASSIGN_OR_RETURN(client->base_,
                               LocalStorageProvider::Open({.folder = folder + "/empty-base"}));
    return client;
  }

  absl::Status ReadAll(const BulkRead& work) override {
    PEERCHUNK_ASSIGN_OR_RETURN(
        const auto provider,
        directory_->OpenBuild(FileIdOf(work.sample).build, {address_.ToString()}, base_));
    PEERCHUNK_ASSIGN_OR_RETURN(const auto memfile,
                               provider->OpenSeekable(FileIdOf(work.sample).ObjectPath()));
    if (IsFile(work.to)) return CopyToFile(*memfile, work);
    return InParts(work.sample.size, work.streams, [&](const Part& part) -> absl::Status {
      if (work.to == Destination::kMemory) {
        const auto to = work.memory.subspan(part.offset, part.length);
        PEERCHUNK_ASSIGN_OR_RETURN(const size_t got, memfile->ReadAt(part.offset, to, kOptions));
        return got == part.length ? absl::OkStatus() : absl::DataLossError("cut short");
      }
      return ForEachExtent(*memfile, part, [](const Extent&) { return absl::OkStatus(); });
    });
  }

  absl::StatusOr<ReadFigures> Read(const RandomReads& reads) override {
    return ReadOnThreads(reads, [&](int, uint64_t offset) {
      return CheckedRead(*demand_, FileIdOf(reads.sample), offset, reads.bytes);
    });
  }

  absl::StatusOr<ReadFigures> ReadUnderBulk(const RandomReads& reads) override {
    return ReadDuring([&] { return ReadAll({.sample = reads.sample}); },
                      [&] { return Read(reads); });
  }

  absl::Status ReadAllByMany(const Sample& sample, int count) override {
    return InParts(count * kPageBytes, count, [&](const Part&) -> absl::Status {
      const auto connector = MakeConnector(credentials_, dialler_);
      PEERCHUNK_ASSIGN_OR_RETURN(const auto client, connector->Connect(address_, PeerLane::kBulk));
      return CheckedRead(*client, FileIdOf(sample), 0, sample.size);
    });
  }

 private:
  PeerchunkClient(const Samples& samples, PeerAddress address, TransportCredentials credentials,
                  Dialler dialler)
      : samples_(samples),
        address_(std::move(address)),
        credentials_(std::move(credentials)),
        dialler_(dialler),
        connector_(MakeConnector(credentials_, dialler_)) {}

  BuildFileId FileIdOf(const Sample& sample) const {
    return FileOf(static_cast<size_t>(&sample - samples_.files.data()));
  }

  static absl::Status ForEachExtent(Seekable& memfile, const Part& part,
                                    const std::function<absl::Status(const Extent&)>& take) {
    PEERCHUNK_ASSIGN_OR_RETURN(const auto reader,
                               memfile.OpenRangeReader(part.offset, part.length, kOptions));
    uint64_t done = 0;
    while (true) {
      PEERCHUNK_ASSIGN_OR_RETURN(const auto extent, reader->Next());
      if (!extent) break;
      PEERCHUNK_RETURN_IF_ERROR(take(*extent));
      done += extent->length;
    }
    return done == part.length ? absl::OkStatus() : absl::DataLossError("cut short");
  }

  // What FetchBuild does with a diff: data written where it belongs, zeros left as holes, and the
  // checksum of the whole file compared with the recorded one.
  static absl::Status CopyToFile(Seekable& memfile, const BulkRead& work) {
    PEERCHUNK_ASSIGN_OR_RETURN(const ObjectStat stat, memfile.Stat(kOptions));
    PEERCHUNK_ASSIGN_OR_RETURN(const File file, File::Open(work.path, O_RDWR | O_CREAT));
    std::vector<uint32_t> crcs(work.streams);
    std::vector<uint64_t> lengths(work.streams);
    PEERCHUNK_RETURN_IF_ERROR(
        InParts(work.sample.size, work.streams, [&](const Part& part) -> absl::Status {
          uint32_t crc = 0;
          PEERCHUNK_RETURN_IF_ERROR(ForEachExtent(memfile, part, [&](const Extent& extent) {
            if (extent.zero) {
              crc = CombineCrc32c(crc, Crc32cOfZeros(extent.length), extent.length);
              return absl::OkStatus();
            }
            for (const std::string_view piece : extent.pieces) crc = ExtendCrc32c(crc, piece);
            return file.WriteVectorAt(extent.offset, extent.pieces);
          }));
          crcs[part.index] = crc;
          lengths[part.index] = part.length;
          return absl::OkStatus();
        }));
    uint32_t crc = 0;
    for (int i = 0; i < work.streams; ++i) crc = CombineCrc32c(crc, crcs[i], lengths[i]);
    if (stat.crc32c != crc) return absl::DataLossError("the whole file has another checksum");
    return file.Truncate(work.sample.size);  // Zeros at the end are a hole too.
  }

  static const ReadOptions kOptions;

  const Samples& samples_;
  const PeerAddress address_;
  const TransportCredentials credentials_;
  const Dialler dialler_;
  const std::shared_ptr<ChunkServiceConnector> connector_;
  ThreadPool pool_{"bench", 2};
  Metrics metrics_;
  std::shared_ptr<ChunkServiceClient> demand_;
  std::unique_ptr<PeerDirectory> directory_;
  std::shared_ptr<StorageProvider> base_;
};

const ReadOptions PeerchunkClient::kOptions{.sources = SourcePolicy::kPeerOnly};

// `folder`, of its own, is made when the server starts.
Contender On(const std::string& name, const std::string& folder_name, const TlsFiles& tls,
             Dialler dialler = Dialler::kHttp2) {
  return {.name = name,
          .serve = [=](const Samples& samples) -> absl::StatusOr<std::unique_ptr<ServerProcess>> {
            const std::string folder = samples.folder + "/" + folder_name;
            if (mkdir(folder.c_str(), 0700) != 0) return ErrnoStatus(errno, "make " + folder);
            return ServerProcess::Start([&](const ServerProcess::Ready& ready) {
              return ServeSamples(samples, folder, tls, ready);
            });
          },
          .connect =
              [=](const Samples& samples, int port) {
                return PeerchunkClient::Make(samples, port, samples.folder + "/" + folder_name, tls,
                                             dialler);
              }};
}

}  // namespace

Contender Peerchunk() { return On(kPeerchunk, "peerchunk", {}); }

Contender PeerchunkOverGrpc() { return On(kPeerchunkGrpc, "peerchunk-grpc", {}, Dialler::kGrpc); }

absl::StatusOr<Contender> PeerchunkWithTls(const std::string& folder) {
  const test::TestAuthority authority;
  const auto identity = authority.Issue("IP:127.0.0.1");
  const TlsFiles tls{.certificate_path = folder + "/node.pem",
                     .key_path = folder + "/node.key",
                     .authority_path = folder + "/ca.pem"};
  PEERCHUNK_ASSIGN_OR_RETURN(const File files, File::Open(folder, O_RDONLY | O_DIRECTORY));
  PEERCHUNK_RETURN_IF_ERROR(files.ReplaceFile("node.pem", identity.certificate));
  PEERCHUNK_RETURN_IF_ERROR(files.ReplaceFile("node.key", identity.key));
  PEERCHUNK_RETURN_IF_ERROR(files.ReplaceFile("ca.pem", authority.Pem()));
  return On(kPeerchunkTls, "peerchunk-tls", tls);
}

}  // namespace peerchunk::bench
