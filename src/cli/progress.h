#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <absl/time/time.h>

namespace peerchunk::cli {

// What a fetch has done so far.
struct FetchFigures {
  std::string file;
  uint64_t total_size = 0;
  uint64_t total_done = 0;
  uint64_t from_peer = 0;
  uint64_t from_base = 0;
  uint64_t zeros = 0;
};

// One line: how far, how fast over the latest seconds, how long still, and from where.
std::string ProgressLine(const FetchFigures& figures, double bytes_per_second);

// Shows a fetch on stderr: one line that is rewritten on a terminal, a plain line every few seconds
// otherwise. Used by one thread.
class Progress {
 public:
  enum class Style { kTerminal, kPlain, kSilent };
  explicit Progress(Style style) : style_(style) {}
  ~Progress();  // Leaves the terminal's line free.

  static Style StyleOfStderr(bool silent);

  void Show(const FetchFigures& figures, absl::Time now);

 private:
  const Style style_;
  std::optional<absl::Time> started_;
  absl::Time shown_;
  uint64_t shown_done_ = 0;
  double rate_ = 0;  // Of the latest seconds, smoothed.
  size_t line_length_ = 0;
};

}  // namespace peerchunk::cli
