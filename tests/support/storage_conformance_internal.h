#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "peerchunk/storage/storage.h"

// What the two halves of the conformance suite share.

#define SKIP_UNLESS(capability) \
  if (!(capability)) GTEST_SKIP() << "not shown by this provider: " #capability

namespace peerchunk::test {

inline constexpr uint64_t kMax = UINT64_MAX;

std::string PathInBuild(std::string_view name);
std::string BlobPath();
std::string SeekablePath();

// Bytes with long runs of zeros at page and odd boundaries.
std::string SparseBytes(size_t size, uint64_t seed);

absl::StatusOr<std::string> ReadAtWhole(Seekable& object, uint64_t offset, size_t length,
                                        const ReadOptions& options = {});

// Drains a reader, checking the shape of what it gives.
absl::StatusOr<std::string> Drain(RangeReader& reader, uint64_t offset);

inline constexpr int kThreads = 8;
void InThreads(const std::function<void(int thread)>& body);

// Defined beside the tests of writes, so that whoever links the reads links those too.
void LinkWriteConformance();

}  // namespace peerchunk::test
