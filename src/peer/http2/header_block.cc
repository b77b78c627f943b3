#include "peer/http2/header_block.h"

#include <algorithm>
#include <charconv>
#include <cstdint>

#include "peer/wire/wire.h"
#include "peerchunk/base/status.h"
#include <nghttp2/nghttp2.h>

namespace peerchunk::http2 {
namespace {

// Indices into the static table (RFC 7541 appendix A).
constexpr uint8_t kAuthority = 1;
constexpr uint8_t kMethodPost = 3;
constexpr uint8_t kPath = 4;
constexpr uint8_t kSchemeHttp = 6;
constexpr uint8_t kSchemeHttps = 7;
constexpr uint8_t kContentType = 31;
constexpr uint8_t kUserAgent = 58;

// `value` with a prefix of `bits` bits, in the byte that begins with `first`.
void AppendInteger(std::string& out, uint8_t first, int bits, size_t value) {
  const size_t most = (size_t{1} << bits) - 1;
  if (value < most) {
    out.push_back(static_cast<char>(first | value));
    return;
  }
  out.push_back(static_cast<char>(first | most));
  for (value -= most; value >= 128; value >>= 7) out.push_back(static_cast<char>(value | 128));
  out.push_back(static_cast<char>(value));
}

void AppendIndexed(std::string& out, uint8_t index) { AppendInteger(out, 0x80, 7, index); }

void AppendText(std::string& out, std::string_view text) {
  AppendInteger(out, 0, 7, text.size());
  out.append(text);
}

// A literal without indexing.
void AppendField(std::string& out, uint8_t name_index, std::string_view value) {
  AppendInteger(out, 0, 4, name_index);
  AppendText(out, value);
}
void AppendField(std::string& out, std::string_view name, std::string_view value) {
  out.push_back(0);
  AppendText(out, name);
  AppendText(out, value);
}

// grpc-message is percent-encoded; what is not well encoded stays as it is.
std::string PercentDecode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    uint8_t byte = 0;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(text.data() + i + 1, text.data() + i + 3, byte, 16).ptr ==
            text.data() + i + 3) {
      out.push_back(static_cast<char>(byte));
      i += 2;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

// What an HTTP status means where a gRPC server would have given its own
// (grpc/doc/http-grpc-status-mapping.md).
absl::StatusCode FromHttpStatus(std::string_view status) {
  if (status == "400") return absl::StatusCode::kInternal;
  if (status == "401") return absl::StatusCode::kUnauthenticated;
  if (status == "403") return absl::StatusCode::kPermissionDenied;
  if (status == "404") return absl::StatusCode::kUnimplemented;
  if (status == "429" || status == "502" || status == "503" || status == "504") {
    return absl::StatusCode::kUnavailable;
  }
  return absl::StatusCode::kUnknown;
}

}  // namespace

std::string GrpcTimeout(absl::Duration timeout) {
  timeout = std::max(timeout, absl::Microseconds(1));
  constexpr int64_t kMost = 99'999'999;
  const std::pair<char, absl::Duration> units[] = {{'u', absl::Microseconds(1)},
                                                   {'m', absl::Milliseconds(1)},
                                                   {'S', absl::Seconds(1)},
                                                   {'M', absl::Minutes(1)}};
  for (const auto& [letter, unit] : units) {
    if (timeout > unit * kMost) continue;
    const int64_t count = absl::Ceil(timeout, unit) / unit;
    return absl::StrCat(count, absl::string_view(&letter, 1));
  }
  return absl::StrCat(kMost, "M");
}

std::string EncodeRequestHead(const RequestHead& head) {
  std::string block;
  AppendIndexed(block, kMethodPost);
  AppendIndexed(block, head.tls ? kSchemeHttps : kSchemeHttp);
  AppendField(block, kPath, head.path);
  AppendField(block, kAuthority, head.authority);
  AppendField(block, "te", "trailers");
  AppendField(block, kContentType, "application/grpc");
  AppendField(block, kUserAgent, "peerchunk");
  if (head.timeout != absl::InfiniteDuration()) {
    AppendField(block, "grpc-timeout", GrpcTimeout(head.timeout));
  }
  return block;
}

HeaderDecoder::HeaderDecoder() {
  if (nghttp2_hd_inflate_new(&inflater_) != 0) inflater_ = nullptr;
}

HeaderDecoder::~HeaderDecoder() {
  if (inflater_ != nullptr) nghttp2_hd_inflate_del(inflater_);
}

absl::StatusOr<HeaderList> HeaderDecoder::Decode(std::string_view block) {
  if (inflater_ == nullptr) return absl::ResourceExhaustedError("no memory for a header decoder");
  HeaderList fields;
  size_t total = 0;
  const auto* at = reinterpret_cast<const uint8_t*>(block.data());
  size_t left = block.size();
  while (true) {
    nghttp2_nv field;
    int flags = 0;
    const ssize_t used = nghttp2_hd_inflate_hd2(inflater_, &field, &flags, at, left, 1);
    if (used < 0) {
      return absl::InternalError(absl::StrCat("the peer sent malformed headers: ",
                                              nghttp2_strerror(static_cast<int>(used))));
    }
    at += used;
    left -= static_cast<size_t>(used);
    if ((flags & NGHTTP2_HD_INFLATE_EMIT) != 0) {
      // Compressed, a small block may say very much.
      total += field.namelen + field.valuelen + 32;
      if (total > kMaxHeaderBlockBytes) {
        return absl::InternalError("the peer sent headers over the limit");
      }
      fields.emplace_back(std::string(reinterpret_cast<const char*>(field.name), field.namelen),
                          std::string(reinterpret_cast<const char*>(field.value), field.valuelen));
    }
    if ((flags & NGHTTP2_HD_INFLATE_FINAL) != 0) {
      nghttp2_hd_inflate_end_headers(inflater_);
      return fields;
    }
    if ((flags & NGHTTP2_HD_INFLATE_EMIT) == 0 && left == 0) {
      return absl::InternalError("the peer sent headers that are cut short");
    }
  }
}

const std::string* FindField(const HeaderList& fields, std::string_view name) {
  const auto found = std::find_if(fields.begin(), fields.end(),
                                  [&](const auto& field) { return field.first == name; });
  return found == fields.end() ? nullptr : &found->second;
}

absl::Status CallEnd(const HeaderList& headers, const HeaderList& trailers) {
  const std::string* const code_text = FindField(trailers, "grpc-status");
  if (code_text == nullptr) {
    const std::string* http = FindField(headers, ":status");
    if (http == nullptr) http = FindField(trailers, ":status");
    if (http == nullptr || *http == "200") {
      return absl::InternalError("the peer ended the call without a status");
    }
    return absl::Status(FromHttpStatus(*http),
                        absl::StrCat("the peer answered with HTTP status ", PeerText(*http)));
  }
  int code = -1;
  const char* const end = code_text->data() + code_text->size();
  if (std::from_chars(code_text->data(), end, code).ptr != end) code = -1;
  const std::string* const message = FindField(trailers, "grpc-message");
  absl::Status status = StatusFromCode(code, message == nullptr ? "" : PercentDecode(*message));
  if (!absl::IsResourceExhausted(status)) return status;
  const std::string* const hint = FindField(trailers, kRetryAfterKey);
  return hint == nullptr ? status : WithRetryAfterText(std::move(status), *hint);
}

}  // namespace peerchunk::http2
