#include "storage/gcs_core/store_object.h"

#include <algorithm>
#include <optional>

#include <absl/strings/escaping.h>
#include <absl/strings/str_cat.h>

#include "peerchunk/base/status.h"
#include "storage/gcs_core/gcs_errors.h"
#include "storage/gcs_core/object_requests.h"
#include "storage/gcs_core/object_write.h"
#include "storage/gcs_core/one_shot_write.h"
#include "storage/gcs_core/parallel_write.h"
#include "storage/gcs_core/session_journal.h"
#include "storage/gcs_core/upload_lanes.h"

namespace peerchunk {
namespace {

class SmallPlace {
 public:
  explicit SmallPlace(UploadLanes& lanes) : lanes_(lanes) {}
  ~SmallPlace() { lanes_.LeaveSmall(); }
  SmallPlace(const SmallPlace&) = delete;
  SmallPlace& operator=(const SmallPlace&) = delete;

 private:
  UploadLanes& lanes_;
};

absl::StatusOr<ObjectStat> StoreSmall(GcsContext& context, const ObjectWrite& write,
                                      const UploadSource& source,
                                      std::optional<uint32_t> expected) {
  PEERCHUNK_RETURN_IF_ERROR(context.lanes->EnterSmall(write.limits));
  const SmallPlace place(*context.lanes);
  std::string buffer;
  PEERCHUNK_ASSIGN_OR_RETURN(const uint32_t crc32c, HashSource(source, 0, source.size(), buffer,
                                                               context.clock, write.limits));
  if (expected && *expected != crc32c) {
    return absl::DataLossError("the source does not have the CRC32C that was promised");
  }
  PEERCHUNK_ASSIGN_OR_RETURN(GcsObject object, WriteOneShot(context, write, source, crc32c));
  const absl::Status status = ConfirmObject(context, write.limits, object, source.size(), crc32c);
  if (absl::IsDataLoss(status)) {
    // Created by this write; create-only would keep the right bytes out.
    const CallLimits limits{context.clock.Now() + context.tuning.clean_up, {}};
    DeleteObject(context, limits, object.name, object.generation).IgnoreError();
  }
  PEERCHUNK_RETURN_IF_ERROR(status);
  return ToStat(object);
}

absl::StatusOr<GcsObject> WriteLarge(GcsContext& context, const ObjectWrite& write,
                                     const UploadSource& source, std::optional<uint32_t> expected,
                                     SessionJournal::Claim& claim) {
  // Whether the object may be written at all is cheaper to learn before its gigabytes are sent.
  const auto crc32c = [&]() -> absl::StatusOr<uint32_t> {
    if (expected) return *expected;
    std::string buffer;
    return HashSource(source, 0, source.size(), buffer, context.clock, write.limits);
  };
  PEERCHUNK_ASSIGN_OR_RETURN(std::optional<GcsObject> done,
                             ResolveFailedPrecondition(context, write, source.size(), crc32c));
  if (done) return *std::move(done);
  return claim.record().sessions.size() == 1 ? WriteWhole(context, write, source, expected, claim)
                                             : WriteParts(context, write, source, expected, claim);
}

// What an upload must have in common with an earlier one to go on with its sessions.
std::string FingerprintOf(const ObjectWrite& write, const UploadSource& source,
                          std::optional<uint32_t> expected) {
  std::string fingerprint = expected ? absl::StrCat("crc32c:", *expected) : source.Fingerprint();
  if (write.if_generation) absl::StrAppend(&fingerprint, " if:", *write.if_generation);
  for (const auto& [key, value] : write.metadata) {
    absl::StrAppend(&fingerprint, " ", absl::CHexEscape(key), "=", absl::CHexEscape(value));
  }
  return fingerprint;
}

// For cleaning up after a write: the caller's limits, or a moment where the caller has none left.
CallLimits CleaningLimits(GcsContext& context, const ObjectWrite& write) {
  const absl::Time now = context.clock.Now();
  if (!write.limits.Check(context.clock).ok()) return {now + context.tuning.clean_up, {}};
  return {std::min(write.limits.deadline, now + context.tuning.write_budget),
          write.limits.cancellation};
}

// Takes from the server what an upload left that nobody will go on with.
absl::Status Discard(GcsContext& context, const UploadRecord& record, const CallLimits& limits) {
  CancelSessions(context, record.sessions);
  if (record.sessions.size() == 1) return absl::OkStatus();
  return DeleteParts(context, record.id, limits);
}

// Whether cleaning up that ended so may go well later. If not, only a rule of the bucket can help.
bool WorthCleaningAgain(const absl::Status& cleaned) {
  return absl::IsCancelled(cleaned) || WorthResuming(cleaned);
}

absl::StatusOr<ObjectStat> StoreLarge(GcsContext& context, ObjectWrite write,
                                      const UploadSource& source,
                                      std::optional<uint32_t> expected) {
  UploadRecord plan;
  plan.object = write.object;
  plan.size = source.size();
  plan.fingerprint = FingerprintOf(write, source, expected);
  plan.part_bytes = PartBytesFor(context.tuning, plan.size);
  plan.id = GcsContext::NewToken();
  plan.sessions.resize(CeilDiv(plan.size, plan.part_bytes));
  const std::unique_ptr<SessionJournal::Claim> claim = context.journal->Begin(std::move(plan));
  if (claim->superseded()) {
    Discard(context, *claim->superseded(), CleaningLimits(context, write)).IgnoreError();
  }
  const UploadRecord record = claim->record();
  if (std::any_of(record.sessions.begin(), record.sessions.end(),
                  [](const std::string& id) { return !id.empty(); })) {
    write.outcome_unknown = true;
  }
  absl::StatusOr<GcsObject> object = WriteLarge(context, write, source, expected, *claim);
  if (object.ok() || claim->abandoned() || !write.WorthResumingAfter(object.status())) {
    if (!object.ok()) CancelSessions(context, claim->Untaken());
    absl::Status cleaned;
    if (record.sessions.size() > 1) {
      cleaned = DeleteParts(context, record.id, CleaningLimits(context, write));
    }
    if (!WorthCleaningAgain(cleaned)) {
      claim->Drop();
    } else if (!object.ok()) {
      claim->Abandon();
    }  // Else the same write, made again, would find the object. DiscardUploads cleans up.
  }
  PEERCHUNK_RETURN_IF_ERROR(object.status());
  return ToStat(*object);
}

}  // namespace

absl::StatusOr<ObjectStat> StoreObject(GcsContext& context, const std::string& object,
                                       const UploadSource& source, const WriteOptions& options) {
  PEERCHUNK_ASSIGN_OR_RETURN(const ObjectWrite write, ObjectWrite::From(object, options));
  PEERCHUNK_RETURN_IF_ERROR(write.limits.Check(context.clock));
  return source.size() <= context.tuning.one_shot_bytes
             ? StoreSmall(context, write, source, options.crc32c)
             : StoreLarge(context, write, source, options.crc32c);
}

absl::StatusOr<uint64_t> DiscardUploads(GcsContext& context,
                                        const std::function<bool(const std::string&)>& goes_on,
                                        const CallLimits& limits) {
  uint64_t discarded = 0;
  absl::Status first_error;
  const auto unwanted = [&](const UploadRecord& record) {
    return context.journal->IsOld(record) || !goes_on(record.object);
  };
  for (const UploadRecord& left : context.journal->Left()) {
    PEERCHUNK_RETURN_IF_ERROR(limits.Check(context.clock));
    if (!unwanted(left)) continue;
    const std::unique_ptr<SessionJournal::Claim> claim = context.journal->Take(left.object);
    if (claim == nullptr || !unwanted(claim->record())) continue;
    const absl::Status cleaned =
        Discard(context, claim->record(),
                {std::min(limits.deadline, context.clock.Now() + context.tuning.write_budget),
                 limits.cancellation});
    first_error.Update(cleaned);
    if (WorthCleaningAgain(cleaned)) continue;
    claim->Drop();
    ++discarded;
  }
  PEERCHUNK_RETURN_IF_ERROR(first_error);
  return discarded;
}

}  // namespace peerchunk
