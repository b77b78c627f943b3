#include "peerchunk/header/header.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/header/header_fixtures.h"

namespace peerchunk {
namespace {

using header_testing::ExampleA;
using header_testing::ExampleB;
using header_testing::FromHex;
using header_testing::kA;
using header_testing::kB;
using header_testing::Metadata;
using header_testing::Patched;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr const char kExampleA[] = R"(
03 00 00 00 00 00 00 00 00 10 00 00 00 00 00 00
00 40 00 00 00 00 00 00 00 00 00 00 00 00 00 00
aa aa aa aa 00 00 40 00 80 00 00 00 00 00 00 01
aa aa aa aa 00 00 40 00 80 00 00 00 00 00 00 01
00 00 00 00 00 00 00 00 00 40 00 00 00 00 00 00
aa aa aa aa 00 00 40 00 80 00 00 00 00 00 00 01
00 00 00 00 00 00 00 00)";

TEST(HeaderTest, WorkedExampleAIsByteForByte) {
  const std::string bytes = FromHex(kExampleA);
  ASSERT_EQ(bytes.size(), 104u);
  EXPECT_EQ(ExampleA().Encode(), bytes);
  const absl::StatusOr<Header> decoded = Header::Decode(bytes, {.expected_build = kA});
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(*decoded, ExampleA());
  EXPECT_EQ(decoded->size(), 0x4000u);
  EXPECT_EQ(decoded->block_size(), 0x1000u);
  EXPECT_THAT(decoded->warnings(), IsEmpty());
}

TEST(HeaderTest, WorkedExampleBIsMergedAsDocumented) {
  const Header b = ExampleB();
  EXPECT_THAT(
      b.mappings(),
      ElementsAre(Mapping{0x0000, 0x1000, kA, 0}, Mapping{0x1000, 0x1000, kB, 0},
                  Mapping{0x2000, 0x1000, kA, 0x2000}, Mapping{0x3000, 0x1000, BuildId(), 0}));
  EXPECT_EQ(b.metadata(), (HeaderMetadata{.version = 3,
                                          .block_size = 0x1000,
                                          .size = 0x4000,
                                          .generation = 1,
                                          .build_id = kB,
                                          .base_build_id = kA}));
  EXPECT_EQ(b.Encode().size(), 224u);
  EXPECT_EQ(*b.Route(0x1000), (Segment{kB, 0, 0x1000}));
  EXPECT_EQ(*b.Route(0x2000), (Segment{kA, 0x2000, 0x1000}));
  EXPECT_TRUE(b.Route(0x3000)->is_zero());
  EXPECT_EQ(b.Route(0x3000)->length, 0x1000u);
}

TEST(HeaderTest, RouteInsideAMappingShiftsTheStorageOffset) {
  const Header b = ExampleB();
  EXPECT_EQ(*b.Route(0x2abc), (Segment{kA, 0x2abc, 0x544}));
  EXPECT_EQ(*b.Route(0x1fff), (Segment{kB, 0xfff, 1}));
  EXPECT_EQ(*b.Route(0x3fff), (Segment{BuildId(), 0, 1}));
}

TEST(HeaderTest, RoutePastTheEndIsOutOfRange) {
  const Header b = ExampleB();
  for (const uint64_t offset : {uint64_t{0x4000}, uint64_t{0x4001}, ~uint64_t{0}}) {
    EXPECT_EQ(b.Route(offset).status().code(), absl::StatusCode::kOutOfRange) << offset;
  }
}

TEST(HeaderTest, LayersNameEachBuildOnceWithWhatItMustHold) {
  EXPECT_THAT(ExampleB().Layers(),
              ElementsAre(Layer{kA, 0x3000, 0x2000}, Layer{kB, 0x1000, 0x1000}));
  EXPECT_THAT(ExampleA().Layers(), ElementsAre(Layer{kA, 0x4000, 0x4000}));
}

TEST(HeaderTest, NoEntriesAreTheIdentityInV1ToV3) {
  for (const uint64_t version : {1, 2, 3}) {
    const Header whole = Header::CreateIdentity(Metadata(version, 0x4000)).value();
    const absl::StatusOr<Header> decoded = Header::Decode(whole.Encode().substr(0, 64));
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_EQ(*decoded, whole);
    EXPECT_THAT(decoded->warnings(), IsEmpty());
  }
}

TEST(HeaderTest, IdentityOfAnUnalignedDeviceIsRoundedUpButReadsEndAtTheDevice) {
  for (const uint64_t version : {1, 2, 3, 4, 5}) {
    const Header h = Header::CreateIdentity(Metadata(version, 0x1234)).value();
    EXPECT_THAT(h.mappings(), ElementsAre(Mapping{0, 0x2000, kA, 0}));
    EXPECT_EQ(*h.Route(0x1000), (Segment{kA, 0x1000, 0x234}));
    EXPECT_EQ(h.Route(0x1234).status().code(), absl::StatusCode::kOutOfRange);
    EXPECT_THAT(h.Layers(), ElementsAre(Layer{kA, 0x1234, 0x1234}));
    EXPECT_EQ(*Header::Decode(h.Encode()), h);
    if (version <= 3) {
      EXPECT_EQ(h.Encode().size(), 64u) << "an entry would not sum to size";
    }
  }
}

TEST(HeaderTest, EmptyDeviceHasNoMappings) {
  for (const uint64_t version : {1, 2, 3, 4, 5}) {
    const Header h = Header::CreateIdentity(Metadata(version, 0)).value();
    EXPECT_THAT(h.mappings(), IsEmpty());
    EXPECT_THAT(h.Layers(), IsEmpty());
    EXPECT_EQ(h.Route(0).status().code(), absl::StatusCode::kOutOfRange);
    EXPECT_EQ(*Header::Decode(h.Encode()), h);
  }
}

TEST(HeaderTest, UpperBitsOfTheVersionAreKept) {
  const uint64_t version = 0xABCD'0000'0003;
  const Header h = Header::CreateIdentity(Metadata(version, 0x4000)).value();
  EXPECT_EQ(h.metadata().format(), 3);
  EXPECT_EQ(Header::Decode(h.Encode())->metadata().version, version);
}

TEST(HeaderTest, CreateRefusesWhatDecodeRefuses) {
  const auto code = [](HeaderMetadata m, std::vector<Mapping> mappings) {
    return Header::Create(m, std::move(mappings)).status().code();
  };
  const HeaderMetadata good = Metadata(3, 0x2000);
  const std::vector<Mapping> whole = {{0, 0x2000, kA, 0}};
  EXPECT_EQ(code(good, whole), absl::StatusCode::kOk);
  HeaderMetadata bad = good;
  bad.block_size = 0;
  EXPECT_EQ(code(bad, whole), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(Header::CreateIdentity(bad).ok());
  for (const uint64_t version : {0, 6, 0x10000}) {
    bad = good;
    bad.version = version;
    EXPECT_EQ(code(bad, whole), absl::StatusCode::kInvalidArgument) << version;
  }
  bad = good;
  bad.size = kMaxDeviceBytes + 1;
  EXPECT_EQ(code(bad, whole), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(Header::CreateIdentity(bad).ok());
  for (const uint64_t version : {1, 2, 3, 4, 5}) {
    const HeaderMetadata m = Metadata(version, 0x2000);
    EXPECT_EQ(code(m, {}), absl::StatusCode::kInvalidArgument) << version;
    EXPECT_EQ(code(m, {{0, 0x1000, kA, 0}}), absl::StatusCode::kInvalidArgument) << version;
  }
}

TEST(HeaderTest, WithVersionKeepsTheDevice) {
  const Header b = ExampleB();
  for (const uint64_t version : {1, 2, 3, 4, 5}) {
    const Header other = b.WithVersion(version).value();
    EXPECT_EQ(other.metadata().version, version);
    EXPECT_EQ(other.mappings(), b.mappings());
  }
  EXPECT_EQ(b.WithVersion(6).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(HeaderTest, NextGenerationRefusesABuildThatIsItsOwnAncestor) {
  const Header b = ExampleB();
  for (const BuildId& id : {kA, kB, BuildId()}) {
    EXPECT_EQ(b.NextGeneration(id, {}).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(HeaderTest, NextGenerationAfterTheLastIsRefused) {
  HeaderMetadata m = Metadata(3, 0x4000);
  m.generation = ~uint64_t{0};
  const Header last = Header::CreateIdentity(m).value();
  EXPECT_EQ(last.NextGeneration(kB, {}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(HeaderTest, NextGenerationWithBlocksOutsideTheDeviceIsRefused) {
  EXPECT_EQ(ExampleA().NextGeneration(kB, {.dirty = {4}}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(HeaderTest, NextGenerationWithoutChangesReadsTheSameBytes) {
  const Header c = ExampleA().NextGeneration(kB, {}).value();
  EXPECT_EQ(c.mappings(), ExampleA().mappings());
  EXPECT_EQ(c.metadata().generation, 1u);
}

// V1 and V2 headers with violations, in which the second of two entries is odd.
Header Tolerated(uint64_t version, uint64_t size, const std::vector<Mapping>& mappings) {
  std::string bytes = Header::CreateIdentity(Metadata(version, 0x4000)).value().Encode();
  bytes = Patched<uint64_t>(bytes.substr(0, 64), 16, size);
  for (const Mapping& m : mappings) {
    std::string record = Patched<uint64_t>(std::string(40, '\0'), 0, m.offset);
    record = Patched<uint64_t>(record, 8, m.length);
    std::copy(m.build_id.bytes().begin(), m.build_id.bytes().end(), record.begin() + 16);
    bytes += Patched<uint64_t>(record, 32, m.storage_offset);
  }
  absl::StatusOr<Header> decoded = Header::Decode(bytes);
  EXPECT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(Header::Decode(Patched<uint64_t>(bytes, 0, 3)).status().code(),
            absl::StatusCode::kDataLoss)
      << "an error from V3 on";
  return *std::move(decoded);
}

TEST(ToleratedHeaderTest, GapIsAWarningAndReadingItAnError) {
  for (const uint64_t version : {1, 2}) {
    const Header h = Tolerated(version, 0x4000, {{0, 0x1000, kA, 0}, {0x2000, 0x2000, kB, 0}});
    EXPECT_THAT(h.warnings(), ElementsAre(HasSubstr("gap")));
    EXPECT_EQ(h.Route(0x1000).status().code(), absl::StatusCode::kDataLoss);
    EXPECT_EQ(*h.Route(0x2000), (Segment{kB, 0, 0x2000}));
  }
}

TEST(ToleratedHeaderTest, MissingStartIsAWarningAndReadingItAnError) {
  const Header h = Tolerated(2, 0x4000, {{0x1000, 0x3000, kA, 0}});
  EXPECT_THAT(h.warnings(), ElementsAre(HasSubstr("gap")));
  EXPECT_EQ(h.Route(0).status().code(), absl::StatusCode::kDataLoss);
}

TEST(ToleratedHeaderTest, OfOverlappingEntriesTheLaterWins) {
  const Header h = Tolerated(1, 0x4000, {{0, 0x4000, kA, 0}, {0x1000, 0x3000, kB, 0}});
  EXPECT_THAT(h.warnings(), ElementsAre(HasSubstr("overlaps")));
  EXPECT_EQ(*h.Route(0), (Segment{kA, 0, 0x1000})) << "no further than to the entry that wins";
  EXPECT_EQ(*h.Route(0x1000), (Segment{kB, 0, 0x3000}));
}

TEST(ToleratedHeaderTest, EntriesOutOfOrderAreSorted) {
  const Header h = Tolerated(2, 0x2000, {{0x1000, 0x1000, kB, 0}, {0, 0x1000, kA, 0}});
  EXPECT_THAT(h.warnings(), ::testing::Not(IsEmpty()));
  EXPECT_EQ(*h.Route(0), (Segment{kA, 0, 0x1000}));
  EXPECT_EQ(*h.Route(0x1000), (Segment{kB, 0, 0x1000}));
}

TEST(ToleratedHeaderTest, EmptyEntryIsAWarningAndReadingItAnError) {
  const Header h = Tolerated(2, 0x1000, {{0, 0x1000, kA, 0}, {0x1000, 0, kB, 0}});
  EXPECT_THAT(h.warnings(), ElementsAre(HasSubstr("is empty")));
  const Header inside = Tolerated(2, 0x2000, {{0, 0x1000, kA, 0}, {0x1000, 0, kB, 0}});
  EXPECT_EQ(inside.Route(0x1000).status().code(), absl::StatusCode::kDataLoss);
}

TEST(ToleratedHeaderTest, EntriesPastTheDeviceAreNotRead) {
  const Header h = Tolerated(1, 0x1000, {{0, 0x3000, kA, 0}, {0x3000, 0x1000, kB, 0}});
  EXPECT_THAT(h.warnings(), ElementsAre(HasSubstr("mappings end at")));
  EXPECT_EQ(*h.Route(0), (Segment{kA, 0, 0x1000}));
  EXPECT_THAT(h.Layers(), ElementsAre(Layer{kA, 0x1000, 0x1000}));
}

TEST(ToleratedHeaderTest, LengthThatIsNoMultipleOfThePageIsAWarning) {
  const Header h = Tolerated(1, 0x1000, {{0, 0x800, kA, 0}, {0x800, 0x800, kA, 0x800}});
  EXPECT_EQ(h.warnings().size(), 2u);
  EXPECT_EQ(*h.Route(0x900), (Segment{kA, 0x900, 0x700}));
}

TEST(ToleratedHeaderTest, IsWrittenAsItWasRead) {
  const Header h = Tolerated(2, 0x4000, {{0, 0x1000, kA, 0}, {0x2000, 0x2000, kB, 0}});
  EXPECT_EQ(*Header::Decode(h.Encode()), h);
  EXPECT_EQ(h.EncodedSize(), h.Encode().size());
}

TEST(ToleratedHeaderTest, HasNoChildrenAndNoOtherVersion) {
  const Header h = Tolerated(2, 0x4000, {{0, 0x1000, kA, 0}, {0x2000, 0x2000, kB, 0}});
  EXPECT_EQ(h.NextGeneration(header_testing::NumberedId(1), {}).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(h.WithVersion(3).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(ToleratedHeaderTest, WarningsAreFewHoweverManyTheViolations) {
  const Header h = Tolerated(1, 0x1000, std::vector<Mapping>(1000));
  EXPECT_EQ(h.warnings().size(), 9u);
  EXPECT_THAT(h.warnings().back(), HasSubstr("more"));
}

}  // namespace
}  // namespace peerchunk
