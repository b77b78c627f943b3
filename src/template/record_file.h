#pragma once

#include <string>
#include <string_view>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "peerchunk/template/build_registry.h"

namespace peerchunk {

// What a build's folder holds beside the build's files.
inline constexpr std::string_view kRecordName = "record.json";
inline constexpr std::string_view kBlocksName = "blocks.crc";
inline constexpr uint64_t kMaxRecordBytes = 64 * kMiB;

// The name in a build's folder of a recorded file. Each version of metadata.json has a name of its
// own, so that file and record change in one step: when the record is replaced.
std::string RecordedFileName(FileKind kind, uint64_t metadata_version);

// record.json: everything but the files' block checksums, under a checksum of its own:
//   {"format":2,"crc32c":<of the next value, as written>,"record":{...}}
// Metadata's block checksums are in it too, because they change with it.
std::string EncodeRecord(const RecordedBuild& build);
// DataLoss: damaged. Unimplemented: written by a newer peerchunk. The status's incarnation and
// sequence are not on disk; the block checksums of all files but metadata are left empty.
absl::StatusOr<RecordedBuild> DecodeRecord(std::string_view bytes, const BuildId& id);

// blocks.crc: the block checksums of all files but metadata. Little-endian: "PCBLOCK1", u32 files,
// per file u8 kind, u64 count, count x u32; then the u32 CRC32C of all before.
std::string EncodeBlocks(const RecordedBuild& build);
// Fills in what DecodeRecord left empty. DataLoss, and nothing filled in, when they do not add up
// to the files' checksums in the record.
absl::Status DecodeBlocks(std::string_view bytes, RecordedBuild& build);

}  // namespace peerchunk
