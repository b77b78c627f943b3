#pragma once

#include <string>

namespace peerchunk {

// Where peerchunkd keeps builds when nobody says otherwise: /var/lib/peerchunk for root,
// $XDG_STATE_HOME/peerchunk or ~/.local/state/peerchunk for anyone else.
std::string DefaultDataFolder();

// The control socket of the daemon that uses this data folder.
std::string ControlSocketIn(const std::string& data_folder);

// An operator's path as an absolute one, taken from the working folder where it is relative, and
// without a slash at its end: one folder, one path. Empty stays empty.
std::string AbsolutePath(const std::string& path);

}  // namespace peerchunk
