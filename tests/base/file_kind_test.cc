#include "peerchunk/base/file_kind.h"

#include <set>

#include <gtest/gtest.h>

namespace peerchunk {
namespace {

TEST(FileKindTest, NamesRoundTripAndDiffer) {
  std::set<std::string_view> names;
  for (const FileKind kind : kAllFileKinds) {
    EXPECT_EQ(ParseFileName(FileName(kind)), kind);
    names.insert(FileName(kind));
  }
  EXPECT_EQ(names.size(), kAllFileKinds.size());
}

TEST(FileKindTest, OtherNamesAreNoKind) {
  for (const std::string_view name :
       {"", "memfile ", "Memfile", "memfile.zstd", "rootfs", "../memfile", "metadata"}) {
    EXPECT_EQ(ParseFileName(name), std::nullopt) << name;
  }
  EXPECT_EQ(FileName(static_cast<FileKind>(99)), "");
}

TEST(FileKindTest, DiffsAreSeekableAndHaveHeaders) {
  for (const FileKind kind : kAllFileKinds) {
    EXPECT_FALSE(IsSeekable(kind) && IsHeader(kind));
    if (IsSeekable(kind)) {
      EXPECT_EQ(FileName(HeaderOf(kind)), std::string(FileName(kind)) + ".header");
    }
  }
}

TEST(BuildFileIdTest, ObjectPathRoundTrips) {
  for (const FileKind kind : kAllFileKinds) {
    const BuildFileId file{BuildId::Random(), kind};
    EXPECT_EQ(BuildFileId::FromObjectPath(file.ObjectPath()), file);
  }
}

TEST(BuildFileIdTest, OtherPathsAreNoBuildFile) {
  const std::string build = BuildId::Random().ToString();
  for (const std::string& path :
       {std::string(), build, build + "/", build + "/other", build + "//memfile",
        build + "/memfile/", "x" + build + "/memfile", build + "memfile", "memfile/" + build}) {
    EXPECT_EQ(BuildFileId::FromObjectPath(path), std::nullopt) << path;
  }
}

}  // namespace
}  // namespace peerchunk
