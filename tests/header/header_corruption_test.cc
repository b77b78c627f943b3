// Each way in which a V1 to V3 header can be wrong, by name. V4 and V5: compressed_header_test.cc.
#include <functional>
#include <ostream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "peerchunk/header/header.h"
#include "tests/header/header_fixtures.h"

namespace peerchunk {
namespace {

using header_testing::ExampleA;
using header_testing::ExampleB;
using header_testing::kA;
using header_testing::kB;
using header_testing::Patched;
using ::testing::HasSubstr;

// Where a field of the n-th record lies.
constexpr size_t OffsetOf(size_t n) { return 64 + 40 * n; }
constexpr size_t LengthOf(size_t n) { return OffsetOf(n) + 8; }
constexpr size_t StorageOf(size_t n) { return OffsetOf(n) + 32; }

struct Corruption {
  const char* name;
  std::function<std::string(const std::string&)> apply;  // to example B as V3
  const char* message;
  bool tolerated_in_v2 = false;
};

void PrintTo(const Corruption& corruption, std::ostream* out) { *out << corruption.name; }

class HeaderCorruptionTest : public ::testing::TestWithParam<Corruption> {};

TEST_P(HeaderCorruptionTest, IsDataLoss) {
  const std::string good = ExampleB().Encode();
  ASSERT_TRUE(Header::Decode(good).ok());
  const std::string bad = GetParam().apply(good);
  const absl::Status status = Header::Decode(bad).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
}

TEST_P(HeaderCorruptionTest, InV2IsAWarningOnlyWhereTheMappingCanStillBeRead) {
  const std::string bad = GetParam().apply(ExampleB().WithVersion(2).value().Encode());
  const absl::StatusOr<Header> decoded = Header::Decode(bad);
  if (GetParam().tolerated_in_v2) {
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_FALSE(decoded->warnings().empty());
  } else {
    EXPECT_EQ(decoded.status().code(), absl::StatusCode::kDataLoss) << decoded.status();
  }
}

const Corruption kCorruptions[] = {
    {"Empty", [](const std::string&) { return std::string(); }, "no room for its metadata"},
    {"TornMetadata", [](const std::string& s) { return s.substr(0, 63); },
     "no room for its metadata"},
    {"TornLastRecord", [](const std::string& s) { return s.substr(0, s.size() - 1); },
     "torn: 39 of 40"},
    {"TrailingByte", [](const std::string& s) { return s + '\0'; }, "torn: 1 of 40"},
    {"MissingLastRecord", [](const std::string& s) { return s.substr(0, s.size() - 40); },
     "mappings end at 12288, the device at 16384", true},
    {"RecordTooMany", [](const std::string& s) { return s + s.substr(OffsetOf(3)); }, "overlaps",
     true},
    {"BlockSizeZero", [](const std::string& s) { return Patched<uint64_t>(s, 8, 0); },
     "block size 0"},
    {"DeviceSizeTooLarge",
     [](const std::string& s) { return Patched<uint64_t>(s, 16, kMaxDeviceBytes + 1); },
     "device of"},
    {"SumBelowSize", [](const std::string& s) { return Patched<uint64_t>(s, 16, 0x5000); },
     "mappings end at 16384, the device at 20480", true},
    {"SumAboveSize", [](const std::string& s) { return Patched<uint64_t>(s, 16, 0x3000); },
     "mappings end at 16384, the device at 12288", true},
    {"Gap", [](const std::string& s) { return Patched<uint64_t>(s, OffsetOf(1), 0x1800); }, "gap",
     true},
    {"GapAtTheStart",
     [](const std::string& s) { return Patched<uint64_t>(s, OffsetOf(0), 0x1000); }, "gap", true},
    {"Overlap", [](const std::string& s) { return Patched<uint64_t>(s, LengthOf(0), 0x2000); },
     "overlaps", true},
    {"ZeroLength", [](const std::string& s) { return Patched<uint64_t>(s, LengthOf(1), 0); },
     "is empty", true},
    {"LengthNoMultipleOfThePage",
     [](const std::string& s) { return Patched<uint64_t>(s, LengthOf(3), 0x1001); },
     "not a multiple of 4096", true},
    {"OffsetPlusLengthOverflows",
     [](const std::string& s) { return Patched<uint64_t>(s, LengthOf(1), ~uint64_t{0xFFF}); },
     "overflows"},
    {"OffsetOverflows",
     [](const std::string& s) { return Patched<uint64_t>(s, OffsetOf(1), ~uint64_t{0}); },
     "overflows"},
    {"StorageOffsetOverflows",
     [](const std::string& s) { return Patched<uint64_t>(s, StorageOf(2), ~uint64_t{0xFFE}); },
     "overflows"},
    {"FormatZero", [](const std::string& s) { return Patched<uint64_t>(s, 0, 0x10000); },
     "format 0"},
};

INSTANTIATE_TEST_SUITE_P(All, HeaderCorruptionTest, ::testing::ValuesIn(kCorruptions),
                         [](const auto& info) { return info.param.name; });

TEST(HeaderDecodeTest, WrongBuildIsDataLoss) {
  const std::string bytes = ExampleB().Encode();
  EXPECT_TRUE(Header::Decode(bytes, {.expected_build = kB}).ok());
  const absl::Status status = Header::Decode(bytes, {.expected_build = kA}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr(kB.ToString()));
}

TEST(HeaderDecodeTest, NewerFormatIsUnimplemented) {
  const std::string bytes = Patched<uint64_t>(ExampleA().Encode(), 0, 6);
  EXPECT_EQ(Header::Decode(bytes).status().code(), absl::StatusCode::kUnimplemented);
}

TEST(HeaderDecodeTest, MoreBytesThanAllowedIsDataLoss) {
  const std::string bytes = ExampleA().Encode();
  EXPECT_TRUE(Header::Decode(bytes, {.max_bytes = 104}).ok());
  EXPECT_EQ(Header::Decode(bytes, {.max_bytes = 103}).status().code(), absl::StatusCode::kDataLoss);
}

TEST(HeaderDecodeTest, ZerosMayCarryAnyStorageOffset) {
  const std::string bytes = Patched<uint64_t>(ExampleB().Encode(), StorageOf(3), ~uint64_t{0});
  const absl::StatusOr<Header> decoded = Header::Decode(bytes);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(*decoded->Route(0x3000), (Segment{BuildId(), 0, 0x1000}));
  EXPECT_TRUE(decoded->NextGeneration(header_testing::NumberedId(1), {.dirty = {3}}).ok());
}

TEST(HeaderDecodeTest, EveryPrefixIsAnErrorOrTheIdentity) {
  const std::string bytes = ExampleB().Encode();
  for (size_t n = 0; n < bytes.size(); ++n) {
    EXPECT_EQ(Header::Decode(bytes.substr(0, n)).ok(), n == 64) << n;
  }
}

}  // namespace
}  // namespace peerchunk
