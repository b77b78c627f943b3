#include "peerchunk/base/build_id.h"

#include <sys/random.h>

#include <cerrno>
#include <cstdlib>

#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

constexpr bool IsDashPosition(size_t position) {
  return position == 8 || position == 13 || position == 18 || position == 23;
}

constexpr int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

absl::StatusOr<BuildId> BuildId::Parse(std::string_view text) {
  const auto refuse = [] {
    return absl::InvalidArgumentError(
        "build id is not a lower-case UUID (xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx)");
  };
  if (text.size() != kTextLength) return refuse();
  std::array<uint8_t, kBytes> bytes{};
  size_t digits = 0;
  for (size_t i = 0; i < kTextLength; ++i) {
    if (IsDashPosition(i)) {
      if (text[i] != '-') return refuse();
      continue;
    }
    const int digit = HexDigit(text[i]);
    if (digit < 0) return refuse();
    bytes[digits / 2] = static_cast<uint8_t>(bytes[digits / 2] << 4 | digit);
    ++digits;
  }
  return BuildId(bytes);
}

BuildId BuildId::Random() {
  std::array<uint8_t, kBytes> bytes{};
  // Up to 256 bytes come whole once the kernel's source is ready; only a signal can interrupt.
  while (getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    if (errno != EINTR) std::abort();
  }
  bytes[6] = static_cast<uint8_t>((bytes[6] & 0x0F) | 0x40);
  bytes[8] = static_cast<uint8_t>((bytes[8] & 0x3F) | 0x80);
  return BuildId(bytes);
}

std::string BuildId::ToString() const {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(kTextLength);
  for (const uint8_t byte : bytes_) {
    if (IsDashPosition(text.size())) text += '-';
    text += kDigits[byte >> 4];
    text += kDigits[byte & 0x0F];
  }
  return text;
}

}  // namespace peerchunk
