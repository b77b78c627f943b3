#pragma once

#include <memory>

#include <absl/status/statusor.h>

#include "peerchunk/base/file_head.h"
#include "peerchunk/base/file_kind.h"
#include "peerchunk/base/range.h"
#include "peerchunk/build/build_file.h"
#include "peerchunk/template/template_cache.h"
#include "peerchunk/v1/chunk_service.pb.h"

namespace peerchunk {

// What one request for a range of a file asks for, and what this node has of it.
struct ServedRange {
  BuildFileId id;
  FileHead head;
  std::shared_ptr<BuildFile> file;  // Pinned; null unless the head says kAvailable.
  ByteRange range;                  // Clipped at the end of the file.
  uint32_t relays_left = 0;         // 0: only what is present here.
  bool prefetch = false;            // As the reader says.

  // How it is read: on behalf of another node, which says whether somebody waits for it.
  ReadOptions Options() const;
};

// InvalidArgument: not a build or file; OutOfRange: the range begins past the end.
absl::StatusOr<ServedRange> ResolveRange(TemplateCache& templates,
                                         const v1::GetBuildFileRequest& request);

// The state of the build now, for the last message.
BuildStatus StatusNow(TemplateCache& templates, const ServedRange& served);

}  // namespace peerchunk
