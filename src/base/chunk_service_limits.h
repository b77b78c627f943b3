#pragma once

#include <cstddef>

#include "peerchunk/base/range.h"

// What a node takes of those who ask it (chunk_service.proto): the server refuses more, and a
// client keeps well below, so that none of its reads pays for the others.
namespace peerchunk {

// Reads under way on one ReadBuildFile stream. With as many, no more are taken from the stream
// until some are answered; of one message those beyond are refused with RESOURCE_EXHAUSTED.
inline constexpr size_t kMostReadsUnderWay = 512;
// The longest message: ids and ranges are small. A longer one ends its call.
inline constexpr size_t kMaxPeerRequestBytes = 64 * kKiB;

}  // namespace peerchunk
