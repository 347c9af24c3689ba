#!/bin/bash
# The demo (make demo): two Causeway nodes answer on one anycast address, a router spreads over them
# packet by packet, and the customer's router is a real Linux kernel with its own GRE.
#
#   inet 192.0.2.10 --- rt --+-- n1 172.31.1.1   both answer on 203.0.113.1
#                            +-- n2 172.31.2.1
#                            +-- customer 198.51.100.2 (GRE to 203.0.113.1) --- srv 198.18.5.10
#
# Later the same router also has an IPsec tunnel to n1 alone (203.0.113.2), for the server's other
# address 198.18.6.10: keys by hand belong to one node.
#
# Everything runs in network namespaces of this machine and is removed at the end, also after Ctrl-C.
# Needs root, bin/causeway and the packages of deps.sh. Exit status 0: all was as it should be.
set -u
. "$(dirname "$0")/peers/lib.sh"
cd "$(dirname "$0")/.." || exit

anycast=203.0.113.1 inet=192.0.2.10 srv=198.18.5.10 size=200000000
mss=1436 # what GRE leaves of a 1500-byte path: 1500 - 24 (outer IPv4, GRE) - 40 (inner IPv4, TCP)
guest=$CW_ID-customer
faults=0
stopped=  # by Ctrl-C

# The IPsec tunnel: n1's endpoint, the server's address behind it, and what ESP with AES-128-GCM leaves of a 1500-byte path.
secure=203.0.113.2 srv6=198.18.6.10 esp_mtu=1446
exec 3>&1 # which may come while the output goes to a file

# --- what the demo says ---------------------------------------------------------------------------

say() { printf '\n%3d s  %s\n' "$SECONDS" "$*"; }
show() { sed 's/^/       /'; }
fault() { faults=$((faults + 1)); printf '       NOT AS IT SHOULD BE: %s\n' "$*"; }
now() { date +%s%3N; } # milliseconds

# run waits for a long command in a way that Ctrl-C can interrupt: a trap of bash waits for a command
# in the foreground, but not for wait.
run() { "$@" <&0 & wait $!; } # without <&0 the command would read /dev/null

# --- the network ----------------------------------------------------------------------------------

network() {
  local tag
  for tag in inet rt n1 n2 cust srv; do mkns "$tag" || return; done
  mkveth inet eth0 rt vi && mkveth rt v1 n1 up0 && mkveth rt v2 n2 up0 &&
    mkveth rt vc cust up0 && mkveth cust down0 srv eth0 || return
  address inet eth0 $inet/24 192.0.2.1
  address srv eth0 $srv/24 198.18.5.1
  address rt vi 192.0.2.1/24
  address rt vc 198.51.100.1/24
  in_ns rt sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0 \
    net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
  node 1 && node 2 && spray && run customer
}

# address TAG INTERFACE ADDRESS/LENGTH [GATEWAY]
address() {
  ip -n "$(ns "$1")" addr add "$3" dev "$2"
  [ -z "${4:-}" ] || ip -n "$(ns "$1")" route add default via "$4"
}

# node I gives a node its addresses and its configuration. It has one port: packets of the Internet and
# of tunnels come and go by up0.
node() {
  address rt "v$1" "172.31.$1.254/24"
  address "n$1" up0 "172.31.$1.1/24" "172.31.$1.254"
  address "n$1" lo $anycast/32
  cat >"$CW_RUN/n$1.yaml" <<YAML
node: {name: n$1}
interfaces: [{name: up0}]
workers: {busy_poll: false}
endpoints: [$anycast]
tunnels:
  - name: customer
    endpoint: $anycast
    customer_endpoint: 198.51.100.2
    interface_address: 10.213.0.10/31
    prefixes: [198.18.5.0/24]
metrics: {listen: "172.31.$1.1:9150"}
control: {socket: $CW_RUN/n$1.sock}
YAML
}

# ipsec gives n1 and the customer's router the same keys. n1 learns of the tunnel by a reload.
ipsec() {
  local name keys=()
  for name in in out; do
    keys+=("$(head -c 20 /dev/urandom | od -An -v -tx1 | tr -d ' \n')")
    (umask 077 && echo "${keys[-1]}" >"$CW_RUN/key.$name")
  done
  address n1 lo $secure/32
  ip -n "$(ns rt)" route add $secure via 172.31.1.1
  ip -n "$(ns rt)" route add ${srv6%.*}.0/24 via 172.31.1.1
  in_ns rt nft -f - <<NFT
table ip watch {
  chain through {
    type filter hook forward priority 0; policy accept;
    iifname "vc" ip saddr 198.51.100.2 ip daddr $secure ip protocol esp counter comment "customer to n1, ESP"
    oifname "vc" ip saddr $secure ip daddr 198.51.100.2 ip protocol esp counter comment "n1 to customer, ESP"
    iifname "vc" ip saddr ${srv6%.*}.0/24 counter comment "customer to n1, in clear"
    oifname "vc" ip daddr ${srv6%.*}.0/24 counter comment "n1 to customer, in clear"
  }
}
NFT
  sed -i -e "s/^endpoints: .*/endpoints: [$anycast, $secure]/" -e "/^metrics:/i\\
  - name: customer-ipsec\\
    type: ipsec\\
    lab: true  # keys by hand\\
    endpoint: $secure\\
    customer_endpoint: 198.51.100.2\\
    interface_address: 10.213.0.20/31\\
    prefixes: [${srv6%.*}.0/24]\\
    manual_sas: [{spi_in: 0x1001, spi_out: 0x2001, encryption: aes128gcm16, key_in: {file: $CW_RUN/key.in}, key_out: {file: $CW_RUN/key.out}}]" "$CW_RUN/n1.yaml"
  address srv eth0 $srv6/24
  scripts/peers/customer.sh sh "$guest" "ip addr add ${srv6%.*}.1/24 dev vec1
    ip xfrm state add src 198.51.100.2 dst $secure proto esp spi 0x1001 reqid 1 mode tunnel replay-window 64 aead 'rfc4106(gcm(aes))' 0x${keys[0]} 128
    ip xfrm state add src $secure dst 198.51.100.2 proto esp spi 0x2001 reqid 1 mode tunnel replay-window 64 aead 'rfc4106(gcm(aes))' 0x${keys[1]} 128
    ip xfrm policy add src ${srv6%.*}.0/24 dst 0.0.0.0/0 dir out tmpl src 198.51.100.2 dst $secure proto esp reqid 1 mode tunnel
    ip xfrm policy add src 0.0.0.0/0 dst ${srv6%.*}.0/24 dir fwd tmpl src $secure dst 198.51.100.2 proto esp reqid 1 mode tunnel" &&
    bin/causeway reload --socket "$CW_RUN/n1.sock"
}

# watched prints what the router saw of the IPsec tunnel, and wants it all to be ESP.
watched() {
  local seen
  in_ns rt nft list chain ip watch through | sed -nE 's/.*packets ([0-9]+) bytes ([0-9]+) comment "(.*)"/\3: \1 packets, \2 bytes/p' | show
  mapfile -t seen < <(in_ns rt nft list chain ip watch through | sed -nE 's/.*packets ([0-9]+) .*/\1/p')
  if [ "${#seen[@]}" != 4 ] || [ "${seen[0]}" = 0 ] || [ "${seen[1]}" = 0 ] || [ "${seen[2]}" != 0 ] || [ "${seen[3]}" != 0 ]; then
    fault "what the router saw is not all ESP"
  fi
}

over_ipsec() {
  pings "inet to the server's other address, through ESP" in_ns inet ping -q -c 20 -i .05 $srv6
  pings "inet to it, as large as the tunnel takes" in_ns inet ping -q -c 20 -i .05 -M "do" -s $((esp_mtu - 28)) $srv6
}

associations() {
  bin/causeway show sas --socket "$CW_RUN/n1.sock" >"$CW_RUN/show" 2>&1 || fault "node n1 does not show its associations"
  show <"$CW_RUN/show"
}

# spray makes the router send each packet for the anycast address or the customer's prefix to the next
# node in turn. A mark picks the node's table; where that has no route any more (demo-probe.sh), the
# rules fall through to the other node's. What comes from the nodes goes by the main table, unmarked.
spray() {
  local i
  for i in 1 2; do
    ip -n "$(ns rt)" route add default via "172.31.$i.1" table "10$i"
    ip -n "$(ns rt)" rule add fwmark "$i" lookup "10$i" pref "100$i"
    ip -n "$(ns rt)" rule add fwmark "$i" lookup "10$((3 - i))" pref "200$i"
  done
  in_ns rt nft -f - <<NFT
table ip spray {
  map turn { typeof numgen inc mod 2 : meta mark; elements = { 0 : 1, 1 : 2 }; }
  chain in {
    type filter hook prerouting priority -150; policy accept;
    iifname "vi" ip daddr 198.18.5.0/24 meta mark set numgen inc mod 2 map @turn
    iifname { "vc", "vi" } ip daddr $anycast meta mark set numgen inc mod 2 map @turn
  }
  chain out {
    type filter hook postrouting priority 0; policy accept;
    oifname "v1" ip daddr 198.18.5.0/24 counter comment "Internet to customer, by n1"
    oifname "v2" ip daddr 198.18.5.0/24 counter comment "Internet to customer, by n2"
    oifname "v1" ip protocol gre counter comment "customer to Internet, by n1"
    oifname "v2" ip protocol gre counter comment "customer to Internet, by n2"
  }
}
NFT
}

# customer boots the customer's router. What comes from its server goes into the tunnel.
customer() {
  local c=scripts/peers/customer.sh
  $c up "$guest" "$(ns cust)" up0,down0 &&
    $c addr "$guest" vec0 198.51.100.2/24 198.51.100.1 &&
    $c addr "$guest" vec1 198.18.5.1/24 &&
    $c gre "$guest" gre1 198.51.100.2 $anycast 10.213.0.11/31 &&
    $c sh "$guest" 'ip rule add from 198.18.5.0/24 lookup 50
      ip route add 198.18.5.0/24 dev vec1 table 50
      ip route add default dev gre1 table 50'
}

# --- the daemons ----------------------------------------------------------------------------------

declare -A daemon # process ids by node

# start I. A session of its own, so that Ctrl-C reaches the demo, which then stops it properly.
start() {
  setsid ip netns exec "$(ns "n$1")" bin/causeway run -c "$CW_RUN/n$1.yaml" >>"$CW_RUN/n$1.log" 2>&1 &
  daemon[$1]=$!
  disown # it will be killed, and the shell need not say so
}

# wait_ready I waits until the node says that its workers poll.
wait_ready() {
  local end=$((SECONDS + 15))
  until in_ns rt curl --silent --fail --max-time 1 --output /dev/null "http://172.31.$1.1:9150/readyz"; do
    if ! kill -0 "${daemon[$1]}" 2>/dev/null || [ $SECONDS -ge $end ]; then
      echo "node n$1 does not get ready:"
      tail -20 "$CW_RUN/n$1.log" | show
      return 1
    fi
    run sleep .1
  done
}

# --- what is shown --------------------------------------------------------------------------------

# pings WHAT COMMAND... wants an answer to each ping: the exit status of ping is good when there was one at all.
pings() {
  local what=$1 sent got
  shift
  "$@" >"$CW_RUN/ping" 2>&1
  read -r sent got < <(sed -nE 's/^([0-9]+) packets transmitted, ([0-9]+) .*/\1 \2/p' "$CW_RUN/ping")
  if [ "${sent:-0}" -gt 0 ] && [ "$got" = "$sent" ]; then
    printf '       %-54s %s of %s  %s\n' "$what" "$got" "$sent" "$(grep -E '^(rtt|round)' "$CW_RUN/ping")"
  else
    show <"$CW_RUN/ping"
    fault "$what: ${got:-none} of ${sent:-no} pings were answered"
  fi
}

# transfer FROM TO ADDRESS sends the file to a host; the sum of what arrived goes to $CW_RUN/sum.
transfer() {
  local receiver start
  in_ns "$2" nc -d -l 5001 </dev/null | sha256sum >"$CW_RUN/sum" &
  receiver=$!
  until in_ns "$2" ss -Hltn 'sport = 5001' | grep -q .; do sleep .02; done
  start=$(now)
  run in_ns "$1" nc -N "$3" 5001 <"$CW_RUN/file" || fault "the connection from $1 to $2 broke"
  wait "$receiver"
  took=$(($(now) - start))
  if [ "$(<"$CW_RUN/sum")" = "$filesum" ]; then
    printf '       %-4s -> %-4s  %d MB in %d.%d s, %d Mbit/s, sha256 equal (%.12s...)\n' "$1" "$2" $((size / 1000000)) \
      $((took / 1000)) $((took % 1000 / 100)) $((size * 8 / took / 1000)) "$filesum"
  else
    fault "what arrived at $2 is not what $1 sent: $(<"$CW_RUN/sum")"
  fi
}

# record TAG records the openings of TCP connections at a host's interface.
record() {
  ip netns exec "$(ns "$1")" tcpdump --immediate-mode -U -Z root -n -i eth0 -w "$CW_RUN/$1.pcap" \
    'tcp[tcpflags] & tcp-syn != 0' 2>"$CW_RUN/$1.tcpdump" &
  until grep -q 'listening on' "$CW_RUN/$1.tcpdump" 2>/dev/null; do sleep .02; done
}

# announced TAG ADDRESS prints the MSS that the SYNs of a host announce, as seen at a host's interface.
announced() {
  tcpdump -n -r "$CW_RUN/$1.pcap" "src host $2" 2>/dev/null | grep -o 'mss [0-9]*' | sort -u | cut -d' ' -f2 | paste -sd' '
}

segment_sizes() {
  local far
  printf '       %-22s %-18s %s\n' "SYN and SYN-ACK of" "MSS as it sent it" "MSS as the other end received it"
  far=$(announced srv $inet)
  printf '       %-22s %-18s %s\n' "inet" "$(announced inet $inet)" "$far"
  [ "$far" = $mss ] || fault "srv saw an MSS of $far, want $mss"
  far=$(announced inet $srv)
  printf '       %-22s %-18s %s\n' "srv" "$(announced srv $srv)" "$far"
  [ "$far" = $mss ] || fault "inet saw an MSS of $far, want $mss"
}

counters() {
  local i
  for i in "$@"; do
    echo "       n$i:"
    bin/causeway show tunnels --socket "$CW_RUN/n$i.sock" >"$CW_RUN/show" 2>&1 || fault "node n$i does not show its tunnels"
    show <"$CW_RUN/show"
  done
}

# spread prints the router's counters, and wants each node's to be more than a third of the traffic.
spread() {
  local by_node
  in_ns rt nft list chain ip spray out | sed -nE 's/.*packets ([0-9]+) bytes ([0-9]+) comment "(.*)"/\3: \1 packets, \2 bytes/p' | show
  mapfile -t by_node < <(in_ns rt nft list chain ip spray out | sed -nE 's/.*packets ([0-9]+) .*/\1/p')
  if [ $((by_node[0] * 2)) -lt "${by_node[1]}" ] || [ $((by_node[1] * 2)) -lt "${by_node[0]}" ]; then
    fault "the router did not spread over both nodes"
  fi
}

# lose_a_node kills n1 in the middle of a transfer and brings it back afterwards.
lose_a_node() {
  local ping killed after
  ip netns exec "$(ns inet)" ping -q -i .01 -w 100 $srv >"$CW_RUN/ping" 2>&1 & # so that $! is ping's
  ping=$!
  {
    sleep 2
    now >"$CW_RUN/killed"
    kill -9 "${daemon[1]}"
  } &
  transfer inet srv $srv
  kill -INT "$ping"
  wait "$ping" 2>/dev/null
  killed=$(<"$CW_RUN/killed")
  [ "$took" -gt 2000 ] || fault "the transfer was over before the node was killed"
  if after=$(since "$killed" "out 1"); then
    echo "       n1 killed with SIGKILL 2 s after the start; the router stopped using it after $after ms"
  else
    fault "the router did not take n1 out"
  fi
  grep 'packets transmitted' "$CW_RUN/ping" | show
}

bring_it_back() {
  local began after
  began=$(now)
  start 1
  wait_ready 1 || return
  for _ in $(seq 50); do
    after=$(since "$began" "in 1") && break
    run sleep .1
  done
  echo "       n1 started again with nothing to clean up, and used again after ${after:-?} ms"
  [ -n "$after" ] || fault "the router did not take n1 back"
  pings "inet to the customer's server, over both nodes again" in_ns inet ping -q -c 10 -i .05 $srv
}

# since TIME EVENT prints how many milliseconds after TIME the router's probe told of the event.
since() {
  local at
  at=$(awk -v from="$1" -v event="$2" '$1 >= from && $2 " " $3 == event { print $1 - from; exit }' "$CW_RUN/probe")
  [ -n "$at" ] && echo "$at"
}

# --- the order of things --------------------------------------------------------------------------

cleanup() {
  trap '' INT TERM HUP
  trap - EXIT
  if [ -n "$stopped" ]; then
    exec >/dev/null 2>&1 # what the interrupted commands have to say is not news
  fi
  net_cleanup "$CW_ID-"
  rm -rf "$CW_RUN"
  [ -z "$stopped" ] || echo "stopped, everything removed" >&3
}

# A demo that was killed with SIGKILL could not clean up: the next one does.
sweep() {
  local x pid
  for x in /run/netns/cw*-inet; do
    pid=${x#/run/netns/cw}
    pid=${pid%-inet}
    if [[ $pid =~ ^[0-9]+$ ]] && ! kill -0 "$pid" 2>/dev/null; then
      net_cleanup "cw$pid-"
      rm -rf "/tmp/causeway-$pid"
    fi
  done
}

[ "$(id -u)" = 0 ] || { echo "needs root: the demo makes network namespaces; run: sudo make demo"; exit 1; }
[ -x bin/causeway ] || { echo "no bin/causeway: run make build, or make demo, which does it"; exit 1; }
trap 'stopped=yes; exit 130' INT
trap 'exit 143' TERM HUP
trap cleanup EXIT
sweep
mkdir -p "$CW_RUN"

say "building the network; a Linux kernel boots as the customer's router"
network || { echo "the network could not be built"; exit 1; }
head -c $size /dev/urandom >"$CW_RUN/file"
filesum=$(sha256sum <"$CW_RUN/file")

say "starting two nodes on the anycast address $anycast"
start 1
start 2
wait_ready 1 && wait_ready 2 || exit 1
in_ns rt scripts/demo-probe.sh 1 2 >"$CW_RUN/probe" 2>&1 &

say "pings"
pings "inet to the customer's server, through the tunnel" in_ns inet ping -q -c 20 -i .05 $srv
pings "the customer's server to inet, full-sized" in_ns srv ping -q -c 20 -i .05 -M "do" -s 1448 $inet
pings "the customer's router to our end of the tunnel" scripts/peers/customer.sh sh "$guest" 'ping -q -c 10 -i .05 10.213.0.10'
pings "inet to the anycast address" in_ns inet ping -q -c 10 -i .05 $anycast

say "one TCP connection each way, sprayed packet by packet"
record inet
record srv
transfer inet srv $srv
transfer srv inet $inet

say "maximum segment sizes: the hosts' MTU is 1500, the tunnel takes 1476"
segment_sizes

say "counters of the nodes, and of the router that chose them"
counters 1 2
spread

say "an IPsec tunnel beside it, AES-128-GCM, to n1 alone: keys are made, n1 reloads"
if ipsec >"$CW_RUN/ipsec" 2>&1; then
  grep '^reloaded' "$CW_RUN/ipsec" | show
else
  show <"$CW_RUN/ipsec"
  fault "the tunnel could not be made"
fi
over_ipsec
transfer inet srv $srv6
watched
associations

say "losing a node in the middle of a transfer"
lose_a_node
counters 2

say "the node comes back"
bring_it_back

say "and so does its IPsec tunnel: no IV and no sequence number of before the SIGKILL is used again"
over_ipsec
associations

if [ $faults = 0 ]; then
  say "done: everything was as it should be"
else
  say "done: $faults things were not as they should be"
  for i in 1 2; do tail -20 "$CW_RUN/n$i.log" | show; done
  exit 1
fi
