// peerchunkd as a process: what it says, what it refuses, how it leaves.
#include <sys/stat.h>

#include <filesystem>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include "grpc/health/v1/health.grpc.pb.h"
#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"
#include "peerchunk/template/build_registry.h"
#include "peerchunk/v1/chunk_service.grpc.pb.h"
#include "peerchunk/v1/sandbox_service.grpc.pb.h"
#include "tests/support/certificates.h"
#include "tests/support/tool_fixture.h"

namespace peerchunk {
namespace {

using test::DaemonProcess;
using test::Finished;
using test::kSlowBase;
using test::operator+;
using test::Peerchunkd;
using test::RunProgram;
using testing::HasSubstr;
using testing::Not;

class PeerchunkdTest : public test::ToolFixture {
 protected:
  std::vector<std::string> Arguments(const std::string& name) const {
    return {"--data-folder", Path(name), "--base", Path("base"), "--listen", "127.0.0.1:0"};
  }
};

TEST_F(PeerchunkdTest, ABuildIsFetchedFromItsSourceWhileItsUploadIsUnderWay) {
  DaemonProcess a(Path("a"), Path("base"), kSlowBase);
  DaemonProcess b(Path("b"), Path("base"));
  const test::TestBuild build = PauseOn(a);
  const nlohmann::json fetched =
      b.Json({"fetch", build.id.ToString(), "--source", a.address(), "--out", Path("got")});
  ExpectFetched(build, "got");
  EXPECT_GT(fetched["bytes_from_peer"], 0u);
  EXPECT_EQ(fetched["bytes_from_base"], 0u);
  EXPECT_EQ(a.Json({"inspect", build.id.ToString()})["state"], "UPLOADING");
}

// In a network of its own, where the default port is free; as a user without a name, whose home is
// a temporary folder.
TEST_F(PeerchunkdTest, WithNoConfigurationItRuns) {
  const auto alone = [&](const std::string& command, const std::string& program) {
    test::ChildProcess::Spec spec{
        .program = "/usr/bin/unshare",
        .arguments = {"--net", "sh", "-c", "ip link set lo up && " + command, program}};
    spec.environment = {{"HOME", Path("home")}, {"TMPDIR", Path("tmp")}};
    return spec;
  };
  const std::string as_user = "exec setpriv --reuid 12345 --clear-groups \"$0\"";
  if (RunProgram(alone(as_user + " --help", PEERCHUNKD_PROGRAM)).exit_code != 0) {
    GTEST_SKIP() << "no network of its own, or no other user, may be had here";
  }
  folder_.Write("home/.profile", "");
  folder_.Write("tmp/x", "");
  for (const std::string& folder : {Path(""), Path("home"), Path("tmp")}) {
    std::filesystem::permissions(folder, std::filesystem::perms::all);
  }
  test::ChildProcess daemon(alone(as_user, PEERCHUNKD_PROGRAM));
  EXPECT_THAT(daemon.WaitForLine("listening on "), HasSubstr("127.0.0.1:7070"));
  daemon.WaitForLine("ready");
  const std::string state = Path("home/.local/state/peerchunk");
  const auto tool = [&](const std::string& arguments) {
    return RunProgram(alone(as_user + " " + arguments, PEERCHUNK_PROGRAM));
  };
  const test::TestBuild build = test::MakeTestBuild({});
  build.WriteTo(folder_, "snapshot");
  const Finished paused = tool("pause --folder " + Path("snapshot"));
  EXPECT_EQ(paused.exit_code, 0) << paused.err;
  const Finished waited = tool("wait " + build.id.ToString() + " --timeout 120");
  EXPECT_EQ(waited.exit_code, 0) << waited.err;
  const Finished status = tool("status --json");
  EXPECT_EQ(nlohmann::json::parse(status.out)["base"], state + "/base");
  EXPECT_TRUE(std::filesystem::exists(state + "/base/" + build.id.ToString() + "/metadata.json"));
  daemon.Signal(SIGTERM);
  EXPECT_EQ(daemon.Wait(), 0);
}

TEST_F(PeerchunkdTest, SandboxServiceIsNotServedWherePeersConnect) {
  DaemonProcess daemon(Path("a"), Path("base"));
  const auto peers = grpc::CreateChannel(daemon.address(), grpc::InsecureChannelCredentials());
  const auto control =
      grpc::CreateChannel("unix:" + daemon.control(), grpc::InsecureChannelCredentials());
  v1::ListBuildsResponse builds;
  grpc::ClientContext first;
  EXPECT_EQ(v1::SandboxService::NewStub(peers)->ListBuilds(&first, {}, &builds).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
  grpc::ClientContext second;
  EXPECT_TRUE(v1::SandboxService::NewStub(control)->ListBuilds(&second, {}, &builds).ok());
  v1::FileHead head;
  grpc::ClientContext third;
  EXPECT_EQ(v1::ChunkService::NewStub(control)->GetBuildFileInfo(&third, {}, &head).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(PeerchunkdTest, HealthIsServedToPeersAndReflectionIsNot) {
  DaemonProcess daemon(Path("a"), Path("base"));
  PauseOn(daemon);
  const auto peers = grpc::CreateChannel(daemon.address(), grpc::InsecureChannelCredentials());
  const auto health = grpc::health::v1::Health::NewStub(peers);
  grpc::health::v1::HealthCheckRequest request;
  grpc::health::v1::HealthCheckResponse response;
  // The first read of the disk may still be under way, for as long as the machine likes.
  while (response.status() != grpc::health::v1::HealthCheckResponse::SERVING) {
    grpc::ClientContext context;
    ASSERT_TRUE(health->Check(&context, request, &response).ok());
  }
  request.set_service("no.such.Service");
  grpc::ClientContext context;
  EXPECT_EQ(health->Check(&context, request, &response).error_code(), grpc::StatusCode::NOT_FOUND);
  grpc::ClientContext reflecting;
  const auto stream =
      grpc::reflection::v1alpha::ServerReflection::NewStub(peers)->ServerReflectionInfo(
          &reflecting);
  stream->WritesDone();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

// What it reads is what peers would get. Each read is of another build, and a bad one is given up
// after its read; several, so that the answer stays bad for longer than one.
TEST_F(PeerchunkdTest, ABuildWhoseBytesAreBadMakesTheDaemonUnhealthy) {
  DaemonProcess daemon(Path("a"), Path("base"), kSlowBase);
  std::vector<std::string> headers;
  for (uint32_t seed = 1; seed <= 4; ++seed) {
    const test::TestBuild build = PauseOn(daemon, {.memfile_bytes = 0, .seed = seed});
    headers.push_back(Path("a/builds/" + build.id.ToString() + "/rootfs.ext4.header"));
  }
  const auto health = grpc::health::v1::Health::NewStub(
      grpc::CreateChannel(daemon.address(), grpc::InsecureChannelCredentials()));
  const auto await = [&](grpc::health::v1::HealthCheckResponse::ServingStatus status) {
    grpc::health::v1::HealthCheckResponse response;
    while (response.status() != status) {
      grpc::ClientContext context;
      ASSERT_TRUE(health->Check(&context, {}, &response).ok());
    }
  };
  await(grpc::health::v1::HealthCheckResponse::SERVING);
  for (const std::string& header : headers) FlipByte(header, 20);
  await(grpc::health::v1::HealthCheckResponse::NOT_SERVING);
}

TEST_F(PeerchunkdTest, ReflectionOnTheControlSocketDescribesTheService) {
  DaemonProcess daemon(Path("a"), Path("base"));
  grpc::ClientContext context;
  const auto stream =
      grpc::reflection::v1alpha::ServerReflection::NewStub(
          grpc::CreateChannel("unix:" + daemon.control(), grpc::InsecureChannelCredentials()))
          ->ServerReflectionInfo(&context);
  grpc::reflection::v1alpha::ServerReflectionRequest request;
  grpc::reflection::v1alpha::ServerReflectionResponse response;
  request.set_list_services("");
  ASSERT_TRUE(stream->Write(request) && stream->Read(&response));
  EXPECT_EQ(response.list_services_response().service(0).name(), "peerchunk.v1.SandboxService");
  request.set_file_containing_symbol("peerchunk.v1.SandboxService");
  ASSERT_TRUE(stream->Write(request) && stream->Read(&response));
  EXPECT_EQ(response.file_descriptor_response().file_descriptor_proto_size(), 1);
  request.set_file_by_filename("no/such.proto");
  ASSERT_TRUE(stream->Write(request) && stream->Read(&response));
  EXPECT_EQ(response.error_response().error_code(), grpc::StatusCode::NOT_FOUND);
  request.set_all_extension_numbers_of_type("x");
  ASSERT_TRUE(stream->Write(request) && stream->Read(&response));
  EXPECT_EQ(response.error_response().error_code(), grpc::StatusCode::UNIMPLEMENTED);
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(PeerchunkdTest, TheControlSocketIsForItsUserOnlyAndGoesWithTheDaemon) {
  DaemonProcess daemon(Path("a"), Path("base"));
  struct stat found {};
  ASSERT_EQ(lstat(daemon.control().c_str(), &found), 0);
  EXPECT_TRUE(S_ISSOCK(found.st_mode));
  EXPECT_EQ(found.st_mode & 0777, 0600u);
  EXPECT_EQ(daemon.Stop(), 0);
  EXPECT_NE(lstat(daemon.control().c_str(), &found), 0);
}

TEST_F(PeerchunkdTest, AControlAddressOnLoopbackIsServedToo) {
  test::ChildProcess daemon(
      Peerchunkd(Arguments("a") + std::vector<std::string>{"--control", "127.0.0.1:0"}));
  const std::string control = daemon.WaitForLine("control at ");
  daemon.WaitForLine("ready");
  const Finished listed = RunProgram(test::Peerchunk({"--control", control, "ls"}));
  EXPECT_EQ(listed.exit_code, 0) << listed.err;
  EXPECT_THAT(listed.out, HasSubstr("no builds"));
}

TEST_F(PeerchunkdTest, TheReadyFileNamesTheBoundPortsAndGoesWithTheDaemon) {
  DaemonProcess daemon(Path("a"), Path("base"), {"--ready-file", Path("ready")});
  EXPECT_EQ(folder_.Read("ready"), daemon.address() + "\n");
  EXPECT_EQ(daemon.Stop(), 0);
  EXPECT_FALSE(std::filesystem::exists(Path("ready")));
}

TEST_F(PeerchunkdTest, TheReadyFileOfADeadDaemonGoesBeforeTheNextOneIsReady) {
  {
    DaemonProcess daemon(Path("a"), Path("base"), {"--ready-file", Path("ready")});
    const Finished second = RunProgram(
        Peerchunkd(Arguments("a") + std::vector<std::string>{"--ready-file", Path("ready")}));
    EXPECT_EQ(second.exit_code, 1);  // It is not this one's to remove.
    EXPECT_EQ(folder_.Read("ready"), daemon.address() + "\n");
    daemon.process().Signal(SIGKILL);
    EXPECT_EQ(daemon.process().Wait(), 128 + SIGKILL);
  }
  EXPECT_TRUE(std::filesystem::exists(Path("ready")));
  // One that comes as far as its control socket, and no further.
  folder_.Write("precious", "data");
  const Finished next = RunProgram(
      Peerchunkd(Arguments("a") + std::vector<std::string>{"--ready-file", Path("ready"),
                                                           "--control", Path("precious")}));
  EXPECT_EQ(next.exit_code, 1);
  EXPECT_THAT(next.err, HasSubstr("no socket"));
  EXPECT_FALSE(std::filesystem::exists(Path("ready")));
}

TEST_F(PeerchunkdTest, EmptyOverlayFoldersOfAKilledDaemonAreRemovedAtTheStart) {
  folder_.Write("a/overlays/in-use/file", "kept");
  std::filesystem::create_directory(Path("a/overlays/left"));
  DaemonProcess daemon(Path("a"), Path("base"));
  EXPECT_FALSE(std::filesystem::exists(Path("a/overlays/left")));
  EXPECT_EQ(folder_.Read("a/overlays/in-use/file"), "kept");
}

TEST_F(PeerchunkdTest, ASecondDaemonOnOneFolderRefuses) {
  DaemonProcess daemon(Path("a"), Path("base"));
  const Finished second = RunProgram(Peerchunkd(Arguments("a")));
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_THAT(second.err, HasSubstr("could not start"));
  EXPECT_THAT(second.err, HasSubstr(Path("a")));
  // The first one is unharmed.
  EXPECT_EQ(daemon.Tool({"ls"}).exit_code, 0);
}

TEST_F(PeerchunkdTest, APortInUseIsNamedAndNothingIsLeftBehind) {
  DaemonProcess daemon(Path("a"), Path("base"));
  const Finished second =
      RunProgram(Peerchunkd({"--data-folder", Path("b"), "--listen", daemon.address()}));
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_THAT(second.err, HasSubstr("cannot listen on " + daemon.address()));
  EXPECT_THAT(second.err, HasSubstr("port 0"));
  EXPECT_FALSE(std::filesystem::exists(Path("b")));
}

TEST_F(PeerchunkdTest, FoldersThatCannotBeUsedAreNamed) {
  folder_.Write("file", "not a folder");
  const Finished base = RunProgram(Peerchunkd(
      {"--data-folder", Path("a"), "--listen", "127.0.0.1:0", "--base", Path("file/base")}));
  EXPECT_EQ(base.exit_code, 1);
  EXPECT_THAT(base.err, HasSubstr("--base " + Path("file/base")));
  const Finished data =
      RunProgram(Peerchunkd({"--data-folder", Path("file/data"), "--listen", "127.0.0.1:0"}));
  EXPECT_EQ(data.exit_code, 1);
  EXPECT_THAT(data.err, HasSubstr("--data-folder " + Path("file/data")));
  const Finished bucket = RunProgram(
      Peerchunkd({"--data-folder", Path("a"), "--listen", "127.0.0.1:0", "--base", "gs://"}));
  EXPECT_EQ(bucket.exit_code, 1);
  EXPECT_THAT(bucket.err, HasSubstr("--base gs://"));
}

TEST_F(PeerchunkdTest, BeyondLoopbackItWantsCredentialsOrTheWord) {
  const std::vector<std::string> open = {"--data-folder", Path("a"), "--listen", "0.0.0.0:0"};
  const Finished refused = RunProgram(Peerchunkd(open));
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.err, HasSubstr("--tls-cert"));
  EXPECT_THAT(refused.err, HasSubstr("--insecure-plaintext"));
  EXPECT_FALSE(std::filesystem::exists(Path("a")));
  test::ChildProcess allowed(Peerchunkd(open + std::vector<std::string>{"--insecure-plaintext"}));
  EXPECT_THAT(allowed.WaitForLine("listening on "), HasSubstr("(PLAINTEXT)"));
  EXPECT_THAT(allowed.WaitForLine("WARNING: "), HasSubstr("--insecure-plaintext"));
  allowed.WaitForLine("ready");
}

TEST_F(PeerchunkdTest, ControlBeyondLoopbackIsRefusedWithWhy) {
  const Finished refused = RunProgram(
      Peerchunkd(Arguments("a") + std::vector<std::string>{"--control", "10.1.2.3:7000"}));
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.err, HasSubstr("not on loopback"));
  EXPECT_FALSE(std::filesystem::exists(Path("a")));
}

TEST_F(PeerchunkdTest, WrongUsageIsExitCodeTwo) {
  const Finished flag = RunProgram(Peerchunkd({"--frobnicate"}));
  EXPECT_EQ(flag.exit_code, 2);
  EXPECT_THAT(flag.err, HasSubstr("--frobnicate"));
  EXPECT_EQ(RunProgram(Peerchunkd({"--help"})).exit_code, 0);
  const Finished listen = RunProgram(Peerchunkd({"--listen", "localhost:7070"}));
  EXPECT_EQ(listen.exit_code, 1);
  EXPECT_THAT(listen.err, HasSubstr("'localhost:7070' is not a numeric address"));
}

TEST_F(PeerchunkdTest, AFileInThePlaceOfTheControlSocketIsLeftAlone) {
  folder_.Write("precious", "data");
  const Finished refused = RunProgram(
      Peerchunkd(Arguments("a") + std::vector<std::string>{"--control", Path("precious")}));
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.err, HasSubstr("no socket"));
  EXPECT_EQ(folder_.Read("precious"), "data");
}

TEST_F(PeerchunkdTest, PausesThatCannotBeAreClearErrorsAndLeaveNothing) {
  DaemonProcess daemon(Path("a"), Path("base"));
  const test::TestBuild build = test::MakeTestBuild({});
  build.WriteTo(folder_, "good");
  const std::string id = build.id.ToString();

  build.WriteTo(folder_, "missing");
  std::filesystem::remove(Path("missing/memfile"));
  const Finished missing =
      daemon.Tool({"pause", id, "--folder", Path("missing"), "--memfile", Path("missing/memfile")});
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_THAT(missing.err, HasSubstr(Path("missing/memfile")));

  build.WriteTo(folder_, "short");
  folder_.Write("short/memfile", build.files.at(FileKind::kMemfile).substr(0, 4096));
  const Finished disagreeing = daemon.Tool({"pause", "--folder", Path("short")});
  EXPECT_EQ(disagreeing.exit_code, 1);
  EXPECT_THAT(disagreeing.err, HasSubstr("memfile"));

  build.WriteTo(folder_, "partial");
  std::filesystem::remove(Path("partial/snapfile"));
  EXPECT_EQ(daemon.Tool({"pause", "--folder", Path("partial")}).exit_code, 1);

  const Finished other =
      daemon.Tool({"pause", "aaaaaaaa-0000-4000-8000-000000000001", "--folder", Path("good")});
  EXPECT_EQ(other.exit_code, 1);
  EXPECT_THAT(other.err, HasSubstr("aaaaaaaa"));

  const Finished path = daemon.Tool({"pause", "../../etc/passwd", "--folder", Path("good")});
  EXPECT_EQ(path.exit_code, 2);

  EXPECT_THAT(daemon.Tool({"ls"}).out, HasSubstr("no builds"));
  for (const auto& entry : std::filesystem::directory_iterator(Path("a/builds"))) {
    EXPECT_THAT(entry.path().filename().string(), Not(HasSubstr("-"))) << entry.path();
  }
  EXPECT_EQ(daemon.Tool({"pause", "--folder", Path("good")}).exit_code, 0);
  const Finished twice = daemon.Tool({"pause", "--folder", Path("good")});
  EXPECT_EQ(twice.exit_code, 1);
}

TEST_F(PeerchunkdTest, AnIdThatIsAPathIsRefusedByTheServiceToo) {
  DaemonProcess daemon(Path("a"), Path("base"));
  const auto stub = v1::SandboxService::NewStub(
      grpc::CreateChannel("unix:" + daemon.control(), grpc::InsecureChannelCredentials()));
  for (const std::string id : {"../../etc", "", "00000000-0000-0000-0000-000000000000",
                               "AAAAAAAA-0000-4000-8000-000000000001"}) {
    grpc::ClientContext contexts[5];
    v1::GetBuildRequest get;
    get.set_build_id(id);
    v1::BuildInfo info;
    EXPECT_EQ(stub->GetBuild(&contexts[0], get, &info).error_code(),
              grpc::StatusCode::INVALID_ARGUMENT);
    v1::DeleteBuildRequest remove;
    remove.set_build_id(id);
    remove.set_from_base(true);
    v1::DeleteBuildResponse removed;
    EXPECT_EQ(stub->DeleteBuild(&contexts[1], remove, &removed).error_code(),
              grpc::StatusCode::INVALID_ARGUMENT);
    v1::ResumeRequest resume;
    resume.mutable_sandbox()->set_build_id(id);
    v1::ResumeResponse resumed;
    EXPECT_EQ(stub->Resume(&contexts[2], resume, &resumed).error_code(),
              grpc::StatusCode::INVALID_ARGUMENT);
    v1::PauseRequest pause;
    pause.set_build_id(id);
    v1::PauseResponse paused;
    EXPECT_EQ(stub->Pause(&contexts[3], pause, &paused).error_code(),
              grpc::StatusCode::INVALID_ARGUMENT);
    v1::FetchBuildRequest fetch;
    fetch.mutable_sandbox()->set_build_id(id);
    EXPECT_EQ(stub->FetchBuild(&contexts[4], fetch)->Finish().error_code(),
              grpc::StatusCode::INVALID_ARGUMENT);
  }
  v1::PauseRequest relative;
  relative.set_build_id("aaaaaaaa-0000-4000-8000-000000000001");
  relative.set_metadata_path("here/metadata.json");
  v1::PauseResponse paused;
  grpc::ClientContext context;
  const grpc::Status status = stub->Pause(&context, relative, &paused);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("not an absolute path"));
}

TEST_F(PeerchunkdTest, ResumeRefusesAddressesThatThePolicyRefuses) {
  DaemonProcess daemon(Path("a"), Path("base"));
  const std::string id = test::MakeTestBuild({}).id.ToString();
  for (const std::string address : {"169.254.169.254:80", "8.8.8.8:7070", "example.com:7070"}) {
    const Finished refused = daemon.Tool({"resume", id, "--source", address});
    EXPECT_EQ(refused.exit_code, 1) << address;
    EXPECT_THAT(refused.err, HasSubstr(address));
  }
  const Finished self = daemon.Tool({"resume", id, "--source", daemon.address()});
  EXPECT_EQ(self.exit_code, 1);
  EXPECT_THAT(self.err, HasSubstr("itself"));
}

TEST_F(PeerchunkdTest, ResumeShowsTheLayersAndWhereTheyCameFrom) {
  DaemonProcess a(Path("a"), Path("base"), kSlowBase);
  DaemonProcess b(Path("b"), Path("base"));
  const test::TestBuild build = PauseOn(a);
  const nlohmann::json resumed =
      b.Json({"resume", build.id.ToString(), "--source", a.address(), "--fetch", Path("got")});
  EXPECT_EQ(resumed["state"], "CACHED");
  EXPECT_EQ(resumed["memfile_size"], build.memfile.size());
  EXPECT_EQ(resumed["rootfs_size"], build.rootfs.size());
  ASSERT_FALSE(resumed["layers"].empty());
  EXPECT_EQ(resumed["layers"][0]["source_addresses"][0], a.address());
  ExpectFetched(build, "got");
  // A fetch at the source itself copies its own files.
  a.Json({"fetch", build.id.ToString(), "--out", Path("own")});
  ExpectFetched(build, "own");
}

TEST_F(PeerchunkdTest, NodesWithCertificatesTalkAndOthersAreKeptOut) {
  const test::TestAuthority authority;
  const auto flags = [&](const std::string& name, const test::TestAuthority::Identity& identity) {
    return std::vector<std::string>{
        "--tls-cert", folder_.Write(name + ".pem", identity.certificate),
        "--tls-key",  folder_.Write(name + ".key", identity.key),
        "--tls-ca",   folder_.Write("ca.pem", authority.Pem())};
  };
  const std::vector<std::string> node = flags("node", authority.Issue("IP:127.0.0.1"));
  DaemonProcess a(Path("a"), Path("base"), kSlowBase + node);
  DaemonProcess b(Path("b"), Path("base"), node);
  EXPECT_THAT(a.process().out(), HasSubstr("(mTLS)"));
  const test::TestBuild build = PauseOn(a);
  const std::string id = build.id.ToString();
  b.Json({"fetch", id, "--source", a.address(), "--out", Path("got")});
  ExpectFetched(build, "got");
  EXPECT_EQ(RunProgram(test::Peerchunk(
                           std::vector<std::string>{"probe", a.address(), "--build", id} + node))
                .exit_code,
            0);
  EXPECT_EQ(RunProgram(test::Peerchunk({"probe", a.address(), "--build", id})).exit_code, 1);
  const std::vector<std::string> stranger =
      flags("stranger", test::TestAuthority().Issue("IP:127.0.0.1"));
  EXPECT_EQ(
      RunProgram(
          test::Peerchunk(std::vector<std::string>{"probe", a.address(), "--build", id} + stranger))
          .exit_code,
      1);
  const Finished partial = RunProgram(
      Peerchunkd(Arguments("c") + std::vector<std::string>{"--tls-cert", Path("node.pem")}));
  EXPECT_EQ(partial.exit_code, 1);
  EXPECT_THAT(partial.err, HasSubstr("all three or none"));
}

TEST_F(PeerchunkdTest, ReplacedMetadataReachesTheBase) {
  DaemonProcess daemon(Path("a"), Path("base"));
  const test::TestBuild build = PauseOn(daemon);
  const std::string id = build.id.ToString();
  EXPECT_EQ(daemon.Tool({"wait", id, "--timeout", "60"}).exit_code, 0);
  const std::string metadata = R"({"version":2,"mine":1})";
  folder_.Write("new.json", metadata);
  EXPECT_EQ(daemon.Tool({"set-metadata", id, Path("new.json")}).exit_code, 0);
  EXPECT_EQ(daemon.Stop(), 0);
  EXPECT_EQ(folder_.Read("base/" + id + "/metadata.json"), metadata);
}

TEST_F(PeerchunkdTest, MetadataHasOneLimitFromTheToolToTheDisk) {
  DaemonProcess daemon(Path("a"), Path("base"), kSlowBase);
  const std::string id = PauseOn(daemon).id.ToString();
  const std::string large = "{\"large\":\"" + std::string(5 << 20, 'x') + "\"}";
  folder_.Write("large.json", large);
  const Finished replaced = daemon.Tool({"set-metadata", id, Path("large.json")});
  EXPECT_EQ(replaced.exit_code, 0) << replaced.err;
  EXPECT_TRUE(folder_.Read("a/builds/" + id + "/metadata.json.2") == large);
  folder_.Write("beyond.json", "");
  std::filesystem::resize_file(Path("beyond.json"), kMaxMetadataBytes + 1);
  const Finished refused = daemon.Tool({"set-metadata", id, Path("beyond.json")});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.err, HasSubstr("a metadata.json has at most 67108864"));
}

// GRPC_POLL_STRATEGY=poll, which TuneProcess sets, has gRPC do without epoll.
TEST_F(PeerchunkdTest, TheProcessIsTuned) {
  const auto polls = [&](const std::string& name, const std::string& strategy) {
    test::ChildProcess::Spec spec = Peerchunkd(Arguments(name));
    if (!strategy.empty()) spec.environment["GRPC_POLL_STRATEGY"] = strategy;
    test::ChildProcess daemon(spec);
    daemon.WaitForLine("ready");
    const std::string files = "/proc/" + std::to_string(daemon.pid()) + "/fd";
    int found = 0;
    for (const auto& file : std::filesystem::directory_iterator(files)) {
      std::error_code error;  // One that is closed meanwhile.
      if (std::filesystem::read_symlink(file, error) == "anon_inode:[eventpoll]") ++found;
    }
    return found;
  };
  EXPECT_EQ(polls("a", ""), polls("b", "poll"));
  EXPECT_GT(polls("c", "epoll1"), polls("d", "poll"));
}

}  // namespace
}  // namespace peerchunk
