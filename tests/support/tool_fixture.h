#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/daemon_process.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_build.h"

namespace peerchunk::test {

// An upload that does not end within any test, on however slow a machine; and metadata.json stays
// as it was paused, however long the test takes between its reads.
inline const std::vector<std::string> kSlowBase = {"--upload-rate", "1KiB", "--no-working-sets"};

inline std::vector<std::string> operator+(std::vector<std::string> a,
                                          const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// A folder, and what tests of the tool do over and over in it.
class ToolFixture : public testing::Test {
 protected:
  std::string Path(std::string_view name) const { return folder_.PathOf(name); }

  TestBuild PauseOn(const DaemonProcess& daemon, const TestBuildSpec& spec = {}) {
    TestBuild build = MakeTestBuild(spec);
    const std::string name = "snapshot-" + std::to_string(spec.seed);
    build.WriteTo(folder_, name);
    const Finished paused = daemon.Tool({"pause", "--folder", Path(name)});
    EXPECT_EQ(paused.exit_code, 0) << paused.err;
    return build;
  }
  void ExpectFetched(const TestBuild& build, const std::string& folder) {
    for (const auto& [kind, bytes] : build.files) {
      EXPECT_TRUE(folder_.Read(folder + "/" + std::string(FileName(kind))) == bytes)
          << FileName(kind);
    }
    // Nothing temporary is left.
    const auto files = std::distance(std::filesystem::directory_iterator(Path(folder)),
                                     std::filesystem::directory_iterator());
    EXPECT_EQ(static_cast<size_t>(files), build.files.size());
  }
  static void Durable(const DaemonProcess& daemon, const TestBuild& build) {
    const Finished waited = daemon.Tool({"wait", build.id.ToString(), "--timeout", "60"});
    EXPECT_EQ(waited.exit_code, 0) << waited.err;
  }
  void FlipByte(const std::string& path, uint64_t offset) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(offset));
    const char byte = static_cast<char>(file.get() ^ 1);
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(byte);
    ASSERT_TRUE(file.good());
  }

  TempDir folder_;
};

}  // namespace peerchunk::test
