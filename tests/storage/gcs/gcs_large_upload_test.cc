#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <string>
#include <thread>

#include <absl/strings/str_format.h>
#include <gtest/gtest.h>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/file.h"
#include "peerchunk/storage/gcs_storage.h"
#include "tests/support/child_process.h"
#include "tests/support/gcs/fake_gcs_clock.h"
#include "tests/support/resident_memory.h"
#include "tests/support/sample_bytes.h"
#include "tests/support/status_asserts.h"
#include "tests/support/temp_dir.h"

namespace peerchunk::test {
namespace {

// The service, in a process of its own, so that this one's memory is the client's alone. A thread
// moves the clock while the service stalls.
class ServiceProcess {
 public:
  ServiceProcess(FakeGcsClock& clock, uint64_t seed, int faults) {
    const std::string path = files_.PathOf("stalls");
    EXPECT_EQ(::mkfifo(path.c_str(), 0600), 0);
    clock_thread_ = std::thread([&clock, path] {
      const absl::StatusOr<File> stalls = File::Open(path, O_RDONLY);
      char byte;
      while (stalls.ok() && ::read(stalls->fd(), &byte, 1) == 1) clock.Advance(absl::Seconds(1));
    });
    child_ = std::make_unique<ChildProcess>(
        ChildProcess::Spec{FAKE_GCS_PROGRAM,
                           {"bucket", std::to_string(seed), "0.4", std::to_string(faults), path},
                           {}});
    address_ = child_->WaitForLine("address ");
  }
  ~ServiceProcess() {
    child_.reset();
    clock_thread_.join();
  }

  const std::string& address() const { return address_; }
  // What it prints at its end.
  std::string Stop() {
    child_->Signal(SIGTERM);
    EXPECT_EQ(child_->Wait(), 0);
    const size_t end_of_address = child_->out().find('\n') + 1;
    return child_->out().substr(end_of_address);
  }

 private:
  const TempDir files_;
  std::thread clock_thread_;
  std::unique_ptr<ChildProcess> child_;
  std::string address_;
};

// As much of a file that is mostly holes as matters: its checksum changes when a message is
// misplaced.
uint32_t MakeSparseFile(const TempDir& files, const std::string& name, uint64_t size) {
  const absl::StatusOr<File> file = files.folder().OpenAt(name, O_RDWR | O_CREAT);
  EXPECT_OK(file);
  EXPECT_OK(file->Truncate(size));
  uint32_t crc32c = 0;
  uint64_t done = 0;
  for (uint64_t offset = 0; offset < size; offset += 8 * kMiB) {
    const uint64_t at = offset + offset / 1024;
    const std::string page = SampleBytes(kPageBytes, offset + 1);
    EXPECT_OK(file->WriteAt(at, page));
    crc32c = CombineCrc32c(crc32c, Crc32cOfZeros(at - done), at - done);
    crc32c = ExtendCrc32c(crc32c, page);
    done = at + page.size();
  }
  return CombineCrc32c(crc32c, Crc32cOfZeros(size - done), size - done);
}

TEST(GcsLargeUploadTest, GibibyteWithTwentyFaultsArrivesInBoundedMemory) {
  const TempDir files;
  const uint32_t crc32c = MakeSparseFile(files, "memfile", kGiB);
  FakeGcsClock clock;
  ServiceProcess service(clock, /*seed=*/20'240'501, /*faults=*/20);
  GcsStorageOptions options;
  options.bucket = "bucket";
  options.prefix = "base";
  options.endpoint = service.address();
  options.insecure_plaintext = true;
  options.clock = &clock;
  // All else as in production. One virtual clock for all lanes: the stalls of each count for all.
  options.tuning.write_budget = absl::Hours(24);
  options.tuning.read_budget = absl::Hours(24);
  const absl::StatusOr<std::unique_ptr<StorageProvider>> storage =
      GcsStorageProvider::Open(options);
  ASSERT_OK(storage);
  const auto object = (*storage)->OpenSeekable("a/memfile");
  ASSERT_OK(object);

  std::ofstream("/proc/self/clear_refs") << "5";  // The peak begins anew.
  const uint64_t idle = OfThisProcess("VmRSS");
  WriteOptions write;
  write.if_absent = true;
  write.crc32c = crc32c;
  const absl::StatusOr<ObjectStat> stat = (*object)->StoreFile(files.PathOf("memfile"), write);
  const uint64_t peak = OfThisProcess("VmHWM");
  ASSERT_OK(stat);
  EXPECT_EQ(stat->size, kGiB);
  EXPECT_EQ(stat->crc32c, crc32c);
  EXPECT_EQ(service.Stop(),
            absl::StrFormat("faults 20\nobject base/a/memfile %d %08x\n", kGiB, crc32c));
  RecordProperty("peak_over_idle_kib", std::to_string((peak - idle) / kKiB));
  if (!kUnderAsan) {
    EXPECT_LT(peak - idle, 100 * kMiB);
  }
}

}  // namespace
}  // namespace peerchunk::test
