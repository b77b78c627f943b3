#include "storage/gcs_core/parallel_write.h"

#include <algorithm>
#include <functional>
#include <stop_token>
#include <vector>

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include "base/logging.h"
#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/status.h"
#include "storage/gcs_core/gcs_errors.h"
#include "storage/gcs_core/object_requests.h"
#include "storage/gcs_core/resumable_write.h"
#include "storage/gcs_core/upload_lanes.h"

namespace peerchunk {
namespace {

// The parts of one upload: handed out to lanes, collected from them. Thread-safe.
class PartsUnderWay {
 public:
  PartsUnderWay(GcsContext& context, const ObjectWrite& write, const UploadSource& source,
                SessionJournal::Claim& claim)
      : context_(context),
        write_(write),
        source_(source),
        claim_(claim),
        record_(claim.record()),
        forward_cancel_(write.limits.cancellation, [this] { stop_.request_stop(); }),
        objects_(record_.sessions.size()) {}

  // Writes the next part; false when there is none left or one has failed.
  bool WriteNext() {
    size_t index;
    {
      const MutexLock lock(mutex_);
      if (!status_.ok() || next_ == objects_.size()) return false;
      index = next_++;
    }
    absl::StatusOr<GcsObject> object = WritePart(index);
    if (!object.ok()) {
      {
        const MutexLock lock(mutex_);
        if (status_.ok()) status_ = object.status();
      }
      // What cannot be mended ends the others too; else they bring their parts home for the next
      // try.
      if (!write_.WorthResumingAfter(object.status())) stop_.request_stop();
      return false;
    }
    const MutexLock lock(mutex_);
    objects_[index] = *std::move(object);
    ++done_;
    return next_ < objects_.size();
  }

  // All parts in order, once no lane works on them.
  absl::StatusOr<std::vector<GcsObject>> Take() {
    const MutexLock lock(mutex_);
    PEERCHUNK_RETURN_IF_ERROR(write_.limits.Check(context_.clock));
    PEERCHUNK_RETURN_IF_ERROR(status_);
    if (done_ < objects_.size()) return absl::CancelledError("not every part was written");
    return std::move(objects_);
  }

 private:
  absl::StatusOr<GcsObject> WritePart(size_t index) {
    ObjectWrite part;
    part.object = absl::StrCat(PartsPrefix(context_, record_.id), absl::StrFormat("%02d", index));
    part.if_generation = 0;
    part.limits = {write_.limits.deadline, stop_.get_token()};
    part.suspension = write_.suspension;
    const uint64_t begin = index * record_.part_bytes;
    const uint64_t end = std::min(begin + record_.part_bytes, record_.size);
    ResumableWrite upload(context_, std::move(part), source_, {begin, end}, std::nullopt,
                          claim_.TakeSession(index),
                          [this, index](const std::string& id) { claim_.SetSession(index, id); });
    return upload.Run();
  }

  GcsContext& context_;
  const ObjectWrite& write_;
  const UploadSource& source_;
  SessionJournal::Claim& claim_;
  const UploadRecord record_;
  std::stop_source stop_;
  const std::stop_callback<std::function<void()>> forward_cancel_;
  Mutex mutex_;
  size_t next_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  size_t done_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
  absl::Status status_ PEERCHUNK_GUARDED_BY(mutex_);
  std::vector<GcsObject> objects_ PEERCHUNK_GUARDED_BY(mutex_);
};

absl::StatusOr<GcsObject> Compose(GcsContext& context, ObjectWrite write,
                                  const GcsComposeRequest& request, uint64_t size) {
  RetryLoop loop(context, write.limits, RetryPolicy::ForWrites(context.tuning));
  const std::string token = GcsContext::NewToken();
  for (;;) {
    PEERCHUNK_RETURN_IF_ERROR(write.limits.Check(context.clock));
    size_t channel;
    absl::Status status;
    {
      Attempt attempt(context, write.limits, token, loop.avoid());
      channel = attempt.channel();
      attempt.Expect(context.clock.Now(), context.tuning.write_answer,
                     context.metrics.answer_stalls);
      absl::StatusOr<GcsObject> object = attempt.call().ComposeObject(request);
      status = attempt.Settle(object.status());
      if (status.ok()) return object;
    }
    if (absl::IsFailedPrecondition(status)) {
      PEERCHUNK_ASSIGN_OR_RETURN(
          std::optional<GcsObject> object,
          ResolveFailedPrecondition(context, write, size, [&] { return request.crc32c; }));
      if (object) return *std::move(object);
    }
    if (MayBeChecksumMismatch(status)) {
      context.metrics.checksum_mismatches.Add();
      return absl::DataLossError(
          absl::StrCat("the parts do not make the object: ", status.ToString()));
    }
    if (OutcomeUnknown(status)) write.outcome_unknown = true;
    PEERCHUNK_RETURN_IF_ERROR(loop.Next(status, channel));
  }
}

}  // namespace

uint64_t PartBytesFor(const GcsTuning& tuning, uint64_t size) {
  if (size <= tuning.parallel_bytes) return size;
  const uint64_t fewest = CeilDiv(size, kGcsComposeSources);
  return RoundUp(std::max(fewest, tuning.part_bytes), kGcsQuantumBytes);
}

std::string PartsPrefix(const GcsContext& context, const std::string& upload) {
  return absl::StrCat(context.prefix, ".peerchunk/parts/", upload, "/");
}

absl::StatusOr<GcsObject> WriteParts(GcsContext& context, const ObjectWrite& write,
                                     const UploadSource& source, std::optional<uint32_t> crc32c,
                                     SessionJournal::Claim& claim) {
  const UploadRecord record = claim.record();
  GcsComposeRequest request;
  {
    PartsUnderWay parts(context, write, source, claim);
    const size_t runners = std::min(context.lanes->lanes(), record.sessions.size());
    context.lanes->Run(Priority::kPrefetch, runners, write.limits,
                       [&] { return parts.WriteNext(); });
    PEERCHUNK_ASSIGN_OR_RETURN(request.sources, parts.Take());
  }
  for (const GcsObject& part : request.sources) {
    request.crc32c =
        CombineCrc32c(request.crc32c, *part.crc32c, part.size);  // Confirmed: it is there.
  }
  PEERCHUNK_RETURN_IF_ERROR(source.CheckUnchanged());
  if (crc32c && *crc32c != request.crc32c) {
    return absl::DataLossError("the source does not have the CRC32C that was promised");
  }
  request.destination = {write.object, write.metadata, write.if_generation, std::nullopt};
  absl::StatusOr<GcsObject> object = Compose(context, write, request, record.size);
  if (absl::IsNotFound(object.status())) {
    // Someone deleted a part. Nothing here to go on from.
    claim.Abandon();
    return absl::UnavailableError(absl::StrCat("a part is gone: ", object.status().message()));
  }
  PEERCHUNK_RETURN_IF_ERROR(object.status());
  const absl::Status confirmed =
      ConfirmObject(context, write.limits, *object, record.size, request.crc32c);
  if (absl::IsDataLoss(confirmed)) {
    const CallLimits limits{context.clock.Now() + context.tuning.clean_up, {}};
    DeleteObject(context, limits, object->name, object->generation).IgnoreError();
  }
  PEERCHUNK_RETURN_IF_ERROR(confirmed);
  return object;
}

absl::StatusOr<GcsObject> WriteWhole(GcsContext& context, const ObjectWrite& write,
                                     const UploadSource& source, std::optional<uint32_t> crc32c,
                                     SessionJournal::Claim& claim) {
  const UploadRecord record = claim.record();
  absl::StatusOr<GcsObject> result = absl::CancelledError("no lane was free in time");
  // Before parts: those belong to larger files.
  context.lanes->Run(Priority::kDemand, 1, write.limits, [&] {
    ResumableWrite upload(context, write, source, {0, record.size}, crc32c, claim.TakeSession(0),
                          [&](const std::string& id) { claim.SetSession(0, id); });
    result = upload.Run();
    return false;
  });
  if (absl::IsCancelled(result.status()))
    PEERCHUNK_RETURN_IF_ERROR(write.limits.Check(context.clock));
  return result;
}

absl::Status DeleteParts(GcsContext& context, const std::string& upload, const CallLimits& limits) {
  const absl::StatusOr<uint64_t> deleted =
      DeleteObjects(context, limits, PartsPrefix(context, upload));
  if (deleted.ok()) return absl::OkStatus();
  context.metrics.leftover_parts.Add();
  Logger("storage").warn("event=parts_left_over prefix={} cause=\"{}\"",
                         context.Url(PartsPrefix(context, upload)), deleted.status().ToString());
  return deleted.status();
}

}  // namespace peerchunk
