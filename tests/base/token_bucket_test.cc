#include "base/token_bucket.h"

#include <gtest/gtest.h>

namespace peerchunk {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1'700'000'000);

TEST(TokenBucketTest, BytesTakeTheirTimeAtOnceOrInPieces) {
  TokenBucket once(1000);
  EXPECT_EQ(once.Spend(3000, kStart), kStart + absl::Seconds(3));
  TokenBucket pieces(1000);
  pieces.Spend(1000, kStart);
  EXPECT_EQ(pieces.Spend(2000, kStart + absl::Seconds(1)), kStart + absl::Seconds(3));
}

TEST(TokenBucketTest, TimeWithoutSpendingIsNotSaved) {
  TokenBucket bucket(1000);
  bucket.Spend(1000, kStart);
  EXPECT_EQ(bucket.Spend(1000, kStart + absl::Seconds(100)), kStart + absl::Seconds(101));
}

TEST(TokenBucketTest, WhatIsGivenBackIsOwedNoMoreAndNeverSaved) {
  TokenBucket bucket(1000);
  bucket.Spend(3000, kStart);
  bucket.GiveBack(1000, kStart);
  EXPECT_EQ(bucket.paid_at(), kStart + absl::Seconds(2));
  bucket.GiveBack(2000, kStart + absl::Seconds(1));
  EXPECT_EQ(bucket.paid_at(), kStart + absl::Seconds(1));
  bucket.GiveBack(1000, kStart + absl::Seconds(5));
  EXPECT_EQ(bucket.paid_at(), kStart + absl::Seconds(1));
}

}  // namespace
}  // namespace peerchunk
