// peerchunk probe as a process, at peers that are not what they should be: what it calls good must
// be good.
#include <atomic>
#include <functional>
#include <future>

#include "tests/faults/fault_fixture.h"
#include "tests/faults/scripted_peer.h"

namespace peerchunk::test {
namespace {

using Then = ScriptedPeer::Then;

class ProbeTest : public testing::Test {
 protected:
  Finished Probe(const std::function<void(v1::GetBuildFileResponse&)>& script) const {
    const ScriptedPeer peer(build_, [&](v1::GetBuildFileResponse& message) {
      script(message);
      return Then::kSend;
    });
    return RunProgram(Peerchunk({"--json", "probe", peer.address(), "--build", build_.id.ToString(),
                                 "--file", "memfile", "--bytes", std::to_string(3 * kMiB)}));
  }
  void ExpectBad(const Finished& probed, const std::string& step, const std::string& why) const {
    EXPECT_EQ(probed.exit_code, 1);
    const nlohmann::json json = nlohmann::json::parse(probed.out, nullptr, false);
    EXPECT_EQ(json["good"], false) << probed.out;
    const nlohmann::json last = json["steps"].back();
    EXPECT_EQ(last["step"], step);
    EXPECT_EQ(last["good"], false);
    EXPECT_NE(last["result"].get<std::string>().find(why), std::string::npos) << last;
  }

  const TestBuild build_ = MakeTestBuild({.memfile_bytes = 8 * kMiB, .rootfs_bytes = kMiB});
  Watchdog watchdog_{absl::Seconds(60)};
};

TEST_F(ProbeTest, EachStepIsTimedAndWhatWasReadIsSaid) {
  const Finished probed = Probe([](v1::GetBuildFileResponse&) {});
  EXPECT_EQ(probed.exit_code, 0) << probed.out;
  const nlohmann::json json = nlohmann::json::parse(probed.out, nullptr, false);
  EXPECT_EQ(json["good"], true);
  std::vector<std::string> steps;
  for (const auto& step : json["steps"]) {
    steps.push_back(step["step"]);
    EXPECT_GT(step["seconds"], 0.0);
  }
  EXPECT_EQ(steps, (std::vector<std::string>{"address", "credentials", "dial", "health", "Info",
                                             "Info again", "first byte", "read and check"}));
  const std::string result = json["steps"].back()["result"];
  EXPECT_EQ(result.rfind(std::to_string(3 * kMiB) + " bytes right", 0), 0u) << result;
}

TEST_F(ProbeTest, WrongByteIsNoGoodAnswer) {
  const Finished probed = Probe([](v1::GetBuildFileResponse& message) {
    if (message.extent().offset() == kMiB) (*message.mutable_extent()->mutable_data())[7] ^= 1;
  });
  ExpectBad(probed, "read and check", "wrong CRC32C");
}

TEST_F(ProbeTest, AnswerThatEndsEarlyIsNoGoodAnswer) {
  const Finished probed = Probe([](v1::GetBuildFileResponse& message) {
    if (message.extent().offset() != kMiB) return;
    message.set_last(true);
    message.set_next_offset(2 * kMiB);
  });
  ExpectBad(probed, "read and check", "an end at 2097152 of a range that ends at 3145728");
}

TEST_F(ProbeTest, OffsetThatWasNotReachedIsNoGoodAnswer) {
  const Finished probed = Probe([](v1::GetBuildFileResponse& message) {
    if (message.last()) message.set_next_offset(message.next_offset() + 1);
  });
  ExpectBad(probed, "read and check", "as reached where");
}

TEST_F(ProbeTest, AnswerWithoutAByteIsNoGoodAnswer) {
  const Finished probed = Probe([](v1::GetBuildFileResponse& message) {
    message.clear_extent();
    message.set_last(true);
    message.set_next_offset(0);
    message.set_end(v1::NOT_AVAILABLE);
  });
  ExpectBad(probed, "read and check", "no byte");
}

TEST_F(ProbeTest, FileThatIsDeniedWhenItIsReadIsNoGoodAnswer) {
  const Finished probed = Probe([](v1::GetBuildFileResponse& message) {
    if (!message.has_head()) return;
    message.mutable_head()->set_availability(v1::NOT_AVAILABLE);
    message.clear_extent();
    message.set_last(true);
  });
  ExpectBad(probed, "first byte", "NOT_AVAILABLE");
}

TEST_F(ProbeTest, PartOfAFileIsSaidToBeOne) {
  const Finished probed = Probe([](v1::GetBuildFileResponse& message) {
    if (message.extent().offset() != kMiB) return;
    message.set_last(true);
    message.set_next_offset(2 * kMiB);
    message.set_end(v1::NOT_AVAILABLE);
  });
  EXPECT_EQ(probed.exit_code, 0) << probed.out;
  EXPECT_NE(probed.out.find("2097152 bytes right"), std::string::npos) << probed.out;
  EXPECT_NE(probed.out.find("no more of it yet"), std::string::npos) << probed.out;
}

// Takes every call and answers none. Who else may dial this port, because it was somebody's before,
// is not told from the probe but by what it asks.
class MuteService final : public grpc::CallbackGenericService {
 public:
  std::promise<void> health_was_asked;

 private:
  class Silence final : public grpc::ServerGenericBidiReactor {
    void OnCancel() override { Finish(grpc::Status::CANCELLED); }
    void OnDone() override { delete this; }
  };
  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override {
    if (context->method() == "/grpc.health.v1.Health/Check" && !asked_.exchange(true)) {
      health_was_asked.set_value();
    }
    return new Silence;
  }

  std::atomic<bool> asked_ = false;
};

TEST_F(ProbeTest, InterruptReachesTheHealthCall) {
  MuteService mute;
  // Other tests' servers are healthy by default; this is one for the whole process.
  grpc::EnableDefaultHealthCheckService(false);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterCallbackGenericService(&mute);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  ChildProcess probe(Peerchunk({"probe", "127.0.0.1:" + std::to_string(port), "--build",
                                build_.id.ToString(), "--timeout", "3600"}));
  mute.health_was_asked.get_future().wait();
  probe.Signal(SIGINT);
  EXPECT_NE(probe.Wait(), 0);  // Within the watchdog, not the hour.
  server->Shutdown(std::chrono::system_clock::now());
}

}  // namespace
}  // namespace peerchunk::test
