// peerchunk fetch as a process: sources that die, disks that fill, people who lose patience.
#include <sys/mount.h>

#include <filesystem>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/fault_proxy.h"
#include "tests/support/held_port.h"
#include "tests/support/tool_fixture.h"

namespace peerchunk {
namespace {

using test::ChildProcess;
using test::DaemonProcess;
using test::Finished;
using test::kSlowBase;
using test::Peerchunk;
using test::RunProgram;
using testing::HasSubstr;

using PeerchunkFetchTest = test::ToolFixture;

TEST_F(PeerchunkFetchTest, FetchWithoutADaemonReadsTheSourceThenTheBase) {
  DaemonProcess a(Path("a"), Path("base"), kSlowBase);
  const test::TestBuild build = PauseOn(a);
  const std::string id = build.id.ToString();
  const Finished fetched = RunProgram(Peerchunk({"--json", "fetch", id, "--base", Path("base"),
                                                 "--source", a.address(), "--out", Path("got")}));
  ASSERT_EQ(fetched.exit_code, 0) << fetched.err;
  const nlohmann::json json = nlohmann::json::parse(fetched.out);
  EXPECT_GT(json["bytes_from_peer"], 0u);
  EXPECT_EQ(json["bytes"], json["bytes_from_peer"]);
  ExpectFetched(build, "got");
  // Again into the same folder: nothing to do. Over something else: only when told.
  EXPECT_EQ(RunProgram(Peerchunk({"fetch", id, "--base", Path("base"), "--source", a.address(),
                                  "--out", Path("got")}))
                .exit_code,
            0);
  FlipByte(Path("got/rootfs.ext4"), 0);
  const Finished occupied = RunProgram(Peerchunk(
      {"fetch", id, "--base", Path("base"), "--source", a.address(), "--out", Path("got")}));
  EXPECT_EQ(occupied.exit_code, 1);
  EXPECT_THAT(occupied.err, HasSubstr("rootfs.ext4 is there and differs"));
  EXPECT_EQ(RunProgram(Peerchunk({"fetch", id, "--base", Path("base"), "--source", a.address(),
                                  "--out", Path("got"), "--overwrite"}))
                .exit_code,
            0);
  ExpectFetched(build, "got");
}

TEST_F(PeerchunkFetchTest, ReadFromPeerOrBaseOnly) {
  DaemonProcess a(Path("a"), Path("base"));
  const test::TestBuild build = PauseOn(a);
  Durable(a, build);
  const std::string id = build.id.ToString();
  const auto fetch = [&](const std::string& read_from, const std::string& out) {
    const Finished fetched =
        RunProgram(Peerchunk({"--json", "fetch", id, "--base", Path("base"), "--source",
                              a.address(), "--read-from", read_from, "--out", Path(out)}));
    EXPECT_EQ(fetched.exit_code, 0) << fetched.err;
    ExpectFetched(build, out);
    return nlohmann::json::parse(fetched.out);
  };
  EXPECT_EQ(fetch("base", "b")["bytes_from_peer"], 0u);
  EXPECT_EQ(fetch("peer", "p")["bytes_from_base"], 0u);
}

TEST_F(PeerchunkFetchTest, FetchOfABuildThatIsNowhereMakesNoFiles) {
  DaemonProcess a(Path("a"), Path("base"));
  const Finished fetched =
      RunProgram(Peerchunk({"fetch", "aaaaaaaa-0000-4000-8000-000000000001", "--base", Path("base"),
                            "--source", a.address(), "--out", Path("got")}));
  EXPECT_EQ(fetched.exit_code, 1);
  EXPECT_THAT(fetched.err, HasSubstr("no source has this build"));
  EXPECT_TRUE(std::filesystem::is_empty(Path("got")));
  const Finished no_base = RunProgram(Peerchunk({"fetch", "aaaaaaaa-0000-4000-8000-000000000001",
                                                 "--base", Path("nowhere"), "--out", Path("got")}));
  EXPECT_EQ(no_base.exit_code, 1);
  EXPECT_THAT(no_base.err, HasSubstr(Path("nowhere")));
  EXPECT_FALSE(std::filesystem::exists(Path("nowhere")));
}

TEST_F(PeerchunkFetchTest, AFetchWhoseOnlySourceIsDeadEndsWithBothCauses) {
  const test::HeldPort nobody;
  const ChildProcess::Spec fetch =
      Peerchunk({"fetch", "aaaaaaaa-0000-4000-8000-000000000001", "--base", Path("base-of-b"),
                 "--source", nobody.address(), "--out", Path("got"), "--patience", "2"});
  const Finished fetched = RunProgram(fetch);
  EXPECT_EQ(fetched.exit_code, 1);
  EXPECT_THAT(fetched.err, HasSubstr(Path("base-of-b")));  // It has to exist.
  std::filesystem::create_directory(Path("base-of-b"));
  const Finished patient = RunProgram(fetch);
  EXPECT_EQ(patient.exit_code, 1);
  EXPECT_THAT(patient.err, HasSubstr(nobody.address()));
  EXPECT_TRUE(std::filesystem::is_empty(Path("got")));
}

// The source dies at some byte of the transfer, while its own upload is far from over; the reader's
// base has the files all the same.
TEST_F(PeerchunkFetchTest, AFetchWhoseSourceIsKilledGoesOnFromTheBase) {
  const test::TestBuild build =
      test::MakeTestBuild({.memfile_bytes = 64u << 20, .rootfs_bytes = 8u << 20, .seed = 9});
  build.WriteTo(folder_, "snapshot");
  {
    DaemonProcess uploader(Path("uploader"), Path("base"));
    EXPECT_EQ(uploader.Tool({"pause", "--folder", Path("snapshot")}).exit_code, 0);
    EXPECT_EQ(uploader.Stop(), 0);
  }
  for (const uint32_t percent : {0u, 1u, 25u, 50u, 75u}) {
    SCOPED_TRACE(percent);
    const std::string name = std::to_string(percent);
    DaemonProcess a(Path("a" + name), Path("other-base" + name), kSlowBase);
    EXPECT_EQ(a.Tool({"pause", "--folder", Path("snapshot")}).exit_code, 0);
    // Killed while the byte after the goal is under way.
    test::FaultProxy proxy(a.address());
    const uint64_t goal = build.files.at(FileKind::kMemfile).size() * percent / 100;
    proxy.HoldAfter(goal);
    ChildProcess fetch(Peerchunk({"--json", "fetch", build.id.ToString(), "--base", Path("base"),
                                  "--source", proxy.address(), "--out", Path("got" + name)}));
    EXPECT_TRUE(proxy.AwaitHeld());
    a.process().Signal(SIGKILL);
    a.process().Wait();
    proxy.Release();
    EXPECT_EQ(fetch.Wait(), 0) << fetch.err();
    ExpectFetched(build, "got" + name);
    const nlohmann::json json = nlohmann::json::parse(fetch.out());
    // Less what was cut: a message, and what is around the bytes on the wire.
    EXPECT_GE(json["bytes_from_peer"].get<uint64_t>() + (2u << 20), goal);
    EXPECT_GT(json["bytes_from_base"], 0u);
  }
}

TEST_F(PeerchunkFetchTest, AnInterruptedFetchLeavesNoFile) {
  test::TestBuild build;
  {
    DaemonProcess a(Path("a"), Path("base"));
    build = PauseOn(a);
    Durable(a, build);
  }
  DaemonProcess slow(Path("b"), Path("base"), {"--base-read-rate", "64KiB"});
  ChildProcess fetch(slow.ToolSpec({"fetch", build.id.ToString(), "--out", Path("got")}));
  while (!std::filesystem::exists(Path("got"))) sched_yield();
  fetch.Signal(SIGINT);
  EXPECT_EQ(fetch.Wait(), 130);
  EXPECT_THAT(fetch.err(), HasSubstr("interrupted"));
  // The daemon works for the tool; it notices within a moment that nobody waits any more.
  const auto files = [&] {
    return std::distance(std::filesystem::directory_iterator(Path("got")),
                         std::filesystem::directory_iterator());
  };
  while (files() > 0) sched_yield();
}

TEST_F(PeerchunkFetchTest, AFullDiskIsAClearErrorAndLeavesNothing) {
  DaemonProcess a(Path("a"), Path("base"), kSlowBase);
  const test::TestBuild build = PauseOn(a);
  folder_.Write("small/x", "");
  if (mount("tmpfs", Path("small").c_str(), "tmpfs", 0, "size=1m") != 0) {
    GTEST_SKIP() << "no tmpfs may be mounted here";
  }
  const Finished fetched =
      RunProgram(Peerchunk({"fetch", build.id.ToString(), "--base", Path("base"), "--source",
                            a.address(), "--out", Path("small")}));
  const bool empty = std::filesystem::is_empty(Path("small"));
  umount2(Path("small").c_str(), MNT_DETACH);
  EXPECT_EQ(fetched.exit_code, 1);
  EXPECT_THAT(fetched.err, HasSubstr("No space left on device"));
  EXPECT_THAT(fetched.err, HasSubstr("fetch " + build.id.ToString()));
  EXPECT_TRUE(empty);
}

TEST_F(PeerchunkFetchTest, AFilesystemOnlyBuildGoesThroughEverything) {
  DaemonProcess a(Path("a"), Path("base"));
  const test::TestBuild build = PauseOn(a, {.memfile_bytes = 0, .seed = 7});
  Durable(a, build);
  const std::string id = build.id.ToString();
  EXPECT_EQ(a.Tool({"verify", id}).exit_code, 0);
  EXPECT_EQ(
      RunProgram(Peerchunk({"fetch", id, "--base", Path("base"), "--out", Path("got")})).exit_code,
      0);
  ExpectFetched(build, "got");
}

}  // namespace
}  // namespace peerchunk
