#include "base/logging.h"

#include <functional>
#include <map>
#include <memory>
#include <string>

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "peerchunk/base/mutex.h"

namespace peerchunk {
namespace {

struct Loggers {
  Mutex mutex;
  std::map<std::string, std::shared_ptr<spdlog::logger>, std::less<>> by_module
      PEERCHUNK_GUARDED_BY(mutex);
};

}  // namespace

spdlog::logger& Logger(std::string_view module) {
  static Loggers& loggers =
      *new Loggers();  // Never destroyed: logged to until the last thread ends.
  const MutexLock lock(loggers.mutex);
  if (const auto found = loggers.by_module.find(module); found != loggers.by_module.end()) {
    return *found->second;
  }
  std::string name(module);
  std::shared_ptr<spdlog::logger> logger = spdlog::get(name);  // The program may have made its own.
  if (logger == nullptr) {
    logger =
        std::make_shared<spdlog::logger>(name, std::make_shared<spdlog::sinks::stderr_sink_mt>());
    spdlog::initialize_logger(logger);  // Registers it and applies the program's levels.
    logger->flush_on(spdlog::level::warn);
    logger->set_pattern("time=%Y-%m-%dT%H:%M:%S.%e%z level=%l module=%n %v");
  }
  return *loggers.by_module.emplace(std::move(name), std::move(logger)).first->second;
}

}  // namespace peerchunk
