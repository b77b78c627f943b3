#include "peerchunk/header/mapping.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/header/header_fixtures.h"

namespace peerchunk {
namespace {

using header_testing::kA;
using header_testing::kB;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const BuildId kNil;

absl::Status DiffError(const ChangedBlocks& blocks, uint64_t block_size = 0x1000,
                       uint64_t device_size = 0x10000, const BuildId& id = kB) {
  return MakeDiffMappings(id, blocks, block_size, device_size).status();
}

TEST(MakeDiffMappingsTest, RunsArePackedInAscendingOrder) {
  EXPECT_THAT(*MakeDiffMappings(kB, {.dirty = {1, 2, 5, 7}}, 0x1000, 0x10000),
              ElementsAre(Mapping{0x1000, 0x2000, kB, 0}, Mapping{0x5000, 0x1000, kB, 0x2000},
                          Mapping{0x7000, 0x1000, kB, 0x3000}));
}

TEST(MakeDiffMappingsTest, ZeroedBlocksTakeNoRoomInTheDiffFile) {
  EXPECT_THAT(*MakeDiffMappings(kB, {.dirty = {0, 3}, .zeroed = {1, 2, 5}}, 0x1000, 0x10000),
              ElementsAre(Mapping{0, 0x1000, kB, 0}, Mapping{0x1000, 0x2000, kNil, 0},
                          Mapping{0x3000, 0x1000, kB, 0x1000}, Mapping{0x5000, 0x1000, kNil, 0}));
}

TEST(MakeDiffMappingsTest, NothingChangedIsNoMapping) {
  EXPECT_THAT(*MakeDiffMappings(kB, {}, 0x1000, 0x10000), IsEmpty());
}

TEST(MakeDiffMappingsTest, LastBlockIsCutAtTheDevicesLastPage) {
  EXPECT_THAT(*MakeDiffMappings(kB, {.dirty = {1}}, 0x200000, 0x203000),
              ElementsAre(Mapping{0x200000, 0x3000, kB, 0}));
  EXPECT_THAT(*MakeDiffMappings(kB, {.dirty = {1}}, 0x200000, 0x202abc),
              ElementsAre(Mapping{0x200000, 0x3000, kB, 0}));
}

TEST(MakeDiffMappingsTest, BadBlocksAreRefused) {
  EXPECT_THAT(std::string(DiffError({.dirty = {2, 1}}).message()), HasSubstr("follows"));
  EXPECT_THAT(std::string(DiffError({.zeroed = {2, 2}}).message()), HasSubstr("follows"));
  EXPECT_THAT(std::string(DiffError({.dirty = {16}}).message()), HasSubstr("of 16 blocks"));
  EXPECT_THAT(std::string(DiffError({.zeroed = {~uint64_t{0}}}).message()),
              HasSubstr("of 16 blocks"));
  EXPECT_THAT(std::string(DiffError({.dirty = {1, 3}, .zeroed = {3}}).message()),
              HasSubstr("dirty and zeroed"));
}

TEST(MakeDiffMappingsTest, BadGeometryIsRefused) {
  EXPECT_EQ(DiffError({}, 0).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DiffError({}, 0x800).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DiffError({}, 0x1000, ~uint64_t{0}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DiffError({}, 0x1000, 0x1000, kNil).code(), absl::StatusCode::kInvalidArgument);
}

TEST(MergeMappingsTest, CutPiecesMoveTheirStorageOffset) {
  EXPECT_THAT(*MergeMappings({{0, 0x4000, kA, 0x10000}}, {{0x1000, 0x1000, kB, 0}}),
              ElementsAre(Mapping{0, 0x1000, kA, 0x10000}, Mapping{0x1000, 0x1000, kB, 0},
                          Mapping{0x2000, 0x2000, kA, 0x12000}));
}

TEST(MergeMappingsTest, DiffCoversSeveralBasePieces) {
  EXPECT_THAT(
      *MergeMappings({{0, 0x1000, kA, 0}, {0x1000, 0x1000, kNil, 0}, {0x2000, 0x2000, kA, 0x1000}},
                     {{0, 0x3000, kB, 0}}),
      ElementsAre(Mapping{0, 0x3000, kB, 0}, Mapping{0x3000, 0x1000, kA, 0x2000}));
}

TEST(MergeMappingsTest, NeighboursAreNotJoined) {
  EXPECT_THAT(*MergeMappings({{0, 0x1000, kA, 0}, {0x1000, 0x1000, kA, 0x1000}}, {}),
              ElementsAre(Mapping{0, 0x1000, kA, 0}, Mapping{0x1000, 0x1000, kA, 0x1000}));
}

TEST(MergeMappingsTest, EmptyBaseTakesNoDiff) {
  EXPECT_THAT(*MergeMappings({}, {}), IsEmpty());
  EXPECT_FALSE(MergeMappings({}, {{0, 0x1000, kB, 0}}).ok());
}

TEST(MergeMappingsTest, BadInputIsRefused) {
  const std::vector<Mapping> base = {{0, 0x4000, kA, 0}};
  const auto code = [](const std::vector<Mapping>& b, const std::vector<Mapping>& d) {
    return MergeMappings(b, d).status().code();
  };
  EXPECT_EQ(code(base, {{0x3000, 0x2000, kB, 0}}), absl::StatusCode::kInvalidArgument)
      << "past the end";
  EXPECT_EQ(code(base, {{0, 0x2000, kB, 0}, {0x1000, 0x1000, kB, 0}}),
            absl::StatusCode::kInvalidArgument)
      << "overlap";
  EXPECT_EQ(code(base, {{0x1000, 0, kB, 0}}), absl::StatusCode::kInvalidArgument) << "empty";
  EXPECT_EQ(code(base, {{0x1000, ~uint64_t{0xFFF}, kB, 0}}), absl::StatusCode::kInvalidArgument)
      << "overflow";
  EXPECT_EQ(code(base, {{0x1000, 0x1000, kB, ~uint64_t{0}}}), absl::StatusCode::kInvalidArgument)
      << "storage overflow";
  EXPECT_EQ(code({{0x1000, 0x1000, kA, 0}}, {}), absl::StatusCode::kInvalidArgument)
      << "base has a gap";
}

TEST(NormalizeMappingsTest, JoinsOnlyWhereTheStorageIsContiguousToo) {
  EXPECT_THAT(
      NormalizeMappings({{0, 0x1000, kA, 0},
                         {0x1000, 0x1000, kA, 0x1000},
                         {0x2000, 0x1000, kA, 0x5000},
                         {0x3000, 0x1000, kA, 0x5000},
                         {0x4000, 0x1000, kB, 0x6000}}),
      ElementsAre(Mapping{0, 0x2000, kA, 0}, Mapping{0x2000, 0x1000, kA, 0x5000},
                  Mapping{0x3000, 0x1000, kA, 0x5000}, Mapping{0x4000, 0x1000, kB, 0x6000}));
}

TEST(NormalizeMappingsTest, ZerosJoinAlways) {
  EXPECT_THAT(NormalizeMappings({{0, 0x1000, kNil, 0x7000}, {0x1000, 0x1000, kNil, 0x3000}}),
              ElementsAre(Mapping{0, 0x2000, kNil, 0}));
}

TEST(NormalizeMappingsTest, PiecesThatDoNotTouchStayApart) {
  EXPECT_THAT(NormalizeMappings({{0, 0x1000, kA, 0}, {0x2000, 0x1000, kA, 0x1000}}),
              ElementsAre(Mapping{0, 0x1000, kA, 0}, Mapping{0x2000, 0x1000, kA, 0x1000}));
  EXPECT_THAT(NormalizeMappings({}), IsEmpty());
}

}  // namespace
}  // namespace peerchunk
