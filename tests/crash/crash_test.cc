// Real daemons, killed at random moments of pauses, uploads, fetches and resumes. After each kill
// the daemon starts again on its folder, and all that it had promised must hold.
//
// PEERCHUNK_CRASH_ROUNDS: how many kills (one a round); PEERCHUNK_CRASH_SEED: the first seed. A
// seed fixes what is done and, roughly, when: real processes keep real time.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/crash/crash_fixture.h"

namespace peerchunk::test {

using testing::Contains;
using testing::HasSubstr;

void ProcessCrashTest::KillAndRestart(size_t victim, Aim aim,
                                      const std::function<void()>& after_death) {
  KilledNode& node = *nodes_[victim];
  node.Kill();
  ++tally_.kills[aim];
  if (after_death) after_death();
  const std::set<std::string> unfinished = node.Unfinished();
  node.Start();
  const std::vector<std::string> report = node.StartupReport();
  EXPECT_EQ(report.size(), unfinished.size());
  for (const std::string& name : unfinished) {
    EXPECT_THAT(report, Contains(HasSubstr(name + " was removed")));
    ++tally_.removed_and_reported;
  }
  EXPECT_TRUE(node.Unfinished().empty());
}

void ProcessCrashTest::KillDuringPause() {
  const size_t victim = Below(2);
  Promised made = MakeBuild(victim, true);
  const bool sync = Below(3) == 0;
  const bool at_its_return = Below(4) == 0;
  std::atomic<bool> ended = false;
  grpc::Status paused;
  std::thread pausing([&, stub = nodes_[victim]->shared_stub()] {
    paused = Pause(*stub, made, sync);
    if (at_its_return) nodes_[victim]->SignalKill();
    ended = true;
  });
  if (at_its_return) {
    while (!ended) std::this_thread::yield();
  } else if (Below(4) == 0) {
    AwaitRandomMoment(kPause, ended);
  } else {  // Soon after its first trace.
    while (!ended && nodes_[victim]->Unfinished().empty()) std::this_thread::yield();
    const auto moment = SteadyClock::now() + std::chrono::microseconds(Below(2) * Below(3000));
    while (!ended && SteadyClock::now() < moment) std::this_thread::yield();
  }
  bool had_begun = false;
  KillAndRestart(victim, kPause, [&] {
    pausing.join();
    had_begun = nodes_[victim]->Unfinished().contains(".pause-" + made.id());
  });
  const bool there = nodes_[victim]->Builds().contains(made.id());
  if (paused.ok()) {
    EXPECT_TRUE(there) << "lost " << made.id() << ", whose pause had returned";
  } else {
    ++tally_.interrupted[kPause];
    tally_.kept_unanswered += there;
    EXPECT_FALSE(there && had_begun);
    if (!there) {  // It left nothing in the way of another try.
      const grpc::Status again = Pause(nodes_[victim]->stub(), made, false);
      EXPECT_TRUE(again.ok()) << again.error_message();
    }
  }
  Promise(std::move(made));
}

void ProcessCrashTest::KillDuringUpload() {
  const size_t victim = Below(2);
  const Promised& made = PauseOn(victim);
  const int wanted = static_cast<int>(Below(made.build.files.size()));
  const auto confirmed = [&] {
    const std::map<std::string, v1::BuildInfo> builds = nodes_[victim]->Builds();
    const auto found = builds.find(made.id());
    int count = 0;
    if (found == builds.end()) return 6;
    for (const v1::BuildFileInfo& file : found->second.files()) count += file.in_base();
    return count;
  };
  int seen = 0;
  while ((seen = confirmed()) < wanted) {
    if (HasFailure()) return;
  }
  ++tally_.between_objects[seen];
  tally_.interrupted[kUpload] += static_cast<size_t>(seen) < made.build.files.size();
  const auto moment = SteadyClock::now() + std::chrono::microseconds(Below(20'000));
  while (SteadyClock::now() < moment) std::this_thread::yield();
  KillAndRestart(victim, kUpload);
}

void ProcessCrashTest::KillDuringFetch() {
  const size_t home = Below(2);
  const size_t reader = 1 - home;
  const Promised& made = PauseOn(home);
  const std::string folder = dir_.PathOf("got-" + std::to_string(folders_++));
  std::atomic<bool> ended = false;
  grpc::Status fetched;
  grpc::ClientContext context;
  const auto begun = SteadyClock::now();
  std::thread fetching([&, stub = nodes_[reader]->shared_stub(), sources = SourcesOf(made)] {
    fetched = Fetch(*stub, sources, folder, context);
    ended = true;
  });
  AwaitRandomMoment(kFetch, ended);
  if (ended) Learn(kFetch, begun);
  const size_t victim = Below(2) == 0 ? home : reader;
  tally_.interrupted[kFetch] += !ended;
  KillAndRestart(victim, kFetch);
  // The reader's fetch goes on by the base, once the source that came back has uploaded there.
  const bool let_go_on = victim == home && Below(3) == 0;
  if (!let_go_on) context.TryCancel();
  fetching.join();
  if (let_go_on) {
    EXPECT_TRUE(fetched.ok()) << fetched.error_message();
  }
  ASSERT_NO_FATAL_FAILURE(ExpectFolder(made, folder, fetched.ok()));
  grpc::ClientContext again;
  const auto begun_again = SteadyClock::now();
  const grpc::Status whole = Fetch(nodes_[reader]->stub(), SourcesOf(made), folder, again);
  Learn(kFetch, begun_again);
  ASSERT_TRUE(whole.ok()) << whole.error_message();
  ASSERT_NO_FATAL_FAILURE(ExpectFolder(made, folder, true));
  std::filesystem::remove_all(folder);
}

// Reads at random places of the mounted devices and compares, until told to stop.
void ProcessCrashTest::ExpectMountedBytes(const Promised& made, const std::atomic<bool>& stop,
                                          bool may_break) {
  std::mt19937 random(made.build.id.bytes()[0]);
  const File memory(open((mount_path_ + "/memfile").c_str(), O_RDONLY | O_CLOEXEC));
  const File rootfs(open((mount_path_ + "/rootfs.ext4").c_str(), O_RDONLY | O_CLOEXEC));
  while (!stop) {
    const bool of_memory = !made.build.filesystem_only() && random() % 2 == 0;
    const std::string& device = of_memory ? made.build.memfile : made.build.rootfs;
    const uint64_t offset = random() % device.size();
    std::string got(1 + random() % 60'000, '?');
    const ssize_t length = pread((of_memory ? memory : rootfs).fd(), got.data(), got.size(),
                                 static_cast<off_t>(offset));
    if (length < 0) {
      EXPECT_TRUE(may_break) << "a guest's read failed: " << strerror(errno);
      return;
    }
    got.resize(static_cast<size_t>(length));
    EXPECT_TRUE(got == std::string_view(device).substr(offset, got.size())) << "wrong bytes";
    ++tally_.mount_reads;
  }
}

void ProcessCrashTest::KillDuringResume() {
  const size_t home = Below(2);
  const size_t reader = 1 - home;
  const Promised& made = PauseOn(home);
  const size_t victim = Below(2) == 0 ? home : reader;
  const auto resume = [&](v1::SandboxService::Stub& stub, const v1::SandboxConfig& sources) {
    v1::ResumeRequest request;
    *request.mutable_sandbox() = sources;
    if (can_mount_) request.set_mount_path(mount_path_);
    v1::ResumeResponse response;
    grpc::ClientContext context;
    return stub.Resume(&context, request, &response);
  };
  std::atomic<bool> stop = false;
  std::atomic<bool> ended = false;
  grpc::Status resumed;
  const auto begun = SteadyClock::now();
  std::thread resuming([&, stub = nodes_[reader]->shared_stub(), sources = SourcesOf(made)] {
    resumed = resume(*stub, sources);
    if (resumed.ok() && can_mount_) ExpectMountedBytes(made, stop, victim == reader);
    ended = true;
  });
  AwaitRandomMoment(kResume, ended);
  tally_.interrupted[kResume] += !ended;
  KillAndRestart(victim, kResume);
  // A read under way is answered at the latest when the source, back again, has uploaded.
  if (victim == home) WaitDurable(made);
  stop = true;
  resuming.join();
  if (victim == home && can_mount_ && !resumed.ok()) {
    can_mount_ = resumed.error_message().find("FUSE") == std::string::npos &&
                 resumed.error_message().find("libfuse3") == std::string::npos;
  }
  if (victim == home && can_mount_) {
    EXPECT_TRUE(resumed.ok()) << resumed.error_message();
  }
  if (victim == reader) {  // The mount of the dead is taken over.
    grpc::Status again = resume(nodes_[reader]->stub(), SourcesOf(made));
    if (!again.ok() && again.error_message().find("FUSE") != std::string::npos) {
      can_mount_ = false;
      again = resume(nodes_[reader]->stub(), SourcesOf(made));
    }
    ASSERT_TRUE(again.ok()) << again.error_message();
    Learn(kResume, begun);
  }
  if (!can_mount_) return;
  EXPECT_TRUE(ReadFile(mount_path_ + "/rootfs.ext4") == made.build.rootfs);
  if (!made.build.filesystem_only()) {
    EXPECT_TRUE(ReadFile(mount_path_ + "/memfile") == made.build.memfile);
  }
  v1::UnmountRequest request;
  request.set_mount_path(mount_path_);
  v1::UnmountResponse response;
  grpc::ClientContext context;
  const grpc::Status unmounted = nodes_[reader]->stub().Unmount(&context, request, &response);
  EXPECT_TRUE(unmounted.ok()) << unmounted.error_message();
}

void ProcessCrashTest::CheckPromises() {
  std::vector<std::map<std::string, v1::BuildInfo>> listed;
  for (const auto& node : nodes_) listed.push_back(node->Builds());
  for (const Promised& made : promised_) {
    SCOPED_TRACE("build " + made.id());
    const auto found = listed[made.home].find(made.id());
    ASSERT_TRUE(found != listed[made.home].end()) << "lost";
    const v1::BuildInfo& info = found->second;
    EXPECT_THAT(info.state(), testing::AnyOf("LOCAL", "UPLOADING", "DURABLE")) << info.reason();
    const bool durable = info.state() == "DURABLE";
    EXPECT_EQ(static_cast<size_t>(info.files_size()), made.build.files.size());
    for (const v1::BuildFileInfo& file : info.files()) {
      if (durable || file.in_base()) {
        ASSERT_NO_FATAL_FAILURE(ExpectInBase(made, file.name()));
      }
    }
    if (durable) continue;
    const std::string folder = dir_.PathOf("got-" + std::to_string(folders_++));
    grpc::ClientContext context;
    const grpc::Status fetched =
        Fetch(nodes_[1 - made.home]->stub(), SourcesOf(made), folder, context);
    ASSERT_TRUE(fetched.ok()) << fetched.error_message();
    ++tally_.checked_fetches;
    ASSERT_NO_FATAL_FAILURE(ExpectFolder(made, folder, true));
    std::filesystem::remove_all(folder);
  }
}

// What is durable and long ago goes, so that the test stays small.
void ProcessCrashTest::Forget() {
  for (auto next = promised_.begin(); promised_.size() > 12 && next != promised_.end();) {
    if (next->children > 0 || &*next == &promised_.back()) {
      ++next;
      continue;
    }
    const Promised made = std::move(*next);
    next = promised_.erase(next);
    ASSERT_NO_FATAL_FAILURE(WaitDurable(made));
    for (const auto& [kind, bytes] : made.build.files) {
      ExpectInBase(made, std::string(FileName(kind)));
    }
    for (const size_t on : {1 - made.home, made.home}) {
      v1::DeleteBuildRequest request;
      request.set_build_id(made.id());
      request.set_from_base(on == made.home);
      v1::DeleteBuildResponse response;
      grpc::ClientContext context;
      const grpc::Status deleted = nodes_[on]->stub().DeleteBuild(&context, request, &response);
      // The other node may not know it; a template that is loaded may still map it.
      if (on == made.home && deleted.error_code() != grpc::StatusCode::FAILED_PRECONDITION) {
        EXPECT_TRUE(deleted.ok()) << deleted.error_message();
      }
    }
    std::filesystem::remove_all(given_.PathOf(made.id()));
    for (Promised& other : promised_) {
      for (const BuildId& ancestor : made.ancestors) other.children -= other.build.id == ancestor;
    }
  }
}

void ProcessCrashTest::Round(Aim aim) {
  switch (aim) {
    case kPause:
      return KillDuringPause();
    case kUpload:
      return KillDuringUpload();
    case kFetch:
      return KillDuringFetch();
    case kResume:
      return KillDuringResume();
  }
}

TEST_F(ProcessCrashTest, KilledAtAnyMomentNothingThatWasPromisedIsLostAndUploadsEnd) {
  const char* const rounds_text = std::getenv("PEERCHUNK_CRASH_ROUNDS");
  const int rounds = rounds_text == nullptr ? 20 : std::atoi(rounds_text);
  const char* const seed_text = std::getenv("PEERCHUNK_CRASH_SEED");
  const uint32_t seed = seed_text == nullptr ? 2 : static_cast<uint32_t>(std::atoi(seed_text));
  std::printf("seed %u, %d kills\n", seed, rounds);
  for (int round = 0; round < rounds; ++round) {
    const uint32_t round_seed = seed * 1'000'000 + static_cast<uint32_t>(round);
    SCOPED_TRACE("seed of the round: " + std::to_string(round_seed));
    random_.seed(round_seed);
    ASSERT_NO_FATAL_FAILURE(Round(static_cast<Aim>(round % 4)));
    ASSERT_NO_FATAL_FAILURE(CheckPromises());
    ASSERT_NO_FATAL_FAILURE(Forget());
    if (HasFailure()) break;
  }
  for (const Promised& made : promised_) {
    ASSERT_NO_FATAL_FAILURE(WaitDurable(made));
    for (const auto& [kind, bytes] : made.build.files) {
      ExpectInBase(made, std::string(FileName(kind)));
    }
  }
  for (const Aim aim : {kPause, kUpload, kFetch, kResume}) {
    std::printf("%s: %d kills, %d before it had ended\n", kAimNames[aim], tally_.kills[aim],
                tally_.interrupted[aim]);
  }
  std::printf(
      "half-written pauses and removals removed and reported: %d; pauses complete but for the "
      "answer: %d\n"
      "uploads killed with 0..6 objects confirmed: %d %d %d %d %d %d %d\n"
      "builds fetched whole and compared after a kill: %d; reads of mounts compared: %d%s\n",
      tally_.removed_and_reported, tally_.kept_unanswered, tally_.between_objects[0],
      tally_.between_objects[1], tally_.between_objects[2], tally_.between_objects[3],
      tally_.between_objects[4], tally_.between_objects[5], tally_.between_objects[6],
      tally_.checked_fetches, tally_.mount_reads, can_mount_ ? "" : " (no FUSE here)");
  if (rounds < 200 || HasFailure()) return;
  // So many kills have hit everything that there is to hit, or hit nothing but idle nodes.
  for (const Aim aim : {kPause, kUpload, kFetch, kResume}) {
    EXPECT_GT(tally_.interrupted[aim], 0) << kAimNames[aim];
  }
  EXPECT_GT(tally_.removed_and_reported, 0);
  EXPECT_GT(std::count_if(tally_.between_objects + 1, tally_.between_objects + 6,
                          [](int kills) { return kills > 0; }),
            2)
      << "uploads killed half-way, at different objects";
  EXPECT_GT(tally_.checked_fetches, 0);
  if (can_mount_) {
    EXPECT_GT(tally_.mount_reads, 0);
  }
}

}  // namespace peerchunk::test
