#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "header/byte_reader.h"
#include "header/byte_writer.h"
#include "header/lz4_frame.h"
#include "header/plain_codec.h"
#include "peerchunk/header/header.h"
#include "tests/header/header_fixtures.h"

namespace peerchunk::header_testing {

inline constexpr size_t kFlagsAt = 64;
inline constexpr size_t kSizeAt = 65;
inline constexpr size_t kFrameAt = 69;

// A file of this inner part, its framing right.
inline std::string File(const HeaderMetadata& metadata, std::string_view inner, uint8_t flags = 0) {
  std::string file;
  header::AppendMetadata(file, metadata);
  header::AppendU8(file, flags);
  header::AppendU32(file, static_cast<uint32_t>(inner.size()));
  header::AppendLz4Frame(file, inner);
  return file;
}

inline std::string InnerOf(std::string_view file) {
  uint32_t size = 0;
  header::ByteReader(file.substr(kSizeAt)).ReadU32(size);
  return header::DecodeLz4Frame(file.substr(kFrameAt), size).value();
}

// The message of the DataLoss that decoding ends in.
inline std::string Error(const std::string& file) {
  const absl::Status status = Header::Decode(file).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  return std::string(status.message());
}

inline BuildRecord RecordOf(const BuildId& id, uint64_t file_size, std::vector<Frame> frames = {}) {
  return {.build_id = id,
          .file_size = file_size,
          .compression = frames.empty() ? Compression::kNone : Compression::kZstd,
          .frames = std::move(frames)};
}

// Four frames of a page each, for a file of 16 KiB.
inline std::vector<Frame> FourFrames() {
  return {{0, 0, 4096, 100}, {4096, 100, 4096, 200}, {8192, 300, 4096, 50}, {12288, 400, 4096, 1}};
}

}  // namespace peerchunk::header_testing
