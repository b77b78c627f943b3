#include "tests/support/gcs/fake_gcs.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <type_traits>
#include <utility>

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>

#include "peerchunk/base/build_id.h"
#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/status.h"

namespace peerchunk::test {
namespace {

using Kind = GcsFault::Kind;

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

}  // namespace

struct FakeGcs::Session {
  Mutex mutex;
  GcsWriteSpec spec;
  SparseBytes bytes PEERCHUNK_GUARDED_BY(mutex);
  uint32_t crc32c PEERCHUNK_GUARDED_BY(mutex) = 0;
  uint64_t reported PEERCHUNK_GUARDED_BY(mutex) = 0;  // What a client was told is persisted.
  uint64_t writer PEERCHUNK_GUARDED_BY(mutex) = 0;  // The latest stream; earlier ones are aborted.
  std::optional<GcsObject> result PEERCHUNK_GUARDED_BY(mutex);
};

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
  const MutexLock lock(mutex_);
  size_t open = 0;
  for (const auto& [id, session] : sessions_) {
    const MutexLock session_lock(session->mutex);
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

absl::Status FakeGcs::Stall(const FakeCall& call) {
  while (!call.cancelled()) {
    if (options_.while_stalled) options_.while_stalled();
    std::this_thread::sleep_for(std::chrono::microseconds(200));  // Waits to be cancelled, no more.
  }
  return absl::CancelledError("the client has left");
}

absl::StatusOr<GcsFault> FakeGcs::Enter(const FakeCall& call, const std::string& object) {
  const std::string resource = absl::StrCat("projects/_/buckets/", options_.bucket);
  const std::string routing = absl::StrCat("bucket=projects%2F_%2Fbuckets%2F", options_.bucket);
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

// --- Reading -------------------------------------------------------------------------------------

std::unique_ptr<FakeGcs::Reading> FakeGcs::ReadObject(const FakeCall& call,
                                                      const GcsReadRequest& request) {
  std::unique_ptr<Reading> reading(new Reading(*this, call));
  absl::StatusOr<GcsFault> fault = Enter(call, request.object);
  if (!fault.ok()) {
    reading->status_ = fault.status();
    return reading;
  }
  reading->fault_ = *std::move(fault);
  const MutexLock lock(mutex_);
  const auto it = objects_.find(request.object);
  if (it == objects_.end() ||
      (request.generation != 0 && request.generation != it->second.meta.generation)) {
    reading->status_ = absl::NotFoundError(absl::StrCat("no object ", request.object));
    return reading;
  }
  const uint64_t size = it->second.bytes->size();
  if (request.offset > size) {
    reading->status_ = absl::OutOfRangeError("offset past the end");
    return reading;
  }
  reading->object_ = it->second;
  reading->begin_ = request.offset;
  reading->offset_ = request.offset;
  reading->end_ =
      request.limit == 0 ? size : request.offset + std::min(request.limit, size - request.offset);
  return reading;
}

bool FakeGcs::Reading::Next(GcsReadMessage& message) {
  if (over_ || !status_.ok()) return false;
  const bool due = messages_ == fault_.after;
  if (due && fault_.kind == Kind::kError) status_ = FaultStatus(fault_);
  if (due && fault_.kind == Kind::kStall) status_ = fake_.Stall(call_);
  if (due && fault_.kind == Kind::kEndsEarly) over_ = true;
  if (call_.cancelled()) status_ = absl::CancelledError("the client has left");
  if (over_ || !status_.ok()) return false;
  if (messages_ > 0 && offset_ == end_) {
    over_ = true;
    if (fault_.kind == Kind::kLostAnswer) status_ = FaultStatus(fault_);
    return false;
  }
  buffer_ =
      object_->bytes->Read(offset_, std::min(fake_.options_.read_message_bytes, end_ - offset_));
  message = GcsReadMessage();
  message.content_crc32c = Crc32c(buffer_);
  if (messages_ == 0) {
    message.object_crc32c = object_->meta.crc32c;
    message.content_start = begin_;
    message.complete_length = object_->meta.size;
    message.metadata = object_->meta;
  }
  offset_ += buffer_.size();
  if (due && (fault_.kind == Kind::kWrongBytes || fault_.kind == Kind::kForgedBytes)) {
    buffer_ = Garbled(buffer_);
    if (fault_.kind == Kind::kForgedBytes) message.content_crc32c = Crc32c(buffer_);
  }
  message.content = buffer_;
  ++messages_;
  return true;
}

// --- Writing -------------------------------------------------------------------------------------

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

FakeGcs::Writing::~Writing() {
  if (session_ == nullptr || finished_ || fault_.kind != Kind::kPersistsLess) return;
  const MutexLock lock(session_->mutex);
  if (session_->writer != writer_) return;
  const uint64_t kept = session_->reported + (session_->bytes.size() - session_->reported) / 2;
  session_->bytes.Truncate(
      std::max(session_->reported, kept / kGcsQuantumBytes * kGcsQuantumBytes));
  session_->crc32c = session_->bytes.crc32c();
}

// The first message: which object, and whether it may be written from there.
absl::Status FakeGcs::Writing::Begin(const GcsWriteMessage& message) {
  resumable_ = message.upload_id != nullptr;
  absl::StatusOr<GcsFault> fault =
      fake_.Enter(call_, resumable_ ? *message.upload_id : message.spec->object);
  PEERCHUNK_RETURN_IF_ERROR(fault.status());
  fault_ = *std::move(fault);
  if (!resumable_) {
    session_ = std::make_shared<Session>();
    session_->spec = *message.spec;
  } else {
    if (fault_.kind == Kind::kSessionGone) {
      const MutexLock lock(fake_.mutex_);
      fake_.sessions_.erase(*message.upload_id);
    }
    session_ = fake_.FindSession(*message.upload_id);
    if (session_ == nullptr) return absl::NotFoundError("no such session");
  }
  const MutexLock lock(session_->mutex);
  writer_ = ++session_->writer;
  if (session_->result) return absl::OutOfRangeError("the session is finished");
  offset_ = message.offset;
  if (offset_ > session_->bytes.size()) {
    return fake_.Violation(absl::StatusCode::kOutOfRange,
                           absl::StrCat("write at ", offset_, " beyond ", session_->bytes.size()));
  }
  return absl::OkStatus();
}

absl::Status FakeGcs::Writing::Check(const GcsWriteMessage& message) {
  const auto refuse = [&](std::string_view what) {
    return fake_.Violation(absl::StatusCode::kInvalidArgument, std::string(what));
  };
  if (finished_) return refuse("a message after finish_write");
  if (message.offset != offset_) return refuse("a message that does not follow the one before");
  const uint64_t size = message.content->size();
  if (size > kGcsMessageBytes) return refuse("more than 2 MiB in a message");
  if (!message.finish && (size == 0 || size % kGcsQuantumBytes != 0)) {
    return refuse("a message that is no multiple of 256 KiB");
  }
  if (message.object_crc32c && object_crc32c_) return refuse("object_checksums twice");
  if (message.object_crc32c && messages_ > 0 && !message.finish) {
    return refuse("object_checksums in the middle");
  }
  return absl::OkStatus();
}

absl::Status FakeGcs::Writing::Append(const GcsWriteMessage& message) {
  std::string_view content = *message.content;
  const bool garbled = fault_.kind == Kind::kGarbledUpload && messages_ == fault_.after;
  if ((garbled ? Crc32c(Garbled(content)) : Crc32c(content)) != message.content_crc32c) {
    return absl::Status(fake_.options_.checksum_code, "the message's CRC32C does not match");
  }
  const MutexLock lock(session_->mutex);
  if (session_->writer != writer_) return absl::AbortedError("another stream writes here");
  const uint64_t persisted = session_->bytes.size();
  // What is there already is skipped.
  content.remove_prefix(
      std::min<uint64_t>(content.size(), persisted - std::min(persisted, offset_)));
  session_->bytes.Append(content);
  session_->crc32c = ExtendCrc32c(session_->crc32c, content);
  offset_ += message.content->size();
  return absl::OkStatus();
}

absl::Status FakeGcs::Writing::Receive(const GcsWriteMessage& message) {
  if (messages_ == 0) {
    if ((message.upload_id == nullptr) == (message.spec == nullptr)) {
      return fake_.Violation(absl::StatusCode::kInvalidArgument, "neither upload_id nor spec");
    }
    PEERCHUNK_RETURN_IF_ERROR(Begin(message));
  } else if (message.upload_id != nullptr || message.spec != nullptr) {
    return fake_.Violation(absl::StatusCode::kInvalidArgument, "a second first message");
  }
  PEERCHUNK_RETURN_IF_ERROR(Check(message));
  const bool due = messages_ == fault_.after;
  if (due && fault_.kind == Kind::kError) return FaultStatus(fault_);
  if (due && fault_.kind == Kind::kStall) return fake_.Stall(call_);
  PEERCHUNK_RETURN_IF_ERROR(Append(message));
  if (message.object_crc32c) object_crc32c_ = message.object_crc32c;
  ++messages_;
  if (!message.finish) return absl::OkStatus();
  if (fault_.kind == Kind::kPersistsLess && resumable_) return absl::OkStatus();
  return Finish();
}

absl::Status FakeGcs::Writing::Finish() {
  std::shared_ptr<SparseBytes> bytes;
  uint32_t crc32c = 0;
  {
    const MutexLock lock(session_->mutex);
    bytes = std::make_shared<SparseBytes>(session_->bytes);
    crc32c = session_->crc32c;
  }
  const std::optional<uint64_t> declared = session_->spec.object_size;
  if (declared && *declared != bytes->size()) {
    return fake_.Violation(absl::StatusCode::kInvalidArgument,
                           absl::StrCat(bytes->size(), " bytes of ", *declared, " declared"));
  }
  if (!object_crc32c_) {
    return fake_.Violation(absl::StatusCode::kInvalidArgument, "an upload without a checksum");
  }
  PEERCHUNK_ASSIGN_OR_RETURN(GcsObject object,
                             fake_.Store(session_->spec, bytes, crc32c, object_crc32c_));
  finished_ = true;
  result_ = object;
  const MutexLock lock(session_->mutex);
  session_->bytes = SparseBytes();
  session_->result = std::move(object);
  return absl::OkStatus();
}

absl::StatusOr<GcsWriteStatus> FakeGcs::Writing::HalfClose() {
  if (session_ == nullptr) return absl::InvalidArgumentError("a stream without a message");
  if (fault_.kind == Kind::kLostAnswer || fault_.kind == Kind::kError) return FaultStatus(fault_);
  if (fault_.kind == Kind::kStall) return fake_.Stall(call_);
  if (fault_.kind == Kind::kPersistsLess && !resumable_) return FaultStatus(fault_);
  if (finished_) {
    Distort(fault_, *result_);
    return GcsWriteStatus{result_->size, std::nullopt, result_};
  }
  if (!resumable_) {
    return fake_.Violation(absl::StatusCode::kInvalidArgument,
                           "one-shot write without finish_write");
  }
  const MutexLock lock(session_->mutex);
  if (session_->writer != writer_) return absl::AbortedError("another stream writes here");
  if (fault_.kind == Kind::kPersistsLess) {
    const uint64_t kept = session_->reported + (session_->bytes.size() - session_->reported) / 2;
    session_->bytes.Truncate(
        std::max(session_->reported, kept / kGcsQuantumBytes * kGcsQuantumBytes));
    session_->crc32c = session_->bytes.crc32c();
    fault_ = {};
  }
  session_->reported = session_->bytes.size();
  return GcsWriteStatus{session_->bytes.size(), session_->crc32c, std::nullopt};
}

}  // namespace peerchunk::test
