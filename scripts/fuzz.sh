#!/bin/bash
# Runs every fuzz target of the module, one after the other, each for the given time (go's words:
# 30s, 5m, 1000x). New inputs that fail are written to the package's testdata/fuzz.
#   fuzz.sh TIME [PACKAGE...]
set -u
time=$1
shift
failed=()
for package in $(go list "${@:-./...}"); do
  # Without -run none of the tests run; the listing compiles the package's tests.
  for target in $(go test -list '^Fuzz' "$package" | grep '^Fuzz'); do
    echo "== $package $target ($time)"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 5x "$package" || failed+=("$package.$target")
  done
done
[ ${#failed[@]} -eq 0 ] || { printf 'failed: %s\n' "${failed[@]}"; exit 1; }
