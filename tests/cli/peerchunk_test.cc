// peerchunk as a process, against real daemons and without one.
#include <filesystem>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/held_port.h"
#include "tests/support/sample_bytes.h"
#include "tests/support/tool_fixture.h"

namespace peerchunk {
namespace {

using test::DaemonProcess;
using test::Finished;
using test::kSlowBase;
using test::Peerchunk;
using test::RunProgram;
using testing::HasSubstr;
using testing::Not;

using PeerchunkTest = test::ToolFixture;

TEST_F(PeerchunkTest, WithoutADaemonTheErrorSaysWhatToDo) {
  const Finished listed = RunProgram(Peerchunk({"--control", Path("none.sock"), "ls"}));
  EXPECT_EQ(listed.exit_code, 1);
  EXPECT_THAT(listed.err, HasSubstr("no daemon answers at " + Path("none.sock")));
  EXPECT_THAT(listed.err, HasSubstr("start peerchunkd"));
}

TEST_F(PeerchunkTest, WrongUsageIsExitCodeTwo) {
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {},
           {"frobnicate"},
           {"ls", "--frobnicate"},
           {"inspect"},
           {"rm", "../../etc/passwd"},
           {"fetch", "aaaaaaaa-0000-4000-8000-000000000001"},
           {"fetch", "AAAAAAAA-0000-4000-8000-000000000001", "--out", "x"},
           {"rm", "00000000-0000-0000-0000-000000000000"},
           {"resume", "aaaaaaaa-0000-4000-8000-000000000001", "--layer-source", "x=1.2.3.4:1"},
           {"wait", "aaaaaaaa-0000-4000-8000-000000000001", "--state", "FETCHED"},
           // The daemon has its own.
           {"fetch", "aaaaaaaa-0000-4000-8000-000000000001", "--out", "x", "--tls-ca", "none"},
           {"fetch", "aaaaaaaa-0000-4000-8000-000000000001", "--out", "x", "--peer-network",
            "10.0.0.0/8"},
           {"fetch", "aaaaaaaa-0000-4000-8000-000000000001", "--out", "x",
            "--insecure-plaintext"}}) {
    const Finished finished = RunProgram(Peerchunk(arguments));
    EXPECT_EQ(finished.exit_code, 2) << finished.out << finished.err;
    EXPECT_THAT(finished.err, HasSubstr("--help"));
  }
  EXPECT_EQ(RunProgram(Peerchunk({"--help"})).exit_code, 0);
  EXPECT_EQ(RunProgram(Peerchunk({"fetch", "--help"})).exit_code, 0);
}

TEST_F(PeerchunkTest, ABuildMadeOfRawImagesComesBackAsTheyWere) {
  std::string memory = test::SampleBytes(3 << 20, 1) + std::string(5 << 20, '\0');
  std::string rootfs = std::string(1 << 20, '\0') + test::SampleBytes(1 << 20, 2);
  folder_.Write("memory", memory);
  folder_.Write("rootfs", rootfs);
  folder_.Write("state", "devices");
  const Finished base = RunProgram(
      Peerchunk({"--json", "make-build", "--memfile", Path("memory"), "--rootfs", Path("rootfs"),
                 "--snapfile", Path("state"), "--out", Path("base-build"), "--build-id",
                 "aaaaaaaa-0000-4000-8000-000000000001"}));
  ASSERT_EQ(base.exit_code, 0) << base.err;
  const nlohmann::json made = nlohmann::json::parse(base.out);
  EXPECT_EQ(made["diffs"][0]["size"], 3u << 20);
  EXPECT_EQ(made["diffs"][0]["zero_bytes"], 5u << 20);

  // The child: one page changed, one zeroed.
  std::string child_memory = memory;
  child_memory.replace(4096, 4096, test::SampleBytes(4096, 3));
  child_memory.replace(8192, 4096, std::string(4096, '\0'));
  folder_.Write("child-memory", child_memory);
  const Finished child = RunProgram(Peerchunk(
      {"--json", "make-build", "--memfile", Path("child-memory"), "--rootfs", Path("rootfs"),
       "--snapfile", Path("state"), "--out", Path("child-build"), "--parent-folder",
       Path("base-build"), "--parent-memfile", Path("memory"), "--parent-rootfs", Path("rootfs")}));
  ASSERT_EQ(child.exit_code, 0) << child.err;
  const nlohmann::json child_json = nlohmann::json::parse(child.out);
  EXPECT_EQ(child_json["diffs"][0]["size"], 4096);
  EXPECT_EQ(child_json["diffs"][0]["zero_bytes"], 4096);
  EXPECT_EQ(child_json["diffs"][0]["generation"], 1);
  EXPECT_EQ(child_json["diffs"][1]["size"], 0);

  DaemonProcess a(Path("a"), Path("base"));
  EXPECT_EQ(a.Tool({"pause", "--folder", Path("base-build")}).exit_code, 0);
  EXPECT_EQ(a.Tool({"pause", "--folder", Path("child-build")}).exit_code, 0);
  const nlohmann::json shown =
      a.Json({"inspect", Path("child-build/memfile.header"), "--mappings"});
  EXPECT_EQ(shown["generation"], 1);
  EXPECT_EQ(shown["zero_bytes"], (5u << 20) + 4096);
  EXPECT_EQ(shown["layers"].size(), 2u);
  EXPECT_EQ(shown["mappings"][1]["build_id"], child_json["build_id"]);
}

TEST_F(PeerchunkTest, MakeBuildRefusesWhatCannotBe) {
  folder_.Write("rootfs", std::string(8192, 'x'));
  folder_.Write("odd", "12345");
  folder_.Write("occupied/metadata.json", "{}");
  const auto make = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "make-build");
    return RunProgram(Peerchunk(arguments));
  };
  const Finished odd = make({"--rootfs", Path("odd"), "--filesystem-only", "--out", Path("o1")});
  EXPECT_EQ(odd.exit_code, 1);
  EXPECT_THAT(odd.err, HasSubstr("no multiple of 4096"));
  EXPECT_TRUE(std::filesystem::is_empty(Path("o1")));
  const Finished occupied =
      make({"--rootfs", Path("rootfs"), "--filesystem-only", "--out", Path("occupied")});
  EXPECT_EQ(occupied.exit_code, 1);
  EXPECT_THAT(occupied.err, HasSubstr("choose an empty folder"));
  EXPECT_EQ(folder_.Read("occupied/metadata.json"), "{}");
  EXPECT_EQ(make({"--rootfs", Path("rootfs"), "--out", Path("o2")}).exit_code, 1);
  EXPECT_EQ(make({"--rootfs", Path("none"), "--filesystem-only", "--out", Path("o3")}).exit_code,
            2);
  const Finished orphan = make({"--rootfs", Path("rootfs"), "--filesystem-only", "--out",
                                Path("o4"), "--parent-folder", Path("occupied")});
  EXPECT_EQ(orphan.exit_code, 1);
  EXPECT_THAT(orphan.err, HasSubstr("--parent-rootfs"));
  const Finished small =
      make({"--rootfs", Path("rootfs"), "--filesystem-only", "--out", Path("o5"), "--parent-folder",
            Path("occupied"), "--parent-rootfs", Path("odd")});
  EXPECT_EQ(small.exit_code, 1);
  EXPECT_THAT(small.err, HasSubstr("but its parent"));
}

TEST_F(PeerchunkTest, APauseDropsNoMemoryThatItCannotReadOrFind) {
  DaemonProcess a(Path("a"), Path("base"));
  const test::TestBuild build = test::MakeTestBuild({});
  build.WriteTo(folder_, "lost");
  build.WriteTo(folder_, "unreadable");
  for (const std::string name : {"memfile", "memfile.header", "snapfile"}) {
    std::filesystem::remove(Path("lost/" + name));
    std::filesystem::remove(Path("unreadable/" + name));
    std::filesystem::create_symlink(name, Path("unreadable/" + name));  // A loop: ELOOP.
  }
  const Finished lost = a.Tool({"pause", "--folder", Path("lost")});
  EXPECT_EQ(lost.exit_code, 1);
  EXPECT_THAT(lost.err, HasSubstr("memfile, memfile.header and snapfile are missing"));
  EXPECT_THAT(lost.err, HasSubstr("\"filesystem_only\": true"));
  const Finished unreadable = a.Tool({"pause", "--folder", Path("unreadable")});
  EXPECT_EQ(unreadable.exit_code, 1);
  EXPECT_THAT(unreadable.err, HasSubstr(Path("unreadable/snapfile")));
  EXPECT_THAT(a.Tool({"ls"}).out, HasSubstr("no builds"));

  // What make-build writes says which kind it is.
  folder_.Write("image", std::string(8192, 'x'));
  const auto make = [&](const std::string& out, std::vector<std::string> more) {
    more.insert(more.begin(), {"make-build", "--rootfs", Path("image"), "--out", Path(out)});
    EXPECT_EQ(RunProgram(Peerchunk(more)).exit_code, 0);
    return nlohmann::json::parse(folder_.Read(out + "/metadata.json"));
  };
  const nlohmann::json full =
      make("full", {"--memfile", Path("image"), "--snapfile", Path("image")});
  EXPECT_EQ(full["filesystem_only"], false);
  EXPECT_EQ(make("small", {"--filesystem-only"})["filesystem_only"], true);
  EXPECT_EQ(a.Tool({"pause", "--folder", Path("full")}).exit_code, 0);
  EXPECT_EQ(a.Tool({"pause", "--folder", Path("small")}).exit_code, 0);
}

TEST_F(PeerchunkTest, ErrorsNameTheBuildOnceAndSayWhatToDoNext) {
  DaemonProcess a(Path("a"), Path("base-a"), kSlowBase);
  DaemonProcess b(Path("b"), Path("base"));
  const test::TestBuild build = PauseOn(a);
  const std::string id = build.id.ToString();
  const Finished twice = a.Tool({"pause", "--folder", Path("snapshot-1")});
  EXPECT_EQ(twice.exit_code, 1);
  EXPECT_THAT(twice.err, HasSubstr("peerchunk: pause " + id + ": this build is recorded here"));
  const Finished nameless = b.Tool({"resume", id});
  EXPECT_EQ(nameless.exit_code, 1);
  EXPECT_THAT(nameless.err, HasSubstr("--source"));
  folder_.Write("image", std::string(8192, 'x'));
  const Finished half = RunProgram(Peerchunk({"make-build", "--rootfs", Path("image"), "--memfile",
                                              Path("image"), "--out", Path("half")}));
  EXPECT_EQ(half.exit_code, 1);
  EXPECT_THAT(half.err, HasSubstr("--memfile and --snapfile are both needed"));
  // Of a build of another node it is not known here what the base has.
  EXPECT_THAT(b.Tool({"resume", id, "--source", a.address()}).out,
              testing::ContainsRegex("metadata.json +[0-9]+ B +- +- "));
  const Finished elsewhere = b.Tool({"wait", id});
  EXPECT_EQ(elsewhere.exit_code, 1);
  EXPECT_THAT(elsewhere.err, HasSubstr("was paused on another node"));
}

// The daemon takes the files over whether anyone waits for its answer or not.
TEST_F(PeerchunkTest, AnInterruptedPauseSaysThatTheDaemonEndsIt) {
  DaemonProcess a(Path("a"), Path("base"), kSlowBase);
  const test::TestBuild build = test::MakeTestBuild({});
  build.WriteTo(folder_, "snapshot");
  a.process().Signal(SIGSTOP);
  test::ChildProcess pause(a.ToolSpec({"pause", "--folder", Path("snapshot")}));
  pause.AwaitBlocked(SIGINT);
  pause.Signal(SIGINT);
  EXPECT_EQ(pause.Wait(), 130);
  EXPECT_THAT(pause.err(), HasSubstr("interrupted; what the daemon has begun, it ends"));
  a.process().Signal(SIGCONT);
  EXPECT_EQ(a.Tool({"ls"}).exit_code, 0);
}

TEST_F(PeerchunkTest, VerifyFindsWhatIsWrongInTheBase) {
  DaemonProcess a(Path("a"), Path("base"));
  const test::TestBuild build = PauseOn(a);
  Durable(a, build);
  const std::string id = build.id.ToString();
  const Finished good = a.Tool({"verify", id, "--folder", Path("snapshot-1")});
  EXPECT_EQ(good.exit_code, 0) << good.out;
  EXPECT_EQ(
      RunProgram(Peerchunk({"verify", id, "--base", Path("base"), "--folder", Path("snapshot-1")}))
          .exit_code,
      0);
  FlipByte(Path("base/" + id + "/memfile"), 12345);
  const Finished flipped = a.Tool({"verify", id});
  EXPECT_EQ(flipped.exit_code, 1);
  EXPECT_THAT(flipped.err, HasSubstr("1 finding"));
  std::filesystem::remove(Path("base/" + id + "/rootfs.ext4"));
  std::filesystem::remove(Path("base/" + id + "/metadata.json"));
  const Finished gone = a.Tool({"verify", id});
  EXPECT_EQ(gone.exit_code, 1);
  EXPECT_THAT(gone.out, HasSubstr("missing in the base"));
  const Finished nothing = RunProgram(
      Peerchunk({"verify", "aaaaaaaa-0000-4000-8000-000000000001", "--base", Path("base")}));
  EXPECT_EQ(nothing.exit_code, 1);
  EXPECT_THAT(nothing.err, HasSubstr("has nothing of build"));
}

TEST_F(PeerchunkTest, VerifyMissesTheLayersOfAnAncestor) {
  DaemonProcess a(Path("a"), Path("base"));
  const test::TestBuild parent = PauseOn(a, {.seed = 1});
  const test::TestBuild child = PauseOn(a, {.seed = 2, .parent = &parent});
  Durable(a, child);
  EXPECT_EQ(a.Tool({"verify", child.id.ToString()}).exit_code, 0);
  std::filesystem::remove(Path("base/" + parent.id.ToString() + "/memfile"));
  const Finished verified = a.Tool({"verify", child.id.ToString()});
  EXPECT_EQ(verified.exit_code, 1);
  EXPECT_THAT(verified.out, HasSubstr(parent.id.ToString() + "/memfile"));
}

TEST_F(PeerchunkTest, RmRefusesTheOnlyCopyAndALayerThatIsNeeded) {
  DaemonProcess a(Path("a"), Path("base"), kSlowBase);
  const test::TestBuild build = PauseOn(a);
  const std::string id = build.id.ToString();
  const Finished refused = a.Tool({"rm", id});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.err, HasSubstr("--discard-only-copy"));
  EXPECT_THAT(a.Tool({"ls"}).out, HasSubstr(id));
  EXPECT_EQ(a.Tool({"rm", id, "--discard-only-copy"}).exit_code, 0);
  EXPECT_THAT(a.Tool({"ls"}).out, Not(HasSubstr(id)));
  const Finished unknown = a.Tool({"rm", id});
  EXPECT_EQ(unknown.exit_code, 1);
}

TEST_F(PeerchunkTest, RmFromTheBaseIsRefusedWhileAChildNeedsIt) {
  DaemonProcess a(Path("a"), Path("base"));
  const test::TestBuild parent = PauseOn(a, {.seed = 1});
  const test::TestBuild child = PauseOn(a, {.seed = 2, .parent = &parent});
  Durable(a, child);
  Durable(a, parent);
  const Finished refused = a.Tool({"rm", parent.id.ToString(), "--from-base"});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.err, HasSubstr(child.id.ToString()));
  EXPECT_EQ(a.Json({"rm", child.id.ToString(), "--from-base"})["objects_deleted"], 6);
  EXPECT_EQ(a.Json({"rm", parent.id.ToString(), "--from-base"})["objects_deleted"], 6);
}

TEST_F(PeerchunkTest, ProbeTimesEachStepAndSaysWhichFailed) {
  DaemonProcess a(Path("a"), Path("base"), kSlowBase);
  const test::TestBuild build = PauseOn(a);
  const nlohmann::json probed = a.Json({"probe", a.address()});
  EXPECT_EQ(probed["good"], true);
  EXPECT_THAT(probed["steps"].back()["result"].get<std::string>(), HasSubstr("bytes right"));
  // Without a daemon of its own, for a named file.
  EXPECT_EQ(RunProgram(Peerchunk({"--control", Path("none.sock"), "probe", a.address(), "--build",
                                  build.id.ToString(), "--file", "metadata.json"}))
                .exit_code,
            0);
  const Finished unknown =
      RunProgram(Peerchunk({"--control", Path("none.sock"), "probe", a.address()}));
  EXPECT_EQ(unknown.exit_code, 1);
  EXPECT_THAT(unknown.err, HasSubstr("the peer answers, but serves no build"));
  EXPECT_THAT(unknown.out, HasSubstr("NOT_AVAILABLE"));
  const test::HeldPort nobody;
  const Finished dead =
      RunProgram(Peerchunk({"probe", nobody.address(), "--build", build.id.ToString()}));
  EXPECT_EQ(dead.exit_code, 1);
  EXPECT_THAT(dead.out, HasSubstr("FAILED"));
  const Finished refused = RunProgram(Peerchunk({"probe", "169.254.169.254:80"}));
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.err, HasSubstr("metadata service"));
}

TEST_F(PeerchunkTest, WaitEndsAtItsTimeout) {
  DaemonProcess a(Path("a"), Path("base"), kSlowBase);
  const test::TestBuild build = PauseOn(a);
  const Finished waited = a.Tool({"wait", build.id.ToString(), "--timeout", "0.1"});
  EXPECT_EQ(waited.exit_code, 1);
  // Whether the upload has begun by then is up to the disk.
  EXPECT_THAT(waited.err, testing::ContainsRegex("is still (LOCAL|UPLOADING)"));
  const Finished retried = a.Tool({"retry", build.id.ToString()});
  EXPECT_EQ(retried.exit_code, 1);  // It has not failed.
}

TEST_F(PeerchunkTest, WaitEndsWhenTheBuildIsPastTheState) {
  DaemonProcess a(Path("a"), Path("base"), kSlowBase);
  const std::string id = PauseOn(a).id.ToString();
  const auto wait = [&](const DaemonProcess& daemon, const std::string& build,
                        const std::string& state) {
    const Finished waited = daemon.Tool({"wait", build, "--state", state});
    EXPECT_EQ(waited.exit_code, 0) << waited.err;
    return waited.out;
  };
  EXPECT_EQ(wait(a, id, "UPLOADING"), id + " is UPLOADING\n");
  EXPECT_EQ(wait(a, id, "LOCAL"), id + " is UPLOADING\n");
  DaemonProcess b(Path("b"), Path("base"));
  const std::string other = PauseOn(b, {.seed = 2}).id.ToString();
  EXPECT_EQ(wait(b, other, "DURABLE"), other + " is DURABLE\n");
  EXPECT_EQ(wait(b, other, "LOCAL"), other + " is DURABLE\n");
}

TEST_F(PeerchunkTest, StatusAndListsAreForPeopleAndPrograms) {
  DaemonProcess a(Path("a"), Path("base"));
  const test::TestBuild build = PauseOn(a);
  Durable(a, build);
  const Finished listed = a.Tool({"ls"});
  EXPECT_THAT(listed.out, HasSubstr(build.id.ToString() + "  DURABLE"));
  EXPECT_EQ(a.Json({"ls"})["builds"][0]["build_id"], build.id.ToString());
  const nlohmann::json status = a.Json({"status"});
  EXPECT_EQ(status["listen"][0], a.address());
  EXPECT_EQ(status["base"], Path("base"));
  EXPECT_FALSE(status["metrics"].empty());
  EXPECT_THAT(a.Tool({"status", "--metrics"}).out, HasSubstr("peerchunk_"));
  EXPECT_THAT(a.Tool({"inspect", build.id.ToString()}).out, HasSubstr("rootfs.ext4.header"));
  EXPECT_THAT(a.Tool({"inspect", Path("snapshot-1/rootfs.ext4.header")}).out,
              HasSubstr("header      version 3"));
  const Finished no_header = a.Tool({"inspect", Path("snapshot-1/metadata.json")});
  EXPECT_EQ(no_header.exit_code, 1);
  EXPECT_THAT(no_header.err, HasSubstr("is no header"));
  EXPECT_EQ(a.Tool({"inspect", "nonsense"}).exit_code, 1);
}

TEST_F(PeerchunkTest, InspectSaysWhereAFetchedBuildCameFrom) {
  DaemonProcess a(Path("a"), Path("base"), kSlowBase);
  DaemonProcess b(Path("b"), Path("base"), kSlowBase);
  const test::TestBuild build = PauseOn(a);
  const std::string id = build.id.ToString();
  EXPECT_EQ(b.Tool({"inspect", id}).exit_code, 1);
  b.Json({"fetch", id, "--source", a.address(), "--out", Path("got")});
  const nlohmann::json shown = b.Json({"inspect", id});
  EXPECT_EQ(shown["state"], "FETCHED");
  EXPECT_EQ(shown["files"].size(), 6u);
  for (const nlohmann::json& file : shown["files"]) {
    EXPECT_EQ(file["bytes_from_peer"], file["size"]) << file;
    EXPECT_EQ(file["bytes_from_base"], 0u) << file;
    EXPECT_EQ(file["bytes_wasted"], 0u) << file;
  }
  const std::string text = b.Tool({"inspect", id}).out;
  EXPECT_THAT(text, HasSubstr("FROM PEER  FROM BASE  WASTED"));
  // What the base has of it is its own node's business, and so is waiting for it.
  EXPECT_THAT(text, testing::ContainsRegex("metadata.json +[0-9]+ B +[-0-9a-f]+ +- "));
  const Finished waited = b.Tool({"wait", id});
  EXPECT_EQ(waited.exit_code, 1);
  EXPECT_THAT(waited.err, HasSubstr("was paused on another node"));
  EXPECT_TRUE(b.Json({"ls"})["builds"].empty());
}

}  // namespace
}  // namespace peerchunk
