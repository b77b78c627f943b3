#include "peerchunk/storage/storage.h"

#include <string>

#include <gtest/gtest.h>

#include "tests/support/status_asserts.h"

namespace peerchunk {
namespace {

using test::CodeOf;

TEST(StringSinkTest, BytesAreKeptUpToTheLimit) {
  StringSink sink(10);
  EXPECT_OK(sink.Write("12345"));
  EXPECT_OK(sink.Write(""));
  EXPECT_OK(sink.Write("67890"));
  EXPECT_EQ(CodeOf(sink.Write("x")), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(sink.bytes(), "1234567890");
}

TEST(StringSinkTest, PieceOverTheLimitAddsNothing) {
  StringSink sink(3);
  EXPECT_EQ(CodeOf(sink.Write("1234")), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(sink.bytes(), "");
}

TEST(ExtentTest, PiecesAndZerosAreCopied) {
  const std::string_view pieces[] = {"ab", "", "cde"};
  const Extent data{.offset = 7, .length = 5, .pieces = pieces};
  std::string out(6, '-');
  data.CopyTo(out.data());
  EXPECT_EQ(out, "abcde-");
  const Extent zero{.offset = 0, .length = 3, .zero = true};
  zero.CopyTo(out.data());
  EXPECT_EQ(out, std::string("\0\0\0de-", 6));
}

TEST(CheckObjectPathTest, RelativePathsPass) {
  for (const std::string_view path :
       {"a", "a/b", "6f1c2a52-1111-4222-8333-0123456789ab/memfile", "...", "a/.b", "ä/ö", " a"}) {
    EXPECT_OK(CheckObjectPath(path)) << path;
  }
  EXPECT_OK(CheckObjectPath(std::string(1024, 'a')));
}

TEST(CheckObjectPathTest, OtherPathsAreRefused) {
  for (const std::string_view path :
       {"", "/", "/a", "a/", "a//b", ".", "..", "a/./b", "a/..", "../a", "a\r", "a\nb", "\x7f"}) {
    EXPECT_EQ(CodeOf(CheckObjectPath(path)), absl::StatusCode::kInvalidArgument) << path;
  }
  EXPECT_FALSE(CheckObjectPath(std::string_view("a\0b", 3)).ok());
  EXPECT_FALSE(CheckObjectPath(std::string(1025, 'a')).ok());
}

}  // namespace
}  // namespace peerchunk
