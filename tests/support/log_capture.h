#pragma once

#include <algorithm>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>

namespace peerchunk::test {

// Keeps the lines of one logger while it lives, besides where they go anyway. Made and destroyed
// while nobody else logs to it.
class LogCapture {
 public:
  struct Line {
    spdlog::level::level_enum level;
    std::string text;

    bool Has(std::string_view part) const { return text.find(part) != std::string::npos; }
  };

  explicit LogCapture(spdlog::logger& logger) : logger_(logger) {
    logger_.sinks().push_back(sink_);
  }
  ~LogCapture() { std::erase(logger_.sinks(), sink_); }
  LogCapture(const LogCapture&) = delete;
  LogCapture& operator=(const LogCapture&) = delete;

  // Those with this part in them, in order.
  std::vector<Line> With(std::string_view part) const {
    std::vector<Line> lines;
    for (const Line& line : sink_->lines) {
      if (line.Has(part)) lines.push_back(line);
    }
    return lines;
  }

 private:
  struct Sink final : spdlog::sinks::base_sink<std::mutex> {
    void sink_it_(const spdlog::details::log_msg& message) override {
      lines.push_back({message.level, {message.payload.data(), message.payload.size()}});
    }
    void flush_() override {}

    std::vector<Line> lines;
  };

  spdlog::logger& logger_;
  const std::shared_ptr<Sink> sink_ = std::make_shared<Sink>();
};

}  // namespace peerchunk::test
