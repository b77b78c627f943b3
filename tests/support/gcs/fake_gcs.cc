#include "tests/support/gcs/fake_gcs.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <type_traits>
#include <utility>

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>

#include "peerchunk/base/build_id.h"
#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/status.h"
#include "tests/support/gcs/fake_gcs_session.h"

namespace peerchunk::test {
namespace {

using Kind = GcsFault::Kind;

}  // namespace

absl::Status FaultStatus(const GcsFault& fault) { return absl::Status(fault.code, fault.message); }

void Distort(const GcsFault& fault, GcsObject& object) {
  if (fault.kind == Kind::kWrongAnswer) object.crc32c = *object.crc32c ^ 1;
  if (fault.kind == Kind::kNoChecksum) object.crc32c.reset();
}

std::string Garbled(std::string_view content) {
  std::string wrong(content);
  if (!wrong.empty()) wrong[wrong.size() / 2] = static_cast<char>(wrong[wrong.size() / 2] ^ 0x40);
  return wrong;
}

FakeGcs::FakeGcs(FakeGcsOptions options) : options_(std::move(options)) {}
FakeGcs::~FakeGcs() = default;

void FakeGcs::Inject(GcsFault fault) {
  const MutexLock lock(mutex_);
  faults_.Add(std::move(fault));
}

void FakeGcs::InjectAtRandom(uint64_t seed, double probability, int most) {
  const MutexLock lock(mutex_);
  faults_.AtRandom(seed, probability, most);
}

void FakeGcs::ForgetFaults() {
  const MutexLock lock(mutex_);
  faults_ = GcsFaultSource();
}

int FakeGcs::faults_injected() const {
  const MutexLock lock(mutex_);
  return faults_.taken();
}

size_t FakeGcs::faults_waiting() const {
  const MutexLock lock(mutex_);
  return faults_.waiting();
}

void FakeGcs::Freeze(const std::string& connection) {
  const MutexLock lock(mutex_);
  frozen_.insert(connection);
}

void FakeGcs::Seed(const std::string& name, std::string_view bytes) {
  auto content = std::make_shared<SparseBytes>();
  content->Append(bytes);
  GcsWriteSpec spec;
  spec.object = name;
  Store(spec, std::move(content), Crc32c(bytes), std::nullopt).status().IgnoreError();
}

std::vector<std::string> FakeGcs::Names() const {
  const MutexLock lock(mutex_);
  std::vector<std::string> names;
  for (const auto& [name, object] : objects_) names.push_back(name);
  return names;
}

std::optional<GcsObject> FakeGcs::Find(const std::string& name) const {
  const MutexLock lock(mutex_);
  const auto it = objects_.find(name);
  if (it == objects_.end()) return std::nullopt;
  return it->second.meta;
}

std::string FakeGcs::Bytes(const std::string& name) const {
  const MutexLock lock(mutex_);
  const auto it = objects_.find(name);
  return it == objects_.end() ? "" : it->second.bytes->Read(0, it->second.bytes->size());
}

void FakeGcs::Erase(const std::string& name) {
  const MutexLock lock(mutex_);
  objects_.erase(name);
}

size_t FakeGcs::open_sessions() const {
  std::vector<std::shared_ptr<Session>> sessions;  // Their locks come before ours.
  {
    const MutexLock lock(mutex_);
    for (const auto& [id, session] : sessions_) sessions.push_back(session);
  }
  size_t open = 0;
  for (const std::shared_ptr<Session>& session : sessions) {
    const MutexLock lock(session->mutex);
    if (!session->result) ++open;
  }
  return open;
}

void FakeGcs::DropSessions() {
  const MutexLock lock(mutex_);
  sessions_.clear();
}

std::vector<FakeCallRecord> FakeGcs::calls() const {
  const MutexLock lock(mutex_);
  return calls_;
}

size_t FakeGcs::CallsOf(GcsRpc rpc) const {
  const MutexLock lock(mutex_);
  return static_cast<size_t>(std::count_if(calls_.begin(), calls_.end(),
                                           [&](const auto& call) { return call.rpc == rpc; }));
}

std::vector<std::string> FakeGcs::violations() const {
  const MutexLock lock(mutex_);
  return violations_;
}

absl::Status FakeGcs::Violation(absl::StatusCode code, const std::string& what) {
  const MutexLock lock(mutex_);
  violations_.push_back(what);
  return absl::Status(code, what);
}

// Time that a test lets run meanwhile runs fast at first, then slower: a client that is late to
// notice on a busy machine must not see days go by.
absl::Status FakeGcs::Stall(const FakeCall& call) {
  constexpr std::chrono::microseconds kFirst{200}, kMost{20'000};
  std::chrono::microseconds pause = kFirst;
  while (!call.cancelled()) {
    if (options_.while_stalled) options_.while_stalled();
    std::this_thread::sleep_for(pause);  // Waits to be cancelled, no more.
    pause = std::min(kMost, pause + pause / 16);
  }
  return absl::CancelledError("the client has left");
}

absl::StatusOr<GcsFault> FakeGcs::Enter(const FakeCall& call, const std::string& object) {
  const std::string resource = absl::StrCat("projects/_/buckets/", options_.bucket);
  const std::string routing =
      absl::StrCat("bucket=", absl::StrReplaceAll(call.bucket, {{"/", "%2F"}}));
  bool frozen = false;
  GcsFault fault;
  {
    MutexLock lock(mutex_);
    calls_.push_back({call.rpc, object, call.token, call.connection});
    frozen = frozen_.count(call.connection) != 0;
    const auto use = std::make_pair(call.rpc, object);
    const auto [it, fresh] = tokens_.emplace(call.token, use);
    if (call.token.size() != BuildId::kTextLength || it->second != use) {
      lock.Unlock();
      return Violation(absl::StatusCode::kInvalidArgument,
                       absl::StrCat("idempotency token '", call.token, "' of ", object));
    }
    fault = faults_.Take(call.rpc);
  }
  if (call.routing != routing) {
    return Violation(absl::StatusCode::kInvalidArgument,
                     absl::StrCat("routing header '", call.routing, "'"));
  }
  if (frozen) return Stall(call);
  if (call.bucket != resource) {
    return absl::NotFoundError(absl::StrCat("bucket ", call.bucket, " does not exist"));
  }
  return fault;
}

template <typename Result>
absl::StatusOr<Result> FakeGcs::Unary(const FakeCall& call, const std::string& object,
                                      const std::function<absl::StatusOr<Result>()>& request) {
  PEERCHUNK_ASSIGN_OR_RETURN(const GcsFault fault, Enter(call, object));
  if (fault.kind == Kind::kStall) return Stall(call);
  if (fault.kind == Kind::kError) return FaultStatus(fault);
  absl::StatusOr<Result> result = request();
  if (fault.kind == Kind::kLostAnswer) return FaultStatus(fault);
  if constexpr (std::is_same_v<Result, GcsObject>) {
    if (result.ok()) Distort(fault, *result);
  }
  return result;
}

absl::StatusOr<GcsObject> FakeGcs::GetObject(const FakeCall& call, const std::string& object) {
  return Unary<GcsObject>(call, object, [&]() -> absl::StatusOr<GcsObject> {
    std::optional<GcsObject> found = Find(object);
    if (!found) return absl::NotFoundError(absl::StrCat("no object ", object));
    return *std::move(found);
  });
}

absl::Status FakeGcs::DeleteObject(const FakeCall& call, const std::string& object,
                                   int64_t generation) {
  return Unary<bool>(call, object,
                     [&]() -> absl::StatusOr<bool> {
                       const MutexLock lock(mutex_);
                       const auto it = objects_.find(object);
                       if (it == objects_.end() ||
                           (generation != 0 && it->second.meta.generation != generation)) {
                         return absl::NotFoundError(absl::StrCat("no object ", object));
                       }
                       objects_.erase(it);
                       return true;
                     })
      .status();
}

absl::StatusOr<GcsListPage> FakeGcs::ListObjects(const FakeCall& call,
                                                 const GcsListRequest& request) {
  return Unary<GcsListPage>(
      call, absl::StrCat(request.prefix, " after ", request.page_token),
      [&]() -> absl::StatusOr<GcsListPage> {
        if (!options_.lists) return absl::PermissionDeniedError("storage.objects.list denied");
        if (request.page_size <= 0) return absl::InvalidArgumentError("page_size");
        const size_t most =
            std::min(options_.most_per_page, static_cast<size_t>(request.page_size));
        GcsListPage page;
        const MutexLock lock(mutex_);
        for (auto it = objects_.lower_bound(request.prefix); it != objects_.end(); ++it) {
          if (!absl::StartsWith(it->first, request.prefix)) break;
          if (it->first <= request.page_token) continue;
          if (page.objects.size() == most) {
            page.next_page_token = page.objects.back().name;
            break;
          }
          page.objects.push_back(it->second.meta);
        }
        return page;
      });
}

absl::Status FakeGcs::CheckPrecondition(const std::string& name,
                                        std::optional<int64_t> if_generation) const {
  if (!if_generation) return absl::OkStatus();
  const auto it = objects_.find(name);
  const int64_t now = it == objects_.end() ? 0 : it->second.meta.generation;
  if (now == *if_generation) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("generation is ", now, ", not ", *if_generation));
}

absl::StatusOr<GcsObject> FakeGcs::Store(const GcsWriteSpec& spec,
                                         std::shared_ptr<const SparseBytes> bytes, uint32_t crc32c,
                                         std::optional<uint32_t> expected) {
  const MutexLock lock(mutex_);
  PEERCHUNK_RETURN_IF_ERROR(CheckPrecondition(spec.object, spec.if_generation));
  if (expected && *expected != crc32c) {
    return absl::Status(options_.checksum_code, "the object's CRC32C does not match");
  }
  Object object;
  object.meta = {spec.object, ++generation_, bytes->size(), crc32c, spec.metadata};
  object.bytes = std::move(bytes);
  GcsObject meta = object.meta;
  objects_[spec.object] = std::move(object);
  return meta;
}

absl::StatusOr<GcsObject> FakeGcs::ComposeObject(const FakeCall& call,
                                                 const GcsComposeRequest& request) {
  return Unary<GcsObject>(call, request.destination.object, [&]() -> absl::StatusOr<GcsObject> {
    if (request.sources.empty() || request.sources.size() > kGcsComposeSources) {
      return Violation(absl::StatusCode::kInvalidArgument, "number of sources to compose");
    }
    auto bytes = std::make_shared<SparseBytes>();
    for (const GcsObject& source : request.sources) {
      std::shared_ptr<const SparseBytes> part;
      {
        const MutexLock lock(mutex_);
        const auto it = objects_.find(source.name);
        if (it == objects_.end() || it->second.meta.generation != source.generation) {
          return absl::NotFoundError(absl::StrCat("no source ", source.name));
        }
        part = it->second.bytes;
      }
      bytes->Append(*part);
    }
    const uint32_t crc32c = bytes->crc32c();
    return Store(request.destination, std::move(bytes), crc32c, request.crc32c);
  });
}

// --- Uploads -------------------------------------------------------------------------------------

absl::StatusOr<std::string> FakeGcs::StartResumableWrite(const FakeCall& call,
                                                         const GcsWriteSpec& spec) {
  return Unary<std::string>(call, spec.object, [&]() -> absl::StatusOr<std::string> {
    const MutexLock lock(mutex_);
    const std::string id = absl::StrCat("session-", next_session_++);
    auto session = std::make_shared<Session>();
    session->spec = spec;
    sessions_[id] = std::move(session);
    return id;
  });
}

std::shared_ptr<FakeGcs::Session> FakeGcs::FindSession(const std::string& upload_id) {
  const MutexLock lock(mutex_);
  const auto it = sessions_.find(upload_id);
  return it == sessions_.end() ? nullptr : it->second;
}

absl::StatusOr<GcsWriteStatus> FakeGcs::QueryWriteStatus(const FakeCall& call,
                                                         const std::string& upload_id) {
  return Unary<GcsWriteStatus>(call, upload_id, [&]() -> absl::StatusOr<GcsWriteStatus> {
    const std::shared_ptr<Session> session = FindSession(upload_id);
    if (session == nullptr) return absl::NotFoundError(absl::StrCat("no session ", upload_id));
    const MutexLock lock(session->mutex);
    session->reported = session->bytes.size();
    return GcsWriteStatus{session->bytes.size(), session->crc32c, session->result};
  });
}

absl::Status FakeGcs::CancelResumableWrite(const FakeCall& call, const std::string& upload_id) {
  return Unary<bool>(call, upload_id,
                     [&]() -> absl::StatusOr<bool> {
                       const MutexLock lock(mutex_);
                       if (sessions_.erase(upload_id) == 0)
                         return absl::NotFoundError("no such session");
                       return true;
                     })
      .status();
}

std::unique_ptr<FakeGcs::Writing> FakeGcs::WriteObject(const FakeCall& call) {
  return std::unique_ptr<Writing>(new Writing(*this, call));
}

}  // namespace peerchunk::test
