// What an operator reads of a switch of source: one line each, of the right level, not too many.
#include <string>

#include <gtest/gtest.h>

#include "base/logging.h"
#include "peerchunk/base/range.h"
#include "tests/peer/peer_fixture.h"
#include "tests/support/log_capture.h"
#include "tests/support/simulation.h"

namespace peerchunk::test {
namespace {

constexpr FileKind kDiff = FileKind::kMemfile;

class SwitchLogTest : public testing::Test {
 protected:
  SwitchLogTest() : provider_(world_.Open()) {
    world_.Node().PutFile(FileOf(kDiff), bytes_);
    world_.Seed(kDiff, bytes_);
    world_.Seed(FileKind::kMetadata, "{}");
  }
  void Read(int times = 1) {
    sim_.Spawn([&] {
      for (int i = 0; i < times; ++i) {
        const auto read =
            ReadRange(*provider_, 0, UINT64_MAX, {.deadline = sim_.Now() + kPatience});
        ASSERT_OK(read);
        EXPECT_TRUE(*read == bytes_);
      }
    });
    ASSERT_TRUE(sim_.Run(absl::InfiniteFuture()));
  }
  void Pass(absl::Duration time) {
    sim_.Spawn([&] { sim_.SleepUntil(sim_.Now() + time); });
    ASSERT_TRUE(sim_.Run(absl::InfiniteFuture()));
  }

  static constexpr absl::Duration kPatience = absl::Seconds(60);
  const std::string bytes_ = SampleBytes(300'000, 1);
  Simulation sim_{1};
  PeerWorld world_{sim_};
  std::shared_ptr<StorageProvider> provider_;
  LogCapture log_{Logger("peer")};
};

TEST_F(SwitchLogTest, LineSaysWhatWasLeftAndWhy) {
  world_.Node().AddFault(
      {.after_bytes = 131'072, .error = absl::UnavailableError("connection reset")});
  Read();
  const auto lines = log_.With("event=leave_peer");
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0].level, spdlog::level::info);
  EXPECT_EQ(lines[0].text,
            "event=leave_peer reason=unreachable build=aaaaaaaa-0000-4000-8000-000000000001 "
            "file=memfile peer=10.0.0.1:7070 offset=131072 unlogged=0 cause=\"connection reset\"");
}

TEST_F(SwitchLogTest, WrongBytesAreAnError) {
  world_.Node().AddFault({.after_bytes = 65'536, .corrupt = true});
  Read();
  const auto lines = log_.With("event=leave_peer reason=bad_bytes");
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0].level, spdlog::level::err);
  EXPECT_TRUE(lines[0].Has("offset=65536")) << lines[0].text;
  EXPECT_TRUE(lines[0].Has("wrong CRC32C")) << lines[0].text;
}

TEST_F(SwitchLogTest, LinesOfOneReasonAreTenSecondsApart) {
  world_.Node().AddFault({.after_bytes = 65'536, .partial = true});
  Read(5);
  EXPECT_EQ(log_.With("reason=partial").size(), 1u);
  Pass(absl::Seconds(10));
  Read();
  const auto lines = log_.With("reason=partial");
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_TRUE(lines[1].Has("unlogged=4")) << lines[1].text;
}

TEST_F(SwitchLogTest, BaseThatIsLeftHasALineToo) {
  world_.Node().SetState(kBuild, BuildState::kDurable);
  StorageFault fault{.after_bytes = 1000};
  fault.error = absl::UnavailableError("base hiccup");
  world_.base.AddFault(fault);
  Read(3);
  const auto lines = log_.With("event=leave_base");
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0].level, spdlog::level::info);
  EXPECT_EQ(lines[0].text,
            "event=leave_base reason=base_failed build=aaaaaaaa-0000-4000-8000-000000000001 "
            "file=memfile offset=1000 unlogged=0 cause=\"base hiccup\"");
}

TEST_F(SwitchLogTest, PeerThatTheBaseContradictsIsAnError) {
  world_.Node().AddFault({.alter = [](PeerMessage& m) {
    if (m.head) ++m.head->total_size;
  }});
  sim_.Spawn([&] {
    const auto object = provider_->OpenSeekable(FileOf(kDiff).ObjectPath());
    ASSERT_OK((*object)->Size({}));
    world_.Node().Kill();
  });
  ASSERT_TRUE(sim_.Run(absl::InfiniteFuture()));
  Read();
  const auto lines = log_.With("event=quarantine");
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0].level, spdlog::level::err);
  EXPECT_EQ(lines[0].text,
            "event=quarantine reason=base_differs build=aaaaaaaa-0000-4000-8000-000000000001 "
            "file=memfile peer=10.0.0.1:7070");
}

TEST_F(SwitchLogTest, DeclarationSmallerThanTheHeaderMapsIsAnError) {
  world_.Node().AddFault({.alter = [](PeerMessage& m) {
    if (m.head) m.head->total_size = 100;
  }});
  sim_.Spawn([&] {
    const auto object = provider_->OpenSeekable(FileOf(kDiff).ObjectPath());
    ASSERT_OK((*object)->Size({}));
    ReadOptions options;
    options.least_size = bytes_.size();
    ASSERT_OK((*object)->Size(options));
  });
  ASSERT_TRUE(sim_.Run(absl::InfiniteFuture()));
  const auto lines = log_.With("event=quarantine reason=contradiction");
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0].level, spdlog::level::err);
  EXPECT_TRUE(lines[0].Has("declared=100 least=300000")) << lines[0].text;
}

}  // namespace
}  // namespace peerchunk::test
