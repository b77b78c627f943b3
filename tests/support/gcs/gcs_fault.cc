#include "tests/support/gcs/gcs_fault.h"

#include <algorithm>
#include <iterator>

namespace peerchunk::test {

void GcsFaultSource::AtRandom(uint64_t seed, double probability, int most) {
  random_.seed(seed);
  probability_ = probability;
  random_left_ = most;
}

GcsFault GcsFaultSource::Take(GcsRpc rpc) {
  const auto it = std::find_if(waiting_.begin(), waiting_.end(),
                               [&](const GcsFault& fault) { return fault.rpc == rpc; });
  if (it != waiting_.end()) {
    GcsFault fault = *it;
    waiting_.erase(it);
    ++taken_;
    return fault;
  }
  if (random_left_ == 0 || static_cast<double>(random_() % 1'000'000) >= probability_ * 1'000'000) {
    return {};
  }
  GcsFault fault = Draw(rpc);
  if (fault.kind == GcsFault::Kind::kNone) return fault;
  --random_left_;
  ++taken_;
  return fault;
}

GcsFault GcsFaultSource::Draw(GcsRpc rpc) {
  using Kind = GcsFault::Kind;
  constexpr absl::StatusCode kCodes[] = {
      absl::StatusCode::kUnavailable,       absl::StatusCode::kUnavailable,
      absl::StatusCode::kInternal,          absl::StatusCode::kDeadlineExceeded,
      absl::StatusCode::kResourceExhausted, absl::StatusCode::kAborted};
  GcsFault fault;
  fault.rpc = rpc;
  fault.code = kCodes[random_() % std::size(kCodes)];
  fault.after = static_cast<int>(random_() % 4);
  const uint64_t draw = random_() % 12;
  if (rpc == GcsRpc::kReadObject) {
    fault.kind = draw < 5 ? Kind::kError : draw < 8 ? Kind::kStall : Kind::kEndsEarly;
    return fault;
  }
  if (rpc != GcsRpc::kWriteObject) {
    fault.after = 0;
    fault.kind = draw < 6 ? Kind::kError : draw < 10 ? Kind::kLostAnswer : Kind::kStall;
    return fault;
  }
  fault.kind = draw < 4    ? Kind::kError
               : draw < 6  ? Kind::kLostAnswer
               : draw < 8  ? Kind::kStall
               : draw < 10 ? Kind::kPersistsLess
               : draw < 11 ? Kind::kSessionGone
                           : Kind::kGarbledUpload;
  if (fault.kind == Kind::kSessionGone && sessions_left_-- <= 0) fault.kind = Kind::kError;
  if (fault.kind == Kind::kGarbledUpload && garbled_left_-- <= 0) fault.kind = Kind::kError;
  return fault;
}

}  // namespace peerchunk::test
