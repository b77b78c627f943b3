#pragma once

#include <cstdint>
#include <string_view>

namespace peerchunk {

// The life of a build on the node that paused it (docs/architecture.md). One value per meaning:
// kUnknown is "nobody said", never a state of its own.
enum class BuildState : uint8_t {
  kUnknown = 0,
  kLocal = 1,      // Recorded here; no upload has begun.
  kUploading = 2,  // Some objects may be in the base; the build as a whole is not.
  kDurable = 3,    // Every object was confirmed in the base. Final.
  kFailed = 4,  // Still pinned and served; a human has to look. The reason is kept with the build.
};

constexpr std::string_view BuildStateName(BuildState state) {
  switch (state) {
    case BuildState::kUnknown:
      return "UNKNOWN";
    case BuildState::kLocal:
      return "LOCAL";
    case BuildState::kUploading:
      return "UPLOADING";
    case BuildState::kDurable:
      return "DURABLE";
    case BuildState::kFailed:
      return "FAILED";
  }
  return "UNKNOWN";
}

}  // namespace peerchunk
