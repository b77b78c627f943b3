#include "peerchunk/base/status.h"

#include <cerrno>
#include <memory>
#include <string>

#include <absl/strings/cord.h>
#include <gtest/gtest.h>

namespace peerchunk {
namespace {

TEST(AnnotateTest, ErrorGetsItsContextInFront) {
  const absl::Status status = Annotate(absl::NotFoundError("gone"), "read a/b");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(status.message(), "read a/b: gone");
}

TEST(AnnotateTest, OkStaysOk) { EXPECT_TRUE(Annotate(absl::OkStatus(), "read").ok()); }

TEST(AnnotateTest, PayloadsAreKept) {
  absl::Status status = absl::UnavailableError("busy");
  status.SetPayload("retry", absl::Cord("5 ms"));
  EXPECT_EQ(Annotate(status, "read").GetPayload("retry"), absl::Cord("5 ms"));
}

TEST(ErrnoStatusTest, CodesSayWhatTheCallerMayDo) {
  EXPECT_TRUE(absl::IsNotFound(ErrnoStatus(ENOENT, "x")));
  EXPECT_TRUE(absl::IsResourceExhausted(ErrnoStatus(ENOSPC, "x")));
  EXPECT_TRUE(absl::IsResourceExhausted(ErrnoStatus(EDQUOT, "x")));
  EXPECT_TRUE(absl::IsPermissionDenied(ErrnoStatus(EACCES, "x")));
  EXPECT_TRUE(absl::IsPermissionDenied(ErrnoStatus(EPERM, "x")));
  EXPECT_TRUE(absl::IsAlreadyExists(ErrnoStatus(EEXIST, "x")));
  EXPECT_TRUE(absl::IsFailedPrecondition(ErrnoStatus(ENOTDIR, "x")));
  EXPECT_TRUE(absl::IsFailedPrecondition(ErrnoStatus(EISDIR, "x")));
  EXPECT_TRUE(absl::IsFailedPrecondition(ErrnoStatus(ENOTEMPTY, "x")));
  EXPECT_TRUE(absl::IsInvalidArgument(ErrnoStatus(ENAMETOOLONG, "x")));
  EXPECT_TRUE(absl::IsInternal(ErrnoStatus(EIO, "x")));
  EXPECT_EQ(ErrnoStatus(ENOENT, "open /x").message(), "open /x: No such file or directory");
}

absl::StatusOr<std::unique_ptr<int>> Make(bool fail) {
  if (fail) return absl::AbortedError("asked to");
  return std::make_unique<int>(7);
}

absl::StatusOr<int> Use(bool fail) {
  PEERCHUNK_RETURN_IF_ERROR(absl::OkStatus());
  PEERCHUNK_ASSIGN_OR_RETURN(const std::unique_ptr<int> value, Make(fail));
  PEERCHUNK_RETURN_IF_ERROR(Make(fail));
  return *value;
}

TEST(StatusMacrosTest, ValuesPassAndErrorsReturn) {
  EXPECT_EQ(*Use(false), 7);
  EXPECT_EQ(Use(true).status(), absl::AbortedError("asked to"));
}

}  // namespace
}  // namespace peerchunk
