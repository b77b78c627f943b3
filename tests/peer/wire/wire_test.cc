#include "peer/wire/wire.h"

#include <string>

#include <gtest/gtest.h>

namespace peerchunk {
namespace {

TEST(PeerTextTest, IsFitForAQuotedLine) {
  EXPECT_EQ(PeerText("no such build: a-b_c/d.e [0, +4096)"), "no such build: a-b_c/d.e [0, +4096)");
  EXPECT_EQ(PeerText(std::string("a\"\nb\r\tc\0d\\ \x1b[1m \x7f \xc2\x85.", 21)),
            "a??b??c?d? ?[1m ? ??.");
  EXPECT_EQ(PeerText(std::string(2'000'000, 'x')), std::string(1024, 'x'));
  EXPECT_EQ(PeerText(""), "");
}

TEST(PeerTextTest, IsWhatAStatusSays) {
  const absl::Status status = StatusFromCode(14, "gone\nevent=\"forged\"");
  EXPECT_EQ(status, absl::UnavailableError("gone?event=?forged?"));
  EXPECT_TRUE(StatusFromCode(0, "x").ok());
  for (const int code : {-1, 17, 1000}) {
    EXPECT_EQ(StatusFromCode(code, "x"), absl::UnknownError("x"));
  }
}

}  // namespace
}  // namespace peerchunk
