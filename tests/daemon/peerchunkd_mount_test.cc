// Mounts that a real daemon makes. Skipped, with the reason, where there is no FUSE.
#include <sched.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <system_error>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/test_build.h"
#include "tests/support/tool_fixture.h"

namespace peerchunk {
namespace {

using test::DaemonProcess;
using test::Finished;
using test::operator+;
using test::RunProgram;
using testing::HasSubstr;

// Not TempDir::Read, which keeps below a folder and so does not cross into a mount.
std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

class PeerchunkdMountTest : public testing::Test {
 protected:
  PeerchunkdMountTest()
      : a_(folder_.PathOf("a"), folder_.PathOf("base"), test::kSlowBase),
        b_(folder_.PathOf("b"), folder_.PathOf("base")) {
    build_.WriteTo(folder_, "snapshot");
    EXPECT_EQ(a_.Tool({"pause", "--folder", folder_.PathOf("snapshot")}).exit_code, 0);
  }

  // False: no mounts here; the test is skipped.
  bool Mount() {
    mounted_ = b_.Tool({"mount", build_.id.ToString(), mount_path_, "--source", a_.address()});
    return mounted_.exit_code == 0;
  }
  bool CannotMountHere() const {
    return mounted_.err.find("FUSE") != std::string::npos ||
           mounted_.err.find("libfuse3") != std::string::npos;
  }

  test::TempDir folder_;
  const std::string mount_path_ = folder_.PathOf("mnt");
  const test::TestBuild build_ = test::MakeTestBuild({});
  DaemonProcess a_;
  DaemonProcess b_;
  Finished mounted_;
};

#define PEERCHUNK_MOUNT_OR_SKIP()                   \
  if (!Mount()) {                                   \
    ASSERT_TRUE(CannotMountHere()) << mounted_.err; \
    GTEST_SKIP() << mounted_.err;                   \
  }                                                 \
  static_assert(true)

TEST_F(PeerchunkdMountTest, AMountShowsTheDevicesAndEndsWhenTold) {
  PEERCHUNK_MOUNT_OR_SKIP();
  EXPECT_TRUE(ReadFile(mount_path_ + "/memfile") == build_.memfile);
  EXPECT_TRUE(ReadFile(mount_path_ + "/rootfs.ext4") == build_.rootfs);
  EXPECT_EQ(ReadFile(mount_path_ + "/snapfile"), build_.files.at(FileKind::kSnapfile));
  EXPECT_EQ(ReadFile(mount_path_ + "/metadata.json"), build_.files.at(FileKind::kMetadata));

  const std::string id = build_.id.ToString();
  const nlohmann::json shown = b_.Json({"inspect", id});
  EXPECT_EQ(shown["mount_path"], mount_path_);
  uint64_t from_peer = 0;
  for (const nlohmann::json& layer : shown["layers"]) {
    from_peer += layer["bytes_from_peer"].get<uint64_t>();
    EXPECT_EQ(layer["bytes_from_base"], 0u);
  }
  EXPECT_GT(from_peer, 0u);
  EXPECT_GT(shown["bytes_zero"], 0u);
  EXPECT_EQ(b_.Json({"status"})["mounts"][0], mount_path_);

  const std::string second_path = folder_.PathOf("second");
  const Finished second = b_.Tool({"mount", id, second_path});
  EXPECT_THAT(second.out, HasSubstr("mounted  " + second_path + "\n"));
  EXPECT_EQ(b_.Tool({"umount", second_path}).exit_code, 0);
  const Finished twice = b_.Tool({"mount", id, mount_path_, "--source", a_.address()});
  EXPECT_EQ(twice.exit_code, 1);
  const Finished removed = b_.Tool({"rm", id});
  EXPECT_EQ(removed.exit_code, 1);
  EXPECT_THAT(removed.err, HasSubstr("is mounted at " + mount_path_));

  EXPECT_EQ(b_.Tool({"umount", mount_path_}).exit_code, 0);
  EXPECT_FALSE(std::filesystem::exists(mount_path_ + "/memfile"));
  const Finished again = b_.Tool({"umount", mount_path_});
  EXPECT_EQ(again.exit_code, 1);
  EXPECT_THAT(again.err, HasSubstr("not a mount of this daemon"));
  EXPECT_EQ(b_.Tool({"rm", id}).exit_code, 0);
}

TEST_F(PeerchunkdMountTest, OneMountHoweverItsPathIsWritten) {
  PEERCHUNK_MOUNT_OR_SKIP();
  std::filesystem::create_directory_symlink(folder_.path(), folder_.PathOf("link"));
  const std::string id = build_.id.ToString();
  const std::string through_link = folder_.PathOf("link/mnt");
  const Finished twice = b_.Tool({"mount", id, through_link});
  EXPECT_EQ(twice.exit_code, 1);
  EXPECT_THAT(twice.err, HasSubstr(mount_path_ + " is a mount of this daemon already"));
  EXPECT_EQ(b_.Tool({"umount", through_link}).exit_code, 0);
  EXPECT_EQ(b_.Tool({"mount", id, through_link + "/"}).exit_code, 0);
  EXPECT_EQ(b_.Json({"status"})["mounts"][0], mount_path_);
  EXPECT_EQ(b_.Tool({"umount", mount_path_}).exit_code, 0);
  EXPECT_TRUE(std::filesystem::is_empty(mount_path_));
}

TEST_F(PeerchunkdMountTest, AResumeWhoseFetchFailsLeavesNoMount) {
  PEERCHUNK_MOUNT_OR_SKIP();
  EXPECT_EQ(b_.Tool({"umount", mount_path_}).exit_code, 0);
  folder_.Write("occupied/rootfs.ext4", "something else");
  const std::vector<std::string> resume = {
      "resume", build_.id.ToString(), "--source", a_.address(), "--mount", mount_path_, "--fetch"};
  std::vector<std::string> occupied = resume;
  occupied.push_back(folder_.PathOf("occupied"));
  const Finished failed = b_.Tool(occupied);
  EXPECT_EQ(failed.exit_code, 1);
  EXPECT_THAT(failed.err, HasSubstr("rootfs.ext4 is there and differs"));
  EXPECT_TRUE(std::filesystem::is_empty(mount_path_));
  EXPECT_TRUE(b_.Json({"status"})["mounts"].empty());
  std::vector<std::string> free = resume;
  free.push_back(folder_.PathOf("free"));
  EXPECT_EQ(b_.Tool(free).exit_code, 0);
  EXPECT_TRUE(ReadFile(mount_path_ + "/memfile") == build_.memfile);
  EXPECT_EQ(folder_.Read("free/metadata.json"), build_.files.at(FileKind::kMetadata));
  EXPECT_EQ(b_.Tool({"umount", mount_path_}).exit_code, 0);
}

TEST_F(PeerchunkdMountTest, ADaemonThatLeavesTakesItsMountsAlong) {
  PEERCHUNK_MOUNT_OR_SKIP();
  EXPECT_TRUE(std::filesystem::exists(mount_path_ + "/memfile"));
  EXPECT_EQ(b_.Stop(), 0);
  EXPECT_TRUE(std::filesystem::is_empty(mount_path_));
}

// The call opens a pipe that nobody writes to, and its end is waited for.
TEST_F(PeerchunkdMountTest, MountsEndThoughACallHangs) {
  PEERCHUNK_MOUNT_OR_SKIP();
  ASSERT_TRUE(std::filesystem::create_directory(folder_.PathOf("got")));
  ASSERT_EQ(mkfifo(folder_.PathOf("got/rootfs.ext4").c_str(), 0600), 0);
  test::ChildProcess fetch(b_.ToolSpec(
      {"fetch", build_.id.ToString(), "--source", a_.address(), "--out", folder_.PathOf("got")}));
  while (!std::filesystem::exists(folder_.PathOf("got/memfile"))) sched_yield();
  b_.process().Signal(SIGTERM);
  std::error_code ends;  // While it is unmounted it cannot be looked into.
  while (!std::filesystem::is_empty(mount_path_, ends)) sched_yield();
  b_.process().Signal(SIGTERM);
  EXPECT_EQ(b_.process().Wait(), 0);
}

TEST_F(PeerchunkdMountTest, AMountOfAKilledDaemonIsTakenOver) {
  PEERCHUNK_MOUNT_OR_SKIP();
  // The kernel remembers the attributes for a while, and answers for the dead.
  EXPECT_TRUE(std::filesystem::is_directory(mount_path_));
  b_.process().Signal(SIGKILL);
  b_.process().Wait();
  DaemonProcess again(folder_.PathOf("b"), folder_.PathOf("base"));
  const Finished mounted =
      again.Tool({"mount", build_.id.ToString(), mount_path_, "--source", a_.address()});
  EXPECT_EQ(mounted.exit_code, 0) << mounted.err;
  EXPECT_TRUE(ReadFile(mount_path_ + "/rootfs.ext4") == build_.rootfs);
  EXPECT_EQ(again.Stop(), 0);
}

// Without root, through fusermount3: /dev/fuse has to be open to everyone, and the user has to have
// a name.
TEST_F(PeerchunkdMountTest, AUserMountsTooAndTakesOverWhatAKilledDaemonLeft) {
  struct stat device {};
  const std::vector<std::string> as_user = {"--reuid", "nobody", "--clear-groups"};
  const auto spec = [&](const test::ChildProcess::Spec& program) {
    std::vector<std::string> arguments = as_user + std::vector<std::string>{program.program};
    return test::ChildProcess::Spec{.program = "/usr/bin/setpriv",
                                    .arguments = arguments + program.arguments};
  };
  if (stat("/dev/fuse", &device) != 0 || (device.st_mode & 06) != 06 ||
      RunProgram(spec(test::Peerchunkd({"--help"}))).exit_code != 0) {
    GTEST_SKIP() << "no other user, or none that may open /dev/fuse";
  }
  folder_.Write("user/x", "");
  for (const std::string& open : {folder_.PathOf(""), folder_.PathOf("user")}) {
    std::filesystem::permissions(open, std::filesystem::perms::all);
  }
  const std::string mount = folder_.PathOf("user/mnt");
  const std::string data = folder_.PathOf("user/data");
  const auto daemon = [&] {
    auto started = std::make_unique<test::ChildProcess>(
        spec(test::Peerchunkd({"--data-folder", data, "--listen", "127.0.0.1:0"})));
    started->WaitForLine("ready");
    return started;
  };
  const auto tool = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--control", data + "/control.sock"});
    const Finished finished = RunProgram(spec(test::Peerchunk(std::move(arguments))));
    EXPECT_EQ(finished.exit_code, 0) << finished.err;
    // What the user sees in it; root may not look into a user's mount.
    return RunProgram(spec({.program = "/bin/cat", .arguments = {mount + "/memfile"}})).out;
  };
  const std::vector<std::string> mounting = {"mount", build_.id.ToString(), mount, "--source",
                                             a_.address()};
  auto first = daemon();
  EXPECT_TRUE(tool(mounting) == build_.memfile);
  first->Signal(SIGKILL);
  first->Wait();
  auto second = daemon();
  EXPECT_TRUE(tool(mounting) == build_.memfile);
  EXPECT_EQ(tool({"umount", mount}), "");
  EXPECT_TRUE(tool(mounting) == build_.memfile);
  second->Signal(SIGTERM);
  EXPECT_EQ(second->Wait(), 0);
  EXPECT_TRUE(std::filesystem::is_empty(mount));
}

}  // namespace
}  // namespace peerchunk
