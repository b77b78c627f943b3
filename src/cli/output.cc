#include "cli/output.h"

#include <algorithm>
#include <cstdio>

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_join.h>

#include "base/byte_size.h"

namespace peerchunk::cli {
namespace {

Json ToJson(const v1::BuildFileInfo& file) {
  Json json = {{"name", file.name()}, {"size", file.size()}, {"in_base", file.in_base()}};
  if (file.has_crc32c()) json["crc32c"] = HexCrc32c(file.crc32c());
  json["bytes_from_peer"] = file.bytes_from_peer();
  json["bytes_from_base"] = file.bytes_from_base();
  json["bytes_wasted"] = file.bytes_wasted();
  return json;
}

Json ToJson(const v1::LayerInfo& layer) {
  Json json = {{"build_id", layer.build_id()},
               {"file", layer.file()},
               {"mapped_bytes", layer.mapped_bytes()},
               {"bytes_from_peer", layer.bytes_from_peer()},
               {"bytes_from_base", layer.bytes_from_base()},
               {"bytes_wasted", layer.bytes_wasted()}};
  json["source_addresses"] = Json::array();
  for (const std::string& source : layer.source_addresses()) {
    json["source_addresses"].push_back(source);
  }
  return json;
}

}  // namespace

std::string Table::ToString() const {
  std::vector<size_t> widths(rows_[0].size(), 0);
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows_) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      if (i > 0) line += "  ";
      line += row[i];
      if (i + 1 < row.size()) line.append(widths[i] - row[i].size(), ' ');
    }
    text += line + "\n";
  }
  return text;
}

void Print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

void PrintJson(const Json& json) {
  // Errors of daemons quote file names, which need not be UTF-8.
  Print(json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

std::string HexCrc32c(uint32_t crc32c) { return absl::StrFormat("%08x", crc32c); }

Json ToJson(const v1::BuildInfo& build) {
  Json json = {{"build_id", build.build_id()},
               {"state", build.state()},
               {"reason", build.reason()},
               {"upload_attempts", build.upload_attempts()},
               {"memfile_size", build.memfile_size()},
               {"rootfs_size", build.rootfs_size()},
               {"mount_path", build.mount_path()},
               {"bytes_zero", build.bytes_zero()}};
  json["files"] = Json::array();
  for (const v1::BuildFileInfo& file : build.files()) json["files"].push_back(ToJson(file));
  json["layers"] = Json::array();
  for (const v1::LayerInfo& layer : build.layers()) json["layers"].push_back(ToJson(layer));
  return json;
}

bool PausedHere(const v1::BuildInfo& build) {
  return build.state() != "CACHED" && build.state() != "FETCHED";
}

std::string Describe(const v1::BuildInfo& build) {
  std::string text =
      absl::StrCat("build    ", build.build_id(), "\nstate    ", build.state(), "\n");
  if (!build.reason().empty()) absl::StrAppend(&text, "reason   ", build.reason(), "\n");
  if (build.upload_attempts() > 0) {
    absl::StrAppend(&text, "failed   ", build.upload_attempts(), " upload attempts\n");
  }
  if (build.memfile_size() > 0) {
    absl::StrAppend(&text, "memory   ", HumanByteSize(build.memfile_size()), "\n");
  }
  if (build.rootfs_size() > 0) {
    absl::StrAppend(&text, "rootfs   ", HumanByteSize(build.rootfs_size()), "\n");
  }
  if (!build.mount_path().empty()) absl::StrAppend(&text, "mounted  ", build.mount_path(), "\n");
  if (build.files_size() > 0) {
    const char* const no = PausedHere(build) ? "no" : "-";
    Table table({"FILE", "SIZE", "CRC32C", "IN BASE", "FROM PEER", "FROM BASE", "WASTED"});
    for (const v1::BuildFileInfo& file : build.files()) {
      table.AddRow({file.name(), HumanByteSize(file.size()),
                    file.has_crc32c() ? HexCrc32c(file.crc32c()) : "-", file.in_base() ? "yes" : no,
                    HumanByteSize(file.bytes_from_peer()), HumanByteSize(file.bytes_from_base()),
                    HumanByteSize(file.bytes_wasted())});
    }
    absl::StrAppend(&text, "\n", table.ToString());
  }
  if (build.layers_size() > 0) {
    Table table({"LAYER", "FILE", "MAPPED", "FROM PEER", "FROM BASE", "WASTED", "SOURCES"});
    for (const v1::LayerInfo& layer : build.layers()) {
      table.AddRow({layer.build_id(), layer.file(), HumanByteSize(layer.mapped_bytes()),
                    HumanByteSize(layer.bytes_from_peer()), HumanByteSize(layer.bytes_from_base()),
                    HumanByteSize(layer.bytes_wasted()),
                    layer.source_addresses().empty()
                        ? "base"
                        : absl::StrJoin(layer.source_addresses(), ", ")});
    }
    absl::StrAppend(&text, "\n", table.ToString(),
                    "read as zeros, without any source: ", HumanByteSize(build.bytes_zero()), "\n");
  }
  return text;
}

}  // namespace peerchunk::cli
