#include "peerchunk/node/tune_process.h"

#include <malloc.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "peerchunk/base/range.h"
#include "tests/support/resident_memory.h"

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

// What malloc does not do as it was told, in a process that has done nothing else yet.
std::string WrongWithMalloc() {
  const auto is_mapped = [](size_t bytes) {
    const size_t before = mallinfo2().hblks;
    void* volatile block = std::malloc(bytes);  // Not to be optimized away with its free.
    const bool mapped = mallinfo2().hblks > before;
    std::free(block);
    return mapped;
  };
  // An untuned malloc takes the size of a mapping that is freed for its next limit.
  if (!is_mapped(24 * kMiB) || !is_mapped(16 * kMiB)) return "16 MiB are not mapped";
  if (is_mapped(4 * kMiB)) return "4 MiB are mapped";
  std::vector<std::unique_ptr<char[]>> blocks;
  const auto take_one = [&] { blocks.push_back(std::make_unique_for_overwrite<char[]>(kMiB)); };
  malloc_trim(0);
  const size_t before = mallinfo2().arena;
  while (mallinfo2().arena == before) take_one();
  if (mallinfo2().arena - before < 16 * kMiB) return "the system is asked for little at a time";
  for (int i = 0; i < 64; ++i) take_one();
  const size_t most = mallinfo2().arena;
  blocks.clear();
  if (mallinfo2().arena != most) return "what is freed is given back";
  return "";
}

TEST_F(TuneProcessTest, MallocKeepsWhatWasFreedAndMapsOnlyWhatIsLarge) {
  if (test::kUnderAsan) GTEST_SKIP() << "its malloc is not glibc's";
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // In a new process, which nobody has tuned.
  EXPECT_EXIT(
      {
        TuneProcess();
        const std::string wrong = WrongWithMalloc();
        std::fputs(wrong.c_str(), stderr);
        std::exit(wrong.empty() ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

TEST_F(TuneProcessTest, WhatTheOperatorHasSetStays) {
  setenv(kPolling, "epoll1", 1);
  TuneProcess();
  EXPECT_STREQ(std::getenv(kPolling), "epoll1");
}

}  // namespace
}  // namespace peerchunk
