#pragma once

#include <sys/mount.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/crash/killed_node.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_build.h"

namespace peerchunk::test {

using SteadyClock = std::chrono::steady_clock;

// What a kill is meant to interrupt.
enum Aim : uint8_t { kPause, kUpload, kFetch, kResume };
inline constexpr const char* kAimNames[] = {"pause", "upload", "fetch", "resume"};

// The bytes of a file, or nothing. Not TempDir::Read, which does not cross into a mount.
inline std::optional<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  std::stringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

// A node may add what its readers asked for first to the metadata of a build that it paused.
inline bool SameFile(FileKind kind, const std::string& got, const std::string& paused) {
  if (kind != FileKind::kMetadata || got == paused) return got == paused;
  nlohmann::json parsed = nlohmann::json::parse(got, nullptr, /*allow_exceptions=*/false);
  if (parsed.is_object()) parsed.erase("prefetch");
  return parsed == nlohmann::json::parse(paused);
}

// A build whose Pause has returned, and where.
struct Promised {
  TestBuild build;
  size_t home = 0;
  std::vector<BuildId> ancestors;
  size_t children = 0;

  std::string id() const { return build.id.ToString(); }
};

// For the last lines of the output: what a run has really met.
struct Tally {
  int kills[4] = {};
  int interrupted[4] = {};  // What was under way had not ended.
  int removed_and_reported = 0;
  int kept_unanswered = 0;  // Pauses that were complete, but for the answer.
  int between_objects[7] = {};
  int checked_fetches = 0;
  int mount_reads = 0;
};

// Two daemons over one base, each a source to the other, and what they have promised so far. A kill
// comes at a random moment of one thing that is under way; those moments are taken from how long it
// usually takes, and nothing is asserted about time.
class ProcessCrashTest : public testing::Test {
 protected:
  ProcessCrashTest() {
    for (const char* name : {"a", "b"}) {
      nodes_.push_back(std::make_unique<KilledNode>(
          dir_.PathOf(name), dir_.PathOf("base"),
          std::vector<std::string>{"--upload-rate", "32MiB", "--chunk-size", "64KiB", "--log-level",
                                   "error"}));
    }
  }
  ~ProcessCrashTest() override {
    nodes_.clear();
    umount2(mount_path_.c_str(), MNT_DETACH);  // Of a process that was killed last.
  }

  size_t Below(size_t limit) { return random_() % limit; }

  Promised MakeBuild(size_t home, bool large) {
    TestBuildSpec spec;
    spec.memfile_bytes = Below(8) == 0 ? 0 : kPageBytes * (8 + Below(large ? 2000 : 120));
    spec.rootfs_bytes = kPageBytes * (4 + Below(large ? 500 : 60));
    spec.seed = next_seed_++;
    Promised made;
    if (!promised_.empty() && Below(3) == 0) {
      const Promised& parent = promised_.back();
      spec.parent = &parent.build;
      made.ancestors = parent.ancestors;
      made.ancestors.push_back(parent.build.id);
    }
    made.build = MakeTestBuild(spec);
    made.home = home;
    made.build.WriteTo(given_, made.id());
    return made;
  }

  grpc::Status Pause(v1::SandboxService::Stub& stub, const Promised& made, bool sync) {
    v1::PauseRequest request;
    const auto path = [&](FileKind kind) {
      return made.build.files.contains(kind)
                 ? given_.PathOf(made.id() + "/" + std::string(FileName(kind)))
                 : "";
    };
    request.set_build_id(made.id());
    request.set_snapfile_path(path(FileKind::kSnapfile));
    request.set_metadata_path(path(FileKind::kMetadata));
    request.set_memfile_header_path(path(FileKind::kMemfileHeader));
    request.set_rootfs_header_path(path(FileKind::kRootfsHeader));
    request.set_memfile_path(path(FileKind::kMemfile));
    request.set_rootfs_path(path(FileKind::kRootfs));
    request.set_sync(sync);
    v1::PauseResponse response;
    grpc::ClientContext context;
    return stub.Pause(&context, request, &response);
  }
  void Promise(Promised made) {
    for (Promised& other : promised_) {
      for (const BuildId& ancestor : made.ancestors) other.children += other.build.id == ancestor;
    }
    promised_.push_back(std::move(made));
  }
  // Pauses a new build, undisturbed.
  Promised& PauseOn(size_t home) {
    Promised made = MakeBuild(home, Below(4) == 0);
    const auto begun = SteadyClock::now();
    const grpc::Status paused = Pause(nodes_[home]->stub(), made, false);
    EXPECT_TRUE(paused.ok()) << paused.error_message();
    Learn(kPause, begun);
    Promise(std::move(made));
    return promised_.back();
  }

  // For the other node, which has what it paused by itself.
  v1::SandboxConfig SourcesOf(const Promised& made) {
    v1::SandboxConfig sandbox;
    sandbox.set_build_id(made.id());
    sandbox.set_source_orchestrator_address(nodes_[made.home]->address());
    for (const Promised& other : promised_) {
      for (const BuildId& ancestor : made.ancestors) {
        if (other.build.id != ancestor || other.home != made.home) continue;
        (*sandbox.mutable_layer_source_addresses())[other.id()] = nodes_[other.home]->address();
      }
    }
    return sandbox;
  }
  grpc::Status Fetch(v1::SandboxService::Stub& stub, const v1::SandboxConfig& sandbox,
                     const std::string& folder, grpc::ClientContext& context) {
    v1::FetchBuildRequest request;
    *request.mutable_sandbox() = sandbox;
    request.set_folder(folder);
    const auto reader = stub.FetchBuild(&context, request);
    v1::FetchProgress progress;
    while (reader->Read(&progress)) {
    }
    return reader->Finish();
  }

  // What random moments are drawn from: how long such a thing takes when nobody is killed.
  void Learn(Aim aim, SteadyClock::time_point begun) {
    const auto took = SteadyClock::now() - begun;
    usual_[aim] = usual_[aim] == SteadyClock::duration::zero() ? took : (usual_[aim] + took) / 2;
  }
  void AwaitRandomMoment(Aim aim, const std::atomic<bool>& ended) {
    const auto usual = std::max<SteadyClock::duration>(usual_[aim], std::chrono::milliseconds(2));
    const auto moment = SteadyClock::now() + usual * static_cast<int64_t>(Below(1100)) / 1000;
    while (!ended && SteadyClock::now() < moment) std::this_thread::yield();
  }

  void KillDuringPause();
  void KillDuringUpload();
  void KillDuringFetch();
  void KillDuringResume();
  void KillAndRestart(size_t victim, Aim aim, const std::function<void()>& after_death = {});
  void ExpectMountedBytes(const Promised& made, const std::atomic<bool>& stop, bool may_break);

  void ExpectInBase(const Promised& made, const std::string& file) {
    const std::optional<std::string> there =
        ReadFile(dir_.PathOf("base/" + made.id() + "/" + file));
    ASSERT_TRUE(there.has_value()) << made.id() << "/" << file << " is missing in the base";
    for (const auto& [kind, bytes] : made.build.files) {
      if (FileName(kind) != file) continue;
      EXPECT_TRUE(SameFile(kind, *there, bytes))
          << made.id() << "/" << file << " is wrong in the base";
    }
  }
  void ExpectFolder(const Promised& made, const std::string& folder, bool complete) {
    for (const auto& [kind, bytes] : made.build.files) {
      const auto there = ReadFile(folder + "/" + std::string(FileName(kind)));
      if (complete) {
        ASSERT_TRUE(there.has_value()) << made.id() << " " << FileName(kind);
      }
      if (there) {
        EXPECT_TRUE(SameFile(kind, *there, bytes)) << made.id() << " " << FileName(kind);
      }
    }
  }
  // All promises, by what the nodes say now and what is in the base.
  void CheckPromises();
  void Forget();
  void WaitDurable(const Promised& made) {
    while (true) {
      v1::GetBuildRequest request;
      request.set_build_id(made.id());
      v1::BuildInfo info;
      grpc::ClientContext context;
      const grpc::Status asked = nodes_[made.home]->stub().GetBuild(&context, request, &info);
      ASSERT_TRUE(asked.ok()) << asked.error_message();
      ASSERT_NE(info.state(), "FAILED") << info.reason();
      if (info.state() == "DURABLE") return;
      std::this_thread::yield();
    }
  }
  void Round(Aim aim);

  std::mt19937 random_;
  uint32_t next_seed_ = 1;
  TempDir dir_{TempDir::Place::kMemory};
  TempDir given_{TempDir::Place::kDisk};  // As a rule another file system: pauses have to copy.
  const std::string mount_path_ = dir_.PathOf("mnt");
  bool can_mount_ = true;
  std::vector<std::unique_ptr<KilledNode>> nodes_;
  std::list<Promised> promised_;
  SteadyClock::duration usual_[4] = {};
  int folders_ = 0;
  Tally tally_;
};

}  // namespace peerchunk::test
