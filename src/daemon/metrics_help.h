#pragma once

#include <string_view>
#include <utility>

#include <absl/types/span.h>

namespace peerchunk {

// One line for people on each series there is: its name and what it counts, ordered by name.
// docs/metrics.md has them all, too; a test compares this, the page and the code that counts.
absl::Span<const std::pair<std::string_view, std::string_view>> MetricHelpTable();

// The line of `name`; empty when there is none.
std::string_view MetricHelp(std::string_view name);

}  // namespace peerchunk
