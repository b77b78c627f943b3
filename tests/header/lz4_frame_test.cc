#include "header/lz4_frame.h"

#include <lz4frame.h>

#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "peerchunk/base/range.h"
#include "tests/header/header_fixtures.h"

namespace peerchunk::header {
namespace {

using ::testing::HasSubstr;

std::string Noise(size_t size) {
  std::mt19937_64 random(7);
  std::string data(size, '\0');
  for (char& c : data) c = static_cast<char>(random());
  return data;
}

std::string Framed(std::string_view data) {
  std::string frame;
  AppendLz4Frame(frame, data);
  return frame;
}

// A frame with other parameters than ours.
std::string FramedWith(const LZ4F_preferences_t& preferences, std::string_view data) {
  std::string frame(LZ4F_compressFrameBound(data.size(), &preferences), '\0');
  frame.resize(
      LZ4F_compressFrame(frame.data(), frame.size(), data.data(), data.size(), &preferences));
  return frame;
}

// Ours, as LZ4F_compressFrame keeps them: it lowers the block size unless the data needs it.
LZ4F_preferences_t OurPreferences() {
  LZ4F_preferences_t p = LZ4F_INIT_PREFERENCES;
  p.frameInfo.blockSizeID = LZ4F_max4MB;
  p.frameInfo.blockMode = LZ4F_blockIndependent;
  p.frameInfo.blockChecksumFlag = LZ4F_blockChecksumEnabled;
  p.frameInfo.contentChecksumFlag = LZ4F_contentChecksumEnabled;
  return p;
}

std::string Error(std::string_view frame, uint64_t size) {
  const absl::Status status = DecodeLz4Frame(frame, size).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  return std::string(status.message());
}

TEST(Lz4FrameTest, DescriptorIsTheFormatsEvenForSmallData) {
  // Magic; version 1, independent blocks, block checksums, content checksum; 4 MiB blocks.
  EXPECT_EQ(Framed("x").substr(0, 6), header_testing::FromHex("04224d18 74 70"));
}

TEST(Lz4FrameTest, DataOfEverySizeComesBack) {
  const std::string noise = Noise(9 * kMiB);
  for (const size_t size : {size_t{0}, size_t{1}, size_t{56}, size_t{65'536}, 4 * kMiB - 1,
                            4 * kMiB, 4 * kMiB + 1, 9 * kMiB}) {
    for (const std::string& data : {noise.substr(0, size), std::string(size, 'a')}) {
      const absl::StatusOr<std::string> back = DecodeLz4Frame(Framed(data), size);
      ASSERT_TRUE(back.ok()) << back.status();
      EXPECT_TRUE(*back == data) << size;
    }
  }
}

TEST(Lz4FrameTest, IsAppended) {
  std::string out = "before";
  AppendLz4Frame(out, "data");
  EXPECT_EQ(out, "before" + Framed("data"));
}

TEST(Lz4FrameTest, WrongSizeIsDataLoss) {
  const std::string frame = Framed(std::string(1000, 'a'));
  EXPECT_THAT(Error(frame, 1001), HasSubstr("holds 1000 bytes, not 1001"));
  EXPECT_THAT(Error(frame, 999), HasSubstr("more than 999"));
  EXPECT_THAT(Error(frame, 0), HasSubstr("more than 0"));
}

TEST(Lz4FrameTest, SizeThatCannotBeIsRefusedBeforeItIsAllocated) {
  EXPECT_THAT(Error(Framed("data"), uint64_t{1} << 60), HasSubstr("cannot hold"));
}

TEST(Lz4FrameTest, MostCompressibleDataIsNotTakenForALie) {
  const std::string zeros(64 * kMiB, '\0');
  EXPECT_TRUE(DecodeLz4Frame(Framed(zeros), zeros.size()).ok());
}

TEST(Lz4FrameTest, EveryPrefixIsDataLoss) {
  const std::string data = Noise(300) + std::string(300, 'a');
  const std::string frame = Framed(data);
  for (size_t n = 0; n < frame.size(); ++n)
    Error(std::string_view(frame).substr(0, n), data.size());
}

TEST(Lz4FrameTest, EveryFlippedByteIsDataLoss) {
  const std::string data = Noise(200) + std::string(200, 'a');
  const std::string frame = Framed(data);
  for (size_t n = 0; n < frame.size(); ++n) {
    std::string bad = frame;
    bad[n] = static_cast<char>(bad[n] ^ 0x20);
    Error(bad, data.size());
  }
}

TEST(Lz4FrameTest, BytesAfterTheFrameAreDataLoss) {
  EXPECT_THAT(Error(Framed("data") + "x", 4), HasSubstr("1 bytes after"));
  EXPECT_THAT(Error(Framed("data") + Framed("data"), 4), HasSubstr("bytes after"));
}

TEST(Lz4FrameTest, SkippableFrameIsDataLoss) {
  const std::string skippable = header_testing::FromHex("502a4d18 04000000 00000000");
  Error(skippable, 0);
  Error(skippable + Framed("data"), 4);
}

TEST(Lz4FrameTest, ParametersOtherThanTheFormatsAreDataLoss) {
  const std::string data(5 * kMiB, 'a');
  ASSERT_TRUE(DecodeLz4Frame(FramedWith(OurPreferences(), data), data.size()).ok());
  LZ4F_preferences_t p = OurPreferences();
  p.frameInfo.blockMode = LZ4F_blockLinked;
  EXPECT_THAT(Error(FramedWith(p, data), data.size()), HasSubstr("independent"));
  p = OurPreferences();
  p.frameInfo.blockSizeID = LZ4F_max1MB;
  EXPECT_THAT(Error(FramedWith(p, data), data.size()), HasSubstr("4 MiB"));
  p = OurPreferences();
  p.frameInfo.blockChecksumFlag = LZ4F_noBlockChecksum;
  EXPECT_THAT(Error(FramedWith(p, data), data.size()), HasSubstr("checksums"));
  p = OurPreferences();
  p.frameInfo.contentChecksumFlag = LZ4F_noContentChecksum;
  EXPECT_THAT(Error(FramedWith(p, data), data.size()), HasSubstr("checksums"));
  p = OurPreferences();
  p.frameInfo.dictID = 1;
  EXPECT_THAT(Error(FramedWith(p, data), data.size()), HasSubstr("LZ4"));
}

TEST(Lz4FrameTest, DeclaredContentSizeMustAgree) {
  const std::string data(5 * kMiB, 'a');
  LZ4F_preferences_t p = OurPreferences();
  p.frameInfo.contentSize = data.size();
  EXPECT_TRUE(DecodeLz4Frame(FramedWith(p, data), data.size()).ok());
  EXPECT_THAT(Error(FramedWith(p, data), data.size() - 1), HasSubstr("declares"));
}

}  // namespace
}  // namespace peerchunk::header
