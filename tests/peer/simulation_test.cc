// Policy and mechanism over simulated nodes and a base, on a virtual clock, from a seed: nodes that
// fail, stall, lie, cut, deny, lag behind, come back; a base that is slow, fails, has nothing yet,
// half of it, another's object or wrong bytes; callers that leave. PEERCHUNK_SIMULATION_SEED=n
// replays one run, PEERCHUNK_SIMULATION_RUNS=n sets how many there are.
#include "tests/support/simulation.h"

#include <algorithm>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/logging.h"
#include "peerchunk/base/range.h"
#include "tests/peer/peer_fixture.h"

namespace peerchunk::test {
namespace {

constexpr absl::Duration kLongRun = absl::Hours(2);

class Dice {
 public:
  explicit Dice(uint64_t seed) : random_(seed) {}
  uint64_t Below(uint64_t n) { return random_() % n; }
  bool OneIn(uint64_t n) { return Below(n) == 0; }
  absl::Duration Ms(uint64_t from, uint64_t to) {
    return absl::Milliseconds(static_cast<int64_t>(from + Below(to - from + 1)));
  }

 private:
  std::mt19937_64 random_;
};

std::string Content(Dice& dice) {
  static constexpr uint64_t kSizes[] = {0, 1, kPageBytes, 100'000, kMiB, kMiB + 7, 1'500'000};
  std::string bytes = SampleBytes(kSizes[dice.Below(std::size(kSizes))], dice.Below(1000));
  for (uint64_t at = 0; at + kPageBytes < bytes.size(); at += kPageBytes) {
    if (dice.OneIn(3)) std::fill_n(bytes.begin() + static_cast<int64_t>(at), kPageBytes, '\0');
  }
  return bytes;
}

// One run: the world of a seed, what its readers saw, and whether that is allowed.
class OneRun {
 public:
  explicit OneRun(uint64_t seed)
      : seed_(seed), dice_(seed), sim_(seed), world_(sim_, &sim_.executor(), {}, seed) {}

  // A trace that a replay must give again.
  std::string Go() {
    SetUpBuild();
    for (const std::string& address : addresses_) SpoilPeer(world_.Node(address));
    SpoilBase();
    ScheduleEvents();
    provider_ = world_.Open(addresses_);
    const uint64_t readers = 1 + dice_.Below(4);
    for (uint64_t i = 0; i < readers; ++i) {
      const uint64_t seed = dice_.Below(1u << 30);
      sim_.SpawnAt(sim_.Now() + dice_.Ms(0, 200), [this, seed] { Reader(seed); });
    }
    if (!sim_.Run(sim_.Now() + kLongRun)) {
      std::fprintf(stderr, "seed %llu: a read never ended\n",
                   static_cast<unsigned long long>(seed_));
      std::abort();
    }
    CheckEnd();
    return absl::StrCat(trace_, "turns ", sim_.turns(), " at ", absl::FormatTime(sim_.Now()));
  }

 private:
  static constexpr FileKind kBlobs[] = {FileKind::kSnapfile, FileKind::kMetadata,
                                        FileKind::kMemfileHeader};

  void SetUpBuild() {
    for (const FileKind kind :
         {FileKind::kMemfile, FileKind::kSnapfile, FileKind::kMetadata, FileKind::kMemfileHeader}) {
      truth_[static_cast<size_t>(kind)] = Content(dice_);
    }
    if (dice_.OneIn(4)) absent_ = FileKind::kSnapfile;
    addresses_ = {kPeerA};
    if (dice_.OneIn(3)) addresses_.push_back(kPeerB);
    for (const std::string& address : addresses_) {
      SimulatedNode& node = world_.Node(address);
      if (address == kPeerB && dice_.OneIn(2)) continue;  // NOT_AVAILABLE there.
      for (const FileKind kind : {FileKind::kMemfile, FileKind::kSnapfile, FileKind::kMetadata,
                                  FileKind::kMemfileHeader}) {
        if (kind == absent_) {
          node.PutAbsent(FileOf(kind));
        } else {
          node.PutFile(FileOf(kind), Truth(kind), 1);
        }
      }
      node.SetState(kBuild, dice_.OneIn(2) ? BuildState::kLocal : BuildState::kUploading);
    }
    complete_from_start_ = dice_.OneIn(3);
    if (complete_from_start_) {
      Upload(dice_.OneIn(2));
    } else if (dice_.OneIn(3)) {
      UploadInPart();
    } else if (dice_.OneIn(3)) {
      // Left by something else: no peer declared it, and it never says that it is complete.
      foreign_ = SampleBytes(Truth(FileKind::kMemfile).size(), 4242);
      world_.Seed(FileKind::kMemfile, foreign_);
    }
    if (dice_.OneIn(4)) DelayFile();
    if (!complete_from_start_ && dice_.OneIn(6)) {
      world_.Node(kPeerA).SetState(kBuild, BuildState::kFailed);
    }
  }

  // An upload that got some of the files there, and maybe said so of each.
  void UploadInPart() {
    for (const FileKind kind : {FileKind::kMemfile, FileKind::kMemfileHeader}) {
      if (dice_.OneIn(3)) continue;
      world_.Seed(kind, Truth(kind));
      if (dice_.OneIn(2)) world_.Node(kPeerA).SetInBase(FileOf(kind));
    }
  }

  // Peer A will have it, and says when to ask again.
  void DelayFile() {
    const FileKind kind = dice_.OneIn(2) ? FileKind::kMemfile : FileKind::kMemfileHeader;
    SimulatedNode& node = world_.Node(kPeerA);
    node.PutNotYet(FileOf(kind), dice_.Ms(0, 800));
    sim_.SpawnAt(sim_.Now() + dice_.Ms(0, 5000),
                 [this, &node, kind] { node.PutFile(FileOf(kind), Truth(kind), 1); });
  }

  void SpoilPeer(SimulatedNode& node) {
    node.SetExtentBytes(uint64_t{4096} << dice_.Below(5));
    node.SetLatency(dice_.OneIn(5) ? dice_.Ms(100, 5000) : dice_.Ms(0, 20));
    if (dice_.OneIn(2)) node.SetBytesPerSecond(200'000 << dice_.Below(10));
    if (dice_.OneIn(8)) node.Freeze(true);
    if (dice_.OneIn(8)) node.Kill();
    for (uint64_t faults = dice_.Below(4); faults > 0; --faults) {
      PeerFault fault;
      fault.skip = dice_.Below(3);
      fault.times = dice_.OneIn(4) ? UINT64_MAX : 1 + dice_.Below(3);
      fault.after_bytes = dice_.OneIn(3) ? 0 : dice_.Below(600'000);
      switch (dice_.Below(13)) {
        case 0:
          fault.stall = true;
          break;
        case 1:
          fault.cut = true;
          break;
        case 2:
          fault.corrupt = true;
          break;
        case 3:
          fault.partial = true;
          break;
        case 4:
          fault.trickle_bytes_per_second = 1 + dice_.Below(50'000);
          break;
        case 5:
          fault.error = WithRetryAfter(absl::ResourceExhaustedError("busy"), dice_.Ms(0, 900));
          break;
        case 6:
          fault.error = absl::DataLossError("bad block");
          break;
        case 7:
          fault.error = absl::PermissionDeniedError("no");
          break;
        case 8:
          fault.alter = [](PeerMessage& m) {
            if (m.head) ++m.head->total_size;
          };
          lies_about_size_ = true;
          break;
        case 9:
          fault.alter = [](PeerMessage& m) {
            if (m.extent) m.extent->offset += kPageBytes;
          };
          break;
        case 11:
          fault.error = absl::UnauthenticatedError("who are you");
          break;
        case 10:
          fault.alter = [](PeerMessage& m) {
            if (m.head && m.head->file_crc32c) ++*m.head->file_crc32c;
          };
          lies_about_crc_ = true;
          break;
        default:
          fault.error = absl::UnavailableError("connection lost");
      }
      node.AddFault(fault);
    }
  }

  void SpoilBase() {
    base_good_ = dice_.OneIn(2);
    if (base_good_) return;
    for (uint64_t faults = 1 + dice_.Below(3); faults > 0; --faults) {
      StorageFault fault{.call = dice_.OneIn(3) ? StorageCall::kStat : StorageCall::kRead};
      fault.skip = dice_.Below(3);
      fault.times = 1 + dice_.Below(5);
      fault.after_bytes = dice_.OneIn(2) ? 0 : dice_.Below(300'000);
      switch (dice_.Below(5)) {
        case 0:
          fault.delay = dice_.Ms(10, 4000);
          break;
        case 3:
          fault.truncate = true;
          base_alters_ = true;
          break;
        case 4:
          fault.corrupt = true;
          base_alters_ = true;
          break;
        case 1:
          fault.stall = true;
          break;
        default:
          fault.error = absl::UnavailableError("base hiccup");
      }
      world_.base.AddFault(fault);
    }
  }

  void ScheduleEvents() {
    const absl::Time start = sim_.Now();
    for (const std::string& address : addresses_) {
      SimulatedNode& node = world_.Node(address);
      for (uint64_t events = dice_.Below(4); events > 0; --events) {
        const absl::Time at = start + dice_.Ms(0, 8000);
        switch (dice_.Below(5)) {
          case 0:
            sim_.SpawnAt(at, [&node] { node.Kill(); });
            break;
          case 1:
            sim_.SpawnAt(at, [&node] { node.Revive(); });
            break;
          case 2:
            sim_.SpawnAt(at, [&node] { node.Freeze(true); });
            break;
          case 3:
            sim_.SpawnAt(at, [&node] { node.Freeze(false); });
            break;
          default:
            sim_.SpawnAt(at, [&node] { node.ClearFaults(); });
        }
      }
    }
    if (!complete_from_start_ && dice_.OneIn(2)) {
      const bool told = dice_.OneIn(2);
      sim_.SpawnAt(start + dice_.Ms(0, 6000), [this, told] { Upload(told); });
    }
  }

  // The order of a real upload: metadata.json is the sign of completeness.
  void Upload(bool told) {
    for (const FileKind kind :
         {FileKind::kMemfile, FileKind::kMemfileHeader, FileKind::kSnapfile, FileKind::kMetadata}) {
      if (kind != absent_) world_.Seed(kind, Truth(kind));
    }
    if (told) world_.Node(kPeerA).SetState(kBuild, BuildState::kDurable);
  }

  void Reader(uint64_t seed) {
    Dice dice(seed);
    for (uint64_t reads = 1 + dice.Below(6); reads > 0; --reads) {
      OneRead(dice);
      if (dice.OneIn(2)) sim_.SleepUntil(sim_.Now() + dice.Ms(0, 1500));
    }
  }

  void OneRead(Dice& dice) {
    ++reads_;
    const absl::Time begun = sim_.Now();
    ReadOptions options;
    options.deadline = begun + (dice.OneIn(4) ? dice.Ms(1, 1500) : dice.Ms(1500, 60'000));
    if (dice.OneIn(10)) options.deadline = absl::InfiniteFuture();
    if (dice.OneIn(12)) options.sources = SourcePolicy::kPeerOnly;
    if (dice.OneIn(12)) options.sources = SourcePolicy::kBaseOnly;
    auto stop = std::make_shared<std::stop_source>();
    auto cancelled_at = std::make_shared<absl::Time>(absl::InfiniteFuture());
    if (dice.OneIn(6)) {
      options.cancellation = stop->get_token();
      sim_.SpawnAt(begun + dice.Ms(0, 3000), [this, stop, cancelled_at] {
        *cancelled_at = sim_.Now();
        stop->request_stop();
      });
    }

    const uint64_t what = dice.Below(6);
    FileKind kind = FileKind::kMemfile;
    std::string expected;
    absl::StatusOr<std::string> got;
    if (what == 0) {
      auto object = provider_->OpenSeekable(FileOf(kind).ObjectPath());
      const auto size = (*object)->Size(options);
      got = size.ok() ? absl::StatusOr<std::string>(absl::StrCat(*size)) : size.status();
      expected = absl::StrCat(Truth(kind).size());
    } else if (what <= 2) {
      kind = kBlobs[dice.Below(std::size(kBlobs))];
      got = ReadBlob(*provider_, kind, options);
      expected = Truth(kind);
    } else {
      const uint64_t offset = dice.Below(Truth(kind).size() + 1);
      const uint64_t length = dice.OneIn(3) ? Truth(kind).size() : dice.Below(300'000);
      got = what == 3 ? ReadRange(*provider_, offset, length, options)
                      : ReadAt(*provider_, offset, length, options);
      expected = Truth(kind).substr(offset, length);
    }
    Judge(options, kind, begun, *cancelled_at, got, expected, what == 0);
  }

  void Judge(const ReadOptions& options, FileKind kind, absl::Time begun, absl::Time cancelled_at,
             const absl::StatusOr<std::string>& got, const std::string& expected, bool sized) {
    SCOPED_TRACE(absl::StrCat("seed ", seed_, " file ", AbslView(FileName(kind)), " begun ",
                              absl::FormatTime(begun)));
    const absl::Time now = sim_.Now();
    absl::StrAppend(&trace_, absl::StatusCodeToString(got.status().code()), " ",
                    absl::ToInt64Nanoseconds(now - begun), "\n");
    EXPECT_LE(now, options.deadline);
    EXPECT_LE(now, cancelled_at + absl::Milliseconds(100));
    if (got.ok()) {
      // A size alone carries no checksum: a lie about it shows when bytes are read.
      if (sized && lies_about_size_) return;
      EXPECT_NE(kind, absent_) << "bytes of a file that the build does not have";
      // What the base alters it answers for, where no checksum covers the range. Nor does anything
      // stand between it and a caller who wants it and nobody else.
      if (base_alters_ && kind != FileKind::kMemfileHeader && kind != FileKind::kMetadata) return;
      if (options.sources == SourcePolicy::kBaseOnly && *got != expected &&
          kind == FileKind::kMemfile && !foreign_.empty()) {
        return;
      }
      EXPECT_TRUE(*got == expected) << got->size() << " bytes for " << expected.size();
      return;
    }
    switch (got.status().code()) {
      case absl::StatusCode::kCancelled:
        EXPECT_NE(cancelled_at, absl::InfiniteFuture()) << got.status();
        break;
      case absl::StatusCode::kDeadlineExceeded:
        EXPECT_GE(now, options.deadline) << got.status();
        break;
      case absl::StatusCode::kUnavailable:
        break;
      case absl::StatusCode::kNotFound:
        EXPECT_TRUE(options.sources == SourcePolicy::kBaseOnly || kind == absent_) << got.status();
        break;
      case absl::StatusCode::kDataLoss:
      case absl::StatusCode::kOutOfRange:
        // A declaration that was a lie, found out when bytes had been handed on.
        EXPECT_TRUE(lies_about_crc_ || lies_about_size_ || base_alters_) << got.status();
        break;
      default:
        ADD_FAILURE() << got.status();
    }
    // With the whole build in a base that works, nothing a peer does may cost the read.
    const bool patient = options.deadline >= begun + absl::Seconds(20);
    const bool base_has_it = complete_from_start_ && base_good_ && kind != absent_ &&
                             options.sources != SourcePolicy::kPeerOnly &&
                             cancelled_at == absl::InfiniteFuture();
    if (patient && base_has_it && got.status().code() != absl::StatusCode::kDataLoss &&
        got.status().code() != absl::StatusCode::kOutOfRange) {
      ADD_FAILURE() << "the base had it all the time: " << got.status();
    }
  }

  void CheckEnd() {
    SCOPED_TRACE(absl::StrCat("seed ", seed_));
    for (const std::string& address : addresses_) {
      EXPECT_EQ(world_.Node(address).open_streams(), 0u);
    }
    const PeerBudgets budgets;
    // A read may learn the size first, by a read of its own.
    EXPECT_LE(static_cast<double>(world_.Hedges("sent")),
              budgets.hedge_burst + budgets.hedge_share * 2 * static_cast<double>(reads_));
    EXPECT_EQ(world_.Hedges("won") + world_.Hedges("lost") + world_.Hedges("failed") +
                  world_.Hedges("dropped"),
              world_.Hedges("sent"));
  }

  const std::string& Truth(FileKind kind) const { return truth_[static_cast<size_t>(kind)]; }

  const uint64_t seed_;
  Dice dice_;
  Simulation sim_;
  PeerWorld world_;
  std::vector<std::string> addresses_;
  std::string truth_[7];
  std::shared_ptr<StorageProvider> provider_;
  bool complete_from_start_ = false;
  bool base_good_ = false;
  bool base_alters_ = false;
  std::optional<FileKind> absent_;  // By design: a build without this file.
  std::string foreign_;             // Under the memfile's name.
  bool lies_about_crc_ = false;
  bool lies_about_size_ = false;
  uint64_t reads_ = 0;
  std::string trace_;
};

// A sanitizer makes a turn many times dearer.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kRuns = 150;
#elif defined(__has_feature)
constexpr uint64_t kRuns =
    __has_feature(thread_sanitizer) || __has_feature(address_sanitizer) ? 150 : 2000;
#else
constexpr uint64_t kRuns = 2000;
#endif

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

// Thousands of runs switch sources hundreds of thousands of times.
class SimulationTest : public testing::Test {
 protected:
  void SetUp() override { Logger("peer").set_level(spdlog::level::off); }
  void TearDown() override { Logger("peer").set_level(spdlog::level::info); }
};

TEST_F(SimulationTest, EveryReadEndsInTimeWithTheRightBytesOrOneClearError) {
  const uint64_t only = FromEnvironment("PEERCHUNK_SIMULATION_SEED", 0);
  if (only != 0) {
    OneRun(only).Go();
    return;
  }
  const uint64_t runs = FromEnvironment("PEERCHUNK_SIMULATION_RUNS", kRuns);
  for (uint64_t seed = 1; seed <= runs; ++seed) {
    OneRun(seed).Go();
    if (HasFailure()) FAIL() << "replay with PEERCHUNK_SIMULATION_SEED=" << seed;
  }
}

TEST_F(SimulationTest, SeedReplaysExactly) {
  for (uint64_t seed = 1; seed <= kRuns / 50; ++seed) {
    const std::string first = OneRun(seed).Go();
    ASSERT_EQ(first, OneRun(seed).Go()) << "seed " << seed;
  }
}

}  // namespace
}  // namespace peerchunk::test
