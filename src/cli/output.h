#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "peerchunk/v1/sandbox_service.pb.h"

namespace peerchunk::cli {

using Json = nlohmann::ordered_json;

// Columns that line up, for people.
class Table {
 public:
  explicit Table(std::vector<std::string> headings) { rows_.push_back(std::move(headings)); }
  void AddRow(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  std::string ToString() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

void Print(const std::string& text);
void PrintJson(const Json& json);  // Indented, with a newline.

std::string HexCrc32c(uint32_t crc32c);
Json ToJson(const v1::BuildInfo& build);
// False of a build that was only resumed (CACHED) or copied (FETCHED) on the daemon's node: what
// the base has of it is the business of the node that paused it.
bool PausedHere(const v1::BuildInfo& build);
// The build's files and layers as tables.
std::string Describe(const v1::BuildInfo& build);

}  // namespace peerchunk::cli
