#include <string>

#include <gtest/gtest.h>

#include "peerchunk/base/status.h"
#include "peerchunk/header/header.h"
#include "readme_snippet.h"  // Generated from README.md.
#include "tests/support/temp_dir.h"

namespace {

using peerchunk::BuildId;
using peerchunk::FileKind;

TEST(ReadmeTest, EmbeddedNodePausesAndResumesABuild) {
  const peerchunk::test::TempDir folder;
  const BuildId id = BuildId::Random();
  const std::string rootfs(2 * peerchunk::kMiB, 'r');
  const auto header = peerchunk::Header::CreateIdentity(
      {.block_size = peerchunk::kPageBytes, .size = rootfs.size(), .build_id = id});
  ASSERT_TRUE(header.ok()) << header.status();
  peerchunk::SnapshotFiles files;
  files.paths[FileKind::kRootfs] = folder.Write("in/rootfs.ext4", rootfs);
  files.paths[FileKind::kRootfsHeader] = folder.Write("in/rootfs.ext4.header", header->Encode());
  files.paths[FileKind::kMetadata] =
      folder.Write("in/metadata.json", R"({"version":2,"filesystem_only":true})");

  const absl::Status status =
      ServeNode("127.0.0.1:0", folder.PathOf("data"), [&](peerchunk::Node& node) -> absl::Status {
        PEERCHUNK_RETURN_IF_ERROR(node.Pause(id, files));
        PEERCHUNK_ASSIGN_OR_RETURN(const auto build, node.GetTemplate(id, {}));
        std::string read(rootfs.size(), '\0');
        PEERCHUNK_ASSIGN_OR_RETURN(
            const size_t length,
            build->Rootfs().ReadAt(0, absl::MakeSpan(read.data(), read.size()), {}));
        EXPECT_EQ(length, rootfs.size());
        EXPECT_TRUE(read == rootfs);
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
}

}  // namespace
