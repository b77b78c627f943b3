#include "peer/wire/wire.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "peerchunk/v1/chunk_service.pb.h"
#include "tests/support/simulated_clock.h"

namespace peerchunk {
namespace {

TEST(PeerTextTest, IsFitForAQuotedLine) {
  EXPECT_EQ(PeerText("no such build: a-b_c/d.e [0, +4096)"), "no such build: a-b_c/d.e [0, +4096)");
  EXPECT_EQ(PeerText(std::string("a\"\nb\r\tc\0d\\ \x1b[1m \x7f \xc2\x85.", 21)),
            "a??b??c?d? ?[1m ? ??.");
  EXPECT_EQ(PeerText(std::string(2'000'000, 'x')), std::string(1024, 'x'));
  EXPECT_EQ(PeerText(""), "");
}

TEST(PeerTextTest, IsWhatAStatusSays) {
  const absl::Status status = StatusFromCode(14, "gone\nevent=\"forged\"");
  EXPECT_EQ(status, absl::UnavailableError("gone?event=?forged?"));
  EXPECT_TRUE(StatusFromCode(0, "x").ok());
  for (const int code : {-1, 17, 1000}) {
    EXPECT_EQ(StatusFromCode(code, "x"), absl::UnknownError("x"));
  }
}

class ReadRequestsTest : public testing::Test {
 protected:
  void Add(uint64_t id, absl::Time deadline = absl::InfiniteFuture()) {
    requests_.Add(id, {.file = {BuildId({1}), FileKind::kMemfile}, .offset = id << 40, .length = 1},
                  deadline);
  }
  v1::ReadBuildFileRequest Take() {
    v1::ReadBuildFileRequest request;
    const ReadRequests::Message message = requests_.Take();
    EXPECT_LE(message.bytes.size(), ReadRequests::kMostMessageBytes);
    EXPECT_TRUE(request.ParseFromString(message.bytes));
    return request;
  }

  test::SimulatedClock clock_;
  ReadRequests requests_{clock_};
};

constexpr size_t kMost = ReadRequests::kMostUnderWay;

TEST_F(ReadRequestsTest, ReadsBeyondTheLimitFollowInTheirOrderAsOthersAreDone) {
  const uint64_t last = kMost + 10;
  for (uint64_t id = 1; id <= last; ++id) Add(id);
  EXPECT_EQ(requests_.under_way(), kMost);
  EXPECT_EQ(static_cast<size_t>(Take().reads_size()), kMost);
  EXPECT_TRUE(requests_.empty());
  for (uint64_t done = 1; done <= 10; ++done) {
    requests_.Remove(done, /*answered=*/true);
    EXPECT_EQ(requests_.under_way(), kMost);
    const v1::ReadBuildFileRequest request = Take();
    ASSERT_EQ(request.reads_size(), 1);
    EXPECT_EQ(request.reads(0).id(), kMost + done);
    EXPECT_EQ(request.cancelled_size(), 0);
  }
  requests_.Remove(11, /*answered=*/true);
  EXPECT_TRUE(requests_.empty());
  EXPECT_EQ(requests_.under_way(), kMost - 1);
}

TEST_F(ReadRequestsTest, AReadGivenUpIsCancelledAndOneThatWaitsIsNeverSent) {
  for (uint64_t id = 1; id <= kMost + 2; ++id) Add(id);
  Take();
  requests_.Remove(kMost + 1, /*answered=*/false);
  EXPECT_TRUE(requests_.empty());
  requests_.Remove(3, /*answered=*/false);
  const v1::ReadBuildFileRequest request = Take();
  ASSERT_EQ(request.cancelled_size(), 1);
  EXPECT_EQ(request.cancelled(0), 3u);
  ASSERT_EQ(request.reads_size(), 1);
  EXPECT_EQ(request.reads(0).id(), kMost + 2);
}

TEST_F(ReadRequestsTest, ThePeerIsToldTheTimeThatIsLeftWhenTheReadGoesOut) {
  for (uint64_t id = 1; id <= kMost; ++id) Add(id);
  Add(kMost + 1, clock_.Now() + absl::Seconds(10));
  Add(kMost + 2, clock_.Now() + absl::Seconds(1));
  Take();
  clock_.Advance(absl::Seconds(4));
  requests_.Remove(1, /*answered=*/true);
  requests_.Remove(2, /*answered=*/true);
  const v1::ReadBuildFileRequest request = Take();
  ASSERT_EQ(request.reads_size(), 2);
  EXPECT_EQ(request.reads(0).timeout_ms(), 6000u);
  EXPECT_EQ(request.reads(1).timeout_ms(), 1u) << "not none";
}

// Reads that are given up before they went out make place for others.
TEST_F(ReadRequestsTest, NoMessageIsLongerThanAPeerTakes) {
  std::vector<uint64_t> ids;
  for (uint64_t id = 1; id <= 5000; ++id) {
    Add(id, clock_.Now() + absl::Hours(1));
    requests_.Remove(id, /*answered=*/false);
  }
  size_t cancelled = 0;
  while (!requests_.empty()) {
    const v1::ReadBuildFileRequest request = Take();
    ASSERT_LE(static_cast<size_t>(request.reads_size()), kMost);
    for (const v1::FileRead& read : request.reads()) ids.push_back(read.id());
    cancelled += request.cancelled_size();
  }
  EXPECT_EQ(cancelled, 5000u);
  ASSERT_EQ(ids.size(), 5000u);
  for (uint64_t i = 0; i < 5000; ++i) EXPECT_EQ(ids[i], i + 1);
}

}  // namespace
}  // namespace peerchunk
