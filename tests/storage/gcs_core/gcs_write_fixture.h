#pragma once

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "peerchunk/base/crc32c.h"
#include "tests/support/gcs/gcs_fixture.h"
#include "tests/support/sample_bytes.h"
#include "tests/support/status_asserts.h"

namespace peerchunk::test {

inline WriteOptions CreateOnly() {
  WriteOptions options;
  options.if_absent = true;
  return options;
}

// One provider over the fake, and bytes for each way of writing. No test may break the service's
// rules.
class GcsWriteTest : public testing::Test {
 protected:
  void TearDown() override {
    EXPECT_TRUE(gcs_.fake->violations().empty()) << testing::PrintToString(gcs_.fake->violations());
    EXPECT_EQ(gcs_.fake->faults_waiting(), 0u) << "a fault that was meant to happen did not";
  }

  absl::StatusOr<ObjectStat> Put(const std::string& bytes,
                                 const WriteOptions& options = CreateOnly()) {
    return gcs_.Put("a/object", bytes, options);
  }
  void ExpectStored(const absl::StatusOr<ObjectStat>& stat, const std::string& bytes) {
    ASSERT_OK(stat);
    EXPECT_EQ(stat->size, bytes.size());
    EXPECT_EQ(stat->crc32c, Crc32c(bytes));
    EXPECT_TRUE(gcs_.fake->Bytes("base/a/object") == bytes);
    EXPECT_EQ(gcs_.fake->Names(), std::vector<std::string>{"base/a/object"});
  }
  void ExpectNothingStored() { EXPECT_TRUE(gcs_.fake->Names().empty()); }
  absl::Duration Elapsed() { return gcs_.clock.Now() - start_; }

  GcsFixture gcs_;
  const absl::Time start_ = gcs_.clock.Now();
  const std::string small_ = SampleBytes(400'000, 1);             // One message.
  const std::string medium_ = SampleBytes(3 * kMiB + 12'345, 2);  // One session.
  const std::string large_ = SampleBytes(9 * kMiB + 777, 3);      // Parts.
};

}  // namespace peerchunk::test
