#!/usr/bin/env bash
# expect_race.sh PROGRAM: the program (race.cc) must pass with its lock and fail without it, by a
# report of ThreadSanitizer.
set -u

if ! "$1" locked; then
  echo "correct code was reported as a race"
  exit 1
fi
report=$("$1" racy 2>&1)
status=$?
if ((status == 0)) || [[ $report != *"ThreadSanitizer: data race"* ]]; then
  printf 'the race was not reported (status %s):\n%s\n' "$status" "$report"
  exit 1
fi
echo "the race was reported, status $status"
