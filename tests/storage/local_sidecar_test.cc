#include "storage/local_sidecar.h"

#include <string>

#include <gtest/gtest.h>

#include "tests/support/status_asserts.h"

namespace peerchunk {
namespace {

using test::CodeOf;

TEST(LocalSidecarTest, RoundTrips) {
  const LocalSidecar sidecar{UINT64_MAX, UINT32_MAX, {{"a", "1"}, {"ä", "\"quoted\"\n"}}};
  const absl::StatusOr<std::string> text = EncodeSidecar(sidecar);
  ASSERT_OK(text);
  const absl::StatusOr<LocalSidecar> decoded = DecodeSidecar(*text);
  ASSERT_OK(decoded);
  EXPECT_EQ(decoded->size, sidecar.size);
  EXPECT_EQ(decoded->crc32c, sidecar.crc32c);
  EXPECT_EQ(decoded->metadata, sidecar.metadata);
}

TEST(LocalSidecarTest, MetadataThatCannotBeKeptIsRefused) {
  EXPECT_EQ(CodeOf(EncodeSidecar({0, 0, {{"key", "\xFF\xFE"}}})),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(EncodeSidecar({0, 0, {{"key", std::string(kMaxSidecarBytes, 'x')}}})),
            absl::StatusCode::kInvalidArgument);
}

TEST(LocalSidecarTest, AnythingElseIsDataLoss) {
  for (const std::string_view text : {
           "",
           "{",
           "[]",
           "null",
           "{}",
           R"({"size":1,"crc32c":2})",
           R"({"size":-1,"crc32c":2,"metadata":{}})",
           R"({"size":1.5,"crc32c":2,"metadata":{}})",
           R"({"size":1,"crc32c":4294967296,"metadata":{}})",
           R"({"size":1,"crc32c":"2","metadata":{}})",
           R"({"size":1,"crc32c":2,"metadata":[]})",
           R"({"size":1,"crc32c":2,"metadata":{"a":1}})",
           R"({"size":1,"crc32c":2,"metadata":{}} trailing)",
       }) {
    EXPECT_EQ(CodeOf(DecodeSidecar(text)), absl::StatusCode::kDataLoss) << text;
  }
}

}  // namespace
}  // namespace peerchunk
