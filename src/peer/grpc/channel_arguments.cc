#include "peer/grpc/channel_arguments.h"

#include "peer/wire/wire.h"

namespace peerchunk {

grpc::ChannelArguments PeerChannelArguments(PeerLane lane, absl::Duration idle_timeout) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt("peerchunk.lane", static_cast<int>(lane));
  // A peer that comes back is to be found again soon; who may dial when is the breaker's business.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  arguments.SetInt(GRPC_ARG_CLIENT_IDLE_TIMEOUT_MS,
                   static_cast<int>(absl::ToInt64Milliseconds(idle_timeout)));
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  // gRPC's own retries would hide failures from the source selection.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  return arguments;
}

}  // namespace peerchunk
