#include "node/open_base.h"

#include <cstdlib>
#include <memory>
#include <stop_token>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "peerchunk/base/clock.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"
#include "tests/support/gcs/fake_gcs.h"
#include "tests/support/gcs/fake_gcs_server.h"
#include "tests/support/sample_bytes.h"
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

// What a process began to upload to a bucket the next one finishes: by the state folder.
TEST(OpenBaseTest, UploadToABucketOutlivesItsProcess) {
  std::stop_source suspend, cancel;
  FakeGcs fake({.while_stalled = [&] {
    suspend.request_stop();
    cancel.request_stop();
  }});
  const FakeGcsServer server(fake);
  ASSERT_EQ(::setenv("STORAGE_EMULATOR_HOST_GRPC", server.address().c_str(), 1), 0);
  TempDir dir;
  const std::string bytes = SampleBytes(9 * kMiB, 1);
  const std::string file = dir.Write("file", bytes);
  const BaseOptions base{.location = "gs://bucket", .state_folder = dir.PathOf("state")};
  WriteOptions options;
  options.if_absent = true;
  options.cancellation = cancel.get_token();
  options.suspension = suspend.get_token();
  fake.Inject({GcsRpc::kWriteObject, GcsFault::Kind::kStall, absl::StatusCode::kOk, 1});
  const auto store = [&]() -> absl::Status {
    PEERCHUNK_ASSIGN_OR_RETURN(const std::shared_ptr<StorageProvider> bucket, OpenBase(base));
    PEERCHUNK_ASSIGN_OR_RETURN(const auto object, bucket->OpenSeekable("a/object"));
    return object->StoreFile(file, options).status();
  };
  EXPECT_EQ(CodeOf(store()), absl::StatusCode::kCancelled);
  options.cancellation = {};
  EXPECT_OK(store());
  EXPECT_TRUE(fake.Bytes("a/object") == bytes);
  EXPECT_EQ(fake.CallsOf(GcsRpc::kStartResumableWrite), 1u);
  EXPECT_EQ(fake.CallsOf(GcsRpc::kCancelResumableWrite), 0u);
  ::unsetenv("STORAGE_EMULATOR_HOST_GRPC");
}

}  // namespace
}  // namespace peerchunk::test
