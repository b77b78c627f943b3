#include "base/default_paths.h"

#include <filesystem>

#include <gtest/gtest.h>

namespace peerchunk {
namespace {

TEST(DefaultPathsTest, OnePathForAFolderHoweverItIsWritten) {
  for (const char* const written : {"/srv/base", "/srv/base/", "/srv//base//", "/srv/./base/.",
                                    "/srv/base/../base/", "/srv/other/../base"}) {
    EXPECT_EQ(AbsolutePath(written), "/srv/base") << written;
  }
  const std::string here = std::filesystem::current_path().string();
  EXPECT_EQ(AbsolutePath("a/"), here + "/a");
  EXPECT_EQ(AbsolutePath("."), here);
}

TEST(DefaultPathsTest, TheRootAndNothingStayWhatTheyAre) {
  EXPECT_EQ(AbsolutePath("/"), "/");
  EXPECT_EQ(AbsolutePath(""), "");
}

}  // namespace
}  // namespace peerchunk
