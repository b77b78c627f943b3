#pragma once

#include <signal.h>

#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <grpcpp/create_channel.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "peerchunk/v1/sandbox_service.grpc.pb.h"
#include "tests/support/daemon_process.h"

namespace peerchunk::test {

// A real peerchunkd on one data folder, killed and started again over and over. Used by one thread;
// stubs may be used by any until the next Kill.
class KilledNode {
 public:
  KilledNode(std::string data_folder, std::string base, std::vector<std::string> flags)
      : data_folder_(std::move(data_folder)), base_(std::move(base)), flags_(std::move(flags)) {
    Start();
  }

  void Start() {
    daemon_ = std::make_unique<DaemonProcess>(data_folder_, base_, flags_);
    grpc::ChannelArguments arguments;  // No back-off that was learned from the dead.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetMaxReceiveMessageSize(-1);
    stub_ = v1::SandboxService::NewStub(grpc::CreateCustomChannel(
        "unix:" + daemon_->control(), grpc::InsecureChannelCredentials(), arguments));
  }
  // Any thread, until Kill.
  void SignalKill() const { daemon_->process().Signal(SIGKILL); }
  // SIGKILL, and waits for the end.
  void Kill() {
    SignalKill();
    EXPECT_EQ(daemon_->process().Wait(), 128 + SIGKILL)
        << "it ended by itself: " << daemon_->process().err();
  }

  v1::SandboxService::Stub& stub() { return *stub_; }
  std::shared_ptr<v1::SandboxService::Stub> shared_stub() { return stub_; }
  const std::string& address() const { return daemon_->address(); }
  std::string PathOf(const std::string& name) const { return data_folder_ + "/" + name; }
  // Of the process that runs now: the lines "found: ...".
  std::vector<std::string> StartupReport() {
    v1::NodeStatus status;
    grpc::ClientContext context;
    const grpc::Status asked = stub_->GetStatus(&context, {}, &status);
    EXPECT_TRUE(asked.ok()) << asked.error_message();
    return {status.startup_report().begin(), status.startup_report().end()};
  }
  std::map<std::string, v1::BuildInfo> Builds() {
    v1::ListBuildsResponse listed;
    grpc::ClientContext context;
    const grpc::Status asked = stub_->ListBuilds(&context, {}, &listed);
    EXPECT_TRUE(asked.ok()) << asked.error_message();
    std::map<std::string, v1::BuildInfo> builds;
    for (const v1::BuildInfo& build : listed.builds()) builds[build.build_id()] = build;
    return builds;
  }
  // Folders of pauses and removals that the process that was killed did not end.
  std::set<std::string> Unfinished() const {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(PathOf("builds"))) {
      const std::string name = entry.path().filename();
      if (name.starts_with(".pause-") || name.starts_with(".remove-")) names.insert(name);
    }
    return names;
  }

 private:
  const std::string data_folder_;
  const std::string base_;
  const std::vector<std::string> flags_;
  std::unique_ptr<DaemonProcess> daemon_;
  std::shared_ptr<v1::SandboxService::Stub> stub_;
};

}  // namespace peerchunk::test
