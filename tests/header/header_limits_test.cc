// A header over a limit can be neither read nor written: one that cannot be restored never exists.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "header/compressed_codec.h"
#include "peerchunk/header/header.h"
#include "tests/header/compressed_fixtures.h"
#include "tests/header/header_fixtures.h"

namespace peerchunk {
namespace {

using header_testing::Error;
using header_testing::ExampleB;
using header_testing::File;
using header_testing::FourFrames;
using header_testing::kA;
using header_testing::kB;
using header_testing::kFrameAt;
using header_testing::Metadata;
using header_testing::NumberedId;
using header_testing::RecordOf;
using ::testing::HasSubstr;

TEST(HeaderLimitsTest, FramesOfOneBuild) {
  std::vector<Frame> frames;
  for (uint64_t i = 0; i < kMaxFramesPerBuild; ++i) frames.push_back({i, i, 1, 1});
  const Header h = Header::CreateIdentity(Metadata(5, 0x1000)).value();
  const Header most = h.WithOwnBuild(RecordOf(kA, 0x1000, frames)).value();
  EXPECT_EQ(*Header::Decode(most.Encode()), most);
  frames.push_back({kMaxFramesPerBuild, kMaxFramesPerBuild, 1, 1});
  EXPECT_EQ(h.WithOwnBuild(RecordOf(kA, 0x1000, frames)).status().code(),
            absl::StatusCode::kInvalidArgument);
  const std::string inner = header::EncodeInner(5, h.mappings(), {RecordOf(kA, 0x1000, frames)});
  EXPECT_THAT(Error(File(h.metadata(), inner)), HasSubstr("1048577 frames"));
}

TEST(HeaderLimitsTest, BuildsInTheMappingOfV5) {
  std::vector<Mapping> mappings;
  for (uint32_t i = 0; i < kMaxBuildsInMapping; ++i) {
    mappings.push_back({i * kPageBytes, kPageBytes, NumberedId(i), 0});
  }
  HeaderMetadata metadata = Metadata(5, kMaxBuildsInMapping * kPageBytes);
  const Header most = Header::Create(metadata, mappings).value();
  EXPECT_EQ(*Header::Decode(most.Encode()), most);
  mappings.push_back({mappings.back().end(), kPageBytes, NumberedId(kMaxBuildsInMapping), 0});
  metadata.size += kPageBytes;
  EXPECT_EQ(Header::Create(metadata, mappings).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Error(File(metadata, header::EncodeInner(5, mappings, {}))),
              HasSubstr("65536 builds"));
  metadata.version = 4;
  EXPECT_TRUE(Header::Create(metadata, mappings).ok()) << "V4 has no such table";
}

TEST(HeaderLimitsTest, StorageOffsetOfV5) {
  const auto code = [](uint64_t version, uint64_t storage_offset) {
    return Header::Create(Metadata(version, 0x1000), {{0, 0x1000, kA, storage_offset}})
        .status()
        .code();
  };
  EXPECT_EQ(code(5, (uint64_t{1} << 44) - 0x1000), absl::StatusCode::kOk);
  EXPECT_EQ(code(5, uint64_t{1} << 44), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(5, 0x800), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(4, uint64_t{1} << 44), absl::StatusCode::kOk);
  EXPECT_EQ(code(4, 0x800), absl::StatusCode::kOk);
}

TEST(HeaderLimitsTest, EntriesOutsideTheirDiffFile) {
  const auto code = [](uint64_t file_size) {
    return ExampleB(4).WithOwnBuild(RecordOf(kB, file_size)).status().code();
  };
  EXPECT_EQ(code(0x1000), absl::StatusCode::kOk);
  EXPECT_EQ(code(0xFFF), absl::StatusCode::kInvalidArgument);
}

TEST(HeaderLimitsTest, BadRecordsAreRefusedInWriting) {
  const Header h = ExampleB(4);
  const auto code = [&](const BuildRecord& record) {
    return h.WithOwnBuild(record).status().code();
  };
  EXPECT_EQ(code(RecordOf(kB, uint64_t{1} << 63)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(RecordOf(kB, 0x1000, {{0, 0, 0, 1}})), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(RecordOf(kB, 0x1000, {{0, 0, 2, 1}, {1, 1, 1, 1}})),
            absl::StatusCode::kInvalidArgument);
  BuildRecord plain = RecordOf(kB, 0x1000, FourFrames());
  plain.compression = Compression::kNone;
  EXPECT_EQ(code(plain), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Header::Create(Metadata(4, 0x1000), {{0, 0x1000, kA, 0}},
                           {.builds = {RecordOf(kB, 1), RecordOf(kA, 0x1000)}})
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(HeaderLimitsTest, UncompressedSizeAndMappings) {
  std::vector<Mapping> mappings(kMaxMappings);
  for (uint64_t i = 0; i < mappings.size(); ++i) mappings[i] = {i * kPageBytes, kPageBytes, kA, 0};
  const HeaderMetadata metadata = Metadata(4, kMaxMappings * kPageBytes);
  absl::StatusOr<Header> most = Header::Create(metadata, std::move(mappings));
  ASSERT_TRUE(most.ok()) << most.status();
  EXPECT_EQ(most->EncodedSize() - kFrameAt, 4 + 4 + 40 * kMaxMappings);
  const absl::Status over = most->WithOwnBuild(RecordOf(kA, 0x1000)).status();
  EXPECT_EQ(over.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(over.message()), HasSubstr("uncompressed size"));

  mappings = {most->mappings().begin(), most->mappings().end()};
  most = absl::UnknownError("freed");
  mappings.push_back({mappings.back().end(), kPageBytes, kA, 0});
  HeaderMetadata larger = Metadata(3, mappings.size() * kPageBytes);
  const absl::Status too_many = Header::Create(larger, std::move(mappings)).status();
  EXPECT_EQ(too_many.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(too_many.message()), HasSubstr("mappings, limit"));
}

TEST(HeaderLimitsTest, MappingsWithTheGapsOfV5PutBack) {
  // One more than fits, of which half are gaps that take no bytes in the file.
  const uint64_t entries = kMaxMappings / 2 + 1;
  std::vector<Mapping> mappings(entries);
  for (uint64_t i = 0; i < entries; ++i) mappings[i] = {2 * i * kPageBytes, kPageBytes, kA, 0};
  const HeaderMetadata metadata = Metadata(5, 2 * entries * kPageBytes);
  EXPECT_THAT(Error(File(metadata, header::EncodeInner(5, mappings, {}))),
              HasSubstr("mappings, limit"));
}

}  // namespace
}  // namespace peerchunk
