#include "cli/output.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace peerchunk::cli {
namespace {

using testing::HasSubstr;

v1::BuildInfo Build() {
  v1::BuildInfo build;
  build.set_build_id("aaaaaaaa-0000-4000-8000-000000000001");
  build.set_state("FAILED");
  build.set_reason("disk");
  build.set_upload_attempts(3);
  build.set_memfile_size(2 * 1024 * 1024);
  build.set_rootfs_size(4096);
  build.set_mount_path("/mnt/x");
  v1::BuildFileInfo& file = *build.add_files();
  file.set_name("memfile");
  file.set_size(4096);
  file.set_crc32c(0xABC);
  file.set_in_base(true);
  v1::LayerInfo& layer = *build.add_layers();
  layer.set_build_id("bbbbbbbb-0000-4000-8000-000000000002");
  layer.set_file("memfile");
  layer.set_bytes_from_peer(1024);
  return build;
}

TEST(OutputTest, ColumnsLineUpWithoutBlanksAtTheEnd) {
  Table table({"A", "LONG", "B"});
  table.AddRow({"wide cell", "x", "y"});
  EXPECT_EQ(table.ToString(), "A          LONG  B\nwide cell  x     y\n");
}

TEST(OutputTest, ABuildIsDescribedForPeople) {
  const std::string text = Describe(Build());
  EXPECT_THAT(text, HasSubstr("state    FAILED\nreason   disk\nfailed   3 upload attempts\n"));
  EXPECT_THAT(text, HasSubstr("memory   2.0 MiB\nrootfs   4.0 KiB\nmounted  /mnt/x\n"));
  EXPECT_THAT(text, HasSubstr("memfile  4.0 KiB  00000abc  yes"));
  EXPECT_THAT(text, HasSubstr("bbbbbbbb-0000-4000-8000-000000000002  memfile  0 B     1.0 KiB"));
}

TEST(OutputTest, ABuildIsDescribedForPrograms) {
  const Json json = ToJson(Build());
  EXPECT_EQ(json["state"], "FAILED");
  EXPECT_EQ(json["files"][0]["crc32c"], "00000abc");
  EXPECT_EQ(json["layers"][0]["bytes_from_peer"], 1024);
  EXPECT_TRUE(json["layers"][0]["source_addresses"].empty());
}

}  // namespace
}  // namespace peerchunk::cli
