#pragma once

#include <string_view>
#include <utility>

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/str_cat.h>

namespace peerchunk {

// `status` with "context: " put before its message; OK stays OK. Context is added once, where the
// object is known.
absl::Status Annotate(const absl::Status& status, std::string_view context);

// The status for a failed system call: NotFound for ENOENT, ResourceExhausted for ENOSPC and
// EDQUOT, PermissionDenied for EACCES and EPERM, AlreadyExists for EEXIST, FailedPrecondition where
// a file and a folder are taken for each other, InvalidArgument for ENAMETOOLONG, Internal for the
// rest.
absl::Status ErrnoStatus(int error, std::string_view what);

// abseil 20220623 takes only its own string views in StrCat.
inline absl::string_view AbslView(std::string_view view) { return {view.data(), view.size()}; }

namespace internal {
inline absl::Status ToStatus(absl::Status status) { return status; }
template <typename T>
absl::Status ToStatus(const absl::StatusOr<T>& result) {
  return result.status();
}
}  // namespace internal

}  // namespace peerchunk

#define PEERCHUNK_CONCAT_INNER(a, b) a##b
#define PEERCHUNK_CONCAT(a, b) PEERCHUNK_CONCAT_INNER(a, b)

// Returns from the function when `expr` is an error.
#define PEERCHUNK_RETURN_IF_ERROR(expr)                                                        \
  do {                                                                                         \
    if (auto peerchunk_status = ::peerchunk::internal::ToStatus(expr); !peerchunk_status.ok()) \
      return peerchunk_status;                                                                 \
  } while (false)

// Assigns the value of a StatusOr expression, or returns its error.
#define PEERCHUNK_ASSIGN_OR_RETURN(lhs, expr) \
  PEERCHUNK_ASSIGN_OR_RETURN_IMPL(PEERCHUNK_CONCAT(peerchunk_result_, __LINE__), lhs, expr)
#define PEERCHUNK_ASSIGN_OR_RETURN_IMPL(result, lhs, expr) \
  auto result = (expr);                                    \
  if (!result.ok()) return std::move(result).status();     \
  lhs = *std::move(result)
