#include "peer/wire/shared_reads.h"

#include <memory>
#include <utility>

#include <gtest/gtest.h>

namespace peerchunk {
namespace {

// A peer that does not know ReadBuildFile.
class UnknownReads final : public SharedReads {
 public:
  std::shared_ptr<Read> Ask(const PeerRequest&, absl::Time) override {
    return std::make_shared<Read>();
  }
  absl::StatusOr<std::optional<ReadPart>> Await(Read&, absl::Time) override {
    return absl::UnimplementedError("what?");
  }
  void Cancel(Read&) override {}
  void Leave(Read&, bool) override {}
  bool HasAnswered() const override { return false; }
};

class CancellableStream final : public PeerStream {
 public:
  absl::StatusOr<std::optional<PeerMessage>> Next(absl::Time) override {
    if (cancelled_) return absl::CancelledError("the read was cancelled");
    return absl::DeadlineExceededError("no message from the peer in time");
  }
  bool IsAlive() const override { return !cancelled_; }
  void Cancel() override { cancelled_ = true; }

 private:
  bool cancelled_ = false;
};

class SharedReadsTest : public testing::Test {
 protected:
  SharedReadPeerStream stream_{{.shared = [] { return std::make_shared<UnknownReads>(); },
                                .alone = [] { return std::make_unique<CancellableStream>(); }},
                               PeerRequest(),
                               PeerCallOptions(),
                               Clock::Real()};
};

TEST_F(SharedReadsTest, CancelEndsAReadThatWentOnByItself) {
  EXPECT_TRUE(absl::IsDeadlineExceeded(stream_.Next(absl::InfinitePast()).status()));
  EXPECT_TRUE(stream_.IsAlive());
  stream_.Cancel();
  EXPECT_TRUE(absl::IsCancelled(stream_.Next(absl::InfiniteFuture()).status()));
  EXPECT_FALSE(stream_.IsAlive());
}

}  // namespace
}  // namespace peerchunk
