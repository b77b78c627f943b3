#pragma once

#include <string_view>

#include <spdlog/logger.h>

namespace peerchunk {

// The logger of one module ("peer", "service", ...), writing lines of key=value to stderr:
//   Logger("peer").warn("event=fallback peer={} reason={}", address, reason);
// It is registered with spdlog under the module's name, where a program may set its level or
// replace its sinks. No payload bytes and no credentials in a message. Thread-safe; lives for ever.
spdlog::logger& Logger(std::string_view module);

}  // namespace peerchunk
