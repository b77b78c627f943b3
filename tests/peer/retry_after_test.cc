#include <absl/strings/cord.h>
#include <gtest/gtest.h>

#include "peerchunk/peer/chunk_service_client.h"

namespace peerchunk {
namespace {

constexpr char kPayload[] = "peerchunk/retry-after-ms";

TEST(RetryAfterTest, HintTravelsInTheStatus) {
  const absl::Status status =
      WithRetryAfter(absl::ResourceExhaustedError("busy"), absl::Milliseconds(120));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "busy");
  EXPECT_EQ(RetryAfter(status), absl::Milliseconds(120));
}

TEST(RetryAfterTest, StatusWithoutAHintHasNone) {
  EXPECT_EQ(RetryAfter(absl::ResourceExhaustedError("busy")), std::nullopt);
  EXPECT_EQ(RetryAfter(absl::OkStatus()), std::nullopt);
}

TEST(RetryAfterTest, HintIsCutToFiveSeconds) {
  EXPECT_EQ(RetryAfter(WithRetryAfter(absl::UnavailableError(""), absl::Hours(1))),
            absl::Seconds(5));
  EXPECT_EQ(RetryAfter(WithRetryAfter(absl::UnavailableError(""), absl::InfiniteDuration())),
            absl::Seconds(5));
  EXPECT_EQ(RetryAfter(WithRetryAfter(absl::UnavailableError(""), -absl::Seconds(1))),
            absl::ZeroDuration());
}

TEST(RetryAfterTest, ForeignPayloadIsCutOrIgnored) {
  const auto hint = [](const char* payload) {
    absl::Status status = absl::UnavailableError("");
    status.SetPayload(kPayload, absl::Cord(payload));
    return RetryAfter(status);
  };
  EXPECT_EQ(hint("99999999999999999999999"), absl::Seconds(5));
  EXPECT_EQ(hint("6000"), absl::Seconds(5));
  EXPECT_EQ(hint("7"), absl::Milliseconds(7));
  for (const char* bad : {"", "-1", "1s", "x", " 1"}) EXPECT_EQ(hint(bad), std::nullopt) << bad;
}

}  // namespace
}  // namespace peerchunk
