#include <algorithm>
#include <utility>

#include <absl/strings/str_cat.h>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/status.h"
#include "tests/support/gcs/fake_gcs.h"
#include "tests/support/gcs/fake_gcs_session.h"

namespace peerchunk::test {
namespace {

using Kind = GcsFault::Kind;

}  // namespace

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
  if (due && fault_.kind == Kind::kSlow && fake_.options_.while_stalled) {
    fake_.options_.while_stalled();
  }
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
  if (!due || fault_.kind != Kind::kUnchecked) message.content_crc32c = Crc32c(buffer_);
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
  offset_ = message.offset;
  uint64_t persisted = 0;
  {
    const MutexLock lock(session_->mutex);
    writer_ = ++session_->writer;
    if (session_->result) return absl::OutOfRangeError("the session is finished");
    persisted = session_->bytes.size();
  }
  if (offset_ <= persisted) return absl::OkStatus();
  return fake_.Violation(absl::StatusCode::kOutOfRange,
                         absl::StrCat("write at ", offset_, " beyond ", persisted));
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
  if (session_->spec.object_size) {
    return fake_.Violation(absl::StatusCode::kOutOfRange, "half-closed before object_size bytes");
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
