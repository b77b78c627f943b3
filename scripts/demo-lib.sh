# shellcheck shell=bash
# The stage hands of scripts/demo: nodes, the guest, figures, cleaning up. Sourced by it and by
# bench/guest, after lib.sh. Uses its `peerchunkd`, `peerchunk`, `cold_mib`.

guest_scripts=$root/scripts/guest
work=''                 # Everything is in here; removed at the end.
demo_began=0
declare -A node_pid=()  # By name: a, b, a2.
guest_pid=''            # Of run-guest, which ends QEMU when it is told to end.
relay_pid=''            # Of relay-until.
# The limits hold on a machine that does the reference work in this time, on all its cores at once,
# before the play and after it: one that is idle, and not much slower than a laptop.
readonly reference_limit_ms=600
reference_worst_ms=0
over_limits=()          # What took longer than promised.
ram_mib=0 pages_program=''
killed_at_bytes=0
# By source (peer, base, zero): what B had read at these moments, or by these fetches.
declare -A first=() second=() third=() changed=() alive=() killed=() end=() half=()

begin_demo() {
  demo_began=$(now_ms)
  work=$(mktemp -d "${TMPDIR:-/tmp}/peerchunk-demo.XXXXXX")
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  measure_machine
}

tell() { printf '%8s  %s\n' "$(elapsed "$demo_began")" "$*"; }
act() { printf '\n%8s  %s\n' "$(elapsed "$demo_began")" "== $*"; }

clean_up() {
  local status=$? name
  trap '' INT TERM HUP
  if ((status != 0 && status != 130 && status != 75)); then
    for name in "${!node_pid[@]}"; do
      [[ -s $work/$name.log ]] || continue
      echo "---- the end of what node $name logged:"
      tail -n 8 "$work/$name.log"
    done >&2
    if [[ -s $work/serial.log ]]; then
      echo "---- the end of the guest's serial port:"
      tail -n 5 "$work/serial.log"
    fi >&2
  fi
  stop_guest
  [[ -z $relay_pid ]] || kill -KILL "$relay_pid" 2>/dev/null || true
  # B first and gently: it has a mount.
  stop_node b
  for name in "${!node_pid[@]}"; do kill_node "$name"; done
  if mountpoint -q "$work/mnt" 2>/dev/null; then unmount "$work/mnt"; fi
  rm -rf "$work"
}

# A mount whose daemon is gone, whoever may still have files of it open.
unmount() { # FOLDER
  if ((EUID == 0)); then umount -l "$1"; else fusermount3 -uz "$1"; fi
}

# ---- What this machine can be asked for.

# Not by the load average, which remembers for minutes that something was built.
measure_machine() {
  local begin core workers=()
  begin=$(now_ms)
  for ((core = 0; core < $(nproc); core++)); do
    { for ((i = 0; i < 150000; i++)); do :; done; } &
    workers+=($!)
  done
  wait "${workers[@]}"
  local ms=$(($(now_ms) - begin))
  ((ms <= reference_worst_ms)) || reference_worst_ms=$ms
}
is_overloaded() { ((reference_worst_ms > reference_limit_ms)); }
how_loaded() {
  echo "the reference work took $reference_worst_ms ms (limit $reference_limit_ms), load $(cut -d' ' -f1 /proc/loadavg)"
}

# What a machine that is busy with something else may well miss: 75 there, a failure elsewhere.
too_slow() { # WHAT
  measure_machine
  is_overloaded || fail "$*"
  say "the machine was overloaded, this run says nothing: $* ($(how_loaded))" >&2
  exit 75
}

# A promise about time, kept or not; what was not is told at the end.
check_limit() { # WHAT MS LIMIT_MS
  (($2 <= $3)) || over_limits+=("$1 took $(seconds "$2"), not $(seconds "$3")")
}
judge_limits() {
  measure_machine
  ((${#over_limits[@]})) || return 0
  local over
  for over in "${over_limits[@]}"; do say "over its limit: $over"; done >&2
  is_overloaded || fail "too slow, on a machine that is idle ($(how_loaded))"
  say "not judged, as the machine was overloaded: $(how_loaded)"
}

# ---- Small things.

seconds() { printf '%d.%02d s' $(($1 / 1000)) $(($1 % 1000 / 10)); }
human() { awk -v b="$1" 'BEGIN {
  if (b < 1024) printf "%d B", b; else if (b < 1048576) printf "%.1f KiB", b / 1024
  else printf "%.1f MiB", b / 1048576 }'; }
new_build_id() { cat /proc/sys/kernel/random/uuid; }
bytes_in() { find "$@" -type f -printf '%s\n' | awk '{ sum += $1 } END { printf "%d", sum }'; } # FOLDER...
# The value of a Python expression over the JSON document `d` on stdin.
json() { python3 -c 'import json, sys; d = json.load(sys.stdin); print(eval(sys.argv[1]))' "$1"; }

# Runs a command again and again until it succeeds; fails when that takes too long.
await() { # SECONDS COMMAND [ARGUMENT...]
  local deadline=$(($(now_ms) + $1 * 1000))
  shift
  until "$@"; do
    (($(now_ms) < deadline)) || return 1
    sleep 0.05
  done
}

# As await, for as long as the base grows: an upload takes the time it takes.
await_upload() { # COMMAND [ARGUMENT...]
  local before=-1 bytes deadline=0
  until "$@"; do
    bytes=$(bytes_in "$work/base" 2>/dev/null) || true # Files are renamed meanwhile.
    if [[ $bytes != "$before" ]]; then
      before=$bytes deadline=$(($(now_ms) + 120000))
    fi
    (($(now_ms) < deadline)) || return 1
    sleep 0.1
  done
}

# ---- Nodes.

is_ready() { [[ -s $work/$1.ready ]] || ! kill -0 "${node_pid[$1]}" 2>/dev/null; }

start_node() { # NAME [FLAG OF peerchunkd...]
  local name=$1
  shift
  "$peerchunkd" --listen 127.0.0.1:0 --data-folder "$work/$name" --base "$work/base" \
    --ready-file "$work/$name.ready" "$@" </dev/null >"$work/$name.log" 2>&1 &
  node_pid[$name]=$!
  disown $! # Or the shell would report that it was killed.
  await 120 is_ready "$name" || fail "node $name did not start within 120 s"
  [[ -s $work/$name.ready ]] || fail "node $name did not start"
}

address_of() { head -n 1 "$work/$1.ready"; }
tool() { "$peerchunk" --control "$work/$1/control.sock" "${@:2}" </dev/null; }
is_durable() { [[ $(state_of "$@") == DURABLE ]]; } # NODE BUILD
state_of() { tool "$1" inspect "$2" --json | json 'd["state"]'; }
uploaded() { # NODE BUILD: its rootfs is in the base
  [[ $(tool "$1" inspect "$2" --json |
    json 'all(f["in_base"] for f in d["files"] if f["name"] == "rootfs.ext4")') == True ]]
}

has_ended() { ! kill -0 "$1" 2>/dev/null; }

kill_node() { # NAME
  local pid=${node_pid[$1]:-}
  unset "node_pid[$1]"
  [[ -n $pid ]] || return 0
  kill -KILL "$pid" 2>/dev/null || true
  await 5 has_ended "$pid" || true
}

stop_node() { # NAME
  local pid=${node_pid[$1]:-}
  [[ -n $pid ]] || return 0
  kill -TERM "$pid" 2>/dev/null || true
  await 8 has_ended "$pid" || true
  kill_node "$1"
}

# Makes a build of raw images, filesystem-only without a memfile; its files are then in $work/BUILD.
make_build() { # BUILD FOLDER_WITH_IMAGES [FLAG OF make-build...]
  local images=(--filesystem-only)
  [[ -e $2/memfile ]] && images=(--memfile "$2/memfile" --snapfile "$2/snapfile")
  "$peerchunk" make-build --build-id "$1" --out "$work/$1" --rootfs "$2/rootfs.ext4" "${images[@]}" \
    "${@:3}" >"$work/make-build.out"
}

# Images of no machine, which cannot be compressed.
make_images() { # FOLDER MIB
  mkdir "$1"
  head -c "${2}M" /dev/urandom >"$1/memfile"
  head -c 4M /dev/urandom >"$1/rootfs.ext4"
  head -c 300K /dev/urandom >"$1/snapfile"
}

# ---- What B read.

# Fills the array NAME with the bytes that B has read so far.
read_bytes() { # NAME
  local -n into=$1
  local sum='sum(int(m["value"]) for m in d["metrics"] if m["name"] == "peerchunk_source_bytes_total" and m["labels"]["source"] == "%s")'
  # shellcheck disable=SC2059
  read -r into[peer] into[base] < <(tool b status --json |
    json "str($(printf "$sum" peer)) + ' ' + str($(printf "$sum" base))")
  into[zero]=$(tool b inspect "$build" --json 2>/dev/null | json 'd["bytes_zero"]' 2>/dev/null || echo 0)
}

figures() { # NAME
  local -n of=$1
  echo "$(human "${of[peer]}") from A, $(human "${of[base]}") from the base, $(human "${of[zero]}") of zeros"
}
minus() { # BEFORE AFTER SOURCE
  local -n before=$1 after=$2
  echo $((after[$3] - before[$3]))
}
since() { # BEFORE AFTER
  echo "$(human "$(minus "$1" "$2" peer)") from A, $(human "$(minus "$1" "$2" base)") from the base"
}

same_files() { # FOLDER FOLDER
  diff -r "$1" "$2" >&2 || fail "the files in $2 are not those that A had"
}

# Fetches a build through B, compares every file, fills the array NAME.
fetch() { # BUILD NAME [SOURCE ADDRESS]
  local -n into=$2
  tool b fetch "$1" --source "${3:-$(address_of a)}" --out "$work/fetched-$2" --json >"$work/fetched-$2.json"
  read -r into[peer] into[base] into[zero] < <(
    json '"%d %d %d" % (d["bytes_from_peer"], d["bytes_from_base"], d["bytes_zero"])' <"$work/fetched-$2.json")
  same_files "$work/$1" "$work/fetched-$2"
}

# As fetch, from a node that is killed when half of the file has left it: a relay between the two
# counts, so that no load can make it miss the moment.
fetch_and_kill() { # BUILD NAME SOURCE_NODE
  local half_bytes
  half_bytes=$(($(stat -c %s "$work/$1/rootfs.ext4") / 2))
  scripts/relay-until "$half_bytes" "${node_pid[$3]}" "$(address_of "$3")" >"$work/relay" &
  relay_pid=$!
  await 60 test -s "$work/relay" || fail "the relay to $3 did not start"
  fetch "$1" "$2" "$(head -n 1 "$work/relay")"
  if ! await 10 has_ended "$relay_pid"; then
    too_slow "B turned to the base before half of the file had come from A: $(figures "$2")"
  fi
  wait "$relay_pid" || fail "the relay that was to kill A failed"
  relay_pid=''
  killed_at_bytes=$(sed -n 2p "$work/relay")
  kill_node "$3"
}

# ---- The guest.

why_no_guest() {
  if [[ $(uname -m) != x86_64 ]]; then
    echo "the guest is built for x86_64, this is $(uname -m)"
  elif ! command -v qemu-system-x86_64 >/dev/null; then
    echo "qemu-system-x86_64 is missing (apt-get install --no-install-recommends qemu-system-x86)"
  elif [[ ! -c /dev/fuse ]]; then
    echo "/dev/fuse is missing (in a container: --device /dev/fuse --cap-add SYS_ADMIN)"
  elif ((EUID != 0)) && ! command -v fusermount3 >/dev/null; then
    echo "mounting as a user needs fusermount3 (apt-get install --no-install-recommends fuse3)"
  elif [[ ! -r /dev/fuse || ! -w /dev/fuse ]]; then
    echo "/dev/fuse is not for this user"
  fi
}

make_snapshot() {
  tell "making a snapshot of a real machine: a Debian kernel under QEMU, 256 MiB of memory, two generations"
  local status=0
  "$guest_scripts/make-snapshot" --out "$work/snapshot" --generations 2 --cold "$cold_mib" \
    2>"$work/snapshot.log" || status=$?
  case $status in
    0)
      tell "$(sed -n 's/^make-snapshot: //p' "$work/snapshot.log" | tail -n 1)"
      ram_mib=$(sed -n 's/^ram_mib=//p' "$work/snapshot/layout")
      # Compiled by the guest's own scripts, whose functions have the names of ours.
      pages_program=$(bash -c '. "$0/lib.sh"; program pages' "$guest_scripts")
      ;;
    77) sed 's/^/          /' "$work/snapshot.log"; return 1 ;;
    *) cat "$work/snapshot.log" >&2; fail "the snapshot could not be made" ;;
  esac
}

start_guest() { # [FOLDER WITH ITS FILES]
  local files=${1:-$work/mnt}
  "$guest_scripts/run-guest" --memfile "$files/memfile" --rootfs "$files/rootfs.ext4" \
    --snapfile "$files/snapfile" --serial-log "$work/serial.log" --serial-in "$work/serial.in" \
    --monitor "$work/monitor" --pidfile "$work/qemu.pid" >"$work/run-guest.log" 2>&1 &
  guest_pid=$!
}

stop_guest() {
  [[ -n $guest_pid ]] || return 0
  kill -TERM "$guest_pid" 2>/dev/null || true
  { wait "$guest_pid" || true; } 2>/dev/null
  guest_pid=''
}

await_guest() { # SECONDS TICK, or SECONDS --cold MIB
  local options=()
  if [[ $2 == --cold ]]; then
    options=(--cold)
    set -- "$1" "$3"
  fi
  "$guest_scripts/wait-tick" "${options[@]}" "$work/serial.log" "$2" "$1" "$guest_pid" || {
    cat "$work/run-guest.log" >&2
    fail "the guest on B is not well"
  }
}

last_tick() { sed -n 's/^TICK \([0-9]*\) .*/\1/p' "$work/serial.log" | tail -n 1; }
cold_done() { sed -n 's/^TICK .* COLD done=\([0-9]*\) .*/\1/p' "$work/serial.log" | tail -n 1; }

# Pages of the memfile that the guest has in its page tables.
touched_pages() {
  "$pages_program" mapped "$(<"$work/qemu.pid")" "$work/mnt/memfile" 0 "$ram_mib" | cut -d' ' -f1
}

# No tick is missing, nothing was wrong, the whole cold region was checked.
check_guest() { # FIRST_TICK COLD_MIB
  local found
  found=$("$guest_scripts/check-ticks" "$work/serial.log" "$1") || fail "$found"
  grep -q "COLD done=$2 of=$2 bad=0" "$work/serial.log" || fail "the cold memory was not checked to its end"
  echo "$found: none missing, bad=0"
}

# ---- The end.

row() { printf '  %-44s %s\n' "$1" "$2"; }

final_table() {
  printf '\n'
  row "pause on A" "$(seconds "$pause_ms")"
  if [[ -z $no_guest ]]; then
    row "time to the first tick on B" "$(seconds "$first_tick_ms")"
  else
    row "time until B had every file" "$(seconds "$first_tick_ms")"
  fi
  row "waiting for the upload would have cost" "$(seconds "$waiting_ms") ($((waiting_ms / first_tick_ms)) times as much), and then the reading"
  printf '\n  %-30s %12s %12s %12s\n' "bytes read by B" "peer (A)" base zero
  if [[ -z $no_guest ]]; then
    byte_row "until the first tick" "${first[peer]}" "${first[base]}" "${first[zero]}"
    byte_row "until the change-over" "${changed[peer]}" "${changed[base]}" "${changed[zero]}"
  else
    byte_row "at once, during the upload" "${first[peer]}" "${first[base]}" "${first[zero]}"
  fi
  byte_row "from then until A's death" "$(minus changed killed peer)" "$(minus changed killed base)" "$(minus changed killed zero)"
  byte_row "after A's death" "$(minus killed end peer)" "$(minus killed end base)" "$(minus killed end zero)"
  byte_row "fetch, A killed at half" "${half[peer]}" "${half[base]}" "${half[zero]}"
  printf '\n'
  if [[ -z $no_guest ]]; then
    row "memory that the guest touched" "$(percent "$touched_first" $((ram_mib * 256))) until the first tick, $(percent "$touched" $((ram_mib * 256))) in all"
    row "memory that B fetched" "$(percent "$(fetched_memory)" $((ram_mib << 20))) (in chunks of $chunk_size; the rest: zeros, never touched)"
    row "the guest on B" "$ticks"
  fi
}

byte_row() { printf '  %-30s %12s %12s %12s\n' "$1" "$(human "$2")" "$(human "$3")" "$(human "$4")"; }
percent() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.1f %%", 100 * a / b }'; }
fetched_memory() {
  tool b inspect "$build" --json |
    json 'sum(l["bytes_from_peer"] + l["bytes_from_base"] for l in d["layers"] if l["file"] == "memfile")'
}
