# shellcheck shell=bash
# What the scripts of this folder share. Sourced, never run. They work from any folder, as root or
# with sudo at hand, with or without a terminal.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

now_ms() { local t=${EPOCHREALTIME//[.,]/}; echo $((t / 1000)); }
started_ms=$(now_ms)

# "12.3 s" since a time of now_ms, or since the script began.
elapsed() { # [MS]
  local ms=$(($(now_ms) - ${1:-$started_ms}))
  printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100))
}

say() { printf '%s: %s\n' "${0##*/}" "$*"; }
fail() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# Runs a command and says what it was for and how long it took. Its output is shown on a terminal as
# it comes; elsewhere only when it fails.
step() { # WHAT COMMAND [ARGUMENT...]
  local what=$1 begin log status=0
  shift
  begin=$(now_ms)
  if [[ -t 1 ]]; then
    say "$what ..."
    "$@" </dev/null || status=$?
  else
    log=$(mktemp "${TMPDIR:-/tmp}/peerchunk-step.XXXXXX")
    "$@" </dev/null >"$log" 2>&1 || status=$?
    ((status == 0)) || cat "$log" >&2
    rm -f "$log"
  fi
  if ((status == 0)); then
    say "$what: $(elapsed "$begin")"
  else
    say "$what: FAILED after $(elapsed "$begin")" >&2
  fi
  return "$status"
}

jobs=${PEERCHUNK_JOBS:-$(nproc)}

# Configures build/PRESET, with ccache when it is there.
configure_preset() { # PRESET
  if command -v ccache >/dev/null; then
    export CMAKE_C_COMPILER_LAUNCHER=ccache CMAKE_CXX_COMPILER_LAUNCHER=ccache
    # Paths are taken relative to the tree, so that objects of one clone serve another one too.
    export CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1 CCACHE_SLOPPINESS=pch_defines,time_macros
  fi
  step "configure $1" cmake --preset "$1"
}

build_preset() { # PRESET [TARGET...]
  local preset=$1 quiet=()
  shift
  [[ -t 1 ]] || quiet=(-- --quiet)
  step "build $preset${*:+ ($*)}" cmake --build --preset "$preset" -j "$jobs" \
    ${1:+--target "$@"} "${quiet[@]}"
}

# Runs the tests of build/PRESET; what was run stays in build/PRESET/ctest.xml.
test_preset() { # PRESET [CTEST ARGUMENT...]
  local preset=$1
  shift
  ctest --preset "$preset" -j "$jobs" --output-junit ctest.xml "$@" </dev/null
}
