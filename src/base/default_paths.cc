#include "base/default_paths.h"

#include <pwd.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <system_error>

namespace peerchunk {

std::string DefaultDataFolder() {
  if (geteuid() == 0) return "/var/lib/peerchunk";
  if (const char* const state = std::getenv("XDG_STATE_HOME"); state != nullptr && *state == '/') {
    return std::string(state) + "/peerchunk";
  }
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home != '/') {
    const passwd* const user = getpwuid(geteuid());
    home = user != nullptr ? user->pw_dir : "/tmp";
  }
  return std::string(home) + "/.local/state/peerchunk";
}

std::string ControlSocketIn(const std::string& data_folder) {
  return data_folder + "/control.sock";
}

std::string AbsolutePath(const std::string& path) {
  if (path.empty()) return path;
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  if (error) return path;
  const std::filesystem::path normal = absolute.lexically_normal();
  // "/a/" has an empty file name; so has "/", whose parent it is itself.
  return normal.has_filename() ? normal.string() : normal.parent_path().string();
}

}  // namespace peerchunk
