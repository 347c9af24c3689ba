#!/bin/bash
# The demo's router, watching its nodes: asks each node's daemon ten times a second whether its
# workers poll. Two misses take the node's route away, one hit brings it back. Runs in the router's
# namespace and prints what it does, with the time in milliseconds.
#   demo-probe.sh NODE...       NODE i is 172.31.i.1, its route is the default route of table 10i
set -u
declare -A misses
for i in "$@"; do misses[$i]=0; done

# The daemon is asked, not the host: its kernel goes on answering pings when the daemon is dead.
ready() { curl --silent --fail --max-time .5 --output /dev/null "http://172.31.$1.1:9150/readyz"; }

while sleep .1; do
  for i in "$@"; do
    if ready "$i"; then
      [ "${misses[$i]}" -lt 2 ] || echo "$(date +%s%3N) in $i"
      [ "${misses[$i]}" -lt 2 ] || ip route replace default via "172.31.$i.1" table "10$i"
      misses[$i]=0
    else
      misses[$i]=$((misses[$i] + 1))
      [ "${misses[$i]}" != 2 ] || { ip route delete default table "10$i" && echo "$(date +%s%3N) out $i"; }
    fi
  done
done
