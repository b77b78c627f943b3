#pragma once

#include <gtest/gtest.h>

#include "peerchunk/base/status.h"

// For a Status or a StatusOr; the message shows on failure, and more may be streamed in.
#define EXPECT_OK(expr) EXPECT_EQ(::peerchunk::internal::ToStatus(expr), absl::OkStatus())
#define ASSERT_OK(expr) ASSERT_EQ(::peerchunk::internal::ToStatus(expr), absl::OkStatus())

namespace peerchunk::test {

inline absl::StatusCode CodeOf(const absl::Status& status) { return status.code(); }
template <typename T>
absl::StatusCode CodeOf(const absl::StatusOr<T>& result) {
  return result.status().code();
}

}  // namespace peerchunk::test
