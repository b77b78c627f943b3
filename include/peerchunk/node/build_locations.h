#pragma once

#include <string>
#include <vector>

#include "peerchunk/base/build_id.h"

namespace peerchunk {

// Where builds lie, as far as someone else knows than the caller who resumes one: the place for a
// directory that all nodes share. What a Resume names is kept by the node itself and comes first.
// Given to a node in its options; called from any thread, and may block as long as a look-up takes.
class BuildLocations {
 public:
  virtual ~BuildLocations() = default;

  // Addresses ("10.1.2.3:7070") of nodes that may have the build, the likeliest first; empty: not
  // known. A hint: an address that the node's policy refuses is left out, one that is wrong costs
  // what a dead peer costs.
  virtual std::vector<std::string> AddressesOf(const BuildId& build) = 0;

  // The build is served at these addresses of this node: it was paused here, or found at start.
  virtual void Add(const BuildId& build, const std::vector<std::string>& addresses) = 0;
  // This node was told to delete it. What is evicted is durable, and is read from the base.
  virtual void Remove(const BuildId& build, const std::vector<std::string>& addresses) = 0;
};

}  // namespace peerchunk
