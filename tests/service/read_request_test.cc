#include "service/read_request.h"

#include <string>

#include <absl/strings/str_cat.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <gtest/gtest.h>

#include "peerchunk/v1/chunk_service.pb.h"

namespace peerchunk {
namespace {

size_t Count(const std::string& bytes) {
  google::protobuf::io::ArrayInputStream in(bytes.data(), static_cast<int>(bytes.size()), 7);
  return CountEntries(in);
}

TEST(ReadRequestTest, ReadsAndCancelledIdsAreCounted) {
  v1::ReadBuildFileRequest request;
  EXPECT_EQ(Count(request.SerializeAsString()), 0u);
  for (uint64_t id = 1; id <= 3; ++id) request.add_reads()->set_id(id);
  for (uint64_t id = 1; id <= 50; ++id) request.add_cancelled(id);
  EXPECT_EQ(Count(request.SerializeAsString()), 53u);
  EXPECT_EQ(Count("\x10\x05\x10\x06"), 2u) << "not packed";
}

// A parser reports that only after it has taken what is there.
TEST(ReadRequestTest, EntriesOfWhatIsCutShortAreCountedToo) {
  EXPECT_EQ(Count(absl::StrCat("\x12\x64", std::string(99, '\x01'))), 100u) << "a list of ids";
  v1::ReadBuildFileRequest request;
  request.add_reads()->set_id(1);
  request.add_reads()->mutable_read()->set_build_id("a build");
  const std::string bytes = request.SerializeAsString();
  EXPECT_EQ(Count(bytes.substr(0, bytes.size() - 1)), 2u);
}

}  // namespace
}  // namespace peerchunk
