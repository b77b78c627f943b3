#include "cli/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include <absl/strings/str_format.h>

#include "base/byte_size.h"

namespace peerchunk::cli {
namespace {

constexpr absl::Duration kTerminalEvery = absl::Milliseconds(200);
constexpr absl::Duration kPlainEvery = absl::Seconds(5);
constexpr double kSmoothing = 0.3;  // Weight of the latest interval.

}  // namespace

std::string ProgressLine(const FetchFigures& figures, double bytes_per_second) {
  const uint64_t rest = figures.total_size - std::min(figures.total_done, figures.total_size);
  const double percent = figures.total_size == 0 ? 100.0
                                                 : 100.0 * static_cast<double>(figures.total_done) /
                                                       static_cast<double>(figures.total_size);
  std::string line = absl::StrFormat("%-18s %3.0f%% of %s, %s/s", figures.file, percent,
                                     HumanByteSize(static_cast<double>(figures.total_size)),
                                     HumanByteSize(bytes_per_second));
  if (bytes_per_second > 0) {
    const double seconds = std::ceil(static_cast<double>(rest) / bytes_per_second);
    absl::StrAppendFormat(&line, ", %s left",
                          absl::FormatDuration(absl::Seconds(std::min(seconds, 1e9))));
  }
  const uint64_t sum = figures.from_peer + figures.from_base + figures.zeros;
  if (sum > 0) {
    const auto share = [sum](uint64_t part) {
      return 100.0 * static_cast<double>(part) / static_cast<double>(sum);
    };
    absl::StrAppendFormat(&line, "; peer %.0f%%, base %.0f%%, zero %.0f%%",
                          share(figures.from_peer), share(figures.from_base), share(figures.zeros));
  }
  return line;
}

Progress::~Progress() {
  if (style_ == Style::kTerminal && line_length_ > 0) std::fputs("\n", stderr);
}

Progress::Style Progress::StyleOfStderr(bool silent) {
  if (silent) return Style::kSilent;
  return isatty(STDERR_FILENO) != 0 ? Style::kTerminal : Style::kPlain;
}

void Progress::Show(const FetchFigures& figures, absl::Time now) {
  if (style_ == Style::kSilent) return;
  if (!started_) {
    started_ = shown_ = now;
    shown_done_ = figures.total_done;
    return;
  }
  const absl::Duration since = now - shown_;
  if (since < (style_ == Style::kTerminal ? kTerminalEvery : kPlainEvery)) return;
  const double latest =
      static_cast<double>(figures.total_done - shown_done_) / absl::ToDoubleSeconds(since);
  rate_ = rate_ == 0 ? latest : rate_ + kSmoothing * (latest - rate_);
  shown_ = now;
  shown_done_ = figures.total_done;
  std::string line = ProgressLine(figures, rate_);
  if (style_ == Style::kPlain) {
    std::fprintf(stderr, "%s\n", line.c_str());
    return;
  }
  const size_t length = line.size();
  if (length < line_length_) line.append(line_length_ - length, ' ');
  line_length_ = length;
  std::fprintf(stderr, "\r%s", line.c_str());
  std::fflush(stderr);
}

}  // namespace peerchunk::cli
