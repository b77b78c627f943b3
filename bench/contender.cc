#include "bench/contender.h"

namespace peerchunk::bench {
namespace {

absl::Status None() { return absl::UnimplementedError("not something that this way can do"); }

}  // namespace

absl::Status Client::ReadAll(const BulkRead&) { return None(); }
absl::StatusOr<ReadFigures> Client::Read(const RandomReads&) { return None(); }
absl::StatusOr<ReadFigures> Client::ReadUnderBulk(const RandomReads&) { return None(); }
absl::Status Client::ReadAllByMany(const Sample&, int) { return None(); }

}  // namespace peerchunk::bench
