#!/usr/bin/env bash
# use_installed_package.sh CMAKE BUILD_DIR CONSUMER_DIR CXX WITH_MOUNT: installs BUILD_DIR into a
# temporary prefix, builds the consumer against it with find_package(peerchunk) and runs it.
set -euo pipefail
cmake=$1 build=$2 consumer=$3 cxx=$4 with_mount=$5

work=$(mktemp -d "${TMPDIR:-/tmp}/peerchunk-install.XXXXXX")
trap 'rm -rf "$work"' EXIT

DESTDIR='' "$cmake" --install "$build" --prefix "$work/prefix" >"$work/install.log" ||
  { cat "$work/install.log"; exit 1; }
# Only what is installed can be found: no path of this tree is given.
configure() { # FOLDER
  "$cmake" -S "$consumer" -B "$1" -G Ninja -DCMAKE_BUILD_TYPE=Debug \
    -DCMAKE_CXX_COMPILER="$cxx" -DCMAKE_PREFIX_PATH="$work/prefix" -DEXPECT_MOUNT="$with_mount"
}
configure "$work/build"
"$cmake" --build "$work/build" -j 2
if grep -rl "$build" "$work"/prefix/lib*/cmake/peerchunk "$work"/prefix/lib*/*/cmake/peerchunk 2>/dev/null; then
  echo "the installed package names the build folder"
  exit 1
fi
if [[ $with_mount == ON ]]; then
  # A package with the mount names what is missing on a machine without libfuse3.
  mkdir "$work/pkgconfig"
  for folder in $(pkg-config --variable pc_path pkg-config | tr : ' '); do
    [[ ! -d $folder ]] || find "$folder" -name '*.pc' ! -name fuse3.pc -exec ln -sf -t "$work/pkgconfig" {} +
  done
  if PKG_CONFIG_LIBDIR=$work/pkgconfig PKG_CONFIG_PATH='' configure "$work/without" >"$work/without.log" 2>&1; then
    echo "the package was found complete without libfuse3"
    exit 1
  fi
  grep -q fuse3 "$work/without.log" || { cat "$work/without.log"; exit 1; }
fi
for program in consumer header_consumer; do
  TMPDIR=$work "$work/build/$program"
done
