#include "base/temporary_file.h"

#include <fcntl.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/rename.h"
#include "tests/support/status_asserts.h"
#include "tests/support/temp_dir.h"

namespace peerchunk {
namespace {

using test::CodeOf;
using testing::ElementsAre;
using testing::IsEmpty;

class TemporaryFileTest : public testing::Test {
 protected:
  std::vector<std::string> Names() { return *dir_.folder().List(); }
  absl::StatusOr<TemporaryFile> Make(std::string_view bytes) {
    absl::StatusOr<TemporaryFile> made = TemporaryFile::Create(dir_.folder());
    EXPECT_OK(made);
    EXPECT_OK(made->file().WriteAt(0, bytes));
    return made;
  }

  const test::TempDir dir_;
};

TEST_F(TemporaryFileTest, GoesUnlessItWasMovedToItsPlace) {
  {
    auto file = Make("half");
    ASSERT_EQ(Names().size(), 1u);
    EXPECT_TRUE(IsTemporaryName(Names()[0]));
  }
  EXPECT_THAT(Names(), IsEmpty());
  {
    auto file = Make("whole");
    const TemporaryFile moved = *std::move(file);
    EXPECT_EQ(Names().size(), 1u);
  }
  EXPECT_THAT(Names(), IsEmpty());
  EXPECT_OK(Make("whole")->MoveTo(dir_.folder(), "place", false));
  EXPECT_THAT(Names(), ElementsAre("place"));
}

TEST_F(TemporaryFileTest, TakesAPlaceOrLeavesItAsItIsTold) {
  dir_.Write("place", "old");
  EXPECT_EQ(Make("new")->MoveTo(dir_.folder(), "place", true).code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(dir_.Read("place"), "old");
  EXPECT_OK(Make("new")->MoveTo(dir_.folder(), "place", false));
  EXPECT_EQ(dir_.Read("place"), "new");
  EXPECT_THAT(Names(), ElementsAre("place"));
}

TEST_F(TemporaryFileTest, OnlyWhatADeadProcessLeftIsRemoved) {
  const std::string left = TemporaryName();
  dir_.Write(left, "of a dead process");
  dir_.Write(".tmp-notes", "not ours");
  dir_.Write("memfile", "not ours");
  const auto live = Make("of a live one");
  EXPECT_EQ(Names().size(), 4u);
  TemporaryFile::RemoveLeftovers(dir_.folder());
  EXPECT_EQ(Names().size(), 3u);
  EXPECT_FALSE(*dir_.folder().Contains(left));
  EXPECT_TRUE(*dir_.folder().Contains(".tmp-notes"));
  EXPECT_TRUE(*dir_.folder().Contains("memfile"));
}

TEST_F(TemporaryFileTest, OneThatWasMovedIsSafe) {
  auto file = Make("whole");
  ASSERT_OK(file->MoveTo(dir_.folder(), "place", true));
  TemporaryFile::RemoveLeftovers(dir_.folder());
  EXPECT_EQ(dir_.Read("place"), "whole");
}

TEST_F(TemporaryFileTest, AFolderThatIsGoneIsNotFound) {
  ASSERT_OK(dir_.folder().MakeFolder("below"));
  const auto below = dir_.folder().OpenAt("below", O_RDONLY | O_DIRECTORY);
  ASSERT_OK(below);
  ASSERT_OK(dir_.folder().RemoveTree("below"));
  EXPECT_EQ(CodeOf(TemporaryFile::Create(*below)), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace peerchunk
