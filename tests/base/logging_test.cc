#include "base/logging.h"

#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

namespace peerchunk {
namespace {

TEST(LoggerTest, ModuleHasOneLoggerUnderItsName) {
  spdlog::logger& logger = Logger("logging-test-a");
  EXPECT_EQ(&logger, &Logger("logging-test-a"));
  EXPECT_EQ(logger.name(), "logging-test-a");
  EXPECT_EQ(spdlog::get("logging-test-a").get(), &logger);
  EXPECT_NE(&logger, &Logger("logging-test-b"));
}

TEST(LoggerTest, LoggerOfTheProgramIsTaken) {
  const auto own = std::make_shared<spdlog::logger>("logging-test-own");
  spdlog::register_logger(own);
  EXPECT_EQ(&Logger("logging-test-own"), own.get());
}

TEST(LoggerTest, LinesAreKeysAndValues) {
  spdlog::logger& logger = Logger("logging-test-lines");
  testing::internal::CaptureStderr();
  logger.warn("event=fallback reason={}", "stall");
  const std::string line = testing::internal::GetCapturedStderr();
  EXPECT_EQ(line.rfind("time=", 0), 0u) << line;
  EXPECT_NE(line.find(" level=warning module=logging-test-lines event=fallback reason=stall\n"),
            std::string::npos)
      << line;
}

TEST(LoggerTest, ThreadsAskingAtOnceGetOneLogger) {
  std::vector<spdlog::logger*> loggers(8);
  std::vector<std::thread> threads;
  for (spdlog::logger*& logger : loggers) {
    threads.emplace_back([&logger] { logger = &Logger("logging-test-race"); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const spdlog::logger* logger : loggers) EXPECT_EQ(logger, loggers[0]);
}

}  // namespace
}  // namespace peerchunk
