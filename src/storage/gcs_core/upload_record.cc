#include "storage/gcs_core/upload_record.h"

#include <limits>

#include <nlohmann/json.hpp>

#include "base/parse_json.h"
#include "peerchunk/base/build_id.h"
#include "peerchunk/base/range.h"
#include "storage/gcs_core/gcs_stub.h"

namespace peerchunk {
namespace {

// A record that does not hang together is none.
bool IsSound(const UploadRecord& record) {
  return record.size > 0 && record.part_bytes > 0 && BuildId::Parse(record.id).ok() &&
         record.sessions.size() == CeilDiv(record.size, record.part_bytes) &&
         record.sessions.size() <= kGcsComposeSources;
}

}  // namespace

std::string EncodeUploadRecord(const StoredUploadRecord& stored) {
  const UploadRecord& record = stored.record;
  return nlohmann::json{{"bucket", stored.bucket},
                        {"object", record.object},
                        {"size", record.size},
                        {"fingerprint", record.fingerprint},
                        {"part_bytes", record.part_bytes},
                        {"id", record.id},
                        {"sessions", record.sessions},
                        {"written", absl::ToUnixSeconds(record.written)}}
      .dump(1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::optional<StoredUploadRecord> DecodeUploadRecord(std::string_view text) {
  const nlohmann::json json = ParseJson(text);
  if (!json.is_object()) return std::nullopt;
  const auto has = [&](const char* key, bool (nlohmann::json::*is)() const noexcept) {
    return json.contains(key) && (json[key].*is)();
  };
  for (const char* key : {"bucket", "object", "fingerprint", "id"}) {
    if (!has(key, &nlohmann::json::is_string)) return std::nullopt;
  }
  for (const char* key : {"size", "part_bytes", "written"}) {
    if (!has(key, &nlohmann::json::is_number_unsigned)) return std::nullopt;
  }
  if (!has("sessions", &nlohmann::json::is_array)) return std::nullopt;
  constexpr uint64_t kLatest = std::numeric_limits<int64_t>::max();
  if (json["written"].get<uint64_t>() > kLatest) return std::nullopt;
  StoredUploadRecord stored;
  stored.bucket = json["bucket"].get<std::string>();
  UploadRecord& record = stored.record;
  record.written = absl::FromUnixSeconds(json["written"].get<int64_t>());
  record.object = json["object"].get<std::string>();
  record.size = json["size"].get<uint64_t>();
  record.fingerprint = json["fingerprint"].get<std::string>();
  record.part_bytes = json["part_bytes"].get<uint64_t>();
  record.id = json["id"].get<std::string>();
  for (const nlohmann::json& session : json["sessions"]) {
    if (!session.is_string()) return std::nullopt;
    record.sessions.push_back(session.get<std::string>());
  }
  if (!IsSound(record)) return std::nullopt;
  return stored;
}

}  // namespace peerchunk
