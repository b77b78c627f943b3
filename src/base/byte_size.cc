#include "base/byte_size.h"

#include <array>
#include <charconv>
#include <cmath>

#include <absl/strings/str_format.h>

#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

constexpr std::array<std::string_view, 5> kUnits = {"", "KiB", "MiB", "GiB", "TiB"};

}  // namespace

absl::StatusOr<uint64_t> ParseByteSize(std::string_view text) {
  const absl::Status bad = absl::InvalidArgumentError(
      absl::StrCat("'", AbslView(text),
                   "' is not a number of bytes: write 4096, 256KiB, 20MiB, 1.5GiB or 2TiB"));
  const size_t unit_at = text.find_first_not_of("0123456789.");
  const std::string_view number = text.substr(0, unit_at);
  const std::string_view unit = unit_at == std::string_view::npos ? "" : text.substr(unit_at);
  size_t power = 0;
  while (power < kUnits.size() && kUnits[power] != unit) ++power;
  if (power == kUnits.size() || number.empty()) return bad;
  const uint64_t factor = uint64_t{1} << (10 * power);
  const char* const end = number.data() + number.size();
  if (number.find('.') == std::string_view::npos) {
    uint64_t whole = 0;
    const auto [rest, error] = std::from_chars(number.data(), end, whole);
    if (error != std::errc() || rest != end || whole > UINT64_MAX / factor) return bad;
    return whole * factor;
  }
  double value = 0;
  const auto [rest, error] = std::from_chars(number.data(), end, value);
  if (error != std::errc() || rest != end || power == 0) return bad;
  value *= static_cast<double>(factor);
  if (value >= std::ldexp(1.0, 64)) return bad;
  return static_cast<uint64_t>(value);
}

std::string ExactByteSize(uint64_t bytes) {
  size_t power = 0;
  while (bytes != 0 && bytes % 1024 == 0 && power + 1 < kUnits.size()) {
    bytes /= 1024;
    ++power;
  }
  return absl::StrCat(bytes, AbslView(kUnits[power]));
}

std::string HumanByteSize(double bytes) {
  size_t power = 0;
  while (bytes >= 1024 && power + 1 < kUnits.size()) {
    bytes /= 1024;
    ++power;
  }
  if (power == 0) return absl::StrFormat("%.0f B", bytes);
  return absl::StrFormat("%.1f %s", bytes, AbslView(kUnits[power]));
}

}  // namespace peerchunk
