#pragma once

namespace peerchunk {

// For programs that move chunks all the time; called once, before there are other threads. glibc
// gives memory back and faults it in again all the time, which costs up to half of their speed.
void TuneMalloc();

}  // namespace peerchunk
