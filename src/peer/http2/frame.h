#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// HTTP/2's framing (RFC 9113 section 4 and 6), as far as a gRPC client needs it.
namespace peerchunk::http2 {

enum class FrameType : uint8_t {
  kData = 0,
  kHeaders = 1,
  kPriority = 2,
  kRstStream = 3,
  kSettings = 4,
  kPushPromise = 5,
  kPing = 6,
  kGoAway = 7,
  kWindowUpdate = 8,
  kContinuation = 9,
};

inline constexpr uint8_t kEndStream = 0x1;   // DATA, HEADERS
inline constexpr uint8_t kAck = 0x1;         // SETTINGS, PING
inline constexpr uint8_t kEndHeaders = 0x4;  // HEADERS, CONTINUATION
inline constexpr uint8_t kPadded = 0x8;      // DATA, HEADERS
inline constexpr uint8_t kPriorityFlag = 0x20;

enum class ErrorCode : uint32_t {
  kNoError = 0,
  kProtocolError = 1,
  kInternalError = 2,
  kFlowControlError = 3,
  kFrameSizeError = 6,
  kRefusedStream = 7,
  kCancel = 8,
  kCompressionError = 9,
  kEnhanceYourCalm = 11,
};

enum class Setting : uint16_t {
  kHeaderTableSize = 1,
  kEnablePush = 2,
  kMaxConcurrentStreams = 3,
  kInitialWindowSize = 4,
  kMaxFrameSize = 5,
  kMaxHeaderListSize = 6,
};

inline constexpr size_t kFrameHeaderBytes = 9;
inline constexpr uint32_t kDefaultWindow = 65'535;
inline constexpr uint32_t kDefaultFrameBytes = 16'384;
inline constexpr uint32_t kMaxStreamId = 0x7fffffff;
inline constexpr int64_t kMaxWindow = 0x7fffffff;
inline constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

struct FrameHeader {
  uint32_t length = 0;  // Of the payload; 24 bits.
  uint8_t type = 0;     // A FrameType, or one that this client does not know.
  uint8_t flags = 0;
  uint32_t stream = 0;

  bool Is(FrameType wanted) const { return type == static_cast<uint8_t>(wanted); }
  bool Has(uint8_t flag) const { return (flags & flag) != 0; }
};

uint32_t ReadU32(const char* bytes);
void AppendU32(std::string& out, uint32_t value);

// `bytes`: kFrameHeaderBytes of them.
FrameHeader ParseFrameHeader(const char* bytes);
void AppendFrameHeader(std::string& out, FrameType type, uint8_t flags, uint32_t stream,
                       size_t length);

void AppendSettings(std::string& out, const std::vector<std::pair<Setting, uint32_t>>& settings);
void AppendSettingsAck(std::string& out);
void AppendPingAck(std::string& out, std::string_view opaque);
void AppendWindowUpdate(std::string& out, uint32_t stream, uint32_t increment);
void AppendRstStream(std::string& out, uint32_t stream, ErrorCode code);
void AppendGoAway(std::string& out, ErrorCode code, std::string_view why);

}  // namespace peerchunk::http2
