#include "header/lz4_frame.h"

#include <lz4frame.h>

#include <algorithm>
#include <memory>
#include <new>

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>

#include "peerchunk/base/range.h"

namespace peerchunk::header {
namespace {

constexpr uint64_t kBlockBytes = 4 * kMiB;
// One byte of an LZ4 block adds at most this much to a match or literal length.
constexpr uint64_t kMaxRatio = 255;

struct FreeCompression {
  void operator()(LZ4F_cctx* context) const { LZ4F_freeCompressionContext(context); }
};
struct FreeDecompression {
  void operator()(LZ4F_dctx* context) const { LZ4F_freeDecompressionContext(context); }
};

// The compressor is given room enough, so all that can fail in it is an allocation.
size_t Checked(size_t result) {
  if (LZ4F_isError(result)) throw std::bad_alloc();
  return result;
}

absl::Status Wrong(size_t result) {
  return absl::DataLossError(absl::StrCat("LZ4 frame: ", LZ4F_getErrorName(result)));
}

absl::Status CheckFrameInfo(const LZ4F_frameInfo_t& info, uint64_t size) {
  if (info.frameType != LZ4F_frame || info.blockMode != LZ4F_blockIndependent ||
      info.blockSizeID != LZ4F_max4MB || info.blockChecksumFlag != LZ4F_blockChecksumEnabled ||
      info.contentChecksumFlag != LZ4F_contentChecksumEnabled || info.dictID != 0) {
    return absl::DataLossError(
        "LZ4 frame is not of independent 4 MiB blocks with block and content checksums");
  }
  if (info.contentSize != 0 && info.contentSize != size) {
    return absl::DataLossError(
        absl::StrCat("LZ4 frame declares ", info.contentSize, " bytes, the header ", size));
  }
  return absl::OkStatus();
}

}  // namespace

void AppendLz4Frame(std::string& out, std::string_view data) {
  LZ4F_cctx* raw = nullptr;
  Checked(LZ4F_createCompressionContext(&raw, LZ4F_VERSION));
  const std::unique_ptr<LZ4F_cctx, FreeCompression> context(raw);
  LZ4F_preferences_t preferences = LZ4F_INIT_PREFERENCES;
  preferences.frameInfo.blockSizeID = LZ4F_max4MB;
  preferences.frameInfo.blockMode = LZ4F_blockIndependent;
  preferences.frameInfo.blockChecksumFlag = LZ4F_blockChecksumEnabled;
  preferences.frameInfo.contentChecksumFlag = LZ4F_contentChecksumEnabled;
  preferences.autoFlush = 1;

  // Not LZ4F_compressFrame: for small data it would choose a smaller block size.
  const auto append = [&out](size_t room, auto&& produce) {
    const size_t old_size = out.size();
    out.resize(old_size + room);
    out.resize(old_size + Checked(produce(out.data() + old_size, room)));
  };
  append(LZ4F_HEADER_SIZE_MAX,
         [&](char* to, size_t room) { return LZ4F_compressBegin(raw, to, room, &preferences); });
  for (size_t done = 0; done < data.size(); done += kBlockBytes) {
    const std::string_view block = data.substr(done, kBlockBytes);
    append(LZ4F_compressBound(block.size(), &preferences), [&](char* to, size_t room) {
      return LZ4F_compressUpdate(raw, to, room, block.data(), block.size(), nullptr);
    });
  }
  append(LZ4F_compressBound(0, &preferences),
         [&](char* to, size_t room) { return LZ4F_compressEnd(raw, to, room, nullptr); });
}

absl::StatusOr<std::string> DecodeLz4Frame(std::string_view frame, uint64_t size) {
  if (size / kMaxRatio > frame.size()) {
    return absl::DataLossError(
        absl::StrCat("LZ4 frame of ", frame.size(), " bytes cannot hold ", size));
  }
  LZ4F_dctx* raw = nullptr;
  Checked(LZ4F_createDecompressionContext(&raw, LZ4F_VERSION));
  const std::unique_ptr<LZ4F_dctx, FreeDecompression> context(raw);

  LZ4F_frameInfo_t info = LZ4F_INIT_FRAMEINFO;
  size_t consumed = frame.size();
  if (const size_t r = LZ4F_getFrameInfo(raw, &info, frame.data(), &consumed); LZ4F_isError(r)) {
    return Wrong(r);
  }
  if (absl::Status s = CheckFrameInfo(info, size); !s.ok()) return s;

  std::string data(size + 1, '\0');  // one more, to notice a frame that holds more
  size_t produced = 0;
  while (true) {
    size_t room = data.size() - produced;
    size_t taken = frame.size() - consumed;
    const size_t wanted = LZ4F_decompress(raw, data.data() + produced, &room,
                                          frame.data() + consumed, &taken, nullptr);
    if (LZ4F_isError(wanted)) return Wrong(wanted);
    produced += room;
    consumed += taken;
    if (produced > size) {
      return absl::DataLossError(absl::StrCat("LZ4 frame holds more than ", size, " bytes"));
    }
    if (wanted == 0) break;
    if (taken == 0 && room == 0) {
      return absl::DataLossError("LZ4 frame is cut short");
    }
  }
  if (produced != size) {
    return absl::DataLossError(absl::StrCat("LZ4 frame holds ", produced, " bytes, not ", size));
  }
  if (consumed != frame.size()) {
    return absl::DataLossError(absl::StrCat(frame.size() - consumed, " bytes after the LZ4 frame"));
  }
  data.resize(size);
  return data;
}

}  // namespace peerchunk::header
