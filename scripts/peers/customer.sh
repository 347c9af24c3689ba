#!/bin/bash
# A customer's router to talk to: a real Linux kernel (uml.sh) behind interfaces that the
# caller has made, with its own GRE, routing and TCP.
#
#   customer.sh up   NAME NETNS IFACE[,IFACE2...] [MEMORY]
#       Each IFACE is an interface of NETNS without an address (one end of a veth); it is bridged
#       to a tap of the guest. In the guest they are vec0, vec1..., with the same MTU. About 3 s.
#   customer.sh addr NAME DEV ADDR/LEN[,ADDR6/LEN] [GATEWAY[,GATEWAY6]]
#   customer.sh gre  NAME DEV LOCAL REMOTE INNER/LEN[,INNER6/LEN] [ip-link words: key 42 | seq | csum | nopmtudisc]
#       LOCAL and REMOTE in IPv6 make an ip6gre device, with the destination option (tunnel
#       encapsulation limit) that Linux puts before GRE, unless the words say `encaplimit none`.
#   customer.sh sh   NAME 'shell text'       anything in the guest: ping, iperf3, tcpdump, ip -s link
#   customer.sh down NAME
set -u
here=$(cd "$(dirname "$0")" && pwd)
cmd=${1:-} name=${2:-}

in_guest() { "$here/uml.sh" exec "$name" "$1"; }

# addresses DEV LIST prints the commands that give DEV the addresses of a comma-separated list.
addresses() {
  local a
  for a in ${2//,/ }; do
    case $a in
    *:*) echo "ip -6 addr add $a dev $1 nodad || exit;" ;;
    *) echo "ip addr add $a dev $1 || exit;" ;;
    esac
  done
}

# bridge NETNS IFACE TAP BRIDGE: a tap that carries what IFACE carries. No learning delay, and
# no multicast snooping, which would hold back neighbour discovery.
bridge() {
  local mtu i
  in_netns=(ip netns exec "$1")
  "${in_netns[@]}" ethtool -K "$2" tx off rx off sg off tso off gso off gro off txvlan off >/dev/null 2>&1
  mtu=$("${in_netns[@]}" cat "/sys/class/net/$2/mtu") || return
  ip -n "$1" link add "$4" mtu "$mtu" type bridge forward_delay 0 mcast_snooping 0 &&
    ip -n "$1" tuntap add "$3" mode tap &&
    ip -n "$1" link set dev "$3" mtu "$mtu" master "$4" &&
    ip -n "$1" link set dev "$2" master "$4" || return
  for i in "$2" "$3" "$4"; do ip -n "$1" link set dev "$i" up || return; done
}

up() {
  local netns=$1 ifaces=$2 memory=${3:-} taps="" mtus="" k=0 hash i
  # Interface names hold 15 characters; a hash keeps guests of one namespace apart.
  hash=$(printf %s "$name" | cksum | cut -d' ' -f1)
  for i in ${ifaces//,/ }; do
    bridge "$netns" "$i" "t$k$hash" "b$k$hash" || exit 1
    taps=$taps${taps:+,}t$k$hash
    mtus="$mtus ip link set vec$k mtu $(ip netns exec "$netns" cat "/sys/class/net/$i/mtu");"
    k=$((k + 1))
  done
  "$here/uml.sh" start "$name" "$netns" "$taps" "$memory" && in_guest "$mtus"
}

gre() {
  local dev=$1 loc=$2 rem=$3 inner=$4 type=gre
  shift 4
  case $loc in *:*) type=ip6gre ;; esac
  in_guest "ip link add $dev type $type local $loc remote $rem ttl 64 $* || exit
    $(addresses "$dev" "$inner") ip link set $dev up"
}

addr() {
  local dev=$1 g routes=""
  for g in ${3//,/ }; do
    case $g in
    *:*) routes="$routes ip -6 route add default via $g || exit;" ;;
    *) routes="$routes ip route add default via $g || exit;" ;;
    esac
  done
  in_guest "$(addresses "$dev" "$2") $routes"
}

usage() {
  [ -z "${1:-}" ] || echo "customer.sh: $1" >&2
  sed -n '5,13s/^# //p' "$0" >&2
  exit 2
}

case $cmd in
up | gre | addr | sh | down) ;;
"") usage "a command is missing" ;;
*) usage "unknown command $cmd" ;;
esac
# How many words each takes at the least and at the most, the command among them.
declare -A least=([up]=4 [addr]=4 [gre]=6 [sh]=3 [down]=2) most=([up]=5 [addr]=5 [gre]=99 [sh]=3 [down]=2)
if [ $# -lt "${least[$cmd]}" ] || [ $# -gt "${most[$cmd]}" ]; then
  usage "$cmd: too few or too many arguments"
fi
[ "$(id -u)" = 0 ] || { echo "customer.sh: needs root: it works in network namespaces" >&2; exit 1; }

case $cmd in
up) up "$3" "$4" "${5:-}" ;;
addr) addr "$3" "$4" "${5:-}" ;;
gre) shift 2; gre "$@" ;;
sh) in_guest "$3" ;;
# The bridges and taps go with the namespace they are in.
down) "$here/uml.sh" stop "$name" ;;
esac
