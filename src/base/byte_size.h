#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <absl/status/statusor.h>

namespace peerchunk {

// A number of bytes as people write it: "4096", "256KiB", "20MiB", "1.5GiB", "2TiB".
// InvalidArgument for anything else, also when it does not fit.
absl::StatusOr<uint64_t> ParseByteSize(std::string_view text);

// The shortest form that ParseByteSize reads back as the same number: "256KiB", "4097".
std::string ExactByteSize(uint64_t bytes);

// For people: "512 B", "3.4 MiB".
std::string HumanByteSize(double bytes);

}  // namespace peerchunk
