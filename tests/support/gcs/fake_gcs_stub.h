#pragma once

#include <memory>
#include <string>

#include "storage/gcs_core/gcs_stub.h"
#include "tests/support/gcs/fake_gcs.h"

namespace peerchunk::test {

// A channel to a FakeGcs in the same process, without gRPC. Its connection is named by the caller.
std::unique_ptr<GcsStub> MakeFakeGcsStub(FakeGcs& fake, std::string bucket, std::string connection);

}  // namespace peerchunk::test
