#!/bin/bash
# Removes the networks that package hosts made.
#   reap.sh now   PREFIX        guests, processes and namespaces whose names begin with PREFIX
#   reap.sh watch PREFIX DIR    the same and the directory, as soon as the standard input ends:
#                               that is when the test process that started this one has died
set -u
. "$(dirname "$0")/../peers/lib.sh"
case $1 in
now) net_cleanup "$2" ;;
watch)
  cat >/dev/null
  net_cleanup "$2"
  rm -rf "$3"
  ;;
esac
