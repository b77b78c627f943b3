#!/usr/bin/env bash
# use_installed_package.sh CMAKE BUILD_DIR CONSUMER_DIR CXX: installs BUILD_DIR into a temporary
# prefix, builds the consumer against it with find_package(peerchunk) and runs it.
set -euo pipefail
cmake=$1 build=$2 consumer=$3 cxx=$4

work=$(mktemp -d "${TMPDIR:-/tmp}/peerchunk-install.XXXXXX")
trap 'rm -rf "$work"' EXIT

DESTDIR='' "$cmake" --install "$build" --prefix "$work/prefix" >"$work/install.log" ||
  { cat "$work/install.log"; exit 1; }
# Only what is installed can be found: no path of this tree is given.
"$cmake" -S "$consumer" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Debug \
  -DCMAKE_CXX_COMPILER="$cxx" -DCMAKE_PREFIX_PATH="$work/prefix"
"$cmake" --build "$work/build" -j 2
if grep -rl "$build" "$work"/prefix/lib*/cmake/peerchunk "$work"/prefix/lib*/*/cmake/peerchunk 2>/dev/null; then
  echo "the installed package names the build folder"
  exit 1
fi
for program in consumer header_consumer; do
  TMPDIR=$work "$work/build/$program"
done
