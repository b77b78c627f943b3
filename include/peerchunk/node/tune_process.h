#pragma once

namespace peerchunk {

// Sets what a process that serves or reads chunks needs to be quick, as peerchunkd does; without it
// everything works, slower. Called once, at the beginning of main: before there are other threads
// and before anything of gRPC is used.
//
//   malloc  glibc gives memory back and faults it in again all the time, which costs up to half of
//           the speed.
//   gRPC    With its epoll engine one thread at a time polls for all, and hands over what it finds:
//           a fault's read waits behind a bulk read's megabytes. GRPC_POLL_STRATEGY=poll lets each
//           queue poll for itself. One that is set already stays.
void TuneProcess();

}  // namespace peerchunk
