// Three generations on three nodes, as real processes; the picture is in docs/architecture.md.
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/tool_fixture.h"

namespace peerchunk {
namespace {

using test::DaemonProcess;
using test::Finished;
using test::kSlowBase;
using test::MakeTestBuild;
using test::operator+;
using test::TestBuild;
using testing::Contains;

// Not TempDir::Read, which keeps below a folder and so does not cross into a mount.
std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

class PeerchunkdChainTest : public test::ToolFixture {
 protected:
  void Pause(const DaemonProcess& daemon, const TestBuild& build) {
    build.WriteTo(folder_, "given-" + build.id.ToString());
    const Finished paused =
        daemon.Tool({"pause", "--folder", Path("given-" + build.id.ToString())});
    ASSERT_EQ(paused.exit_code, 0) << paused.err;
  }
  // Resumes a build and reads its devices through a mount: whole, or `first` bytes of the memory.
  // Without FUSE, it is resumed and that is all.
  void ResumeAndRead(const DaemonProcess& daemon, const TestBuild& build,
                     const std::vector<std::string>& sources, uint64_t first = UINT64_MAX) {
    const std::string mount = Path("mnt-" + std::to_string(mounts_++));
    const Finished mounted =
        daemon.Tool(std::vector<std::string>{"mount", build.id.ToString(), mount} + sources);
    if (mounted.exit_code != 0 && (mounted.err.find("FUSE") != std::string::npos ||
                                   mounted.err.find("libfuse3") != std::string::npos)) {
      daemon.Json(std::vector<std::string>{"resume", build.id.ToString()} + sources);
      return;
    }
    ASSERT_EQ(mounted.exit_code, 0) << mounted.err;
    if (first == UINT64_MAX) {
      EXPECT_TRUE(ReadFile(mount + "/memfile") == build.memfile);
      EXPECT_TRUE(ReadFile(mount + "/rootfs.ext4") == build.rootfs);
      EXPECT_TRUE(ReadFile(mount + "/snapfile") == build.files.at(FileKind::kSnapfile));
      EXPECT_EQ(ReadFile(mount + "/metadata.json"), build.files.at(FileKind::kMetadata));
    } else {
      std::string got(first, '?');
      std::ifstream(mount + "/memfile", std::ios::binary)
          .read(got.data(), static_cast<std::streamsize>(first));
      EXPECT_TRUE(got == build.memfile.substr(0, first));
    }
    const Finished unmounted = daemon.Tool({"umount", mount});
    EXPECT_EQ(unmounted.exit_code, 0) << unmounted.err;
  }
  void Fetch(const DaemonProcess& daemon, const TestBuild& build,
             const std::vector<std::string>& sources) {
    const std::string out = "got-" + std::to_string(mounts_++);
    daemon.Json(std::vector<std::string>{"fetch", build.id.ToString(), "--out", Path(out)} +
                sources);
    ExpectFetched(build, out);
  }
  static std::string Layer(const TestBuild& build, const DaemonProcess& at) {
    return build.id.ToString() + "=" + at.address();
  }
  // Of one layer of a build that is loaded there.
  static uint64_t BytesFromPeers(const DaemonProcess& daemon, const TestBuild& build,
                                 const TestBuild& layer) {
    uint64_t bytes = 0;
    const nlohmann::json inspected = daemon.Json({"inspect", build.id.ToString()});
    for (const nlohmann::json& entry : inspected["layers"]) {
      if (entry["build_id"] != layer.id.ToString()) continue;
      bytes += entry["bytes_from_peer"].get<uint64_t>();
      EXPECT_EQ(entry["bytes_from_base"], 0u);
    }
    return bytes;
  }

  int mounts_ = 0;
};

TEST_F(PeerchunkdChainTest, ThreeGenerationsOnThreeNodesBeforeAnyUploadEnds) {
  const TestBuild first = MakeTestBuild({.seed = 1});
  const TestBuild second = MakeTestBuild({.seed = 2, .parent = &first});
  const TestBuild third = MakeTestBuild({.seed = 3, .parent = &second});
  std::string third_source;
  {
    DaemonProcess one(Path("1"), Path("base"), kSlowBase);
    DaemonProcess two(Path("2"), Path("base"), kSlowBase);
    DaemonProcess three(Path("3"), Path("base"), kSlowBase);
    DaemonProcess four(Path("4"), Path("base"));

    Pause(one, first);
    // Node 2 goes on with it, touches a part of it, and is paused before node 1's upload is done.
    ResumeAndRead(two, first, {"--source", one.address()}, first.memfile.size() / 3);
    Pause(two, second);
    // Node 3 reads each layer from where it is.
    const std::vector<std::string> sources = {"--source", two.address(), "--layer-source",
                                              Layer(first, one)};
    ResumeAndRead(three, second, sources);
    Fetch(three, first, {"--source", one.address()});
    Fetch(three, second, {"--source", two.address()});
    const nlohmann::json inspected = three.Json({"inspect", second.id.ToString()});
    EXPECT_FALSE(inspected["layers"].empty());
    for (const nlohmann::json& layer : inspected["layers"]) {
      const bool own = layer["build_id"] == second.id.ToString();
      EXPECT_THAT(layer["source_addresses"], Contains(own ? two.address() : one.address()));
    }
    Pause(three, third);
    // Node 4 knows of the later two only: node 2 fetches what it lacks of node 1's layer.
    const uint64_t had = BytesFromPeers(two, first, first);
    ResumeAndRead(four, third,
                  {"--source", three.address(), "--layer-source", Layer(second, two),
                   "--layer-source", Layer(first, two)});
    Fetch(four, third, {"--source", three.address()});
    if (BytesFromPeers(four, third, third) > 0) {  // There are mounts here.
      EXPECT_GT(BytesFromPeers(two, first, first), had);
      EXPECT_GT(BytesFromPeers(four, third, first), 0u);
    }
    for (const auto& [daemon, build] :
         {std::pair(&one, &first), std::pair(&two, &second), std::pair(&three, &third)}) {
      EXPECT_EQ(daemon->Json({"inspect", build->id.ToString()})["state"], "UPLOADING");
      EXPECT_FALSE(
          std::filesystem::exists(Path("base/" + build->id.ToString() + "/metadata.json")));
    }
    for (DaemonProcess* daemon : {&one, &two, &three}) daemon->process().Signal(SIGKILL);
  }
  {  // The uploads end, on processes that know of the chain only what is on their disks.
    DaemonProcess three(Path("3"), Path("base"));
    DaemonProcess two(Path("2"), Path("base"));
    DaemonProcess one(Path("1"), Path("base"));
    Durable(one, first);
    Durable(two, second);
    Durable(three, third);
    third_source = three.address();
  }
  // Everyone who paused is dead; one address of the dead is still named.
  DaemonProcess five(Path("5"), Path("base"));
  for (const TestBuild* build : {&first, &second, &third}) {
    ResumeAndRead(five, *build, {"--source", third_source});
    Fetch(five, *build, {});
  }
}

// A template that everyone starts from lies in the base, and whoever paused it is long gone.
class TemplateInBaseTest : public PeerchunkdChainTest {
 protected:
  void SetUp() override {
    DaemonProcess builder(Path("builder"), Path("base"));
    Pause(builder, template_);
    Durable(builder, template_);
  }

  const TestBuild template_ = MakeTestBuild({.seed = 11});
  const TestBuild first_ = MakeTestBuild({.seed = 12, .parent = &template_});
  const TestBuild second_ = MakeTestBuild({.seed = 13, .parent = &first_});
};

TEST_F(TemplateInBaseTest, AGrandchildBecomesDurableWhileItsSourceLives) {
  DaemonProcess one(Path("1"), Path("base"));
  DaemonProcess two(Path("2"), Path("base"));
  one.Json({"resume", template_.id.ToString()});
  Pause(one, first_);
  Durable(one, first_);
  two.Json({"resume", first_.id.ToString(), "--source", one.address()});
  Pause(two, second_);
  Durable(two, second_);
}

TEST_F(TemplateInBaseTest, LayersComeFromTwoNodesAndTheBase) {
  DaemonProcess one(Path("1"), Path("base"), kSlowBase);
  DaemonProcess two(Path("2"), Path("base"), kSlowBase);
  DaemonProcess three(Path("3"), Path("base"));
  ResumeAndRead(one, template_, {});
  Pause(one, first_);
  ResumeAndRead(two, first_, {"--source", one.address()});
  Pause(two, second_);
  // Nobody is named for the template: it is read from the base.
  const std::vector<std::string> sources = {"--layer-source", Layer(second_, two), "--layer-source",
                                            Layer(first_, one)};
  ResumeAndRead(three, second_, sources);
  uint64_t read = 0;
  std::map<std::string, std::pair<uint64_t, uint64_t>> bytes;  // Of peers and base, by layer.
  const nlohmann::json inspected = three.Json({"inspect", second_.id.ToString()});
  for (const nlohmann::json& layer : inspected["layers"]) {
    auto& [from_peer, from_base] = bytes[layer["build_id"].get<std::string>()];
    from_peer += layer["bytes_from_peer"].get<uint64_t>();
    from_base += layer["bytes_from_base"].get<uint64_t>();
    read += from_peer + from_base;
  }
  ASSERT_EQ(bytes.size(), 3u);
  if (bytes[first_.id.ToString()].first == 0 && read > 0) return;  // No mounts here.
  EXPECT_GT(bytes[second_.id.ToString()].first, 0u);
  EXPECT_EQ(bytes[second_.id.ToString()].second, 0u);
  EXPECT_GT(bytes[first_.id.ToString()].first, 0u);
  EXPECT_EQ(bytes[first_.id.ToString()].second, 0u);
  EXPECT_GT(bytes[template_.id.ToString()].second, 0u);
}

}  // namespace
}  // namespace peerchunk
