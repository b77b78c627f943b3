#include "peerchunk/node/tune_process.h"

#include <cstdlib>
#include <optional>
#include <string>

#include <gtest/gtest.h>

namespace peerchunk {
namespace {

constexpr char kPolling[] = "GRPC_POLL_STRATEGY";

class TuneProcessTest : public testing::Test {
 protected:
  TuneProcessTest() {
    if (const char* const before = std::getenv(kPolling)) before_ = before;
  }
  ~TuneProcessTest() override {
    unsetenv(kPolling);
    if (before_) setenv(kPolling, before_->c_str(), 1);
  }

 private:
  std::optional<std::string> before_;
};

TEST_F(TuneProcessTest, QueuesPollForThemselves) {
  unsetenv(kPolling);
  TuneProcess();
  EXPECT_STREQ(std::getenv(kPolling), "poll");
}

TEST_F(TuneProcessTest, WhatTheOperatorHasSetStays) {
  setenv(kPolling, "epoll1", 1);
  TuneProcess();
  EXPECT_STREQ(std::getenv(kPolling), "epoll1");
}

}  // namespace
}  // namespace peerchunk
