#include "peerchunk/node/build_locations.h"

#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "peerchunk/base/mutex.h"
#include "tests/node/running_node.h"

namespace peerchunk {
namespace {

using test::ExpectSame;
using test::MakeTestBuild;
using test::OpenFolder;
using test::RunningNode;
using test::TempDir;
using test::TestBuild;

// A directory that all nodes of a test share. Thread-safe.
class SharedDirectory final : public BuildLocations {
 public:
  std::vector<std::string> AddressesOf(const BuildId& build) override {
    const MutexLock lock(mutex_);
    return {known_[build].begin(), known_[build].end()};
  }
  void Add(const BuildId& build, const std::vector<std::string>& addresses) override {
    const MutexLock lock(mutex_);
    known_[build].insert(addresses.begin(), addresses.end());
  }
  void Remove(const BuildId& build, const std::vector<std::string>& addresses) override {
    const MutexLock lock(mutex_);
    for (const std::string& address : addresses) known_[build].erase(address);
  }

 private:
  Mutex mutex_;
  std::map<BuildId, std::set<std::string>> known_ PEERCHUNK_GUARDED_BY(mutex_);
};

class BuildLocationsTest : public testing::Test {
 protected:
  std::unique_ptr<RunningNode> NewNode(const std::string& name) {
    NodeOptions options = test::WithoutWorkingSets();
    options.locations = directory_;
    return std::make_unique<RunningNode>(
        dir_.PathOf(name), OpenFolder(dir_.PathOf("base"), test::kSlow), std::move(options));
  }
  // Nodes tell the directory in the background.
  void AwaitKnown(const TestBuild& build, const std::vector<std::string>& addresses) {
    while (directory_->AddressesOf(build.id) != addresses) std::this_thread::yield();
  }
  void Pause(RunningNode& on, const TestBuild& build) {
    const auto paused = on.node->Pause(build.id, build.WriteTo(dir_, build.id.ToString()));
    ASSERT_TRUE(paused.ok()) << paused.status();
    AwaitKnown(build, {on.address});
  }

  TempDir dir_;
  std::shared_ptr<SharedDirectory> directory_ = std::make_shared<SharedDirectory>();
};

TEST_F(BuildLocationsTest, ResumeThatNamesNobodyFindsEachLayerWhereItIs) {
  const auto one = NewNode("1");
  const auto two = NewNode("2");
  const auto three = NewNode("3");
  const TestBuild first = MakeTestBuild({.seed = 1});
  const TestBuild second = MakeTestBuild({.seed = 2, .parent = &first});
  Pause(*one, first);
  Pause(*two, second);
  // The policy of a node holds for these addresses too.
  directory_->Add(second.id, {"8.8.8.8:7070", "169.254.169.254:80"});
  const auto resumed = three->node->GetTemplate(second.id, {});
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  ExpectSame(**resumed, second);
  const auto provider = three->node->OpenBuild(first.id, {});
  ASSERT_TRUE(provider.ok()) << provider.status();
  const auto blob = (*provider)->OpenBlob(BuildFileId{first.id, FileKind::kSnapfile}.ObjectPath());
  ASSERT_TRUE(blob.ok()) << blob.status();
  StringSink sink(kMiB);
  EXPECT_TRUE((*blob)->WriteTo(sink, {}).ok());
  EXPECT_TRUE(sink.bytes() == first.files.at(FileKind::kSnapfile));
}

TEST_F(BuildLocationsTest, ItIsToldWhatIsPausedFoundAtStartAndRemoved) {
  auto node = NewNode("1");
  const TestBuild build = MakeTestBuild({});
  Pause(*node, build);
  directory_->Remove(build.id, {node->address});
  node->Stop();
  node = NewNode("1");
  AwaitKnown(build, {node->address});
  EXPECT_TRUE(node->node->Delete(build.id, {.discard_only_copy = true}).ok());
  AwaitKnown(build, {});
}

// One that does not answer holds up nobody's pause.
class SilentDirectory final : public BuildLocations {
 public:
  ~SilentDirectory() override = default;
  std::vector<std::string> AddressesOf(const BuildId&) override { return {}; }
  void Add(const BuildId&, const std::vector<std::string>&) override {
    const MutexLock lock(mutex_);
    while (!answers_) changed_.Wait(mutex_);
  }
  void Remove(const BuildId&, const std::vector<std::string>&) override {}
  void Answer() {
    const MutexLock lock(mutex_);
    answers_ = true;
    changed_.NotifyAll();
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool answers_ PEERCHUNK_GUARDED_BY(mutex_) = false;
};

TEST_F(BuildLocationsTest, PauseDoesNotWaitForIt) {
  const auto silent = std::make_shared<SilentDirectory>();
  NodeOptions options;
  options.locations = silent;
  RunningNode node(dir_.PathOf("1"), OpenFolder(dir_.PathOf("base"), test::kSlow),
                   std::move(options));
  const TestBuild build = MakeTestBuild({});
  const auto paused = node.node->Pause(build.id, build.WriteTo(dir_, "given"));
  EXPECT_TRUE(paused.ok()) << paused.status();
  silent->Answer();
}

}  // namespace
}  // namespace peerchunk
