# shellcheck shell=bash
# What the demo and other shell scripts need of network namespaces. Source it.
#
# Everything a script makes is named cw<pid>-TAG; net_cleanup removes all of it: guests,
# processes, namespaces (and with them the interfaces), and the run directory $CW_RUN.

CW_PEERS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CW_ID=cw$$
export CW_RUN=/tmp/causeway-$$
export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin

# ns TAG prints the name of a namespace.
ns() { echo "$CW_ID-$1"; }

# in_ns TAG COMMAND... runs a command in a namespace.
in_ns() {
  local tag=$1
  shift
  ip netns exec "$CW_ID-$tag" "$@"
}

# mkns TAG makes a namespace. Duplicate address detection is off, as IPv6 addresses
# must work at once; there is nobody to collide with.
mkns() {
  ip netns add "$(ns "$1")" || return
  ip -n "$(ns "$1")" link set lo up
  in_ns "$1" sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
}

# mkveth TAG-A IF-A TAG-B IF-B makes a veth pair that carries packets as a wire would:
# full checksums, no segments larger than the MTU, VLAN tags in the frame.
mkveth() {
  ip -n "$(ns "$1")" link add name "$2" type veth peer name "$4" netns "$(ns "$3")" &&
    as_wire "$1" "$2" && as_wire "$3" "$4"
}

as_wire() {
  in_ns "$1" ethtool -K "$2" tx off rx off sg off tso off gso off gro off txvlan off >/dev/null &&
    ip -n "$(ns "$1")" link set dev "$2" up
}

# kill_ns NETNS ends every process of a namespace: deleting a namespace does not. Found by
# namespace, never by name; asked first, so that a daemon can detach, then made to.
kill_ns() {
  local pids
  pids=$(ip netns pids "$1" 2>/dev/null)
  [ -n "$pids" ] || return 0
  # shellcheck disable=SC2086 # a list of numbers
  kill $pids 2>/dev/null
  for _ in $(seq 50); do
    [ -n "$(ip netns pids "$1" 2>/dev/null)" ] || return 0
    sleep .02
  done
  pids=$(ip netns pids "$1" 2>/dev/null)
  # shellcheck disable=SC2086
  [ -z "$pids" ] || kill -9 $pids 2>/dev/null
  return 0
}

# net_cleanup PREFIX removes every guest and namespace whose name begins with PREFIX.
net_cleanup() {
  local x
  for x in /tmp/causeway-uml/"$1"*; do
    [ ! -d "$x" ] || "$CW_PEERS/uml.sh" stop "${x##*/}"
  done
  for x in /run/netns/"$1"*; do
    [ -e "$x" ] || continue
    kill_ns "${x##*/}"
    ip netns del "${x##*/}"
  done
}
