// Many threads that read pages, as the faults of a guest do, over one connection to a source that
// goes away under them.
#include <atomic>
#include <random>
#include <thread>

#include "tests/faults/fault_fixture.h"
#include "tests/support/fault_proxy.h"

namespace peerchunk::test {
namespace {

constexpr size_t kPage = 4096;

class PageReadsTest : public FaultsTest, public testing::WithParamInterface<Transport> {
 protected:
  PageReadsTest() : FaultsTest(GetParam()) {}

  // Half of the reads are before `what` happens, and half begin after.
  void ReadPages(const FaultReader& reader, const std::function<void()>& what,
                 const std::string& name) {
    constexpr int kThreads = 16;
    constexpr int kReads = 2000;
    std::atomic<int> turn = 0;
    std::atomic<int> wrong = 0;
    std::atomic<int64_t> longest_us = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] {
        std::mt19937_64 random(static_cast<uint64_t>(i));
        const auto object = reader.Open();
        std::string page(kPage, 'x');
        for (int n; (n = turn++) < kReads;) {
          if (n == kReads / 2) what();
          const uint64_t offset = random() % (FileSize() / kPage) * kPage;
          const absl::Time began = Clock::Real().Now();
          const auto got =
              object->ReadAt(offset, absl::MakeSpan(page), {.deadline = FaultReader::Deadline()});
          if (!got.ok() || page != Build().files.at(FileKind::kMemfile).substr(offset, kPage)) {
            ++wrong;
          }
          const int64_t took = absl::ToInt64Microseconds(Clock::Real().Now() - began);
          int64_t longest = longest_us;
          while (took > longest && !longest_us.compare_exchange_weak(longest, took)) {
          }
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0);
    const SourceBytes bytes = reader.Bytes();
    EXPECT_EQ(bytes.peer + bytes.base, kReads * kPage);
    EXPECT_GT(bytes.peer, 0u);
    Report(name + "_longest_read_ms", static_cast<double>(longest_us) / 1000);
    Report(name + "_peer_percent", 100.0 * static_cast<double>(bytes.peer) / (kReads * kPage));
  }
};

INSTANTIATE_TEST_SUITE_P(Transports, PageReadsTest,
                         testing::Values(Transport::kHttp2, Transport::kGrpc),
                         [](const auto& info) { return NameOf(info.param); });

TEST_P(PageReadsTest, SigkillUnderManyReaders) {
  const auto source = StartSource();
  const FaultReader reader(Build(), {source->address()}, ReaderOptions(PatientBudgets()));
  ReadPages(
      reader, [&] { source->process().Signal(SIGKILL); }, "pages_sigkill");
  EXPECT_GT(reader.Bytes().base, 0u);
  EXPECT_GE(reader.Fallbacks("unreachable"), 1u);
}

TEST_P(PageReadsTest, SigstopUnderManyReaders) {
  const auto source = StartSource();
  const FaultReader reader(Build(), {source->address()}, ReaderOptions(ShortBudgets()));
  ReadPages(
      reader, [&] { source->process().Signal(SIGSTOP); }, "pages_sigstop");
  EXPECT_GT(reader.Bytes().base, 0u);
  EXPECT_GE(reader.Fallbacks("first_byte_timeout") + reader.Fallbacks("hedge_won"), 1u);
  EXPECT_GE(reader.Breaker("open"), 1u);
}

TEST_P(PageReadsTest, ConnectionsCutUnderManyReaders) {
  const auto source = StartSource();
  FaultProxy proxy(source->address());
  const FaultReader reader(Build(), {proxy.address()}, ReaderOptions(PatientBudgets()));
  ReadPages(
      reader, [&] { proxy.Cut(); }, "pages_cut");
  // A read without an answer is asked again over a new connection, once: some need no other source.
  const uint64_t fallbacks = reader.Fallbacks("unreachable") + reader.Fallbacks("hedge_won");
  EXPECT_EQ(fallbacks == 0, reader.Bytes().base == 0);
  EXPECT_EQ(reader.Fallbacks("cut_short"), 0u) << "a lost connection is no lie";
}

TEST_P(PageReadsTest, SilenceUnderManyReaders) {
  const auto source = StartSource();
  FaultProxy proxy(source->address());
  const FaultReader reader(Build(), {proxy.address()}, ReaderOptions(ShortBudgets()));
  ReadPages(
      reader, [&] { proxy.HoldAfter(0); }, "pages_silence");
  EXPECT_GT(reader.Bytes().base, 0u);
  EXPECT_GE(reader.Fallbacks("first_byte_timeout") + reader.Fallbacks("hedge_won"), 1u);
  EXPECT_GE(reader.Breaker("open"), 1u);
  EXPECT_EQ(reader.Fallbacks("unreachable"), 0u);
}

}  // namespace
}  // namespace peerchunk::test
