#!/bin/bash
# The demo (make demo): three Causeway nodes in two data centres answer on one anycast address, which bird announces
# for them by BGP, and routers spread over them packet by packet. The customer's router is a real Linux kernel with a
# GRE tunnel and an IPsec tunnel, which strongSwan negotiates with the cluster of the nodes. Nodes are killed and
# drained under it. demo-net.sh has the network.
#
# Everything runs in network namespaces of this machine and is removed at the end, also after Ctrl-C.
# Needs root, bin/causeway and the packages of deps.sh. Exit status 0: all was as it should be.
set -u
# shellcheck source=scripts/peers/lib.sh disable=SC1091 # found only with --external-sources, as in make lint
. "$(dirname "$0")/peers/lib.sh"
# shellcheck source=scripts/demo-net.sh
. "$(dirname "$0")/demo-net.sh"
cd "$(dirname "$0")/.." || exit

size=200000000
mss=1436     # what GRE leaves of a 1500-byte path: 1500 - 24 (outer IPv4, GRE) - 40 (inner IPv4, TCP)
esp_mtu=1422 # what ESP leaves of it, whatever will be negotiated
faults=0
stopped=  # by Ctrl-C
exec 3>&1 # which may come while the output goes to a file

# --- what the demo says ---------------------------------------------------------------------------

say() { printf '\n%3d s  %s\n' "$SECONDS" "$*"; }
show() { sed 's/^/       /'; }
tell() { printf '       %s\n' "$*"; }
fault() { faults=$((faults + 1)); printf '       NOT AS IT SHOULD BE: %s\n' "$*"; }
now() { date +%s%3N; } # milliseconds

# run waits for a long command in a way that Ctrl-C can interrupt: a trap of bash waits for a command
# in the foreground, but not for wait.
run() { "$@" <&0 & wait $!; } # without <&0 the command would read /dev/null

# within SECONDS COMMAND... waits until a command is true.
within() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $end ] || return 1
    run sleep .1
  done
}

# --- the daemons ----------------------------------------------------------------------------------

declare -A daemon # process ids by node

# start I. A session of its own, so that Ctrl-C reaches the demo, which then stops it properly.
start() {
  setsid ip netns exec "$(ns "n$1")" bin/causeway run -c "$CW_RUN/n$1.yaml" >>"$CW_RUN/n$1.log" 2>&1 &
  daemon[$1]=$!
}

# alive prints the numbers of the nodes that run.
alive() { printf '%s\n' "${!daemon[@]}" | sort; }

# ask I COMMAND... asks a node.
ask() {
  local node=$1
  shift
  bin/causeway "$@" --socket "$CW_RUN/n$node.sock"
}

# asked I COMMAND... shows what a node answers, and wants it to answer.
asked() {
  ask "$@" >"$CW_RUN/show" 2>&1 || fault "n$1 does not answer to $2 $3"
  grep . "$CW_RUN/show" | show
}

# ready I: the node's workers poll, and all three nodes are in the cluster.
ready() {
  in_ns rt curl --silent --fail --max-time 1 --output /dev/null "http://172.31.$1.1:9150/readyz" &&
    ask "$1" show cluster -o json 2>/dev/null | jq -e '.state == "joined" and .nodes == 3 and .spis_reserved > 0' >/dev/null
}

wait_ready() {
  local i
  for i in "$@"; do
    within 15 ready "$i" && continue
    echo "node n$i does not get ready:"
    tail -20 "$CW_RUN/n$i.log" | show
    return 1
  done
}

# routed: each router has a route to each next hop that there is, for the anycast address and for the customer.
routed() {
  local x
  for x in "rt 101" "rt 102" "rt1 101" "rt1 102" "rt2 103"; do
    [ "$(ip -n "$(ns "${x% *}")" route show table "${x#* }" proto bird 2>/dev/null | wc -l)" = 4 ] || return
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

over_ipsec() {
  pings "inet to the server's other address, through ESP" in_ns inet ping -q -c 20 -i .05 $srv6
  pings "inet to it, as large as the tunnel takes" in_ns inet ping -q -c 20 -i .05 -M "do" -s $((esp_mtu - 28)) $srv6
}

declare -A pinging # process ids by tunnel

# ping_on pings through both tunnels a hundred times a second, until ping_off. With -w it would end at an ICMP error.
ping_on() {
  local x
  for x in gre=$srv ipsec=$srv6; do
    ip netns exec "$(ns inet)" ping -D -n -i .01 -c 15000 "${x#*=}" >"$CW_RUN/pings.${x%=*}" 2>&1 & # so that $! is ping's
    pinging[${x%=*}]=$!
  done
}

# gap FROM TO prints the longest time between two lines, in milliseconds, of those that end between two times. Lines
# begin with their time in seconds; FROM and TO are milliseconds.
gap() {
  awk -v from="$1" -v to="$2" '
    { ms = $1 * 1000; if (NR > 1 && ms > from && at < to && ms - at > most) most = ms - at; at = ms }
    END { printf "%d", most }'
}

# ping_off LOST [TIME] says how many pings were lost, and how long no answer came, and wants no more to be lost and a
# silence of a second at most: a transfer beside them makes them wait, too, so with the time of a loss it also says how
# long no answer came in the two seconds after it. What was sent after the last answer is still on its way, if it is no
# more than half a second's.
ping_off() {
  local x n sent last silence after=""
  kill -INT "${pinging[@]}" || fault "ping has ended by itself"
  wait "${pinging[@]}" 2>/dev/null
  for x in gre ipsec; do
    sed -nE 's/^\[([0-9.]+)\] .*icmp_seq=([0-9]+) .*/\1 \2/p' "$CW_RUN/pings.$x" | awk '!seen[$2]++' >"$CW_RUN/answers"
    read -r n last < <(awk '$2 > last { last = $2 } END { print NR, last + 0 }' "$CW_RUN/answers")
    sent=$(sed -nE 's/^([0-9]+) packets transmitted.*/\1/p' "$CW_RUN/pings.$x")
    silence=$(gap 0 1e15 <"$CW_RUN/answers")
    [ -z "${2:-}" ] || after=" ($(gap "$2" $(($2 + 2000)) <"$CW_RUN/answers") ms around the loss)"
    printf '       %-54s %s of %s, the longest silence %s ms%s\n' "pings 10 ms apart, through $x" "$n" "$last" "$silence" "$after"
    if [ "$n" -lt 10 ] || [ $((last - n)) -gt "$1" ] || [ $((sent - last)) -gt 50 ] || [ "$silence" -gt 1000 ]; then
      fault "too much was lost, or the silence is too long"
    fi
  done
}

listens() { in_ns "$1" ss -Hltn 'sport = 5001' | grep -q .; }

# transfer FROM TO ADDRESS [SOURCE] sends the file to a host, from an address that leads into a tunnel; the sum of what arrived goes to $CW_RUN/sum.
transfer() {
  local receiver start
  in_ns "$2" timeout --foreground 70 nc -d -l 5001 </dev/null | sha256sum >"$CW_RUN/sum" &
  receiver=$!
  within 5 listens "$2" || fault "$2 does not listen"
  start=$(now)
  run in_ns "$1" timeout --foreground 60 nc -N ${4:+-s "$4"} "$3" 5001 <"$CW_RUN/file" || fault "the connection from $1 to $2 broke"
  wait "$receiver"
  took=$(($(now) - start))
  if [ "$(<"$CW_RUN/sum")" = "$filesum" ]; then
    printf '       %-4s -> %-4s  %d MB in %d.%d s, %d Mbit/s, sha256 equal (%.12s...)\n' "$1" "$2" $((size / 1000000)) \
      $((took / 1000)) $((took % 1000 / 100)) $((size * 8 / took / 1000)) "$filesum"
  else
    fault "what arrived at $2 is not what $1 sent: $(<"$CW_RUN/sum")"
  fi
}

declare -A recorder # process ids by name

# record TAG INTERFACE NAME FILTER records packets at an interface.
record() {
  ip netns exec "$(ns "$1")" tcpdump --immediate-mode -U -Z root -n -i "$2" -s 200 -w "$CW_RUN/$3.pcap" "$4" 2>"$CW_RUN/$3.tcpdump" &
  recorder[$3]=$!
  until grep -q 'listening on' "$CW_RUN/$3.tcpdump" 2>/dev/null; do sleep .02; done
}

# recorded NAME ends a recording.
recorded() {
  kill -INT "${recorder[$1]}"
  wait "${recorder[$1]}"
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
    tell "n$i:"
    asked "$i" show tunnels
  done
}

# spread KIND... prints how many packets the routers gave to each node, and wants those that run to have had as many of
# each kind, except where there were only a few.
spread() {
  local -A seen=()
  local router node kind packets least most
  for router in rt1 rt2; do
    while read -r packets node kind; do seen[$node.$kind]=$packets; done < <(
      in_ns $router nft list chain ip spray out | sed -nE 's/.*packets ([0-9]+) .* comment "(.*)"/\1 \2/p')
  done
  printf '       %-28s %10s %10s %10s %10s\n' "packets by the routers to" Internet GRE ESP IKE
  for node in "${nodes[@]}"; do
    printf '       %-28s %10s %10s %10s %10s\n' "n$node" "${seen[$node.inet]}" "${seen[$node.gre]}" "${seen[$node.esp]}" "${seen[$node.ike]}"
  done
  for kind in "$@"; do
    read -r least most < <(for node in $(alive); do echo "${seen[$node.$kind]}"; done | sort -n | sed -n '1p;$p' | paste -sd' ')
    if [ "$least" = 0 ] || [ "$most" -gt 100 ] && [ "$most" -gt $((least * 3 / 2)) ]; then
      fault "the routers did not spread $kind over the nodes"
    fi
  done
}

# --- IPsec ----------------------------------------------------------------------------------------

# watch has rt count what it carries between the nodes and the customer for the IPsec tunnel.
watch() {
  in_ns rt nft -f - <<NFT
table ip watch {
  chain through {
    type filter hook forward priority 0; policy accept;
    iifname "vc" ip protocol esp counter comment "from the customer, ESP"
    oifname "vc" ip protocol esp counter comment "to the customer, ESP"
    iifname "vc" ip saddr ${srv6%.*}.0/24 counter comment "from the customer, in clear"
    oifname "vc" ip daddr ${srv6%.*}.0/24 counter comment "to the customer, in clear"
  }
}
NFT
}

# watched prints what rt saw of the IPsec tunnel, and wants it all to be ESP: more than the file, each way.
watched() {
  local seen
  in_ns rt nft list chain ip watch through | sed -nE 's/.*packets ([0-9]+) bytes ([0-9]+) comment "(.*)"/\3: \1 packets, \2 bytes/p' | show
  mapfile -t seen < <(in_ns rt nft list chain ip watch through | sed -nE 's/.*bytes ([0-9]+) .*/\1/p')
  if [ "${#seen[@]}" != 4 ] || [ "${seen[0]}" -lt $size ] || [ "${seen[1]}" -lt $size ] || [ "${seen[2]}" != 0 ] || [ "${seen[3]}" != 0 ]; then
    fault "what the router saw is not all ESP"
  fi
}

# negotiate has strongSwan begin. n3 has the cluster's store, and what happens without that is another story
# (docs/cluster.md): should n3 have become the one that has the IKE SA, it is made again, by the node whose turn it is.
negotiate() {
  for _ in 1 2 3; do
    quiet run swanctl --initiate --child net || return
    [ "$(holder)" = 3 ] || return 0
    quiet run swanctl --terminate --ike customer
  done
  return 1
}

# its I FILTER prints something of the IPsec tunnel's IKE as node I shows it.
its() { ask "$1" show ike -o json | jq -re ".[] | select(.tunnel == \"customer-ipsec\") | $2"; }

# holder prints which node has the IKE SA.
holder() {
  local i
  for i in $(alive); do
    its "$i" 'select(.sas | length > 0) | true' >/dev/null 2>&1 && echo "$i" && return
  done
  return 1
}

# associations shows what each node has of the tunnel. Keys, of which a checksum is shown, and SPIs must be the same
# everywhere; numbers and counters are each node's own.
associations() {
  local i same=""
  for i in $(alive); do
    tell "n$i:"
    asked "$i" show sas
    same+=$(ask "$i" show sas -o json | jq -c '[.[] | [.direction, .spi, .key_id]]')$'\n'
  done
  [ "$(printf %s "$same" | sort -u | wc -l)" = 1 ] || fault "the nodes do not have the same associations"
}

# together I: node I sees all nodes that run, no others, and that they are ready and have what it has itself.
together() {
  [ "$(ask "$1" show nodes -o json | jq -r '.[] | select(.state == "self" or .state == "live") |
    select(.agrees and (.not_ready | length) == 0) | .name')" = "$(alive | sed 's/^/n/')" ]
}

# members I shows the nodes of the cluster as node I sees them, and wants those that run to be together.
members() {
  within 10 together "$1" || fault "the nodes are not together"
  asked "$1" show nodes
}

ike_spis() { its "$1" '.sas[0] | .spi_initiator + "/" + .spi_responder'; }
esp_spis() { its "$1" '.sas[0].children[0] | .spi_in, .spi_out' | xargs printf '%#x/%#x\n'; }

# replaced I SPIS BEFORE: the node has one IKE SA with one pair, and SPIS prints something else than before.
replaced() {
  its "$1" '(.sas | length) == 1 and (.sas[0].children | length) == 1' >/dev/null && [ "$("$2" "$1")" != "$3" ]
}

# rekey I WHAT SPIS COMMAND... has an SA replaced, and waits until the node that has it shows the new one alone.
rekey() {
  local node=$1 what=$2 spis=$3 before
  shift 3
  before=$("$spis" "$node")
  if quiet run "$@" && within 10 replaced "$node" "$spis" "$before"; then
    printf '       %-54s %s -> %s\n' "$what" "$before" "$("$spis" "$node")"
  else
    asked "$node" show ike
    fault "$what: it was not replaced"
  fi
}

# exchanges NAME LEAST-34 MOST-34 LEAST-36 counts the IKE messages of a recording, and wants these numbers of
# IKE_SA_INIT (34) and CREATE_CHILD_SA (36).
exchanges() {
  local init auth child info
  read -r init auth child info < <(tshark -n -r "$CW_RUN/$1.pcap" -Y isakmp -T fields -e isakmp.exchangetype 2>/dev/null |
    awk '{ n[$1]++ } END { printf "%d %d %d %d\n", n[34], n[35], n[36], n[37] }')
  tell "IKE that rt saw: $init IKE_SA_INIT, $auth IKE_AUTH, $child CREATE_CHILD_SA, $info INFORMATIONAL"
  if [ "$init" -lt "$2" ] || [ "$init" -gt "$3" ] || [ "$child" -lt "$4" ]; then
    fault "want $2 to $3 IKE_SA_INIT, and at least $4 CREATE_CHILD_SA"
  fi
}

# encrypting prints the nodes that encrypt for the tunnel with replay protection.
encrypting() {
  local i
  for i in $(alive); do
    ask "$i" show cluster -o json | jq -e '.owned_here > 0' >/dev/null && echo "n$i"
  done
}

one_encrypts() { [ "$(encrypting | wc -l)" = 1 ]; }

# forwarded says which node encrypts, and how much the others have given to it, and wants the customer's kernel to have
# dropped nothing as replayed.
forwarded() {
  local i errors
  tell "$(encrypting) encrypts; packets that were forwarded to it:"
  for i in $(alive); do
    tell "n$i $(ask "$i" show workers -o json | jq '.total.to_owner')"
  done
  [ "$(for i in $(alive); do ask "$i" show workers -o json | jq '.total.to_owner'; done | awk '{ n += $1 } END { print n }')" -gt 1000 ] ||
    fault "nothing was forwarded"
  errors=$(scripts/peers/customer.sh sh "$guest" "awk '/XfrmInStateSeqError/ { print \$2 }' /proc/net/xfrm_stat")
  tell "packets that the customer's kernel has dropped as replayed: ${errors:-not known}"
  [ "${errors:-0}" = 0 ] || fault "its window is too small for what comes"
}

# --- nodes come and go ----------------------------------------------------------------------------

# watch_routes notes when the routes of the routers to the nodes change.
watch_routes() {
  local x
  for x in rt1 rt2; do
    ip netns exec "$(ns $x)" ip -ts monitor route >"$CW_RUN/$x.routes" 2>&1 &
  done
}

# since I TIME EVENT prints how many milliseconds after TIME the router of node I lost its route (Deleted) or got it.
since() {
  sed -nE "s/^\[([^]]*)\] ?$3 ?$anycast via 172.31.$1.1 .*/\1/p" "$CW_RUN/rt$(place "$1").routes" | date -f - +%s%3N |
    awk -v from="$2" '$1 >= from { print $1 - from; found = 1; exit } END { exit !found }'
}

# withdrawn I TIME HOW says how long after TIME the route to node I was withdrawn.
withdrawn() {
  local after
  if after=$(since "$1" "$2" Deleted); then
    tell "n$1 $3; its route was withdrawn after $after ms"
    [ "$after" -lt 500 ] || fault "that is not soon"
  else
    fault "the route to n$1 was not withdrawn"
  fi
}

# lose_a_node kills node I in the middle of a transfer through the IPsec tunnel. What kills waits in a namespace,
# whose processes end with the demo.
lose_a_node() {
  local pid=${daemon[$1]} killed heir at
  disown "$pid" # the shell need not say that it was killed
  record srv eth0 stream "tcp and src host $inet"
  ping_on
  { in_ns rt sleep 3 && now >"$CW_RUN/killed" && kill -9 "$pid"; } &
  transfer inet srv $srv6
  unset "daemon[$1]"
  recorded stream
  [ "$took" -gt 4000 ] || fault "the transfer was over before the node was killed"
  killed=$(<"$CW_RUN/killed")
  withdrawn "$1" "$killed" "killed with SIGKILL 3 s after the start"
  tcpdump -n -tt -r "$CW_RUN/stream.pcap" 2>/dev/null >"$CW_RUN/stream"
  printf '       %-54s %s packets, the longest silence %s ms (%s ms around the loss)\n' "the connection, as its receiver saw it" \
    "$(wc -l <"$CW_RUN/stream")" "$(gap 0 1e15 <"$CW_RUN/stream")" "$(gap "$killed" $((killed + 2000)) <"$CW_RUN/stream")"
  ping_off 20 "$killed"
  if within 10 holder >/dev/null; then
    heir=$(holder)
    at=$(sed -nE 's/^time=([^ ]*) .*IKE SA taken over.*/\1/p' "$CW_RUN/n$heir.log" | tail -1)
    tell "n$heir took over the IKE SA $(($(date -d "$at" +%s%3N) - killed)) ms after n$1 had died"
  else
    fault "no node has taken over the IKE SA"
  fi
}

bring_it_back() {
  local began after
  began=$(now)
  start "$1"
  wait_ready "$1" || { fault "n$1 is not there again"; return; }
  if within 5 since "$1" "$began" "" >/dev/null; then
    after=$(since "$1" "$began" "")
    tell "n$1 started again with nothing to clean up, and is announced after $after ms"
  else
    fault "the router did not take n$1 back"
  fi
  members 3
  over_ipsec
  pings "inet to the customer's server, through the GRE tunnel" in_ns inet ping -q -c 20 -i .05 $srv
  associations
  ask "$1" show tunnels -o json | jq -e 'all(.[] | select(.name != "customer-window"); .rx_packets > 0 and .tx_packets > 0)' >/dev/null || fault "n$1 is not used again"
}

gone() { ! kill -0 "$1" 2>/dev/null; }

# drain_a_node drains node I while pings go through both tunnels.
drain_a_node() {
  local began status
  ping_on
  run sleep 1
  began=$(now)
  quiet run ask "$1" drain --limit 20s || fault "n$1 does not drain"
  show <"$CW_RUN/quiet"
  within 10 gone "${daemon[$1]}" || { fault "the daemon does not end"; return; }
  wait "${daemon[$1]}"
  status=$?
  unset "daemon[$1]"
  [ $status = 0 ] || fault "the daemon ended with status $status"
  withdrawn "$1" "$began" "ended with status $status"
  run sleep 1
  ping_off 0
  within 10 holder >/dev/null || fault "no node has the IKE SA"
}

# withdrawals says when routes to nodes were withdrawn more often than nodes were killed and drained. That is no fault
# of theirs: a worker that gets no processor for 300 ms has its node withdraw the address, and others go on.
withdrawals() {
  local n
  n=$(cat "$CW_RUN/rt1.routes" "$CW_RUN/rt2.routes" | grep -c "Deleted $anycast ")
  [ "$n" = "$1" ] || tell "this machine is busy: for lack of a processor, routes to nodes were withdrawn $((n - $1)) times more"
}

# --- the order of things --------------------------------------------------------------------------

cleanup() {
  [ $BASHPID = $$ ] || return # a subshell that a mistake has ended
  trap '' INT TERM HUP
  trap - EXIT
  if [ -n "$stopped" ]; then
    exec >/dev/null 2>&1 # what the interrupted commands have to say is not news
  fi
  disown -a
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

say "starting three nodes; bird announces the anycast address $anycast from each"
for i in "${nodes[@]}"; do start "$i"; done
watch_routes
wait_ready "${nodes[@]}" || exit 1
within 20 routed || { echo "the routers do not hear of all nodes"; exit 1; }
members 3

say "pings"
pings "inet to the customer's server, through the GRE tunnel" in_ns inet ping -q -c 20 -i .05 $srv
pings "the customer's server to inet, full-sized" in_ns srv ping -q -c 20 -i .05 -M "do" -s 1448 $inet
pings "the customer's router to our end of the tunnel" scripts/peers/customer.sh sh "$guest" 'ping -q -c 10 -i .05 10.213.0.10'
pings "inet to the anycast address" in_ns inet ping -q -c 10 -i .05 $anycast

say "one TCP connection each way through the GRE tunnel, sprayed packet by packet"
record inet eth0 inet 'tcp[tcpflags] & tcp-syn != 0'
record srv eth0 srv 'tcp[tcpflags] & tcp-syn != 0'
transfer inet srv $srv
transfer srv inet $inet

say "maximum segment sizes: the hosts' MTU is 1500, the tunnel takes 1476"
segment_sizes

say "counters of the nodes, and of the routers that chose them"
counters "${nodes[@]}"
spread inet gre

say "an IPsec tunnel beside it: strongSwan negotiates by IKEv2 with the anycast address; IKE and ESP are sprayed, too"
record rt vc first "udp port 500 or udp port 4500"
watch
negotiate || { echo "the tunnel could not be negotiated"; exit 1; }
exchanges first 2 4 0
over_ipsec
transfer inet srv $srv6
transfer srv inet $inet $srv6
watched
associations
spread esp

say "a second IPsec tunnel, whose customer has its replay window of 64 packets on: one node encrypts, the others forward to it"
quiet run swanctl --initiate --child window || fault "the tunnel could not be negotiated"
within 5 one_encrypts || fault "not one node encrypts: $(encrypting | paste -sd' ')"
pings "inet to the server's third address" in_ns inet ping -q -c 20 -i .05 $srv7
transfer inet srv $srv7
transfer srv inet $inet $srv7
forwarded

lost=$(holder)
record rt vc later "udp port 500 or udp port 4500"
say "n$lost, which has the IKE SA, is killed in the middle of a transfer through the IPsec tunnel"
lose_a_node "$lost"
heir=$(holder) || exit 1
members "$heir"
asked "$heir" show ike

say "the keys are replaced by both ends, without a new negotiation"
ping_on
rekey "$heir" "the customer's router replaces the ESP associations" esp_spis swanctl --rekey --child net
rekey "$heir" "n$heir replaces the ESP associations" esp_spis ask "$heir" ike rekey customer-ipsec
rekey "$heir" "the customer's router replaces the IKE SA" ike_spis swanctl --rekey --ike customer
rekey "$heir" "n$heir replaces the IKE SA" ike_spis ask "$heir" ike rekey customer-ipsec --ike
ping_off 0
exchanges later 0 0 8
spread ike

say "n$lost comes back"
bring_it_back "$lost"

other=$((3 - lost)) # n1 or n2, and not n3, which has the store
say "n$other is drained"
drain_a_node $other
members 3
asked 3 show ike
withdrawals 2

if [ $faults = 0 ]; then
  say "done: everything was as it should be"
else
  say "done: $faults things were not as they should be"
  for i in "${nodes[@]}"; do tail -20 "$CW_RUN/n$i.log" | show; done
  exit 1
fi
