#include "storage/gcs_core/gcs_provider.h"

#include <algorithm>
#include <random>
#include <utility>

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>

#include "peerchunk/base/mutex.h"
#include "peerchunk/base/status.h"
#include "storage/gcs_core/object_requests.h"
#include "storage/gcs_core/read_object.h"
#include "storage/gcs_core/session_journal.h"
#include "storage/gcs_core/store_object.h"
#include "storage/gcs_core/upload_lanes.h"

namespace peerchunk {
namespace {

constexpr char kReserved[] = ".peerchunk";

CallLimits LimitsOf(const ReadOptions& options) { return {options.deadline, options.cancellation}; }

absl::StatusOr<ObjectStat> StatObject(GcsContext& context, const std::string& object,
                                      const ReadOptions& options) {
  PEERCHUNK_ASSIGN_OR_RETURN(const GcsObject found, GetObject(context, LimitsOf(options), object));
  ObjectStat stat = ToStat(found);
  if (options.version && *options.version != stat.version) {
    return absl::AbortedError(
        absl::StrCat("version ", *options.version, " was replaced by ", stat.version));
  }
  return stat;
}

// RangeReader whose errors name the object.
class NamedReader final : public RangeReader {
 public:
  NamedReader(std::unique_ptr<ObjectReader> reader, std::string what)
      : reader_(std::move(reader)), what_(std::move(what)) {}

  absl::StatusOr<std::optional<Extent>> Next() override {
    absl::StatusOr<std::optional<Extent>> extent = reader_->Next();
    if (!extent.ok()) return Annotate(extent.status(), what_);
    return extent;
  }

 private:
  const std::unique_ptr<ObjectReader> reader_;
  const std::string what_;
};

class GcsBlob final : public Blob {
 public:
  GcsBlob(GcsContext& context, std::string object)
      : context_(context), object_(std::move(object)), url_(context.Url(object_)) {}

  absl::Status WriteTo(ByteSink& sink, const ReadOptions& options) override {
    ObjectReader reader(context_, object_, 0, std::nullopt, options);
    for (;;) {
      absl::StatusOr<std::optional<Extent>> extent = reader.Next();
      if (!extent.ok()) return Annotate(extent.status(), absl::StrCat("read ", url_));
      if (!*extent) return absl::OkStatus();
      for (const std::string_view piece : (*extent)->pieces) {
        PEERCHUNK_RETURN_IF_ERROR(sink.Write(piece));
      }
    }
  }

  absl::StatusOr<ObjectStat> Put(std::string_view bytes, const WriteOptions& options) override {
    absl::StatusOr<ObjectStat> stat = StoreObject(context_, object_, *MemorySource(bytes), options);
    if (!stat.ok()) return Annotate(stat.status(), absl::StrCat("write ", url_));
    return stat;
  }

  absl::StatusOr<bool> Exists(const ReadOptions& options) override {
    const absl::StatusOr<ObjectStat> stat = Stat(options);
    if (absl::IsNotFound(stat.status())) return false;
    PEERCHUNK_RETURN_IF_ERROR(stat.status());
    return true;
  }

  absl::StatusOr<ObjectStat> Stat(const ReadOptions& options) override {
    absl::StatusOr<ObjectStat> stat = StatObject(context_, object_, options);
    if (!stat.ok()) return Annotate(stat.status(), absl::StrCat("stat ", url_));
    return stat;
  }

 private:
  GcsContext& context_;
  const std::string object_;
  const std::string url_;
};

class GcsSeekable final : public Seekable {
 public:
  GcsSeekable(GcsContext& context, std::string object)
      : context_(context), object_(std::move(object)), url_(context.Url(object_)) {}

  absl::StatusOr<uint64_t> Size(const ReadOptions& options) override {
    PEERCHUNK_ASSIGN_OR_RETURN(const ObjectStat stat, Stat(options));
    return stat.size;
  }

  absl::StatusOr<size_t> ReadAt(uint64_t offset, absl::Span<char> out,
                                const ReadOptions& options) override {
    ObjectReader reader(context_, object_, offset, out.size(), options);
    size_t done = 0;
    for (;;) {
      absl::StatusOr<std::optional<Extent>> extent = reader.Next();
      if (!extent.ok()) return Annotate(extent.status(), RangeText(offset, out.size()));
      if (!*extent) return done;
      (*extent)->CopyTo(out.data() + done);
      done += (*extent)->length;
      if (done == out.size()) return done;
    }
  }

  absl::StatusOr<std::unique_ptr<RangeReader>> OpenRangeReader(
      uint64_t offset, uint64_t length, const ReadOptions& options) override {
    return std::make_unique<NamedReader>(
        std::make_unique<ObjectReader>(context_, object_, offset, length, options),
        RangeText(offset, length));
  }

  absl::StatusOr<ObjectStat> StoreFile(const std::string& path,
                                       const WriteOptions& options) override {
    const std::string what = absl::StrCat("write ", url_);
    const absl::StatusOr<std::unique_ptr<UploadSource>> source = OpenFileSource(path);
    if (!source.ok()) return Annotate(source.status(), what);
    absl::StatusOr<ObjectStat> stat = StoreObject(context_, object_, **source, options);
    if (!stat.ok()) return Annotate(stat.status(), what);
    return stat;
  }

  absl::StatusOr<ObjectStat> Stat(const ReadOptions& options) override {
    absl::StatusOr<ObjectStat> stat = StatObject(context_, object_, options);
    if (!stat.ok()) return Annotate(stat.status(), absl::StrCat("stat ", url_));
    return stat;
  }

 private:
  std::string RangeText(uint64_t offset, uint64_t length) const {
    return absl::StrCat("read ", url_, " [", offset, ", +", length, ")");
  }

  GcsContext& context_;
  const std::string object_;
  const std::string url_;
};

class GcsProvider final : public StorageProvider {
 public:
  explicit GcsProvider(std::unique_ptr<GcsContext> context) : context_(std::move(context)) {}

  absl::StatusOr<std::unique_ptr<Blob>> OpenBlob(std::string_view path) override {
    PEERCHUNK_ASSIGN_OR_RETURN(std::string object, ObjectName(path));
    return std::make_unique<GcsBlob>(*context_, std::move(object));
  }

  absl::StatusOr<std::unique_ptr<Seekable>> OpenSeekable(std::string_view path) override {
    PEERCHUNK_ASSIGN_OR_RETURN(std::string object, ObjectName(path));
    return std::make_unique<GcsSeekable>(*context_, std::move(object));
  }

  absl::StatusOr<uint64_t> DeleteObjectsWithPrefix(std::string_view prefix,
                                                   const WriteOptions& options) override {
    if (prefix.size() < 2 || prefix.back() != '/') {
      return absl::InvalidArgumentError(
          absl::StrCat("prefix '", AbslView(prefix), "' must name a folder and end in '/'"));
    }
    PEERCHUNK_ASSIGN_OR_RETURN(const std::string object,
                               ObjectName(prefix.substr(0, prefix.size() - 1)));
    const CallLimits limits{options.deadline, options.cancellation};
    absl::StatusOr<uint64_t> deleted = DeleteObjects(*context_, limits, absl::StrCat(object, "/"));
    if (!deleted.ok()) {
      return Annotate(deleted.status(), absl::StrCat("delete ", context_->Url(object), "/"));
    }
    return deleted;
  }

  absl::StatusOr<uint64_t> DiscardUnfinishedWrites(
      const std::function<bool(std::string_view path)>& goes_on,
      const WriteOptions& options) override {
    // What lies beside the prefix is of another provider, and not for this one's caller to judge.
    const auto object_goes_on = [&](const std::string& object) {
      return !absl::StartsWith(object, context_->prefix) ||
             goes_on(std::string_view(object).substr(context_->prefix.size()));
    };
    absl::StatusOr<uint64_t> discarded =
        DiscardUploads(*context_, object_goes_on, {options.deadline, options.cancellation});
    if (!discarded.ok()) {
      return Annotate(discarded.status(),
                      absl::StrCat("discard unfinished writes to ", Describe()));
    }
    return discarded;
  }

  std::string Describe() const override {
    const std::string url = context_->Url(context_->prefix);
    return url.back() == '/' ? url.substr(0, url.size() - 1) : url;
  }

 private:
  absl::StatusOr<std::string> ObjectName(std::string_view path) const {
    PEERCHUNK_RETURN_IF_ERROR(CheckObjectPath(path));
    if (path.substr(0, path.find('/')) == kReserved) {
      return absl::InvalidArgumentError(
          absl::StrCat("object path '", AbslView(path), "': ", kReserved, " is reserved"));
    }
    std::string name = absl::StrCat(context_->prefix, AbslView(path));
    PEERCHUNK_RETURN_IF_ERROR(CheckObjectPath(name));  // With the prefix it may be too long.
    return name;
  }

  const std::unique_ptr<GcsContext> context_;
};

std::function<uint64_t()> SeededRandom() {
  struct Source {
    Mutex mutex;
    std::mt19937_64 engine PEERCHUNK_GUARDED_BY(mutex){std::random_device{}()};
  };
  return [source = std::make_shared<Source>()] {
    const MutexLock lock(source->mutex);
    return source->engine();
  };
}

}  // namespace

std::string GcsContext::Url(std::string_view object) const {
  return absl::StrCat("gs://", bucket, "/", AbslView(object));
}

absl::StatusOr<std::unique_ptr<GcsContext>> MakeGcsContext(
    const GcsStorageOptions& options, std::vector<std::unique_ptr<GcsStub>> stubs) {
  // The rules for the URL are the rules for its parts.
  PEERCHUNK_ASSIGN_OR_RETURN(
      const GcsUrl checked,
      ParseGcsUrl(absl::StrCat("gs://", options.bucket, options.prefix.empty() ? "" : "/",
                               options.prefix)));
  if (checked.bucket != options.bucket || checked.prefix != options.prefix) {
    return absl::InvalidArgumentError(absl::StrCat("bucket '", options.bucket, "', prefix '",
                                                   options.prefix, "': a slash too many"));
  }
  Clock& clock = *options.clock;
  PEERCHUNK_ASSIGN_OR_RETURN(std::unique_ptr<SessionJournal> journal,
                             SessionJournal::Open(options.session_folder, options.bucket, clock));
  std::shared_ptr<GcsUploadLanes> lanes = options.lanes;
  if (lanes == nullptr) lanes = GcsUploadLanes::Create(8, 0, clock);
  auto own_metrics = options.metrics == nullptr ? std::make_unique<Metrics>() : nullptr;
  Metrics& metrics = options.metrics == nullptr ? *own_metrics : *options.metrics;
  auto context = std::unique_ptr<GcsContext>(
      new GcsContext{.bucket = options.bucket,
                     .prefix = options.prefix.empty() ? "" : absl::StrCat(options.prefix, "/"),
                     .tuning = options.tuning,
                     .clock = clock,
                     .random = options.random ? options.random : SeededRandom(),
                     .own_metrics = std::move(own_metrics),
                     .metrics = GcsMetrics(metrics),
                     .lanes = std::static_pointer_cast<UploadLanes>(lanes),
                     .journal = std::move(journal),
                     .channels = ChannelPool(std::move(stubs), clock),
                     .watchdog = Watchdog(clock)});
  return context;
}

std::unique_ptr<StorageProvider> MakeGcsProvider(std::unique_ptr<GcsContext> context) {
  return std::make_unique<GcsProvider>(std::move(context));
}

absl::Status CheckGcsBucket(GcsContext& context, absl::Duration budget, bool* reachable) {
  const absl::Status status = CheckBucket(context, {context.clock.Now() + budget, {}});
  const std::string bucket = absl::StrCat("bucket gs://", context.bucket);
  *reachable = true;
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return status;
    case absl::StatusCode::kNotFound:
      return absl::NotFoundError(absl::StrCat(
          bucket, " does not exist: create it or correct --base (", status.message(), ")"));
    case absl::StatusCode::kPermissionDenied:
      return absl::PermissionDeniedError(
          absl::StrCat(bucket,
                       ": these credentials may not use it; grant them the role "
                       "roles/storage.objectUser on the bucket (",
                       status.message(), ")"));
    case absl::StatusCode::kUnauthenticated:
      return absl::UnauthenticatedError(
          absl::StrCat(bucket,
                       ": the service refused these credentials; renew them with `gcloud auth "
                       "application-default login` or check GOOGLE_APPLICATION_CREDENTIALS (",
                       status.message(), ")"));
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kUnimplemented:
      return Annotate(status, bucket);
    default:
      *reachable = false;
      return absl::OkStatus();
  }
}

}  // namespace peerchunk
