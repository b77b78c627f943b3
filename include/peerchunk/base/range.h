#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

namespace peerchunk {

inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;
inline constexpr uint64_t kGiB = 1024 * kMiB;

// The unit of the guest's memory and of a rootfs block.
inline constexpr uint64_t kPageBytes = 4096;

// The half-open range [offset, offset + length) in bytes. A value; `end()` never overflows because
// the only way to a range from foreign numbers is Clip.
struct ByteRange {
  uint64_t offset = 0;
  uint64_t length = 0;

  constexpr uint64_t end() const { return offset + length; }
  constexpr bool empty() const { return length == 0; }

  // What of [offset, offset + length) lies in [0, size): `length` is cut at the end of the object,
  // absent means "to the end". Nothing when offset > size: past the end, an error, no short read.
  static constexpr std::optional<ByteRange> Clip(uint64_t offset, std::optional<uint64_t> length,
                                                 uint64_t size) {
    if (offset > size) return std::nullopt;
    const uint64_t rest = size - offset;
    return ByteRange{offset, length ? std::min(*length, rest) : rest};
  }

  friend constexpr bool operator==(const ByteRange&, const ByteRange&) = default;
};

constexpr uint64_t RoundUp(uint64_t value, uint64_t unit) {
  return value / unit * unit + (value % unit == 0 ? 0 : unit);
}
constexpr uint64_t CeilDiv(uint64_t value, uint64_t unit) {
  return value / unit + (value % unit == 0 ? 0 : 1);
}

}  // namespace peerchunk
