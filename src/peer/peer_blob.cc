#include "peer/peer_blob.h"

#include <algorithm>
#include <string>

#include "peer/peer_version.h"
#include "peerchunk/base/blob_limits.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

absl::Status WriteExtent(const Extent& extent, ByteSink& sink) {
  static constexpr char kZeros[64 * kKiB] = {};
  for (const std::string_view piece : extent.pieces) PEERCHUNK_RETURN_IF_ERROR(sink.Write(piece));
  if (!extent.zero) return absl::OkStatus();
  for (uint64_t left = extent.length; left > 0;) {
    const uint64_t bytes = std::min<uint64_t>(left, sizeof(kZeros));
    PEERCHUNK_RETURN_IF_ERROR(sink.Write({kZeros, bytes}));
    left -= bytes;
  }
  return absl::OkStatus();
}

}  // namespace

SourceReader::Plan PeerBlob::ReadPlan() const {
  const bool streamed = kind_ == FileKind::kSnapfile;
  return {
      .kind = kind_, .whole = !streamed, .lane = streamed ? PeerLane::kBulk : PeerLane::kDemand};
}

absl::Status PeerBlob::WriteTo(ByteSink& sink, const ReadOptions& options) {
  PEERCHUNK_ASSIGN_OR_RETURN(ReadOptions resolved, ResolveVersion(*sources_, kind_, options));
  const SourceReader::Plan plan = ReadPlan();
  SourceReader reader(sources_, plan, std::move(resolved));
  if (plan.whole) return WriteWhole(reader, sink);
  while (true) {
    PEERCHUNK_ASSIGN_OR_RETURN(const auto piece, reader.Next());
    if (!piece) return absl::OkStatus();
    PEERCHUNK_RETURN_IF_ERROR(WriteExtent(piece->extent, sink));
  }
}

absl::Status PeerBlob::WriteWhole(SourceReader& reader, ByteSink& sink) const {
  const uint64_t limit = MaxBlobBytes(kind_);
  std::string whole;
  while (true) {
    PEERCHUNK_ASSIGN_OR_RETURN(const auto piece, reader.Next());
    if (!piece) break;
    if (piece->restarted) whole.clear();
    if (piece->extent.length > limit - whole.size()) {
      return absl::ResourceExhaustedError(
          absl::StrCat("read ", sources_->FileId(kind_).ObjectPath(), ": more than the limit of ",
                       limit, " bytes"));
    }
    const size_t at = whole.size();
    whole.resize(at + piece->extent.length);
    piece->extent.CopyTo(whole.data() + at);
  }
  return whole.empty() ? absl::OkStatus() : sink.Write(whole);
}

absl::StatusOr<ObjectStat> PeerBlob::Put(std::string_view bytes, const WriteOptions& options) {
  PEERCHUNK_ASSIGN_OR_RETURN(const std::unique_ptr<Blob> blob,
                             sources_->base->OpenBlob(sources_->FileId(kind_).ObjectPath()));
  auto stored = blob->Put(bytes, options);
  if (stored.ok()) sources_->knowledge->Forget(kind_);
  return stored;
}

absl::StatusOr<bool> PeerBlob::Exists(const ReadOptions& options) {
  const auto stat = Stat(options);
  if (absl::IsNotFound(stat.status())) return false;
  PEERCHUNK_RETURN_IF_ERROR(stat);
  return true;
}

absl::StatusOr<ObjectStat> PeerBlob::Stat(const ReadOptions& options) {
  PEERCHUNK_ASSIGN_OR_RETURN(ReadOptions resolved, ResolveVersion(*sources_, kind_, options));
  SourceReader::Plan plan = ReadPlan();
  plan.head_only = true;
  return SourceReader(sources_, plan, std::move(resolved)).Stat();
}

}  // namespace peerchunk
