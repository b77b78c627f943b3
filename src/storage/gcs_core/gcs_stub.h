#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include "peerchunk/base/range.h"
#include "peerchunk/storage/storage.h"

// google.storage.v2 in plain structs: what the provider's logic knows of the wire. The bucket is
// the stub's own; objects are named by their full name in it.

namespace peerchunk {

// No message carries more content than this, either way; every message of an upload but its last
// carries a multiple of the quantum.
inline constexpr uint64_t kGcsMessageBytes = 2 * kMiB;
inline constexpr uint64_t kGcsQuantumBytes = 256 * kKiB;
inline constexpr size_t kGcsComposeSources = 32;

struct GcsObject {
  std::string name;
  int64_t generation = 0;
  uint64_t size = 0;
  std::optional<uint32_t> crc32c;
  ObjectMetadata metadata;
};

struct GcsReadRequest {
  std::string object;
  int64_t generation = 0;  // 0: the live one.
  uint64_t offset = 0;
  uint64_t limit = 0;  // 0: to the end.
};

struct GcsReadMessage {
  std::string_view content;
  std::optional<uint32_t> content_crc32c;
  std::optional<uint32_t> object_crc32c;
  std::optional<uint64_t> content_start;
  std::optional<uint64_t> complete_length;
  std::optional<GcsObject> metadata;
};

struct GcsWriteSpec {
  std::string object;
  ObjectMetadata metadata;
  std::optional<int64_t> if_generation;  // 0: only where there is no such object.
  std::optional<uint64_t> object_size;
};

struct GcsWriteMessage {
  // The first message of a stream has one of these two.
  const std::string* upload_id = nullptr;
  const GcsWriteSpec* spec = nullptr;
  uint64_t offset = 0;
  std::string* content = nullptr;  // Borrowed for the call and given back as it was.
  uint32_t content_crc32c = 0;
  std::optional<uint32_t> object_crc32c;
  bool finish = false;
};

// Where an upload stands: the finished object, or how much of it is persisted.
struct GcsWriteStatus {
  uint64_t persisted_size = 0;
  std::optional<uint32_t> persisted_crc32c;
  std::optional<GcsObject> resource;
};

struct GcsComposeRequest {
  GcsWriteSpec destination;
  std::vector<GcsObject> sources;  // By name and generation.
  uint32_t crc32c = 0;
};

struct GcsListRequest {
  std::string prefix;
  int32_t page_size = 0;
  std::string page_token;
};

struct GcsListPage {
  std::vector<GcsObject> objects;
  std::string next_page_token;
};

// The stream of one ReadObject. One thread at a time.
class GcsReadStream {
 public:
  virtual ~GcsReadStream() = default;
  // False at the end. What `message` points to is valid until the next call.
  virtual bool Read(GcsReadMessage& message) = 0;
  // Why the stream ended. Once, after Read returned false.
  virtual absl::Status Finish() = 0;
};

// The stream of one WriteObject. One thread at a time.
class GcsWriteStream {
 public:
  virtual ~GcsWriteStream() = default;
  // False when the stream is broken: Finish says why.
  virtual bool Write(const GcsWriteMessage& message) = 0;
  // Half-closes and waits for the answer. Once.
  virtual absl::StatusOr<GcsWriteStatus> Finish() = 0;
};

// One attempt of one request on one channel. Makes exactly one request; everything blocks. Streams
// must not outlive their call, and destroying one cancels it.
class GcsCall {
 public:
  virtual ~GcsCall() = default;
  // Any thread, at any time, also before the request: it then ends soon, with any error.
  virtual void Cancel() = 0;

  virtual absl::StatusOr<GcsObject> GetObject(const std::string& object) = 0;
  virtual std::unique_ptr<GcsReadStream> ReadObject(const GcsReadRequest& request) = 0;
  virtual absl::StatusOr<std::string> StartResumableWrite(const GcsWriteSpec& spec) = 0;
  virtual absl::StatusOr<GcsWriteStatus> QueryWriteStatus(const std::string& upload_id) = 0;
  virtual absl::Status CancelResumableWrite(const std::string& upload_id) = 0;
  virtual std::unique_ptr<GcsWriteStream> WriteObject() = 0;
  virtual absl::StatusOr<GcsObject> ComposeObject(const GcsComposeRequest& request) = 0;
  virtual absl::Status DeleteObject(const std::string& object, int64_t generation) = 0;
  virtual absl::StatusOr<GcsListPage> ListObjects(const GcsListRequest& request) = 0;
};

struct GcsCallOptions {
  std::string idempotency_token;  // A UUID, the same over all attempts of one request.
  absl::Time deadline = absl::InfiniteFuture();  // Told to the server, on the context's clock.
};

// One channel to the service. Thread-safe.
class GcsStub {
 public:
  virtual ~GcsStub() = default;
  virtual std::shared_ptr<GcsCall> NewCall(const GcsCallOptions& options) = 0;
};

}  // namespace peerchunk
