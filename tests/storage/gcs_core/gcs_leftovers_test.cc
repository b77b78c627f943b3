// What large uploads leave at the service, and who takes it from there.
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/gcs/gcs_fixture.h"
#include "tests/support/sample_bytes.h"
#include "tests/support/status_asserts.h"
#include "tests/support/temp_dir.h"

namespace peerchunk::test {
namespace {

using Code = absl::StatusCode;
using Kind = GcsFault::Kind;

class GcsLeftoversTest : public testing::Test {
 protected:
  ~GcsLeftoversTest() override { EXPECT_TRUE(gcs_.fake->violations().empty()); }

  absl::StatusOr<ObjectStat> Put(std::stop_token cancellation = {}) {
    WriteOptions options;
    options.if_absent = true;
    options.cancellation = std::move(cancellation);
    return gcs_.Put("a/object", bytes_, options);
  }
  // Every call of this kind, for longer than anyone keeps trying.
  void StallAll(GcsRpc rpc) {
    for (int i = 0; i < 200; ++i) gcs_.Inject(rpc, Kind::kStall);
  }
  // An upload that gives up: before its parts are composed, or while they are written.
  void PutInVain(GcsRpc stalls) {
    StallAll(stalls);
    if (stalls == GcsRpc::kQueryWriteStatus) gcs_.Inject(GcsRpc::kWriteObject, Kind::kError);
    EXPECT_EQ(CodeOf(Put()), Code::kUnavailable);
    gcs_.fake->ForgetFaults();
    ASSERT_GT(gcs_.fake->Names().size() + gcs_.fake->open_sessions(), 0u);
    ASSERT_EQ(Records(), 1u);
  }
  absl::StatusOr<uint64_t> Discard(bool goes_on, const WriteOptions& options = {}) {
    return gcs_.storage->DiscardUnfinishedWrites(
        [&](std::string_view path) {
          EXPECT_EQ(path, "a/object");
          return goes_on;
        },
        options);
  }
  size_t Records() const { return folder_.folder().List()->size(); }
  void ExpectOnly(const std::vector<std::string>& names) {
    EXPECT_EQ(gcs_.fake->Names(), names);
    EXPECT_EQ(gcs_.fake->open_sessions(), 0u);
    EXPECT_EQ(Records(), 0u);
  }

  const std::string bytes_ = SampleBytes(5 * kMiB, 1);  // Five parts.
  const std::string object_ = "base/a/object";
  const TempDir folder_;
  GcsFixture gcs_{{}, SmallGcsTuning(), folder_.path()};
};

TEST_F(GcsLeftoversTest, PartsWhoseCleaningWasCutShortGoLater) {
  for (const bool restarted : {false, true}) {
    std::stop_source stop;
    gcs_.while_stalled = [&] { stop.request_stop(); };
    gcs_.Inject(GcsRpc::kListObjects, Kind::kStall);
    ASSERT_OK(Put(stop.get_token()));
    gcs_.while_stalled = nullptr;
    EXPECT_GT(gcs_.fake->Names().size(), 1u);
    if (restarted) gcs_.Restart();
    const auto discarded = Discard(/*goes_on=*/false);
    ASSERT_OK(discarded);
    EXPECT_EQ(*discarded, 1u);
    ExpectOnly({object_});
    EXPECT_EQ(*Discard(false), 0u);
    gcs_.fake->Erase(object_);
  }
}

TEST_F(GcsLeftoversTest, PartsThatAnOutageKeptGoOnceItIsOver) {
  StallAll(GcsRpc::kListObjects);
  ASSERT_OK(Put());
  EXPECT_EQ(CodeOf(Discard(false)), Code::kUnavailable) << "still";
  EXPECT_EQ(Records(), 1u);
  gcs_.fake->ForgetFaults();
  EXPECT_OK(Discard(false));
  ExpectOnly({object_});
}

TEST_F(GcsLeftoversTest, SessionsAndPartsOfAnUploadBetweenAttemptsGo) {
  for (const GcsRpc rpc : {GcsRpc::kComposeObject, GcsRpc::kQueryWriteStatus}) {
    for (const bool restarted : {false, true}) {
      PutInVain(rpc);
      if (restarted) gcs_.Restart();
      EXPECT_OK(Discard(false));
      ExpectOnly({});
    }
  }
}

TEST_F(GcsLeftoversTest, WhatWillBeGoneOnWithStays) {
  PutInVain(GcsRpc::kComposeObject);
  const std::vector<std::string> names = gcs_.fake->Names();
  EXPECT_EQ(*Discard(/*goes_on=*/true), 0u);
  EXPECT_EQ(gcs_.fake->Names(), names);
  const uint64_t sent = gcs_.CounterOf("peerchunk_gcs_written_bytes_total");
  ASSERT_OK(Put());
  EXPECT_EQ(gcs_.CounterOf("peerchunk_gcs_written_bytes_total"), sent);
  ExpectOnly({object_});
}

TEST_F(GcsLeftoversTest, WhatTheServiceHasForgottenGoesInAnyCase) {
  PutInVain(GcsRpc::kComposeObject);
  gcs_.clock.Advance(absl::Hours(24 * 7));
  EXPECT_EQ(*Discard(/*goes_on=*/true), 1u);
  ExpectOnly({});
}

TEST_F(GcsLeftoversTest, UploadUnderWayIsLeftAlone) {
  bool looked = false;
  gcs_.while_stalled = [&] {
    if (std::exchange(looked, true)) return;
    EXPECT_EQ(*Discard(false), 0u);
  };
  gcs_.Inject(GcsRpc::kComposeObject, Kind::kStall);
  ASSERT_OK(Put());
  EXPECT_TRUE(looked);
  EXPECT_EQ(gcs_.fake->CallsOf(GcsRpc::kComposeObject), 2u);
  ExpectOnly({object_});
}

// As a policy of the bucket refuses it: another try would change nothing.
TEST_F(GcsLeftoversTest, PartsThatMayNotBeDeletedAreReportedOnce) {
  PutInVain(GcsRpc::kComposeObject);
  gcs_.Inject(GcsRpc::kDeleteObject, Kind::kError, Code::kPermissionDenied);
  EXPECT_EQ(CodeOf(Discard(false)), Code::kPermissionDenied);
  EXPECT_EQ(Records(), 0u);
  EXPECT_EQ(*Discard(false), 0u);
  EXPECT_EQ(gcs_.CounterOf("peerchunk_gcs_leftover_parts_total"), 1u);
}

TEST_F(GcsLeftoversTest, CancelledUploadThatCouldNotCleanUpIsCleanedUpLater) {
  PutInVain(GcsRpc::kComposeObject);
  std::stop_source stop;
  gcs_.while_stalled = [&] { stop.request_stop(); };
  gcs_.Inject(GcsRpc::kComposeObject, Kind::kStall);
  for (int i = 0; i < 10; ++i) gcs_.Inject(GcsRpc::kListObjects, Kind::kStall);
  EXPECT_EQ(CodeOf(Put(stop.get_token())), Code::kCancelled);
  gcs_.fake->ForgetFaults();
  EXPECT_GT(gcs_.fake->Names().size(), 1u);
  EXPECT_OK(Discard(false));
  ExpectOnly({});
}

TEST_F(GcsLeftoversTest, CallersLimitsHold) {
  PutInVain(GcsRpc::kComposeObject);
  WriteOptions options;
  options.deadline = absl::InfinitePast();
  EXPECT_EQ(CodeOf(Discard(false, options)), Code::kDeadlineExceeded);
  std::stop_source stop;
  gcs_.while_stalled = [&] { stop.request_stop(); };
  gcs_.Inject(GcsRpc::kListObjects, Kind::kStall);
  options = {};
  options.cancellation = stop.get_token();
  EXPECT_EQ(CodeOf(Discard(false, options)), Code::kCancelled);
  EXPECT_EQ(Records(), 1u);
}

// Another node's base in the same bucket, or what this one had before.
TEST_F(GcsLeftoversTest, RecordsBesideThePrefixAreNotJudged) {
  PutInVain(GcsRpc::kComposeObject);
  gcs_.options.prefix = "elsewhere";
  gcs_.Restart();
  EXPECT_EQ(*Discard(false), 0u);
  EXPECT_EQ(Records(), 1u);
}

}  // namespace
}  // namespace peerchunk::test
