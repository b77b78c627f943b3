#include "template/snapshot_check.h"

#include <string>

#include <gtest/gtest.h>

#include "tests/support/status_asserts.h"

namespace peerchunk {
namespace {

using test::CodeOf;

const BuildId kId({0xaa, 1});

TEST(CheckMetadataTest, SaysWhetherThereIsMemoryAndWhoseItIs) {
  EXPECT_OK(CheckMetadata("{}", kId, true));
  EXPECT_OK(CheckMetadata(R"({"filesystem_only":false})", kId, true));
  EXPECT_OK(CheckMetadata(R"({"filesystem_only":true})", kId, false));
  EXPECT_OK(CheckMetadata(R"({"template":{"build_id":")" + kId.ToString() + "\"}}", kId, true));
  for (const char* text : {"", "[]", "1", "{", R"({"template":{"build_id":"x"}})",
                           R"({"template":{"build_id":[]}})", R"({"filesystem_only":true})"}) {
    EXPECT_EQ(CodeOf(CheckMetadata(text, kId, true)), absl::StatusCode::kInvalidArgument) << text;
  }
  EXPECT_EQ(CodeOf(CheckMetadata("{}", kId, false)), absl::StatusCode::kInvalidArgument);
}

// What an error shows of it is written by a function that calls itself for each level.
TEST(CheckMetadataTest, NestingOfAnyDepthIsAnError) {
  const std::string nested = std::string(1 << 20, '[') + std::string(1 << 20, ']');
  for (const std::string& text :
       {"{\"filesystem_only\":" + nested + "}", "{\"template\":{\"build_id\":" + nested + "}}"}) {
    EXPECT_EQ(CodeOf(CheckMetadata(text, kId, false)), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace peerchunk
