#include "tests/support/test_build.h"

#include <random>
#include <vector>

#include "peerchunk/base/range.h"
#include "peerchunk/header/header.h"
#include "peerchunk/header/mapping.h"

namespace peerchunk::test {
namespace {

using Random = std::mt19937;

std::string NonZeroBytes(uint64_t size, Random& random) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random() | 1);
  return bytes;
}

// Changes runs of blocks of `device` at random and says which.
ChangedBlocks Change(std::string& device, bool all, Random& random) {
  ChangedBlocks changed;
  const uint64_t blocks = device.size() / kPageBytes;
  uint64_t block = 0;
  while (block < blocks) {
    const uint64_t run = std::min<uint64_t>(1 + random() % 40, blocks - block);
    const uint32_t what = random() % 3;
    for (uint64_t i = block; i < block + run; ++i) {
      if (what == 0) {
        changed.zeroed.push_back(i);
        device.replace(i * kPageBytes, kPageBytes, kPageBytes, '\0');
      } else if (all || what == 1) {
        changed.dirty.push_back(i);
        device.replace(i * kPageBytes, kPageBytes, NonZeroBytes(kPageBytes, random));
      }
    }
    block += run;
  }
  return changed;
}

std::string Pack(const std::string& device, const ChangedBlocks& changed) {
  std::string diff;
  for (const uint64_t block : changed.dirty) diff.append(device, block * kPageBytes, kPageBytes);
  return diff;
}

void AddDevice(TestBuild& build, FileKind diff, uint64_t size, const TestBuild* parent,
               Random& random) {
  std::string device = parent != nullptr ? parent->Device(diff) : std::string(size, '\0');
  const ChangedBlocks changed = Change(device, parent == nullptr, random);
  build.files[diff] = Pack(device, changed);
  if (parent != nullptr) {
    const Header base = *Header::Decode(parent->files.at(HeaderOf(diff)));
    build.files[HeaderOf(diff)] = base.NextGeneration(build.id, changed)->Encode();
  } else {
    const std::vector<Mapping> zeros = {{0, size, BuildId(), 0}};
    const std::vector<Mapping> own = *MakeDiffMappings(build.id, changed, kPageBytes, size);
    HeaderMetadata metadata{
        .block_size = kPageBytes, .size = size, .build_id = build.id, .base_build_id = build.id};
    build.files[HeaderOf(diff)] =
        Header::Create(metadata, NormalizeMappings(*MergeMappings(zeros, own)))->Encode();
  }
  (diff == FileKind::kMemfile ? build.memfile : build.rootfs) = std::move(device);
}

}  // namespace

SnapshotFiles TestBuild::WriteTo(const TempDir& folder, std::string_view name) const {
  SnapshotFiles paths;
  for (const auto& [kind, bytes] : files) {
    paths.paths[kind] = folder.Write(std::string(name) + "/" + std::string(FileName(kind)), bytes);
  }
  return paths;
}

std::string TestBuild::HeaderWithCompression(FileKind diff) const {
  const Header plain = *Header::Decode(files.at(HeaderOf(diff)));
  const uint64_t size = files.at(diff).size();
  const Frame whole{.size_uncompressed = static_cast<uint32_t>(size), .size_compressed = 100};
  return plain.WithVersion(4)
      ->WithOwnBuild(
          {.build_id = id, .file_size = size, .compression = Compression::kZstd, .frames = {whole}})
      ->Encode();
}

TestBuild MakeTestBuild(const TestBuildSpec& spec) {
  Random random(spec.seed);
  std::array<uint8_t, BuildId::kBytes> id{};
  for (uint8_t& byte : id) byte = static_cast<uint8_t>(random());
  TestBuild build;
  build.id = BuildId(id);
  const bool memory =
      spec.parent != nullptr ? !spec.parent->filesystem_only() : spec.memfile_bytes != 0;
  if (memory) {
    AddDevice(build, FileKind::kMemfile, spec.memfile_bytes, spec.parent, random);
    build.files[FileKind::kSnapfile] = NonZeroBytes(70'000 + random() % 1000, random);
  }
  AddDevice(build, FileKind::kRootfs, spec.rootfs_bytes, spec.parent, random);
  build.files[FileKind::kMetadata] =
      "{\"version\":2,\"template\":{\"build_id\":\"" + build.id.ToString() + "\"}," +
      (memory ? "" : "\"filesystem_only\":true,") + "\"unknown\":[1,2]}";
  return build;
}

}  // namespace peerchunk::test
