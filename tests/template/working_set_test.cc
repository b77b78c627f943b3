#include "template/working_set.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "peerchunk/base/range.h"
#include "tests/support/status_asserts.h"

namespace peerchunk::test {
namespace {

using testing::ElementsAre;

constexpr uint64_t kDevice = 100 * kPageBytes + 1;

std::string Memory(const std::string& members) {
  return "{\"prefetch\":{\"memory\":{" + members + "}}}";
}

TEST(WorkingSetTest, IsReadFromMetadataInItsOrder) {
  const auto set = DecodeWorkingSet(
      Memory(R"("indices":[7,3,100,7],"access_types":["r","w","p","r"],"block_size":4096)"),
      kDevice);
  ASSERT_OK(set);
  ASSERT_TRUE(set->has_value());
  EXPECT_EQ((*set)->block_bytes, 4096u);
  EXPECT_THAT((*set)->blocks, ElementsAre(7, 3, 100)) << "each once";
}

TEST(WorkingSetTest, MetadataWithoutOneHasNone) {
  for (const char* metadata : {"{}", R"({"version":2})", R"({"prefetch":null})",
                               R"({"prefetch":{}})", R"({"prefetch":{"memory":null}})"}) {
    const auto set = DecodeWorkingSet(metadata, kDevice);
    ASSERT_OK(set) << metadata;
    EXPECT_FALSE(set->has_value()) << metadata;
  }
}

TEST(WorkingSetTest, WhatIsNoneOfThisDeviceIsRefused) {
  for (const std::string& metadata : {
           std::string(""),
           std::string("[]"),
           std::string(R"({"prefetch":1})"),
           std::string(R"({"prefetch":{"memory":1}})"),
           Memory(R"("indices":[1])"),
           Memory(R"("block_size":4096)"),
           Memory(R"("indices":{},"block_size":4096)"),
           Memory(R"("indices":[101],"block_size":4096)"),
           Memory(R"("indices":[-1],"block_size":4096)"),
           Memory(R"("indices":[1.5],"block_size":4096)"),
           Memory(R"("indices":["1"],"block_size":4096)"),
           Memory(R"("indices":[18446744073709551615],"block_size":4096)"),
           Memory(R"("indices":[1],"block_size":0)"),
           Memory(R"("indices":[1],"block_size":-4096)"),
           Memory(R"("indices":[1],"block_size":1000)"),
           Memory(R"("indices":[0],"block_size":1099511627776)"),
           Memory(R"("indices":[1],"access_types":[],"block_size":4096)"),
           Memory(R"("indices":[1],"access_types":"r","block_size":4096)"),
       }) {
    EXPECT_EQ(CodeOf(DecodeWorkingSet(metadata, kDevice)), absl::StatusCode::kInvalidArgument)
        << metadata;
  }
}

// A peer's word: what is shown of it in the error is written by a function that calls itself.
TEST(WorkingSetTest, NestingOfAnyDepthIsRefused) {
  const std::string nested = std::string(1 << 20, '[') + std::string(1 << 20, ']');
  EXPECT_EQ(
      CodeOf(DecodeWorkingSet(Memory("\"indices\":" + nested + ",\"block_size\":4096"), kDevice)),
      absl::StatusCode::kInvalidArgument);
}

TEST(WorkingSetTest, IsCutAtItsLimit) {
  WorkingSet set{.block_bytes = 4096, .blocks = {}};
  for (uint64_t i = 0; i < kMaxWorkingSetBlocks + 10; ++i) set.blocks.push_back(i);
  const auto decoded = DecodeWorkingSet(EncodeWorkingSet(set), uint64_t{1} << 40);
  ASSERT_OK(decoded);
  EXPECT_EQ((*decoded)->blocks.size(), kMaxWorkingSetBlocks);
}

TEST(WorkingSetTest, IsAddedWithoutTouchingAnythingElse) {
  const WorkingSet set{.block_bytes = 8192, .blocks = {5, 0, 9}};
  // Numbers, order and spaces that would not survive being written anew.
  const std::string metadata =
      "{ \"z\": 1.00,  \"a\": 12345678901234567890123, \"s\": \"}\" , \"n\":{} } \n";
  const auto with = WithWorkingSet(metadata, set);
  ASSERT_OK(with);
  EXPECT_EQ(with->substr(0, metadata.rfind('}')), metadata.substr(0, metadata.rfind('}')));
  EXPECT_TRUE(with->ends_with("} \n"));
  const auto decoded = DecodeWorkingSet(*with, kDevice);
  ASSERT_OK(decoded);
  EXPECT_EQ(**decoded, set);

  EXPECT_EQ(*WithWorkingSet("{}", set), EncodeWorkingSet(set));
}

TEST(WorkingSetTest, OneThatIsThereIsLeftAlone) {
  const WorkingSet set{.block_bytes = 4096, .blocks = {1}};
  EXPECT_EQ(CodeOf(WithWorkingSet(EncodeWorkingSet(set), set)),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(CodeOf(WithWorkingSet(R"({"prefetch":null})", set)),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(CodeOf(WithWorkingSet("[]", set)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(WithWorkingSet("{", set)), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace peerchunk::test
