// V4 and V5: what is written, and what is refused. Their limits: header_limits_test.cc.
#include <functional>
#include <ostream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "peerchunk/header/header.h"
#include "tests/header/compressed_fixtures.h"
#include "tests/header/header_fixtures.h"

namespace peerchunk {
namespace {

using header_testing::Error;
using header_testing::ExampleB;
using header_testing::File;
using header_testing::FourFrames;
using header_testing::FromHex;
using header_testing::InnerOf;
using header_testing::kA;
using header_testing::kB;
using header_testing::kFlagsAt;
using header_testing::kFrameAt;
using header_testing::kSizeAt;
using header_testing::Metadata;
using header_testing::NumberedId;
using header_testing::Patched;
using header_testing::RecordOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(CompressedHeaderTest, WorkedExampleAsV5IsByteForByte) {
  const std::string file = ExampleB(5).Encode();
  EXPECT_EQ(static_cast<uint8_t>(file[kFlagsAt]), 1);
  EXPECT_EQ(file.substr(kFrameAt, 6), FromHex("04224d18 74 70"));
  const std::string inner = InnerOf(file);
  EXPECT_EQ(inner.size(), 56u);
  EXPECT_EQ(inner, FromHex("00000000 02000000"
                           "aaaaaaaa000040008000000000000001 bbbbbbbb000040008000000000000002"
                           "03000000 000101 010101 000004 000100"));
  EXPECT_EQ(*Header::Decode(file), ExampleB(5));
}

TEST(CompressedHeaderTest, WorkedExampleAsV4HoldsV3sRecords) {
  const std::string inner = InnerOf(ExampleB(4).Encode());
  EXPECT_EQ(inner, FromHex("00000000 04000000") + ExampleB(3).Encode().substr(64));
  EXPECT_EQ(*Header::Decode(ExampleB(4).Encode()), ExampleB(4));
}

TEST(CompressedHeaderTest, BuildRecordsAreByteForByte) {
  Header h = Header::CreateIdentity(Metadata(4, 0x1000)).value();
  std::array<uint8_t, 32> sha256;
  sha256.fill(0x5a);
  BuildRecord record = RecordOf(kA, 0x1000, {{0, 7, 0x1000, 0x123}});
  record.sha256 = sha256;
  h = h.WithOwnBuild(record).value();
  const std::string inner = InnerOf(h.Encode());
  EXPECT_EQ(inner.substr(0, 4 + 64 + 24),
            FromHex("01000000 aaaaaaaa000040008000000000000001 0010000000000000") +
                std::string(32, 0x5a) +
                FromHex("01000000 01000000 0000000000000000 0700000000000000 00100000 23010000"));
  EXPECT_EQ(*Header::Decode(h.Encode()), h);
  EXPECT_EQ(*Header::Decode(h.Encode())->FindBuild(kA), record);
  EXPECT_EQ(h.FindBuild(kB), nullptr);
}

TEST(CompressedHeaderTest, UnknownChecksumIsAbsentNotZero) {
  const Header h = Header::CreateIdentity(Metadata(5, 0x1000)).value();
  const Header with = h.WithOwnBuild(RecordOf(kA, 0x1000)).value();
  EXPECT_FALSE(Header::Decode(with.Encode())->FindBuild(kA)->sha256.has_value());
}

TEST(CompressedHeaderTest, EncodedSizeIsThatOfTheUncompressedForm) {
  for (const uint64_t version : {4, 5}) {
    const Header h =
        ExampleB(version).WithOwnBuild(RecordOf(kB, 0x1000, {FourFrames()[0]})).value();
    EXPECT_EQ(h.EncodedSize(), kFrameAt + InnerOf(h.Encode()).size());
  }
}

TEST(CompressedHeaderTest, IncompleteHeaderInStorageIsDataLoss) {
  const std::string pending = ExampleB(5).Encode();
  EXPECT_TRUE(Header::Decode(pending)->incomplete());
  EXPECT_EQ(Header::Decode(pending, {.from_storage = true}).status().code(),
            absl::StatusCode::kDataLoss);
  const Header done = ExampleB(5).WithOwnBuild(RecordOf(kB, 0x1000)).value();
  EXPECT_FALSE(Header::Decode(done.Encode(), {.from_storage = true})->incomplete());
}

TEST(CompressedHeaderTest, OwnRecordMustBeItsOwn) {
  EXPECT_EQ(ExampleB(5).WithOwnBuild(RecordOf(kA, 0x4000)).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ExampleB(3).WithOwnBuild(RecordOf(kB, 0x1000)).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(CompressedHeaderTest, OwnRecordIsReplaced) {
  const Header once = ExampleB(5).WithOwnBuild(RecordOf(kB, 0x1000)).value();
  const Header twice = once.WithOwnBuild(RecordOf(kB, 0x2000)).value();
  ASSERT_EQ(twice.builds().size(), 1u);
  EXPECT_EQ(twice.FindBuild(kB)->file_size, 0x2000u);
}

TEST(CompressedHeaderTest, ChildKeepsTheFramesThatItNeedsAndDropsUnreadBuilds) {
  for (const uint64_t version : {4, 5}) {
    const Header a = Header::CreateIdentity(Metadata(version, 0x4000))
                         .value()
                         .WithOwnBuild(RecordOf(kA, 0x4000, FourFrames()))
                         .value();
    const Header b = a.NextGeneration(kB, {.dirty = {1}, .zeroed = {3}}).value();
    EXPECT_TRUE(b.incomplete());
    EXPECT_THAT(b.builds(), ElementsAre(RecordOf(kA, 0x4000, {FourFrames()[0], FourFrames()[2]})));
    const Header c = b.NextGeneration(NumberedId(1), {.dirty = {0, 2}}).value();
    EXPECT_THAT(c.builds(), IsEmpty());
  }
}

TEST(CompressedHeaderTest, OlderFormatsHaveNoRoomForExtras) {
  const Header pending = ExampleB(5);
  EXPECT_EQ(pending.WithVersion(3).status().code(), absl::StatusCode::kFailedPrecondition);
  const Header compressed = pending.WithOwnBuild(RecordOf(kB, 0x1000, {FourFrames()[0]})).value();
  EXPECT_EQ(compressed.WithVersion(3).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(*compressed.WithVersion(4)->WithVersion(5), compressed);
  const Header plain = pending.WithOwnBuild(RecordOf(kB, 0x1000)).value();
  EXPECT_EQ(*plain.WithVersion(3), ExampleB(3));
  EXPECT_EQ(Header::Create(Metadata(3, 0x1000), {{0, 0x1000, kA, 0}}, {.incomplete = true})
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(CompressedHeaderTest, DeviceOfZerosHasNoEntriesInV5) {
  const Header h = Header::Create(Metadata(5, 0x5000), {{0, 0x5000, BuildId(), 0}}).value();
  EXPECT_EQ(InnerOf(h.Encode()), std::string(12, '\0'));
  EXPECT_EQ(*Header::Decode(h.Encode()), h);
}

TEST(CompressedHeaderTest, LargeOffsetsSurvive) {
  const uint64_t size = uint64_t{1} << 50;
  const uint64_t last_block = uint64_t{0xFFFF'FFFF} * kPageBytes;
  const Header h = Header::Create(Metadata(5, size), {{0, 0x1000, kA, last_block},
                                                      {0x1000, size - 0x2000, BuildId(), 0},
                                                      {size - 0x1000, 0x1000, kB, 0}})
                       .value();
  EXPECT_EQ(*Header::Decode(h.Encode()), h);
  EXPECT_EQ(h.EncodedSize(), kFrameAt + InnerOf(h.Encode()).size());
}

// Framing.

TEST(CompressedHeaderTest, TornFramingIsDataLoss) {
  const std::string file = ExampleB(5).Encode();
  for (size_t n = 64; n < file.size(); ++n) Error(file.substr(0, n));
}

TEST(CompressedHeaderTest, TrailingByteIsDataLoss) {
  EXPECT_THAT(Error(ExampleB(5).Encode() + '\0'), HasSubstr("after the LZ4 frame"));
}

TEST(CompressedHeaderTest, LyingUncompressedSizeIsDataLoss) {
  const std::string file = ExampleB(5).Encode();
  EXPECT_THAT(Error(Patched<uint32_t>(file, kSizeAt, 55)), HasSubstr("more than 55"));
  EXPECT_THAT(Error(Patched<uint32_t>(file, kSizeAt, 57)), HasSubstr("holds 56 bytes, not 57"));
  EXPECT_THAT(Error(Patched<uint32_t>(file, kSizeAt, 1 << 28)), HasSubstr("cannot hold"));
  EXPECT_THAT(Error(Patched<uint32_t>(file, kSizeAt, (1 << 28) + 1)), HasSubstr("limit 268435456"));
}

TEST(CompressedHeaderTest, BadLz4IsDataLoss) {
  std::string file = ExampleB(5).Encode();
  file[kFrameAt + 12] = static_cast<char>(file[kFrameAt + 12] ^ 1);
  EXPECT_THAT(Error(file), HasSubstr("LZ4"));
}

TEST(CompressedHeaderTest, UnknownFlagIsUnimplemented) {
  const std::string file = Patched<uint8_t>(ExampleB(5).Encode(), kFlagsAt, 3);
  EXPECT_EQ(Header::Decode(file).status().code(), absl::StatusCode::kUnimplemented);
}

TEST(CompressedHeaderTest, WrongBuildIsDataLoss) {
  EXPECT_EQ(Header::Decode(ExampleB(5).Encode(), {.expected_build = kA}).status().code(),
            absl::StatusCode::kDataLoss);
}

// The inner part: each case is a change to the bytes of a good one.

struct BadInner {
  const char* name;
  uint64_t version;
  std::function<std::string(const std::string&)> apply;
  const char* message;
};

void PrintTo(const BadInner& bad, std::ostream* out) { *out << bad.name; }

// Records of A (with four frames) at 4 and of B (without) after it; then the mapping.
Header Good(uint64_t version) {
  return Header::CreateIdentity(Metadata(version, 0x4000))
      .value()
      .WithOwnBuild(RecordOf(kA, 0x4000, FourFrames()))
      .value()
      .NextGeneration(kB, {.dirty = {3}})
      .value()
      .WithOwnBuild(RecordOf(kB, 0x1000))
      .value();
}
constexpr size_t kRecordA = 4;
constexpr size_t kFramesOfA = kRecordA + 64;
constexpr size_t kRecordB = kFramesOfA + size_t{3} * 24;
constexpr size_t kMapping = kRecordB + 64;
// V5: two builds, then two entries: [0, 3 blocks) A, [3, 4) B.
constexpr size_t kTable = kMapping + 4;
constexpr size_t kEntries = kTable + size_t{2} * 16;
constexpr size_t kColumns = kEntries + 4;

class BadInnerTest : public ::testing::TestWithParam<BadInner> {};

TEST_P(BadInnerTest, IsDataLoss) {
  const Header good = Good(GetParam().version);
  const std::string inner = InnerOf(good.Encode());
  ASSERT_EQ(*Header::Decode(File(good.metadata(), inner)), good);
  const std::string bad = GetParam().apply(inner);
  ASSERT_NE(bad, inner);
  EXPECT_THAT(Error(File(good.metadata(), bad)), HasSubstr(GetParam().message));
}

template <typename T>
std::function<std::string(const std::string&)> Set(size_t at, T value) {
  return [=](const std::string& s) { return Patched<T>(s, at, value); };
}
std::function<std::string(const std::string&)> SwapRecords() {
  return [](const std::string& s) {
    return s.substr(0, kRecordA) + s.substr(kRecordB, 64) +
           s.substr(kRecordA, kRecordB - kRecordA) + s.substr(kMapping);
  };
}

const BadInner kBadInners[] = {
    {"Empty", 4, [](const std::string&) { return std::string(); }, "inside its builds"},
    {"TrailingByte", 4, [](const std::string& s) { return s + '\0'; }, "1 bytes after the mapping"},
    {"TrailingByteV5", 5, [](const std::string& s) { return s + '\0'; },
     "1 bytes after the mapping"},
    {"MoreBuildsThanBytes", 4, Set<uint32_t>(0, 0xFFFFFFFF), "4294967295 builds"},
    {"FewerBuildsThanThere", 4, Set<uint32_t>(0, 1), ""},
    {"BuildTorn", 4,
     [](const std::string& s) { return s.substr(0, kRecordB + 63).replace(0, 1, 1, 2); },
     "inside its builds"},
    {"BuildsOutOfOrder", 4, SwapRecords(), "out of order"},
    {"BuildTwice", 4,
     [](const std::string& s) {
       return std::string(s).replace(kRecordB, 16, s.substr(kRecordA, 16));
     },
     "out of order"},
    {"NegativeFileSize", 4, Set<uint64_t>(kRecordA + 16, ~uint64_t{0}), "negative size"},
    {"EntryPastItsDiffFile", 4, Set<uint64_t>(kRecordB + 16, 0xFFF), "whose file has 4095 bytes"},
    {"EntryPastItsDiffFileV5", 5, Set<uint64_t>(kRecordB + 16, 0), "whose file has 0 bytes"},
    {"UnknownCompression", 4, Set<uint32_t>(kRecordA + 56, 3), "compression 3"},
    {"FramesWithoutCompression", 4, Set<uint32_t>(kRecordA + 56, 0), "uncompressed file"},
    {"MoreFramesThanBytes", 4, Set<uint32_t>(kRecordA + 60, 100), "100 frames"},
    {"MoreFramesThanTheLimit", 4, Set<uint32_t>(kRecordA + 60, 1'048'577), "1048577 frames"},
    {"FrameEmpty", 4, Set<uint32_t>(kFramesOfA + 16, 0), "empty or negative"},
    {"FrameEmptyCompressed", 4, Set<uint32_t>(kFramesOfA + 20, 0), "empty or negative"},
    {"FrameNegativeSize", 4, Set<uint32_t>(kFramesOfA + 16, 0x80000000), "empty or negative"},
    {"FrameNegativeSizeCompressed", 4, Set<uint32_t>(kFramesOfA + 20, 0x80000000),
     "empty or negative"},
    {"FrameNegativeStart", 4, Set<uint64_t>(kFramesOfA, ~uint64_t{0}), "empty or negative"},
    {"FrameNegativeStartCompressed", 4, Set<uint64_t>(kFramesOfA + 8, uint64_t{1} << 63),
     "empty or negative"},
    {"FramesOverlap", 4, Set<uint64_t>(kFramesOfA + 24, 4095), "overlaps"},
    {"FramesOverlapCompressed", 4, Set<uint64_t>(kFramesOfA + 24 + 8, 99), "overlaps"},
    {"MoreMappingsThanBytes", 4, Set<uint32_t>(kMapping, 3), "3 mappings"},
    {"FewerMappingsThanThere", 4, Set<uint32_t>(kMapping, 1), "40 bytes after"},
    {"NoMappings", 4,
     [](const std::string& s) { return s.substr(0, kMapping) + std::string(4, '\0'); },
     "mappings end at 0"},
    {"MappingCountTorn", 4, [](const std::string& s) { return s.substr(0, kMapping + 3); },
     "mapping"},
    {"GapV4", 4, Set<uint64_t>(kMapping + 4 + 40, 0x3800), "gap"},
    {"OverflowV4", 4, Set<uint64_t>(kMapping + 4 + 40 + 8, ~uint64_t{0}), "overflows"},
    {"TableCountTorn", 5, [](const std::string& s) { return s.substr(0, kMapping + 3); },
     "table of builds"},
    {"TableLargerThanBytes", 5, Set<uint32_t>(kMapping, 100), "100 builds"},
    {"TableLargerThanTheLimit", 5, Set<uint32_t>(kMapping, 65'536), "65536 builds"},
    {"TableNamesTheNilBuild", 5,
     [](const std::string& s) { return std::string(s).replace(kTable, 16, std::string(16, '\0')); },
     "nil build"},
    {"EntryCountTorn", 5, [](const std::string& s) { return s.substr(0, kEntries + 3); },
     "mapping"},
    {"MoreEntriesThanBytes", 5, Set<uint32_t>(kEntries, 3), "3 mappings"},
    {"HugeEntryCount", 5, Set<uint32_t>(kEntries, 0xFFFFFFFF), "4294967295 mappings"},
    {"EntriesAtOneOffset", 5, Set<uint8_t>(kColumns + 1, 0), "offset"},
    {"OffsetPastTheDevice", 5, Set<uint8_t>(kColumns + 1, 4), "offset"},
    {"LengthZero", 5, Set<uint8_t>(kColumns + 2, 0), "length"},
    {"EntriesOverlap", 5, Set<uint8_t>(kColumns + 2, 4), "length"},
    {"EndPastTheDevice", 5, Set<uint8_t>(kColumns + 3, 2), "length"},
    {"StorageOffsetNegative", 5, Set<uint8_t>(kColumns + 4, 1), "storage offset"},
    {"StorageOffsetPast32Bits", 5,
     [](const std::string& s) {
       return std::string(s).replace(kColumns + 4, 1, FromHex("8080808020"));
     },
     "storage offset"},
    {"StorageDeltaPast32Bits", 5,
     [](const std::string& s) {
       return std::string(s).replace(kColumns + 4, 1, FromHex("feffffffffffffffff01"));
     },
     "storage offset"},
    {"IndexPastTheTable", 5, Set<uint8_t>(kColumns + 7, 2), "build index"},
    {"VarintTorn", 5, [](const std::string& s) { return s.substr(0, s.size() - 1) + '\x80'; },
     "inside its build index"},
    {"VarintPast64Bits", 5,
     [](const std::string& s) {
       return std::string(s).replace(kColumns, 1, FromHex("ffffffffffffffffff02"));
     },
     "inside its offset"},
    {"VarintOfElevenBytes", 5,
     [](const std::string& s) {
       return std::string(s).replace(kColumns, 1, FromHex("8080808080808080808000"));
     },
     "inside its offset"},
};

INSTANTIATE_TEST_SUITE_P(All, BadInnerTest, ::testing::ValuesIn(kBadInners),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace peerchunk
