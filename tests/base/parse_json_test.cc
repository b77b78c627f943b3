#include "base/parse_json.h"

#include <string>

#include <gtest/gtest.h>

namespace peerchunk {
namespace {

std::string Nested(size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); }

TEST(ParseJsonTest, JsonIsParsed) {
  EXPECT_EQ(ParseJson(R"({"a":[1,"x"]})"), nlohmann::json::parse(R"({"a":[1,"x"]})"));
  EXPECT_EQ(ParseJson("null"), nlohmann::json());
}

TEST(ParseJsonTest, AnythingElseIsDiscarded) {
  for (const char* text : {"", "{", "]", "}{", "[1]]", "\"", "\"\\", "{\"a\":}", "\xff"}) {
    EXPECT_TRUE(ParseJson(text).is_discarded()) << text;
  }
}

TEST(ParseJsonTest, NestingHasALimit) {
  EXPECT_TRUE(ParseJson(Nested(kMaxJsonDepth)).is_array());
  EXPECT_TRUE(ParseJson(Nested(kMaxJsonDepth + 1)).is_discarded());
  EXPECT_TRUE(ParseJson(std::string(64 << 20, '[')).is_discarded());
  // Side by side is not nested, nor is what stands in a string.
  std::string many = "[";
  for (size_t i = 0; i < 2 * kMaxJsonDepth; ++i) many += "[{}],";
  EXPECT_TRUE(ParseJson(many + "0]").is_array());
  EXPECT_TRUE(ParseJson("\"\\\"" + std::string(2 * kMaxJsonDepth, '[') + "\"").is_string());
}

}  // namespace
}  // namespace peerchunk
