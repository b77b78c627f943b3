#pragma once

#include <cstddef>

#include <google/protobuf/io/zero_copy_stream.h>

namespace peerchunk {

// How many entries (reads and cancelled ids) the bytes of a ReadBuildFileRequest have at most,
// found out before anything is allocated for them. Of bytes that are malformed: as many as a parser
// may allocate for before it gets to that place.
size_t CountEntries(google::protobuf::io::ZeroCopyInputStream& bytes);

}  // namespace peerchunk
