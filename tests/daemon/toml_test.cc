#include "daemon/toml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace peerchunk {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string ErrorOf(std::string_view text) {
  const auto parsed = ParseToml(text);
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(parsed.status().message());
}

TEST(TomlTest, EveryKindOfValueIsRead) {
  const auto parsed = ParseToml(
      "# a comment\n"
      "\n"
      "base = \"gs://bucket/a#b\"   # another\n"
      "literal = 'C:\\x'\r\n"
      "escaped = \"a\\\"b\\\\c\\n\\t\"\n"
      "threads=16\n"
      "large = 1_000_000\n"
      "pause-sync = true\n"
      "listen = [\n  \"127.0.0.1:1\", # one\n  \"127.0.0.1:2\",\n]\n"
      "none = []");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ASSERT_EQ(parsed->size(), 8u);
  EXPECT_THAT((*parsed)[0].values, ElementsAre("gs://bucket/a#b"));
  EXPECT_EQ((*parsed)[0].line, 3);
  EXPECT_THAT((*parsed)[1].values, ElementsAre("C:\\x"));
  EXPECT_THAT((*parsed)[2].values, ElementsAre("a\"b\\c\n\t"));
  EXPECT_THAT((*parsed)[3].values, ElementsAre("16"));
  EXPECT_THAT((*parsed)[4].values, ElementsAre("1000000"));
  EXPECT_THAT((*parsed)[5].values, ElementsAre("true"));
  EXPECT_THAT((*parsed)[6].values, ElementsAre("127.0.0.1:1", "127.0.0.1:2"));
  EXPECT_TRUE((*parsed)[6].is_array);
  EXPECT_TRUE((*parsed)[7].values.empty());
}

TEST(TomlTest, WhatIsNotUnderstoodIsRefusedWithItsLine) {
  EXPECT_THAT(ErrorOf("\n[section]\n"), HasSubstr("line 2: tables"));
  EXPECT_THAT(ErrorOf("listen\n"), HasSubstr("line 1: expected '=' after 'listen'"));
  EXPECT_THAT(ErrorOf("= 3"), HasSubstr("expected `key = value`"));
  EXPECT_THAT(ErrorOf("a = word"), HasSubstr("expected a string in quotes"));
  EXPECT_THAT(ErrorOf("a = 1.5"), HasSubstr("one value per line"));
  EXPECT_THAT(ErrorOf("a = -1"), HasSubstr("whole number"));
  EXPECT_THAT(ErrorOf("a ="), HasSubstr("a value is missing"));
  EXPECT_THAT(ErrorOf("a = \"open"), HasSubstr("not closed"));
  EXPECT_THAT(ErrorOf("a = \"open\\"), HasSubstr("not closed"));
  EXPECT_THAT(ErrorOf("a = \"\\u0041\""), HasSubstr("only"));
  EXPECT_THAT(ErrorOf("a = [\"x\""), HasSubstr("the array is not closed"));
  EXPECT_THAT(ErrorOf("a = [\"x\" \"y\"]"), HasSubstr("expected ',' or ']'"));
  EXPECT_THAT(ErrorOf("a = \"x\" b = \"y\""), HasSubstr("one value per line"));
  EXPECT_THAT(ErrorOf("a = 1\na = 2"), HasSubstr("line 2: 'a' is given twice"));
}

TEST(TomlTest, AQuotedStringIsReadBackAsItWas) {
  const std::string text = "a \"quote\", a \\ slash,\na line\tand 'more' # no comment";
  const auto parsed = ParseToml("key = " + QuoteToml(text));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_THAT((*parsed)[0].values, ElementsAre(text));
}

}  // namespace
}  // namespace peerchunk
