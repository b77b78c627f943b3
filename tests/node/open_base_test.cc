#include "node/open_base.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "peerchunk/base/clock.h"
#include "tests/support/status_asserts.h"
#include "tests/support/temp_dir.h"

namespace peerchunk::test {
namespace {

using testing::HasSubstr;

TEST(OpenBaseTest, WhatIsNoLocationIsRefusedWithWhatWouldBe) {
  for (const char* location : {"", "base", "s3://bucket", "gs://"}) {
    const auto opened = OpenBase({.location = location});
    EXPECT_EQ(CodeOf(opened), absl::StatusCode::kInvalidArgument) << location;
  }
  EXPECT_THAT(std::string(OpenBase({.location = "base"}).status().message()),
              HasSubstr("gs://BUCKET"));
}

TEST(OpenBaseTest, FolderIsMadeUnlessItMustExist) {
  TempDir dir;
  const std::string folder = dir.PathOf("base");
  EXPECT_EQ(CodeOf(OpenBase({.location = folder, .must_exist = true})),
            absl::StatusCode::kNotFound);
  EXPECT_OK(OpenBase({.location = folder}));
  EXPECT_OK(OpenBase({.location = folder, .must_exist = true}));
}

TEST(OpenBaseTest, RateOfReadsIsForFoldersOnly) {
  TempDir dir;
  EXPECT_OK(OpenBase({.location = dir.path(), .read_bytes_per_second = 1}));
  EXPECT_EQ(CodeOf(OpenBase({.location = "gs://bucket", .read_bytes_per_second = 1})),
            absl::StatusCode::kInvalidArgument);
}

TEST(OpenBaseTest, WritesKeepToTheirRate) {
  TempDir dir;
  auto base = OpenBase({.location = dir.path(), .write_bytes_per_second = 1});
  ASSERT_OK(base);
  auto blob = (*base)->OpenBlob("a/b");
  ASSERT_OK(blob);
  // A hundred seconds' worth, which the caller does not have.
  WriteOptions options;
  options.deadline = Clock::Real().Now();
  EXPECT_OK((*blob)->Put("", {}));
  EXPECT_EQ(CodeOf((*blob)->Put(std::string(100, 'x'), options)),
            absl::StatusCode::kDeadlineExceeded);
}

}  // namespace
}  // namespace peerchunk::test
