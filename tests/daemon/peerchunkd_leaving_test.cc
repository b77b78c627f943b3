// How peerchunkd leaves, and what the next one finds.
#include <sched.h>
#include <sys/stat.h>

#include <filesystem>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/tool_fixture.h"

namespace peerchunk {
namespace {

using test::DaemonProcess;
using test::Finished;
using test::kSlowBase;
using test::operator+;
using testing::HasSubstr;

using PeerchunkdLeavingTest = test::ToolFixture;

TEST_F(PeerchunkdLeavingTest, SigtermWaitsForUploadsAndSaysThatEverythingIsDurable) {
  DaemonProcess daemon(Path("a"), Path("base"));
  const test::TestBuild build = PauseOn(daemon);
  EXPECT_EQ(daemon.Stop(), 0);
  EXPECT_THAT(daemon.process().out(), HasSubstr("every build is durable"));
  EXPECT_TRUE(std::filesystem::exists(Path("base/" + build.id.ToString() + "/metadata.json")));
}

TEST_F(PeerchunkdLeavingTest, WhatIsNotDurableAtTheDeadlineIsListedKeptAndServedAgain) {
  test::TestBuild build;
  {
    DaemonProcess daemon(Path("a"), Path("base"),
                         kSlowBase + std::vector<std::string>{"--drain-timeout", "10ms"});
    build = PauseOn(daemon);
    EXPECT_EQ(daemon.Stop(), 3);
    // Whether the upload has begun by then is up to the disk.
    EXPECT_THAT(
        daemon.process().out(),
        testing::ContainsRegex("not durable: " + build.id.ToString() + " (LOCAL|UPLOADING) in " +
                               Path("a/builds/" + build.id.ToString())));
  }
  DaemonProcess again(Path("a"), Path("base"), kSlowBase);
  DaemonProcess b(Path("b"), Path("base"));
  b.Json({"fetch", build.id.ToString(), "--source", again.address(), "--out", Path("got")});
  ExpectFetched(build, "got");
}

TEST_F(PeerchunkdLeavingTest, WhileDrainingPausesAreRefusedAndASecondSignalLeavesAtOnce) {
  DaemonProcess daemon(Path("a"), Path("base"),
                       kSlowBase + std::vector<std::string>{"--drain-timeout", "inf",
                                                            "--ready-file", Path("ready")});
  const test::TestBuild build = PauseOn(daemon);
  daemon.process().Signal(SIGTERM);
  daemon.process().WaitForLine("draining");
  const test::TestBuild other = test::MakeTestBuild({.seed = 2});
  other.WriteTo(folder_, "other");
  // The first tries may come before the drain has begun.
  Finished refused;
  for (int tries = 0; tries < 100 && refused.exit_code == 0; ++tries) {
    refused = daemon.Tool({"pause", "--folder", Path("other")});
    if (refused.exit_code == 0) daemon.Tool({"rm", other.id.ToString(), "--discard-only-copy"});
  }
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.err, HasSubstr("draining"));
  EXPECT_EQ(daemon.Json({"status"})["draining"], true);
  // Peers are served until the end.
  EXPECT_EQ(daemon.Tool({"probe", daemon.address(), "--build", build.id.ToString()}).exit_code, 0);
  daemon.process().Signal(SIGTERM);
  EXPECT_EQ(daemon.process().Wait(), 3);
  EXPECT_THAT(daemon.process().out(), HasSubstr("not durable: " + build.id.ToString()));
  EXPECT_FALSE(std::filesystem::exists(Path("ready")));
}

// A call that nothing can end: it opens a pipe that nobody writes to.
TEST_F(PeerchunkdLeavingTest, ASignalAfterTheDrainLeavesAtOnceThoughACallHangs) {
  DaemonProcess daemon(Path("a"), Path("base"), {"--ready-file", Path("ready")});
  const test::TestBuild build = PauseOn(daemon);
  Durable(daemon, build);
  ASSERT_TRUE(std::filesystem::create_directory(Path("got")));
  ASSERT_EQ(mkfifo(Path("got/rootfs.ext4").c_str(), 0600), 0);
  test::ChildProcess fetch(daemon.ToolSpec({"fetch", build.id.ToString(), "--out", Path("got")}));
  while (!std::filesystem::exists(Path("got/memfile"))) sched_yield();  // The file before it.
  daemon.process().Signal(SIGTERM);
  EXPECT_EQ(daemon.process().WaitForLine("leaving: "), "every build is durable");
  EXPECT_FALSE(std::filesystem::exists(Path("ready")));
  daemon.process().Signal(SIGTERM);
  EXPECT_EQ(daemon.process().Wait(), 0);
  EXPECT_EQ(fetch.Wait(), 1);
}

TEST_F(PeerchunkdLeavingTest, ASignalEndsAStartThatHangs) {
  std::string build;
  {
    DaemonProcess daemon(Path("a"), Path("base"));
    build = PauseOn(daemon).id.ToString();
    EXPECT_EQ(daemon.Stop(), 0);
  }
  // Its size is asked for at the start, and nobody writes to a pipe in its place.
  const std::string file = Path("a/builds/" + build + "/snapfile");
  ASSERT_TRUE(std::filesystem::remove(file));
  ASSERT_EQ(mkfifo(file.c_str(), 0600), 0);
  test::ChildProcess again(test::Peerchunkd(
      {"--data-folder", Path("a"), "--base", Path("base"), "--listen", "127.0.0.1:0"}));
  again.AwaitBlocked(SIGTERM);
  again.Signal(SIGTERM);
  EXPECT_EQ(again.Wait(), 1);
}

TEST_F(PeerchunkdLeavingTest, AfterSigkillTheSocketOfTheDeadIsTakenOver) {
  test::TestBuild build;
  {
    DaemonProcess daemon(Path("a"), Path("base"), kSlowBase);
    build = PauseOn(daemon);
    daemon.process().Signal(SIGKILL);
    EXPECT_EQ(daemon.process().Wait(), 128 + SIGKILL);
  }
  ASSERT_TRUE(std::filesystem::exists(Path("a/control.sock")));
  DaemonProcess again(Path("a"), Path("base"));
  EXPECT_EQ(again.Tool({"wait", build.id.ToString(), "--timeout", "60"}).exit_code, 0);
}

}  // namespace
}  // namespace peerchunk
