#include "peer/http2/frame.h"

namespace peerchunk::http2 {

uint32_t ReadU32(const char* bytes) {
  const auto at = [&](int i) { return static_cast<uint32_t>(static_cast<uint8_t>(bytes[i])); };
  return at(0) << 24 | at(1) << 16 | at(2) << 8 | at(3);
}

void AppendU32(std::string& out, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(value >> shift));
}

FrameHeader ParseFrameHeader(const char* bytes) {
  // The highest bit of the stream's number is reserved and ignored.
  return {.length = ReadU32(bytes) >> 8,
          .type = static_cast<uint8_t>(bytes[3]),
          .flags = static_cast<uint8_t>(bytes[4]),
          .stream = ReadU32(bytes + 5) & kMaxStreamId};
}

void AppendFrameHeader(std::string& out, FrameType type, uint8_t flags, uint32_t stream,
                       size_t length) {
  AppendU32(out, static_cast<uint32_t>(length << 8) | static_cast<uint8_t>(type));
  out.push_back(static_cast<char>(flags));
  AppendU32(out, stream);
}

void AppendSettings(std::string& out, const std::vector<std::pair<Setting, uint32_t>>& settings) {
  AppendFrameHeader(out, FrameType::kSettings, 0, 0, 6 * settings.size());
  for (const auto& [setting, value] : settings) {
    const auto id = static_cast<uint16_t>(setting);
    out.push_back(static_cast<char>(id >> 8));
    out.push_back(static_cast<char>(id));
    AppendU32(out, value);
  }
}

void AppendSettingsAck(std::string& out) {
  AppendFrameHeader(out, FrameType::kSettings, kAck, 0, 0);
}

void AppendPingAck(std::string& out, std::string_view opaque) {
  AppendFrameHeader(out, FrameType::kPing, kAck, 0, opaque.size());
  out.append(opaque);
}

void AppendWindowUpdate(std::string& out, uint32_t stream, uint32_t increment) {
  AppendFrameHeader(out, FrameType::kWindowUpdate, 0, stream, 4);
  AppendU32(out, increment);
}

void AppendRstStream(std::string& out, uint32_t stream, ErrorCode code) {
  AppendFrameHeader(out, FrameType::kRstStream, 0, stream, 4);
  AppendU32(out, static_cast<uint32_t>(code));
}

void AppendGoAway(std::string& out, ErrorCode code, std::string_view why) {
  AppendFrameHeader(out, FrameType::kGoAway, 0, 0, 8 + why.size());
  AppendU32(out, 0);  // The server starts no streams, so none of its was processed.
  AppendU32(out, static_cast<uint32_t>(code));
  out.append(why);
}

}  // namespace peerchunk::http2
