#include "mount/mount_point.h"

#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/status_asserts.h"
#include "tests/support/temp_dir.h"

namespace peerchunk {
namespace {

using test::CodeOf;
using ::testing::HasSubstr;

TEST(ParseMountTableTest, FieldsAreFoundWithAndWithoutOptionalOnes) {
  const auto entries = ParseMountTable(
      "22 27 0:21 / /proc rw,relatime shared:5 master:1 - proc proc rw\n"
      "40 27 0:53 / /mnt/vm rw - fuse.peerchunk peerchunk:abc rw,user_id=0\n");
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0].path, "/proc");
  EXPECT_EQ(entries[0].type, "proc");
  EXPECT_EQ(entries[1].path, "/mnt/vm");
  EXPECT_EQ(entries[1].device, "0:53");
  EXPECT_EQ(entries[1].type, "fuse.peerchunk");
  EXPECT_EQ(entries[1].source, "peerchunk:abc");
}

TEST(ParseMountTableTest, EscapesArePlainCharacters) {
  const auto entries = ParseMountTable("1 2 0:3 / /a\\040b\\134c\\011 rw - ext4 /dev/x\\040y rw\n");
  ASSERT_EQ(entries.size(), 1u);
  EXPECT_EQ(entries[0].path, "/a b\\c\t");
  EXPECT_EQ(entries[0].source, "/dev/x y");
}

TEST(ParseMountTableTest, LinesThatAreCutAreLeftOut) {
  EXPECT_TRUE(ParseMountTable("").empty());
  EXPECT_TRUE(ParseMountTable("\n\n1 2 0:3\n").empty());
  EXPECT_TRUE(ParseMountTable("1 2 0:3 / /a rw shared:1\n").empty());
  EXPECT_TRUE(ParseMountTable("1 2 0:3 / /a rw - ext4\n").empty());
  EXPECT_EQ(ParseMountTable("1 2 0:3 / /a\\04 rw - ext4 x\\ rw").at(0).path, "/a\\04");
}

TEST(CheckFuseDeviceTest, MissingDeviceSaysWhatToDo) {
  const test::TempDir folder;
  const absl::Status status = CheckFuseDevice(folder.PathOf("fuse"));
  EXPECT_EQ(CodeOf(status), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("modprobe fuse"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("--device /dev/fuse"));
}

TEST(CheckFuseDeviceTest, DeviceThatOpensIsGood) {
  const test::TempDir folder;
  EXPECT_OK(CheckFuseDevice(folder.Write("fuse", "")));
}

TEST(MountPointTest, MissingFolderIsMade) {
  const test::TempDir folder;
  const auto point = MountPoint::ClaimAt(folder.PathOf("a/b"));
  ASSERT_OK(point);
  EXPECT_EQ(point->path(), folder.PathOf("a/b"));
  EXPECT_TRUE(*folder.folder().Contains("a/b"));
  ASSERT_OK(point->Mounted());
  EXPECT_FALSE(point->Mounted()->has_value());
}

TEST(MountPointTest, ClaimedTwiceIsRefusedAndFreeAgainAfterwards) {
  const test::TempDir folder;
  {
    const auto first = MountPoint::ClaimAt(folder.PathOf("m"));
    ASSERT_OK(first);
    const auto second = MountPoint::ClaimAt(folder.PathOf("m"));
    EXPECT_EQ(CodeOf(second), absl::StatusCode::kAlreadyExists);
    EXPECT_THAT(std::string(second.status().message()), HasSubstr("is in use"));
  }
  EXPECT_OK(MountPoint::ClaimAt(folder.PathOf("m")));
}

TEST(MountPointTest, PathIsMadeAbsoluteAndFreeOfLinks) {
  const test::TempDir folder;
  ASSERT_OK(folder.folder().MakeFolder("real/m"));
  ASSERT_EQ(symlink(folder.PathOf("real").c_str(), folder.PathOf("link").c_str()), 0);
  ASSERT_EQ(symlink(folder.PathOf("real/m").c_str(), folder.PathOf("direct").c_str()), 0);
  const auto through = [&](const std::string& path) {
    const auto point = MountPoint::ClaimAt(folder.PathOf(path));
    return point.ok() ? point->path() : point.status().ToString();
  };
  EXPECT_EQ(through("link/m"), folder.PathOf("real/m"));
  EXPECT_EQ(through("link/./m/"), folder.PathOf("real/m"));
  EXPECT_EQ(through("direct"), folder.PathOf("real/m"));
}

TEST(MountPointTest, OneNameHoweverThePathIsWritten) {
  const test::TempDir folder;
  ASSERT_OK(folder.folder().MakeFolder("real/m"));
  ASSERT_EQ(symlink(folder.PathOf("real").c_str(), folder.PathOf("link").c_str()), 0);
  ASSERT_EQ(symlink(folder.PathOf("real/m").c_str(), folder.PathOf("direct").c_str()), 0);
  for (const std::string path :
       {"real/m", "real/m/", "real//m//", "link/m/", "direct", "direct/"}) {
    EXPECT_EQ(*ResolveMountPath(folder.PathOf(path)), folder.PathOf("real/m")) << path;
  }
  // What is not there yet gets the name that it will have.
  EXPECT_EQ(*ResolveMountPath(folder.PathOf("link/new/m/")), folder.PathOf("real/new/m"));
  EXPECT_EQ(*ResolveMountPath("/"), "/");
}

TEST(MountPointTest, FileInItsPlaceIsRefused) {
  const test::TempDir folder;
  EXPECT_EQ(CodeOf(MountPoint::ClaimAt(folder.Write("m", "x"))),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(CodeOf(MountPoint::ClaimAt("")), absl::StatusCode::kInvalidArgument);
}

TEST(MountPointTest, ForeignMountIsRefused) {
  const auto claimed = MountPoint::ClaimAt("/proc");
  EXPECT_EQ(CodeOf(claimed), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(claimed.status().message()), HasSubstr("proc"));
}

}  // namespace
}  // namespace peerchunk
