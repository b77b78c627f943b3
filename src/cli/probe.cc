#include <memory>
#include <optional>
#include <vector>

#include <absl/strings/str_format.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>

#include "base/byte_size.h"
#include "base/grpc_status.h"
#include "cli/command.h"
#include "cli/control_client.h"
#include "cli/library.h"
#include "cli/output.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "node/transport_credentials.h"
#include "peer/stream_check.h"
#include "peerchunk/base/clock.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"
#include "peerchunk/peer/http2_connector.h"

namespace peerchunk::cli {
namespace {

struct ProbeFlags {
  std::string address;
  std::string build;
  std::string file = "rootfs.ext4";
  LibraryFlags library;
  uint64_t bytes = kMiB;
  double timeout_seconds = 5;
};

// One step: what was done, how long it took, what came of it.
struct Step {
  std::string name;
  absl::Duration took;
  std::string result;
  bool good = true;
};

std::string Text(const FileHead& head) {
  const char* availability = "?";
  switch (head.availability) {
    case Availability::kAvailable:
      availability = "AVAILABLE";
      break;
    case Availability::kNotAvailable:
      availability = "NOT_AVAILABLE";
      break;
    case Availability::kAbsent:
      availability = "ABSENT";
      break;
    case Availability::kUseStorage:
      availability = "USE_STORAGE";
      break;
    case Availability::kNotYet:
      availability = "NOT_YET";
      break;
  }
  std::string text =
      absl::StrCat(availability, ", build ", AbslView(BuildStateName(head.status.state)));
  if (head.total_size > 0) absl::StrAppend(&text, ", ", head.total_size, " bytes");
  return text;
}

class Probe {
 public:
  Probe(const ProbeFlags& flags, const Invocation& invocation)
      : flags_(flags), invocation_(invocation) {}

  // Stops at the first step that fails.
  absl::Status Run() {
    PEERCHUNK_ASSIGN_OR_RETURN(const AddressPolicy policy, flags_.library.Policy());
    PEERCHUNK_ASSIGN_OR_RETURN(const TransportCredentials credentials,
                               MakeTransportCredentials(flags_.library.tls));
    std::optional<PeerAddress> address;
    PEERCHUNK_RETURN_IF_ERROR(Try("address", [&]() -> absl::StatusOr<std::string> {
      PEERCHUNK_ASSIGN_OR_RETURN(address, policy.Check(flags_.address));
      return "allowed, " + address->target();
    }));
    const std::shared_ptr<Http2Connector> connector = Http2Connector::Create(
        {.tls = credentials.identity, .insecure_plaintext = flags_.library.insecure_plaintext});
    std::shared_ptr<ChunkServiceClient> client;
    PEERCHUNK_RETURN_IF_ERROR(Try("credentials", [&]() -> absl::StatusOr<std::string> {
      PEERCHUNK_ASSIGN_OR_RETURN(client, connector->Connect(*address, PeerLane::kDemand));
      return credentials.channel != nullptr ? "mTLS" : "plaintext";
    }));
    const std::vector<BuildId> builds = Candidates();
    PEERCHUNK_ASSIGN_OR_RETURN(const FileKind kind, Kind());
    std::optional<BuildFileId> found;
    const std::shared_ptr<grpc::Channel> channel = grpc::CreateChannel(
        address->target(),
        credentials.channel != nullptr ? credentials.channel : grpc::InsecureChannelCredentials());
    PEERCHUNK_RETURN_IF_ERROR(Try("dial", [&] { return Dial(*channel); }));
    PEERCHUNK_RETURN_IF_ERROR(Try("health", [&] { return Health(channel); }));
    // The first call dials a connection of its own; the second shows what the wire itself costs.
    PEERCHUNK_RETURN_IF_ERROR(Try("Info", [&] { return Info(*client, {builds[0], kind}); }));
    PEERCHUNK_RETURN_IF_ERROR(Try("Info again", [&]() -> absl::StatusOr<std::string> {
      std::string text;
      for (const BuildId& build : builds) {
        PEERCHUNK_ASSIGN_OR_RETURN(text, Info(*client, {build, kind}));
        if (!served_) continue;
        found = BuildFileId{build, kind};
        return absl::StrCat(build.ToString(), " ", text);
      }
      return text;
    }));
    if (!found) {
      const std::string which = flags_.build.empty() ? "no build that the local daemon knows of"
                                                     : "not build " + flags_.build;
      return Fail("read", absl::NotFoundError(
                              absl::StrCat("the peer answers, but serves ", which,
                                           ": name one that was paused there with --build")));
    }
    return Read(*client, *found);
  }

  const std::vector<Step>& steps() const { return steps_; }

 private:
  template <typename Body>
  absl::Status Try(const std::string& name, const Body& body) {
    const absl::Time begin = Clock::Real().Now();
    const absl::StatusOr<std::string> result = body();
    const absl::Duration took = Clock::Real().Now() - begin;
    if (result.ok()) {
      steps_.push_back({name, took, *result});
      return absl::OkStatus();
    }
    steps_.push_back({name, took, std::string(result.status().message()), false});
    return Annotate(result.status(), "probe " + flags_.address + ": " + name);
  }
  absl::Status Fail(const std::string& name, const absl::Status& why) {
    return Try(name, [&]() -> absl::StatusOr<std::string> { return why; });
  }

  PeerCallOptions CallOptions() const {
    return {.deadline = Clock::Real().Now() + absl::Seconds(flags_.timeout_seconds),
            .cancellation = invocation_.interrupted};
  }

  absl::StatusOr<FileKind> Kind() const {
    const std::optional<FileKind> kind = ParseFileName(flags_.file);
    if (!kind) return absl::InvalidArgumentError("'" + flags_.file + "' is no file of a build");
    return *kind;
  }

  // The builds to ask for: the one that was named, else those of the local daemon, else a random
  // one, which no peer has.
  std::vector<BuildId> Candidates() const {
    if (!flags_.build.empty()) return {ToBuildId(flags_.build)};
    std::vector<BuildId> builds;
    const auto client = ControlClient::Connect(invocation_.control, invocation_.interrupted);
    if (client.ok()) {
      const auto list =
          (*client)->Call(&v1::SandboxService::Stub::ListBuilds, v1::ListBuildsRequest());
      if (list.ok()) {
        for (const v1::BuildInfo& build : list->builds()) {
          const absl::StatusOr<BuildId> id = BuildId::Parse(build.build_id());
          if (id.ok()) builds.push_back(*id);
        }
      }
    }
    if (builds.empty()) builds.push_back(BuildId::Random());
    return builds;
  }

  absl::StatusOr<std::string> Info(ChunkServiceClient& client, const BuildFileId& file) {
    PEERCHUNK_ASSIGN_OR_RETURN(
        const FileHead head,
        client.GetBuildFileInfo({.file = file, .even_if_durable = true}, CallOptions()));
    served_ = head.availability == Availability::kAvailable;
    return Text(head);
  }

  // TCP, TLS and HTTP/2, up to where a call could go out.
  absl::StatusOr<std::string> Dial(grpc::Channel& channel) {
    const absl::Time deadline = CallOptions().deadline;
    while (!channel.WaitForConnected(
        absl::ToChronoTime(std::min(deadline, Clock::Real().Now() + absl::Milliseconds(50))))) {
      if (invocation_.interrupted.stop_requested()) return absl::CancelledError("interrupted");
      if (Clock::Real().Now() >= deadline) {
        return absl::UnavailableError(
            absl::StrCat("no connection within ", flags_.timeout_seconds,
                         " s: nobody listens there, it is not reachable "
                         "from here, or the two do not trust each other"));
      }
    }
    return "connected";
  }

  absl::StatusOr<std::string> Health(const std::shared_ptr<grpc::Channel>& channel) {
    const auto stub = grpc::health::v1::Health::NewStub(channel);
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(CallOptions().deadline));
    const std::stop_callback cancel(invocation_.interrupted, [&context] { context.TryCancel(); });
    grpc::health::v1::HealthCheckResponse response;
    const grpc::Status status = stub->Check(&context, {}, &response);
    if (!status.ok()) return ToAbslStatus(status);
    if (response.status() != grpc::health::v1::HealthCheckResponse::SERVING) {
      return absl::UnavailableError("the peer says that it is not healthy: its disk may be");
    }
    return "SERVING";
  }

  absl::Status Read(ChunkServiceClient& client, const BuildFileId& file) {
    const PeerCallOptions options = CallOptions();
    StreamCheck check(0, flags_.bytes);
    std::unique_ptr<PeerStream> stream;
    PeerMessage message;
    PEERCHUNK_RETURN_IF_ERROR(Try("first byte", [&]() -> absl::StatusOr<std::string> {
      stream = client.GetBuildFile({.file = file, .length = flags_.bytes, .even_if_durable = true},
                                   options);
      PEERCHUNK_ASSIGN_OR_RETURN(message, Next(*stream, check, options));
      if (check.head()->availability == Availability::kAvailable) return Text(*check.head());
      return absl::UnavailableError("the peer has it no more: " + Text(*check.head()));
    }));
    return Try("read and check", [&]() -> absl::StatusOr<std::string> {
      const absl::Time begin = Clock::Real().Now();
      uint64_t zeros = 0;
      while (true) {
        if (message.extent && message.extent->zero) zeros += message.extent->length;
        if (check.finished()) break;
        PEERCHUNK_ASSIGN_OR_RETURN(message, Next(*stream, check, options));
      }
      const uint64_t reached = check.next_offset();
      if (reached == 0 && check.head()->total_size > 0) {
        return absl::UnavailableError("the peer knows of this file, but has no byte of its begin");
      }
      const double seconds = absl::ToDoubleSeconds(Clock::Real().Now() - begin);
      return absl::StrFormat("%d bytes right, %d of them zeros, %s/s%s", reached, zeros,
                             HumanByteSize(static_cast<double>(reached) / std::max(seconds, 1e-6)),
                             check.stopped_short() ? "; the peer has no more of it yet" : "");
    });
  }

  // The next message, checked.
  static absl::StatusOr<PeerMessage> Next(PeerStream& stream, StreamCheck& check,
                                          const PeerCallOptions& options) {
    PEERCHUNK_ASSIGN_OR_RETURN(const std::optional<PeerMessage> message,
                               stream.Next(options.deadline));
    if (!message) return absl::DataLossError("the stream ended without its last message");
    if (absl::Status checked = check.Check(*message); !checked.ok()) {
      return Annotate(checked, "the peer, its disk or the network alters bytes");
    }
    return *message;
  }

  const ProbeFlags& flags_;
  const Invocation& invocation_;
  std::vector<Step> steps_;
  bool served_ = false;
};

absl::Status Run(const ProbeFlags& flags, const Invocation& invocation) {
  Probe probe(flags, invocation);
  const absl::Status status = probe.Run();
  if (invocation.json) {
    Json steps = Json::array();
    for (const Step& step : probe.steps()) {
      steps.push_back({{"step", step.name},
                       {"seconds", absl::ToDoubleSeconds(step.took)},
                       {"good", step.good},
                       {"result", step.result}});
    }
    PrintJson(Json{{"address", flags.address}, {"good", status.ok()}, {"steps", steps}});
  } else {
    Table table({"STEP", "TIME", "RESULT"});
    for (const Step& step : probe.steps()) {
      table.AddRow({step.name, absl::StrFormat("%.2f ms", absl::ToDoubleMilliseconds(step.took)),
                    step.good ? step.result : "FAILED: " + step.result});
    }
    Print(table.ToString());
  }
  return status;
}

}  // namespace

void AddProbe(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<ProbeFlags>();
  CLI::App* const command = app.add_subcommand(
      "probe", "Dial a node, read real bytes of a build there, check them, and time each step");
  command->add_option("address", flags->address, "The node")->required()->type_name("IP:PORT");
  command->add_option("--build", flags->build, "Default: any that the local daemon knows of")
      ->type_name("BUILD_ID")
      ->check(kIsBuildId);
  command->add_option("--file", flags->file, "Which of its files")->capture_default_str();
  command->add_option("--bytes", flags->bytes, "How much to read")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--timeout", flags->timeout_seconds, "For each step")
      ->type_name("SECONDS")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  flags->library.AddPeersTo(*command);
  command->callback([flags, &invocation] {
    invocation.run = [flags, &invocation] { return Run(*flags, invocation); };
  });
}

}  // namespace peerchunk::cli
