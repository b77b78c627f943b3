#include "peerchunk/base/status.h"

#include <cerrno>
#include <string>
#include <system_error>

namespace peerchunk {

absl::Status Annotate(const absl::Status& status, std::string_view context) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(), absl::StrCat(AbslView(context), ": ", status.message()));
  status.ForEachPayload([&](absl::string_view type_url, const absl::Cord& payload) {
    annotated.SetPayload(type_url, payload);
  });
  return annotated;
}

absl::Status ErrnoStatus(int error, std::string_view what) {
  absl::StatusCode code = absl::StatusCode::kInternal;
  switch (error) {
    case ENOENT:
      code = absl::StatusCode::kNotFound;
      break;
    case ENOSPC:
    case EDQUOT:
      code = absl::StatusCode::kResourceExhausted;
      break;
    case EACCES:
    case EPERM:
      code = absl::StatusCode::kPermissionDenied;
      break;
    case EEXIST:
      code = absl::StatusCode::kAlreadyExists;
      break;
    case ENOTDIR:
    case EISDIR:
    case ENOTEMPTY:
      code = absl::StatusCode::kFailedPrecondition;
      break;
    case ENAMETOOLONG:
      code = absl::StatusCode::kInvalidArgument;
      break;
    default:
      break;
  }
  // strerror() is not thread-safe; the category's message is.
  return absl::Status(code,
                      absl::StrCat(AbslView(what), ": ", std::generic_category().message(error)));
}

}  // namespace peerchunk
