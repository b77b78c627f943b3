#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <absl/status/statusor.h>

namespace peerchunk {

// The UUID of one snapshot: 16 bytes in RFC 4122 order, written in lower case. A value type; the
// only way from text to a BuildId is Parse, so that a path or a foreign string never names a build.
class BuildId {
 public:
  static constexpr size_t kBytes = 16;
  static constexpr size_t kTextLength = 36;

  // The nil id, which in a header's mapping means "zeros" and names no build.
  constexpr BuildId() = default;
  explicit constexpr BuildId(const std::array<uint8_t, kBytes>& bytes) : bytes_(bytes) {}

  // Accepts exactly the canonical lower-case form "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx".
  // InvalidArgument otherwise. The nil UUID parses; callers that need a build check is_nil().
  static absl::StatusOr<BuildId> Parse(std::string_view text);

  // A random (version 4) id from the kernel's random source.
  static BuildId Random();

  std::string ToString() const;
  constexpr bool is_nil() const { return *this == BuildId(); }
  constexpr const std::array<uint8_t, kBytes>& bytes() const { return bytes_; }

  friend constexpr auto operator<=>(const BuildId&, const BuildId&) = default;
  template <typename H>
  friend H AbslHashValue(H state, const BuildId& id) {
    return H::combine(std::move(state), id.bytes_);
  }

 private:
  std::array<uint8_t, kBytes> bytes_{};
};

}  // namespace peerchunk
