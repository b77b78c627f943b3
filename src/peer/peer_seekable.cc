#include "peer/peer_seekable.h"

#include <utility>

#include "peer/peer_version.h"
#include "peer/source_reader.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"
#include "storage/still_wanted.h"

namespace peerchunk {
namespace {

// A chunk that somebody waits for is a demand read however it is read; a long range is not.
constexpr uint64_t kLongestDemandBytes = 4 * kMiB;

PeerLane LaneOf(const ReadOptions& options, uint64_t bytes) {
  const bool demand = options.priority == Priority::kDemand && bytes <= kLongestDemandBytes;
  return demand ? PeerLane::kDemand : PeerLane::kBulk;
}

// One range through a SourceReader.
class PeerRangeReader final : public RangeReader {
 public:
  PeerRangeReader(std::shared_ptr<const SourceSet> sources, const SourceReader::Plan& plan,
                  ReadOptions options)
      : reader_(std::move(sources), plan, std::move(options)) {}

  absl::StatusOr<std::optional<Extent>> Next() override {
    PEERCHUNK_ASSIGN_OR_RETURN(const auto piece, reader_.Next());
    return piece ? std::make_optional(piece->extent) : std::nullopt;
  }

 private:
  SourceReader reader_;
};

}  // namespace

absl::StatusOr<uint64_t> PeerSeekable::Size(const ReadOptions& options) {
  // A declared size never changes, so no source has to be asked again: unless its author is
  // doubted, or there is a base by now that knows better.
  const BuildKnowledge& knowledge = *sources_->knowledge;
  if (options.sources != SourcePolicy::kBaseOnly && !options.version && !knowledge.durable()) {
    PEERCHUNK_RETURN_IF_ERROR(CheckStillWanted(sources_->clock(), options));
    const auto declared = knowledge.Declared(kind_);
    if (declared && declared->size >= options.least_size &&
        !knowledge.ViewOf(declared->by, sources_->clock().Now()).demoted) {
      return declared->size;
    }
  }
  PEERCHUNK_ASSIGN_OR_RETURN(const ObjectStat stat, Stat(options));
  return stat.size;
}

absl::StatusOr<size_t> PeerSeekable::ReadAt(uint64_t offset, absl::Span<char> out,
                                            const ReadOptions& options) {
  PEERCHUNK_ASSIGN_OR_RETURN(ReadOptions resolved, ResolveVersion(*sources_, kind_, options));
  SourceReader reader(sources_,
                      {.kind = kind_,
                       .offset = offset,
                       .length = out.size(),
                       .into = out.data(),
                       .lane = LaneOf(options, out.size())},
                      std::move(resolved));
  while (true) {
    PEERCHUNK_ASSIGN_OR_RETURN(const auto piece, reader.Next());
    if (!piece) return reader.reached() - offset;
  }
}

absl::StatusOr<std::unique_ptr<RangeReader>> PeerSeekable::OpenRangeReader(
    uint64_t offset, uint64_t length, const ReadOptions& options) {
  PEERCHUNK_ASSIGN_OR_RETURN(ReadOptions resolved, ResolveVersion(*sources_, kind_, options));
  return std::make_unique<PeerRangeReader>(
      sources_,
      SourceReader::Plan{
          .kind = kind_, .offset = offset, .length = length, .lane = LaneOf(options, length)},
      std::move(resolved));
}

absl::StatusOr<ObjectStat> PeerSeekable::StoreFile(const std::string& path,
                                                   const WriteOptions& options) {
  PEERCHUNK_ASSIGN_OR_RETURN(const std::unique_ptr<Seekable> object,
                             sources_->base->OpenSeekable(sources_->FileId(kind_).ObjectPath()));
  auto stored = object->StoreFile(path, options);
  if (stored.ok()) sources_->knowledge->Forget(kind_);
  return stored;
}

absl::StatusOr<ObjectStat> PeerSeekable::Stat(const ReadOptions& options) {
  PEERCHUNK_ASSIGN_OR_RETURN(ReadOptions resolved, ResolveVersion(*sources_, kind_, options));
  return SourceReader(sources_, {.kind = kind_, .head_only = true, .lane = LaneOf(options, 0)},
                      std::move(resolved))
      .Stat();
}

}  // namespace peerchunk
