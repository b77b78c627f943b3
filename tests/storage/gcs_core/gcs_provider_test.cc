#include "storage/gcs_core/gcs_provider.h"

#include <string>

#include <gtest/gtest.h>

#include "tests/support/gcs/gcs_fixture.h"
#include "tests/support/status_asserts.h"

namespace peerchunk::test {
namespace {

using Code = absl::StatusCode;
using Kind = GcsFault::Kind;

TEST(ParseGcsUrlTest, BucketWithAndWithoutPrefix) {
  for (const auto& [url, bucket, prefix] :
       {std::tuple{"gs://bucket", "bucket", ""}, std::tuple{"gs://bucket/", "bucket", ""},
        std::tuple{"gs://my-bucket_1.example.com/a", "my-bucket_1.example.com", "a"},
        std::tuple{"gs://bucket/a/b", "bucket", "a/b"},
        std::tuple{"gs://bucket/a/b/", "bucket", "a/b"}}) {
    const absl::StatusOr<GcsUrl> parsed = ParseGcsUrl(url);
    ASSERT_OK(parsed) << url;
    EXPECT_EQ(parsed->bucket, bucket) << url;
    EXPECT_EQ(parsed->prefix, prefix) << url;
  }
}

TEST(ParseGcsUrlTest, AnythingElseIsRefused) {
  for (const char* url :
       {"", "bucket", "gs:/bucket", "gs://", "gs:///a", "s3://bucket", "gs://ab", "gs://Bucket",
        "gs://bucket//", "gs://bucket//a", "gs://bucket/a//b", "gs://bucket/../a",
        "gs://bucket/a\n", "gs://buc ket", "gs://bucket?x", "gs://bucket/a//"}) {
    EXPECT_EQ(CodeOf(ParseGcsUrl(url)), Code::kInvalidArgument) << url;
  }
}

TEST(GcsProviderTest, DescribesItself) {
  GcsFixture gcs;
  EXPECT_EQ(gcs.storage->Describe(), "gs://bucket/base");
  gcs.options.prefix = "";
  gcs.Restart();
  EXPECT_EQ(gcs.storage->Describe(), "gs://bucket");
}

TEST(GcsProviderTest, OptionsThatMakeNoSenseAreRefused) {
  const auto make = [](std::string bucket, std::string prefix) {
    GcsFixture gcs;
    gcs.options.bucket = std::move(bucket);
    gcs.options.prefix = std::move(prefix);
    std::vector<std::unique_ptr<GcsStub>> stubs;
    stubs.push_back(MakeFakeGcsStub(*gcs.fake, "bucket", "0"));
    return MakeGcsContext(gcs.options, std::move(stubs)).status();
  };
  EXPECT_OK(make("bucket", "a/b"));
  for (const auto& [bucket, prefix] :
       {std::pair{"", ""}, std::pair{"bucket", "/a"}, std::pair{"bucket", "a/"},
        std::pair{"bucket/a", ""}, std::pair{"bucket", "a/../b"}}) {
    EXPECT_EQ(CodeOf(make(bucket, prefix)), Code::kInvalidArgument) << bucket << " " << prefix;
  }
}

TEST(GcsProviderTest, PrefixKeepsProvidersApart) {
  GcsFixture gcs;
  gcs.fake->Seed("other/a/object", "theirs");
  gcs.fake->Seed("base2/a/object", "theirs");
  ASSERT_OK(gcs.Put("a/object", "ours"));
  EXPECT_EQ(gcs.fake->Bytes("base/a/object"), "ours");
  const absl::StatusOr<uint64_t> deleted = gcs.storage->DeleteObjectsWithPrefix("a/", {});
  ASSERT_OK(deleted);
  EXPECT_EQ(*deleted, 1u);
  EXPECT_EQ(gcs.fake->Names(), (std::vector<std::string>{"base2/a/object", "other/a/object"}));
}

TEST(GcsProviderTest, NameThatIsTooLongWithThePrefixIsRefused) {
  GcsFixture gcs;
  EXPECT_EQ(CodeOf(gcs.storage->OpenBlob(std::string(1022, 'x'))), Code::kInvalidArgument);
  EXPECT_OK(gcs.storage->OpenBlob(std::string(1019, 'x')));
}

TEST(GcsProviderTest, DeleteGoesThroughEveryPage) {
  FakeGcsOptions options;
  options.most_per_page = 3;
  GcsFixture gcs(options);
  for (int i = 0; i < 10; ++i) gcs.fake->Seed("base/a/" + std::to_string(i), "x");
  gcs.fake->Seed("base/ab", "kept");
  const absl::StatusOr<uint64_t> deleted = gcs.storage->DeleteObjectsWithPrefix("a/", {});
  ASSERT_OK(deleted);
  EXPECT_EQ(*deleted, 10u);
  EXPECT_EQ(gcs.fake->CallsOf(GcsRpc::kListObjects), 4u);
  EXPECT_EQ(gcs.fake->Names(), std::vector<std::string>{"base/ab"});
}

TEST(GcsProviderTest, DeleteSurvivesLostAnswersAndCountsOnce) {
  GcsFixture gcs;
  for (int i = 0; i < 4; ++i) gcs.fake->Seed("base/a/" + std::to_string(i), "x");
  gcs.Inject(GcsRpc::kListObjects, Kind::kError);
  gcs.Inject(GcsRpc::kDeleteObject, Kind::kLostAnswer);
  gcs.Inject(GcsRpc::kDeleteObject, Kind::kError);
  gcs.Inject(GcsRpc::kDeleteObject, Kind::kStall);
  const absl::StatusOr<uint64_t> deleted = gcs.storage->DeleteObjectsWithPrefix("a/", {});
  ASSERT_OK(deleted);
  EXPECT_EQ(*deleted, 4u);
  EXPECT_TRUE(gcs.fake->Names().empty());
}

TEST(GcsProviderTest, DeleteLeavesWhatWasReplacedMeanwhile) {
  GcsFixture gcs;
  gcs.fake->Seed("base/a/object", "listed");
  gcs.Inject(GcsRpc::kDeleteObject, Kind::kStall);
  gcs.while_stalled = [&] { gcs.fake->Seed("base/a/object", "newer"); };
  ASSERT_OK(gcs.storage->DeleteObjectsWithPrefix("a/", {}));
  EXPECT_EQ(gcs.fake->Bytes("base/a/object"), "newer");
}

TEST(GcsProviderTest, DeleteThatIsDeniedFails) {
  GcsFixture gcs;
  gcs.fake->Seed("base/a/object", "x");
  gcs.Inject(GcsRpc::kDeleteObject, Kind::kError, Code::kPermissionDenied);
  const absl::Status status = gcs.storage->DeleteObjectsWithPrefix("a/", {}).status();
  EXPECT_EQ(status.code(), Code::kPermissionDenied);
  EXPECT_EQ(status.message(), "delete gs://bucket/base/a/: injected");
}

TEST(GcsProviderTest, WhatIsLeftOfADeletedBuildDoesNotLookComplete) {
  GcsFixture gcs;
  for (const char* name : {"memfile", "metadata.json", "rootfs.ext4"}) {
    gcs.fake->Seed(std::string("base/a/") + name, "x");
  }
  gcs.Inject(GcsRpc::kDeleteObject, Kind::kNone);
  gcs.Inject(GcsRpc::kDeleteObject, Kind::kError, Code::kPermissionDenied);
  EXPECT_FALSE(gcs.storage->DeleteObjectsWithPrefix("a/", {}).ok());
  EXPECT_EQ(gcs.fake->Names(), (std::vector<std::string>{"base/a/memfile", "base/a/rootfs.ext4"}));
}

TEST(GcsProviderTest, ExistsTellsMissingFromUnknown) {
  GcsFixture gcs;
  const auto blob = gcs.storage->OpenBlob("a/object");
  ASSERT_OK(blob);
  const absl::StatusOr<bool> missing = (*blob)->Exists({});
  ASSERT_OK(missing);
  EXPECT_FALSE(*missing);
  for (int i = 0; i < 500; ++i) gcs.Inject(GcsRpc::kGetObject, Kind::kError);
  EXPECT_EQ(CodeOf((*blob)->Exists({})), Code::kUnavailable);
}

TEST(GcsProviderTest, LostAnswersToCleaningUpLeaveNoParts) {
  GcsFixture gcs;
  for (int i = 0; i < 3; ++i) gcs.Inject(GcsRpc::kDeleteObject, Kind::kLostAnswer);
  gcs.Inject(GcsRpc::kListObjects, Kind::kError);
  ASSERT_OK(gcs.Put("a/object", std::string(6 * kMiB, 'x')));
  EXPECT_EQ(gcs.fake->Names(), std::vector<std::string>{"base/a/object"});
}

TEST(GcsProviderTest, PartsThatCannotBeDeletedAreCounted) {
  GcsFixture gcs;
  gcs.Inject(GcsRpc::kListObjects, Kind::kError, Code::kPermissionDenied);
  ASSERT_OK(gcs.Put("a/object", std::string(6 * kMiB, 'x')));
  EXPECT_EQ(gcs.CounterOf("peerchunk_gcs_leftover_parts_total"), 1u);
}

// --- The check at start
// ------------------------------------------------------------------------------

TEST(GcsBucketCheckTest, BucketThatCanBeUsedIsFine) {
  GcsFixture gcs;
  bool reachable = false;
  EXPECT_OK(CheckGcsBucket(*gcs.context, absl::Seconds(10), &reachable));
  EXPECT_TRUE(reachable);
}

TEST(GcsBucketCheckTest, MissingAndForbiddenBucketsSayWhatToDo) {
  GcsFixture gcs;
  bool reachable = false;
  for (const auto& [code, advice] : {std::pair{Code::kNotFound, "does not exist"},
                                     std::pair{Code::kPermissionDenied, "roles/storage.objectUser"},
                                     std::pair{Code::kUnimplemented, "gs://bucket"}}) {
    gcs.Inject(GcsRpc::kListObjects, Kind::kError, code);
    const absl::Status status = CheckGcsBucket(*gcs.context, absl::Seconds(10), &reachable);
    EXPECT_EQ(status.code(), code);
    EXPECT_NE(status.message().find(advice), std::string::npos) << status;
  }
  for (int i = 0; i < 2; ++i) {
    gcs.Inject(GcsRpc::kListObjects, Kind::kError, Code::kUnauthenticated);
  }
  const absl::Status status = CheckGcsBucket(*gcs.context, absl::Seconds(10), &reachable);
  EXPECT_EQ(status.code(), Code::kUnauthenticated);
  EXPECT_NE(status.message().find("GOOGLE_APPLICATION_CREDENTIALS"), std::string::npos);
}

TEST(GcsBucketCheckTest, ServiceOutOfReachIsNoReasonNotToStart) {
  GcsFixture gcs;
  for (int i = 0; i < 500; ++i) gcs.Inject(GcsRpc::kListObjects, Kind::kError);
  bool reachable = true;
  EXPECT_OK(CheckGcsBucket(*gcs.context, absl::Seconds(10), &reachable));
  EXPECT_FALSE(reachable);
}

}  // namespace
}  // namespace peerchunk::test
