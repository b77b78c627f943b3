#pragma once

#include <absl/time/time.h>
#include <grpcpp/support/channel_arguments.h>

#include "peerchunk/peer/grpc_connector.h"

namespace peerchunk {

// Of a channel to a peer for this lane. What is not named here keeps gRPC's default, which is what
// was measured to be best: BDP probing off alone took a third of the speed.
grpc::ChannelArguments PeerChannelArguments(PeerLane lane, absl::Duration idle_timeout);

}  // namespace peerchunk
