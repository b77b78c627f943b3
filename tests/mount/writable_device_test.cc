#include "mount/writable_device.h"

#include <fcntl.h>

#include <atomic>
#include <memory>
#include <random>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/mount/scripted_template.h"
#include "tests/support/simulated_clock.h"
#include "tests/support/status_asserts.h"
#include "tests/support/temp_dir.h"

namespace peerchunk {
namespace {

using test::CodeOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kBytes = 64 * kPageBytes;

class WritableDeviceTest : public testing::Test {
 protected:
  WritableDeviceTest() { Make(kBytes); }

  void Make(uint64_t bytes) {
    build_ = test::MakeTestBuild({.memfile_bytes = bytes, .rootfs_bytes = kPageBytes});
    diff_ = std::make_shared<test::ScriptedDiff>(BuildFileId{build_.id, FileKind::kMemfile},
                                                 build_.files.at(FileKind::kMemfile));
    base_ = test::DeviceOver(build_, FileKind::kMemfile, diff_);
    MakeDevice(*File::Open(folder_.PathOf("overlay"), O_RDWR | O_CREAT | O_TRUNC));
  }
  void MakeDevice(File overlay) {
    device_ = std::make_unique<WritableDevice>(
        *base_, WritableDevice::Options{.kind = FileKind::kMemfile,
                                        .overlay = std::move(overlay),
                                        .read_deadline = absl::Seconds(60),
                                        .clock = &clock_,
                                        .metrics = &metrics_});
  }

  // A page that is in the diff, so that reading it asks the source.
  uint64_t DataPage() const {
    const auto header = Header::Decode(build_.files.at(FileKind::kMemfileHeader));
    for (const Mapping& mapping : header->mappings()) {
      if (!mapping.is_zero()) return mapping.offset / kPageBytes;
    }
    ADD_FAILURE() << "the build has no data";
    return 0;
  }

  absl::StatusOr<std::string> Read(uint64_t offset, size_t size, std::stop_token stop = {}) {
    std::string out(size, '?');
    PEERCHUNK_ASSIGN_OR_RETURN(const size_t got,
                               device_->ReadAt(offset, absl::MakeSpan(out), stop));
    out.resize(got);
    return out;
  }
  absl::Status Write(uint64_t offset, std::string_view data) {
    return device_->WriteAt(offset, data, {});
  }
  uint64_t Counted(std::string_view name) const {
    return metrics_.CounterValue(name, {{"file", "memfile"}});
  }

  test::TempDir folder_;
  test::SimulatedClock clock_;
  Metrics metrics_;
  test::TestBuild build_;
  std::shared_ptr<test::ScriptedDiff> diff_;
  std::unique_ptr<Device> base_;
  std::unique_ptr<WritableDevice> device_;
};

TEST_F(WritableDeviceTest, UnwrittenShowsTheDevice) {
  EXPECT_EQ(*Read(0, kBytes), build_.memfile);
  EXPECT_EQ(*Read(4095, 2), build_.memfile.substr(4095, 2));
  EXPECT_THAT(device_->DirtyBlocks(), IsEmpty());
  EXPECT_EQ(Counted("peerchunk_mount_read_bytes_total"), kBytes + 2);
}

TEST_F(WritableDeviceTest, WhatTheOverlayHoldsIsNoLongerCountedOnceItHasGone) {
  const Gauge& held = metrics_.gauge("peerchunk_mount_overlay_bytes", {{"file", "memfile"}});
  ASSERT_OK(Write(0, std::string(3 * kPageBytes, 'x')));
  ASSERT_OK(Write(2 * kPageBytes, std::string(2 * kPageBytes, 'y')));
  EXPECT_EQ(held.value(), int64_t{4 * kPageBytes});
  device_ = nullptr;
  EXPECT_EQ(held.value(), 0);
}

TEST_F(WritableDeviceTest, ReadIsShortAtTheEndAndRefusedBeyondIt) {
  EXPECT_EQ(*Read(kBytes - 10, 100), build_.memfile.substr(kBytes - 10));
  EXPECT_EQ(*Read(kBytes, 100), "");
  EXPECT_EQ(CodeOf(Read(kBytes + 1, 1)), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(CodeOf(Read(UINT64_MAX, 1)), absl::StatusCode::kOutOfRange);
}

TEST_F(WritableDeviceTest, WholeBlockIsWrittenWithoutAskingTheSource) {
  const uint64_t page = DataPage();
  const std::string data(kPageBytes, 'w');
  ASSERT_OK(Write(page * kPageBytes, data));
  EXPECT_EQ(diff_->reads(), 0u);
  EXPECT_EQ(*Read(page * kPageBytes, kPageBytes), data);
  EXPECT_EQ(diff_->reads(), 0u);
  EXPECT_THAT(device_->DirtyBlocks(), ElementsAre(page));
}

TEST_F(WritableDeviceTest, PartOfABlockKeepsTheRestOfIt) {
  ASSERT_OK(Write(5 * kPageBytes + 100, "hello"));
  build_.memfile.replace(5 * kPageBytes + 100, 5, "hello");
  EXPECT_EQ(*Read(0, kBytes), build_.memfile);
  ASSERT_OK(Write(5 * kPageBytes + 50, "again"));
  build_.memfile.replace(5 * kPageBytes + 50, 5, "again");
  EXPECT_EQ(*Read(0, kBytes), build_.memfile);
  EXPECT_THAT(device_->DirtyBlocks(), ElementsAre(5));
}

TEST_F(WritableDeviceTest, RandomWritesAgreeWithAString) {
  std::mt19937 random(3);
  for (int round = 0; round < 400; ++round) {
    const uint64_t offset = random() % kBytes;
    const std::string data(std::min<uint64_t>(1 + random() % 20'000, kBytes - offset),
                           static_cast<char>('a' + random() % 26));
    ASSERT_OK(Write(offset, data));
    build_.memfile.replace(offset, data.size(), data);
    const uint64_t from = random() % kBytes;
    const size_t size = random() % 30'000;
    ASSERT_EQ(*Read(from, size), build_.memfile.substr(from, size)) << round;
  }
  EXPECT_EQ(*Read(0, kBytes), build_.memfile);
}

TEST_F(WritableDeviceTest, WriteBeyondTheEndChangesNothing) {
  EXPECT_EQ(CodeOf(Write(kBytes - 1, "xy")), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(CodeOf(Write(kBytes + 1, "")), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(CodeOf(Write(UINT64_MAX, "x")), absl::StatusCode::kOutOfRange);
  EXPECT_OK(Write(kBytes, ""));
  EXPECT_THAT(device_->DirtyBlocks(), IsEmpty());
}

TEST_F(WritableDeviceTest, FullDiskIsToldAndTheDeviceStaysAsItWas) {
  MakeDevice(*File::Open("/dev/full", O_RDWR));
  EXPECT_EQ(CodeOf(Write(0, std::string(kPageBytes, 'x'))), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(*Read(0, kBytes), build_.memfile);
}

TEST_F(WritableDeviceTest, WritesToPartsOfOneBlockAtOnceAllArrive) {
  const uint64_t page = DataPage();
  std::vector<std::thread> writers;
  for (int i = 0; i < 8; ++i) {
    writers.emplace_back([this, page, i] {
      ASSERT_OK(Write(page * kPageBytes + i * 512, std::string(512, static_cast<char>('0' + i))));
    });
  }
  for (std::thread& writer : writers) writer.join();
  std::string expected;
  for (int i = 0; i < 8; ++i) expected += std::string(512, static_cast<char>('0' + i));
  EXPECT_EQ(*Read(page * kPageBytes, kPageBytes), expected);
}

// While a write of a part waits for the source, a write of the whole block comes. It must not be
// overwritten by what the source then says, so it has to wait; that it does is what the source
// gives it time to get wrong.
TEST_F(WritableDeviceTest, WholeBlockWrittenDuringAFillIsNotLost) {
  const uint64_t page = DataPage();
  std::atomic<bool> written = false;
  std::thread whole;
  diff_->OnRead([&](ByteRange, const ReadOptions&) {
    if (whole.joinable()) return absl::OkStatus();
    whole = std::thread([&] {
      ASSERT_OK(Write(page * kPageBytes, std::string(kPageBytes, 'w')));
      written = true;
    });
    for (int i = 0; i < 10'000 && !written; ++i) std::this_thread::yield();
    return absl::OkStatus();
  });
  ASSERT_OK(Write(page * kPageBytes, "part"));
  whole.join();
  EXPECT_TRUE(*Read(page * kPageBytes, kPageBytes) == std::string(kPageBytes, 'w'));
}

class ErrorThatPassesTest : public WritableDeviceTest,
                            public testing::WithParamInterface<absl::StatusCode> {};

TEST_P(ErrorThatPassesTest, IsTriedAgainInsideTheRead) {
  clock_.AdvanceOnWait();
  diff_->OnRead([this](ByteRange, const ReadOptions&) {
    return diff_->reads() <= 10 ? absl::Status(GetParam(), "not now") : absl::OkStatus();
  });
  const absl::Time begin = clock_.Now();
  EXPECT_EQ(*Read(0, kBytes), build_.memfile);
  EXPECT_EQ(Counted("peerchunk_mount_retries_total"), 10u);
  EXPECT_EQ(Counted("peerchunk_mount_failures_total"), 0u);
  EXPECT_GT(clock_.Now() - begin, absl::Seconds(5));  // With pauses that grow.
}

TEST_P(ErrorThatPassesTest, IsReturnedAfterTheReadDeadline) {
  clock_.AdvanceOnWait();
  diff_->OnRead([](ByteRange, const ReadOptions&) { return absl::Status(GetParam(), "never"); });
  const absl::Time begin = clock_.Now();
  EXPECT_EQ(CodeOf(Read(0, kBytes)), GetParam());
  EXPECT_LE(clock_.Now() - begin, absl::Seconds(60));
  EXPECT_GT(clock_.Now() - begin, absl::Seconds(50));
  EXPECT_EQ(Counted("peerchunk_mount_failures_total"), 1u);
}

INSTANTIATE_TEST_SUITE_P(Codes, ErrorThatPassesTest,
                         testing::Values(absl::StatusCode::kUnavailable,
                                         absl::StatusCode::kNotFound, absl::StatusCode::kDataLoss,
                                         absl::StatusCode::kInternal,
                                         absl::StatusCode::kPermissionDenied,
                                         absl::StatusCode::kResourceExhausted,
                                         absl::StatusCode::kCancelled),
                         [](const auto& info) { return absl::StatusCodeToString(info.param); });

TEST_F(WritableDeviceTest, ErrorThatStaysIsReturnedAtOnce) {
  for (const absl::StatusCode code :
       {absl::StatusCode::kInvalidArgument, absl::StatusCode::kOutOfRange,
        absl::StatusCode::kUnimplemented}) {
    diff_->OnRead([code](ByteRange, const ReadOptions&) { return absl::Status(code, "wrong"); });
    const absl::StatusOr<std::string> got = Read(0, kBytes);
    EXPECT_EQ(CodeOf(got), code);
    EXPECT_THAT(std::string(got.status().message()), HasSubstr("read memfile [0, +"));
  }
}

TEST_F(WritableDeviceTest, SourceIsAskedWithTheReadDeadline) {
  diff_->OnRead([this](ByteRange, const ReadOptions& options) {
    EXPECT_EQ(options.deadline, clock_.Now() + absl::Seconds(60));
    EXPECT_EQ(options.priority, Priority::kDemand);
    return absl::OkStatus();
  });
  EXPECT_OK(Read(0, kBytes));
}

TEST_F(WritableDeviceTest, CancelledReadEndsWhileTheSourceIsSilent) {
  diff_->OnRead(test::StallUntilCancelled);
  std::stop_source stop;
  std::thread canceller([&] {
    diff_->AwaitReads(1);
    stop.request_stop();
  });
  EXPECT_EQ(CodeOf(Read(0, kBytes, stop.get_token())), absl::StatusCode::kCancelled);
  canceller.join();
}

TEST_F(WritableDeviceTest, CancelledReadEndsDuringAPause) {
  diff_->OnRead([](ByteRange, const ReadOptions&) { return absl::UnavailableError("down"); });
  std::stop_source stop;
  std::thread canceller([&] {
    clock_.AwaitWaiters(1);
    stop.request_stop();
  });
  EXPECT_EQ(CodeOf(Read(0, kBytes, stop.get_token())), absl::StatusCode::kCancelled);
  canceller.join();
}

TEST_F(WritableDeviceTest, WriteThatCannotBeFilledLeavesTheBlockAsItWas) {
  const uint64_t page = DataPage();
  diff_->OnRead([](ByteRange, const ReadOptions&) { return absl::InvalidArgumentError("wrong"); });
  EXPECT_EQ(CodeOf(Write(page * kPageBytes + 1, "x")), absl::StatusCode::kInvalidArgument);
  diff_->OnRead(nullptr);
  EXPECT_EQ(*Read(0, kBytes), build_.memfile);
  EXPECT_THAT(device_->DirtyBlocks(), IsEmpty());
}

}  // namespace
}  // namespace peerchunk
