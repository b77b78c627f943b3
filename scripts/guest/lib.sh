# shellcheck shell=bash
# What the scripts of this folder share. Sourced, never run. The machine is described here and only
# here: a snapshot can be resumed by the same machine alone.

guest_source=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly guest_source
cache=${PEERCHUNK_GUEST_CACHE:-${guest_source%/scripts/guest}/.cache/guest}

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
fail() { say "$*"; exit 1; }
# 77 is what test runners take for "skipped".
cannot() { say "cannot run here: $*"; exit 77; }

require_tool() { # TOOL PACKAGE
  command -v "$1" >/dev/null || cannot "$1 is missing (apt-get install --no-install-recommends $2)"
}

require_qemu() {
  [[ $(uname -m) == x86_64 ]] || cannot "the guest is built for x86_64, this is $(uname -m)"
  require_tool qemu-system-x86_64 qemu-system-x86
  require_tool gcc "gcc libc6-dev"
}

now_ms() { local t=${EPOCHREALTIME//[.,]/}; echo $((t / 1000)); }

# Prints the path of a program of this folder, compiled if its source is newer.
program() { # NAME
  local binary=$cache/bin/$1 source=$guest_source/$1.c
  if [[ ! $binary -nt $source || ! $binary -nt $guest_source/pattern.h ]]; then
    mkdir -p "$cache/bin"
    gcc -std=gnu11 -O2 -Wall -Wextra -static -o "$binary.$$" "$source" || fail "cannot compile $source"
    mv "$binary.$$" "$binary"
  fi
  echo "$binary"
}

# Starts QEMU in the background and sets qemu_pid. The serial port writes to a file, which loses no
# byte whoever listens, and reads from a FIFO; "-chardev pipe" takes both by their names.
start_qemu() { # MEMFILE SHARE ROOTFS SERIAL_LOG SERIAL_IN MONITOR PIDFILE [QEMU ARGUMENT...]
  local memfile=$1 share=$2 rootfs=$3 log=$4 input=$5 monitor=$6 pidfile=$7
  shift 7
  local bytes launcher links
  bytes=$(stat -L -c %s "$memfile") || fail "cannot read $memfile"
  ((bytes > 0 && bytes % 1048576 == 0)) || fail "$memfile: $bytes bytes is no whole number of MiB"
  launcher=$(program launcher)
  program monitor >/dev/null
  links=$(mktemp -d "${TMPDIR:-/tmp}/guest-serial.XXXXXX")
  [[ -p $input ]] || mkfifo "$input"
  : >"$log"
  ln -s "$(realpath "$input")" "$links/serial.in"
  ln -s "$(realpath "$log")" "$links/serial.out"
  serial_links=$links qemu_monitor=$monitor
  rm -f "$monitor"
  "$launcher" qemu-system-x86_64 \
    -nodefaults -no-user-config -no-reboot -display none \
    -M pc,usb=off,vmport=off,memory-backend=ram0 -cpu qemu64 -accel tcg -smp 1 -m "${bytes}B" \
    -object "memory-backend-file,id=ram0,size=$bytes,mem-path=${memfile//,/,,},share=$share" \
    -blockdev "driver=file,node-name=disk-file,filename=${rootfs//,/,,}" \
    -blockdev driver=raw,node-name=disk,file=disk-file \
    -device virtio-blk-pci,id=vda,drive=disk \
    -chardev "pipe,id=serial,path=${links//,/,,}/serial" -serial chardev:serial \
    -chardev "socket,id=monitor,path=${monitor//,/,,},server=on,wait=off" \
    -mon chardev=monitor,mode=control \
    "$@" </dev/null &
  qemu_pid=$!
  echo "$qemu_pid" >"$pidfile"
}

# Ends the QEMU of start_qemu, if it runs, and removes what start_qemu made. Asks first: a QEMU that
# is told by a signal says so on the terminal.
stop_qemu() { # PIDFILE
  if [[ -n ${qemu_pid:-} ]]; then
    timeout 2 "$cache/bin/monitor" "$qemu_monitor" "$qemu_pid" quit 2>/dev/null ||
      kill -TERM "$qemu_pid" 2>/dev/null || true
    for _ in {1..50}; do
      kill -0 "$qemu_pid" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL "$qemu_pid" 2>/dev/null || true
    wait "$qemu_pid" 2>/dev/null || true
    qemu_pid=
  fi
  rm -rf "${serial_links:-}"
  rm -f "$1"
}
