#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>

#include "peerchunk/base/mutex.h"
#include "storage/gcs_core/gcs_stub.h"
#include "tests/support/gcs/gcs_fault.h"
#include "tests/support/gcs/sparse_bytes.h"

namespace peerchunk::test {

// What arrives with a call besides its messages.
struct FakeCall {
  GcsRpc rpc;
  std::string bucket;      // As the request names it: "projects/_/buckets/NAME".
  std::string routing;     // x-goog-request-params
  std::string token;       // x-goog-gcs-idempotency-token
  std::string connection;  // Tells calls of different connections apart.
  std::function<bool()> cancelled;
};

// One call as it came, for tests that look at retries.
struct FakeCallRecord {
  GcsRpc rpc;
  std::string object;  // Or the upload id.
  std::string token;
  std::string connection;
};

struct FakeGcsOptions {
  std::string bucket = "bucket";
  uint64_t read_message_bytes = 2 * kMiB;
  size_t most_per_page = 1000;
  // The code with which wrong checksums are refused: three are seen in the wild.
  absl::StatusCode checksum_code = absl::StatusCode::kInvalidArgument;
  bool lists = true;  // Else ListObjects is PERMISSION_DENIED.
  // Called again and again while a call stalls: a test lets its clock run here.
  std::function<void()> while_stalled;
};

// One bucket of Cloud Storage: the rules of its public API, enforced, and faults on demand. No
// gRPC in here: FakeGcsStub calls it in the process, FakeGcsServer over the wire. Owned by a test;
// thread-safe.
class FakeGcs {
 public:
  explicit FakeGcs(FakeGcsOptions options = {});
  ~FakeGcs();

  // --- What a test does to it and sees of it ---
  // Used once, by the next call that it fits.
  void Inject(GcsFault fault);
  // Up to `most` faults, each call drawing one with `probability`.
  void InjectAtRandom(uint64_t seed, double probability, int most);
  void ForgetFaults();
  int faults_injected() const;
  size_t faults_waiting() const;
  // Every call of this connection stalls from now on.
  void Freeze(const std::string& connection);

  void Seed(const std::string& name, std::string_view bytes);
  std::vector<std::string> Names() const;
  std::optional<GcsObject> Find(const std::string& name) const;
  std::string Bytes(const std::string& name) const;
  void Erase(const std::string& name);
  size_t open_sessions() const;
  void DropSessions();
  std::vector<FakeCallRecord> calls() const;
  size_t CallsOf(GcsRpc rpc) const;
  // What no client may do, in words. Retries would hide it.
  std::vector<std::string> violations() const;

  // --- The service ---
  class Reading;
  class Writing;
  absl::StatusOr<GcsObject> GetObject(const FakeCall& call, const std::string& object);
  std::unique_ptr<Reading> ReadObject(const FakeCall& call, const GcsReadRequest& request);
  absl::StatusOr<std::string> StartResumableWrite(const FakeCall& call, const GcsWriteSpec& spec);
  absl::StatusOr<GcsWriteStatus> QueryWriteStatus(const FakeCall& call,
                                                  const std::string& upload_id);
  absl::Status CancelResumableWrite(const FakeCall& call, const std::string& upload_id);
  std::unique_ptr<Writing> WriteObject(const FakeCall& call);
  absl::StatusOr<GcsObject> ComposeObject(const FakeCall& call, const GcsComposeRequest& request);
  absl::Status DeleteObject(const FakeCall& call, const std::string& object, int64_t generation);
  absl::StatusOr<GcsListPage> ListObjects(const FakeCall& call, const GcsListRequest& request);

 private:
  struct Object {
    GcsObject meta;
    std::shared_ptr<const SparseBytes> bytes;
  };
  struct Session;

  // Checks what every call must have, notes it and picks its fault. An error ends the call.
  absl::StatusOr<GcsFault> Enter(const FakeCall& call, const std::string& object);
  absl::Status Violation(absl::StatusCode code, const std::string& what);
  absl::Status Stall(const FakeCall& call);
  // Runs a unary request under its fault.
  template <typename Result>
  absl::StatusOr<Result> Unary(const FakeCall& call, const std::string& object,
                               const std::function<absl::StatusOr<Result>()>& request);

  absl::Status CheckPrecondition(const std::string& name,
                                 std::optional<int64_t> if_generation) const
      PEERCHUNK_REQUIRES(mutex_);
  absl::StatusOr<GcsObject> Store(const GcsWriteSpec& spec,
                                  std::shared_ptr<const SparseBytes> bytes, uint32_t crc32c,
                                  std::optional<uint32_t> expected);
  std::shared_ptr<Session> FindSession(const std::string& upload_id);

  const FakeGcsOptions options_;
  mutable Mutex mutex_;
  GcsFaultSource faults_ PEERCHUNK_GUARDED_BY(mutex_);
  std::map<std::string, Object> objects_ PEERCHUNK_GUARDED_BY(mutex_);
  std::map<std::string, std::shared_ptr<Session>> sessions_ PEERCHUNK_GUARDED_BY(mutex_);
  std::set<std::string> frozen_ PEERCHUNK_GUARDED_BY(mutex_);
  int64_t generation_ PEERCHUNK_GUARDED_BY(mutex_) = 1'700'000'000'000'000;
  uint64_t next_session_ PEERCHUNK_GUARDED_BY(mutex_) = 1;
  std::vector<FakeCallRecord> calls_ PEERCHUNK_GUARDED_BY(mutex_);
  std::map<std::string, std::pair<GcsRpc, std::string>> tokens_ PEERCHUNK_GUARDED_BY(mutex_);
  std::vector<std::string> violations_ PEERCHUNK_GUARDED_BY(mutex_);
};

// The answer to one ReadObject. One thread.
class FakeGcs::Reading {
 public:
  // False at the end; then status().
  bool Next(GcsReadMessage& message);
  const absl::Status& status() const { return status_; }

 private:
  friend class FakeGcs;
  Reading(FakeGcs& fake, FakeCall call) : fake_(fake), call_(std::move(call)) {}

  FakeGcs& fake_;
  const FakeCall call_;
  GcsFault fault_;
  std::optional<Object> object_;
  uint64_t begin_ = 0;
  uint64_t offset_ = 0;
  uint64_t end_ = 0;
  int messages_ = 0;
  std::string buffer_;
  bool over_ = false;
  absl::Status status_;
};

// One WriteObject. One thread.
class FakeGcs::Writing {
 public:
  ~Writing();
  // An error ends the call, without a half-close.
  absl::Status Receive(const GcsWriteMessage& message);
  absl::StatusOr<GcsWriteStatus> HalfClose();

 private:
  friend class FakeGcs;
  Writing(FakeGcs& fake, FakeCall call) : fake_(fake), call_(std::move(call)) {}
  absl::Status Begin(const GcsWriteMessage& message);
  absl::Status Check(const GcsWriteMessage& message);
  absl::Status Append(const GcsWriteMessage& message);
  absl::Status Finish();

  FakeGcs& fake_;
  const FakeCall call_;
  GcsFault fault_;
  std::shared_ptr<Session> session_;  // Of its own for a one-shot write.
  bool resumable_ = false;
  uint64_t writer_ = 0;
  uint64_t offset_ = 0;  // Where the next message must begin.
  int messages_ = 0;
  std::optional<uint32_t> object_crc32c_;
  bool finished_ = false;
  std::optional<GcsObject> result_;
};

}  // namespace peerchunk::test
