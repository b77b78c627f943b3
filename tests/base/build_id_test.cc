#include "peerchunk/base/build_id.h"

#include <set>

#include <gtest/gtest.h>

#include "tests/support/status_asserts.h"

namespace peerchunk {
namespace {

constexpr char kText[] = "6f1c2a52-1111-4222-8333-0123456789ab";

TEST(BuildIdTest, CanonicalTextRoundTrips) {
  const absl::StatusOr<BuildId> id = BuildId::Parse(kText);
  ASSERT_OK(id);
  EXPECT_EQ(id->ToString(), kText);
  EXPECT_EQ(id->bytes()[0], 0x6F);
  EXPECT_EQ(id->bytes()[15], 0xAB);
  EXPECT_FALSE(id->is_nil());
}

TEST(BuildIdTest, NilParsesAsNil) {
  const absl::StatusOr<BuildId> id = BuildId::Parse("00000000-0000-0000-0000-000000000000");
  ASSERT_OK(id);
  EXPECT_TRUE(id->is_nil());
  EXPECT_EQ(*id, BuildId());
}

TEST(BuildIdTest, AnyOtherTextIsRefused) {
  for (const std::string_view text : {
           "",
           "6F1C2A52-1111-4222-8333-0123456789AB",
           "6f1c2a52-1111-4222-8333-0123456789a",
           "6f1c2a52-1111-4222-8333-0123456789abc",
           "{6f1c2a52-1111-4222-8333-0123456789a}",
           "6f1c2a5211114222833301234567 89abcdef",
           "6f1c2a521-111-4222-8333-0123456789ab",
           "6f1c2a52-1111-4222-8333_0123456789ab",
           "../../../../../../../etc/passwd-----",
           "6f1c2a52-1111-4222-8333-0123456789g/",
       }) {
    EXPECT_EQ(BuildId::Parse(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
  EXPECT_FALSE(BuildId::Parse(std::string_view("6f1c2a52-1111-4222-8333-0123456789a\0", 36)).ok());
}

TEST(BuildIdTest, RandomIdsAreVersion4AndDiffer) {
  std::set<BuildId> seen;
  for (int i = 0; i < 100; ++i) {
    const BuildId id = BuildId::Random();
    EXPECT_EQ(id.ToString()[14], '4');
    EXPECT_NE(std::string("89ab").find(id.ToString()[19]), std::string::npos);
    EXPECT_OK(BuildId::Parse(id.ToString()));
    seen.insert(id);
  }
  EXPECT_EQ(seen.size(), 100u);
}

TEST(BuildIdTest, OrderIsBytewise) {
  const auto low = BuildId::Parse("00000000-0000-0000-0000-0000000000ff");
  const auto high = BuildId::Parse("01000000-0000-0000-0000-000000000000");
  EXPECT_LT(*low, *high);
}

}  // namespace
}  // namespace peerchunk
