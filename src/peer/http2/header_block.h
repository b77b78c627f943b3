#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include "peerchunk/base/range.h"

struct nghttp2_hd_inflater;

// Header blocks (HPACK, RFC 7541) of gRPC calls.
namespace peerchunk::http2 {

using HeaderList = std::vector<std::pair<std::string, std::string>>;

// No header block of a call needs as much; a longer one is refused.
inline constexpr size_t kMaxHeaderBlockBytes = 64 * kKiB;

struct RequestHead {
  std::string_view path;
  std::string_view authority;
  bool tls = false;
  absl::Duration timeout = absl::InfiniteDuration();
};

// The header block of a gRPC request. Uses no dynamic table, so blocks do not depend on each other.
std::string EncodeRequestHead(const RequestHead& head);

// "1500m": a timeout as gRPC's header field has it, rounded up to what eight digits can say.
std::string GrpcTimeout(absl::Duration timeout);

// Decodes the header blocks of one connection, in order. Total: any bytes give a list or an error,
// after which the connection is of no more use. Used by one thread at a time.
class HeaderDecoder {
 public:
  HeaderDecoder();
  ~HeaderDecoder();
  HeaderDecoder(const HeaderDecoder&) = delete;
  HeaderDecoder& operator=(const HeaderDecoder&) = delete;

  absl::StatusOr<HeaderList> Decode(std::string_view block);

 private:
  nghttp2_hd_inflater* inflater_ = nullptr;  // Owned; null: no memory.
};

// The first field called `name`, or nothing.
const std::string* FindField(const HeaderList& fields, std::string_view name);

// How a call ended, from its trailers; `headers`, when they came before, say what went wrong where
// no gRPC server was at the other end.
absl::Status CallEnd(const HeaderList& headers, const HeaderList& trailers);

}  // namespace peerchunk::http2
