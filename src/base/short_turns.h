#pragma once

namespace peerchunk {

// For a thread that somebody waits for whenever it has something to do, on a machine whose cores
// have others to run: asks the scheduler for short turns. Linux gives a thread that wakes up the
// core at once if its turns are shorter than those of the one that runs there, which else goes on
// to the end of its own, 3 ms or more. Its share of the core stays what it was.
//
// For the calling thread, and for those that it starts afterwards. Needs no privilege. Before Linux
// 6.12, where turns are alike for all, nothing changes.
void PreferShortTurns();

}  // namespace peerchunk
