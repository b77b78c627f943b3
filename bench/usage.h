#pragma once

#include <sys/types.h>

#include <cstdint>

#include <absl/status/statusor.h>

namespace peerchunk::bench {

// What a process has used. For other processes than this one: children of the same user.

// Of all its threads, also those that ended; without its children.
double CpuSecondsOf(pid_t pid);
// Of this process and of the children that it waited for.
double OwnCpuSeconds();

absl::StatusOr<uint64_t> ResidentBytes(pid_t pid);
// The most that was resident since ResetPeak, or since it started where that is not permitted.
absl::StatusOr<uint64_t> PeakResidentBytes(pid_t pid);
void ResetPeak(pid_t pid);

}  // namespace peerchunk::bench
