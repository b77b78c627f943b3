#include "base/grpc_status.h"

#include <string>

#include <gtest/gtest.h>

namespace peerchunk {
namespace {

TEST(GrpcStatusTest, EveryCodeRoundTrips) {
  EXPECT_TRUE(ToAbslStatus(grpc::Status::OK).ok());
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "why");
    EXPECT_EQ(static_cast<int>(ToGrpcStatus(status).error_code()), code);
    EXPECT_EQ(ToAbslStatus(ToGrpcStatus(status)), status);
  }
}

TEST(GrpcStatusTest, ForeignNumberIsUnknown) {
  // Beyond 31 the enumeration itself has no room.
  for (const int code : {17, 31, -1}) {
    EXPECT_EQ(ToAbslStatus(grpc::Status(static_cast<grpc::StatusCode>(code), "x")).code(),
              absl::StatusCode::kUnknown);
  }
}

TEST(GrpcStatusTest, LongMessageIsCut) {
  const grpc::Status status = ToGrpcStatus(absl::InternalError(std::string(100'000, 'x')));
  EXPECT_EQ(status.error_message(), std::string(1024, 'x'));
}

}  // namespace
}  // namespace peerchunk
