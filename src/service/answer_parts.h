#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <grpcpp/support/slice.h>

#include "peerchunk/base/range.h"
#include "service/byte_budget.h"
#include "service/framing.h"

namespace peerchunk {

// A message of answers is closed when it has this much; less than what a reader takes even with 1
// MiB more.
inline constexpr size_t kMessageBytes = 512 * kKiB;
// What an answer takes beside its data.
inline constexpr uint64_t kPartBytes = 256;

// Answers on their way into one message, and the memory that they take until it is written.
struct AnswerParts {
  std::vector<grpc::Slice> slices;
  size_t bytes = 0;
  ByteBudget::Lease lease;
  size_t ends = 0;  // Reads of which nothing comes after this.

  void Add(FramedMessage message) {
    bytes += message.size();
    slices.push_back(std::move(message.prefix));
    if (message.data) slices.push_back(*std::move(message.data));
  }
};

}  // namespace peerchunk
