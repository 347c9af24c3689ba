# shellcheck shell=bash
# The network of the demo (demo.sh, which sources this after peers/lib.sh): hosts, links, routers, and the files of
# the nodes and of the customer's router.
#
#                         +-- rt1 --+-- n1 172.31.1.1
#                         |  (dc1)  +-- n2 172.31.2.1
#   inet 192.0.2.10 -- rt +-- rt2 ----- n3 172.31.3.1
#                         |  (dc2)
#                         +-- customer 198.51.100.2 -- srv 198.18.5.10 by GRE, 198.18.6.10 by IPsec, 198.18.7.10 by
#                                                         IPsec with the customer's replay window on
#
# Each node's bird announces the anycast address to its data centre's router while the node can serve, and that one
# announces it to rt.

anycast=203.0.113.1 inet=192.0.2.10 srv=198.18.5.10 srv6=198.18.6.10 srv7=198.18.7.10
customer=198.51.100.2
prefixes="198.18.5.0/24 198.18.6.0/24 198.18.7.0/24" # the customer's
nodes=(1 2 3)
hub=172.31.3.1:4222                    # where n3 serves the cluster
guest=$CW_ID-customer
swan=/tmp/causeway-uml/$guest/swan     # strongSwan's directory: the guest's own, which both sides see

# place I prints the number of a node's data centre.
place() { [ "$1" = 3 ] && echo 2 || echo 1; }

# address TAG INTERFACE ADDRESS/LENGTH [GATEWAY]
address() {
  ip -n "$(ns "$1")" addr add "$3" dev "$2"
  [ -z "${4:-}" ] || ip -n "$(ns "$1")" route add default via "$4"
}

network() {
  local tag i
  for tag in inet rt rt1 rt2 n1 n2 n3 cust srv; do mkns "$tag" || return; done
  mkveth inet eth0 rt vi && mkveth rt vc cust up0 && mkveth cust down0 srv eth0 &&
    mkveth rt v1 rt1 up && mkveth rt v2 rt2 up || return
  address inet eth0 $inet/24 192.0.2.1
  address srv eth0 $srv/24 198.18.5.1
  address srv eth0 $srv6/24
  address srv eth0 $srv7/24
  address rt vi 192.0.2.1/24
  address rt vc 198.51.100.1/24
  for tag in rt rt1 rt2; do
    in_ns $tag sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0 \
      net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
  done
  for i in 1 2; do
    address rt "v$i" "172.30.$i.254/24"
    address "rt$i" up "172.30.$i.1/24" "172.30.$i.254"
  done
  certificates || return
  for i in "${nodes[@]}"; do node "$i" || return; done
  router rt 65000 1,172.30.1.1,65101 2,172.30.2.1,65102
  router rt1 65101 1,172.31.1.1,65001 2,172.31.2.1,65001
  router rt2 65102 3,172.31.3.1,65001
  # Of three packets the first and the third go to data centre 1, where there are two nodes, which get them in turn.
  spray rt 3 "0 : 1, 1 : 2, 2 : 1" "vi, vc"
  spray rt1 2 "0 : 1, 1 : 2" up
  spray rt2 1 "0 : 3" up
  run customer
}

# --- routers --------------------------------------------------------------------------------------

# birds TAG starts bird in a host, with the file TAG.bird.
birds() {
  setsid ip netns exec "$(ns "$1")" bird -f -c "$CW_RUN/$1.bird" -s "$CW_RUN/$1.bird.ctl" -P "$CW_RUN/$1.bird.pid" >"$CW_RUN/$1.bird.log" 2>&1 &
  disown
}

# router TAG AS NEXT... starts a router's bird. NEXT is NUMBER,ADDRESS,AS of who may announce the anycast address to
# it. Each of them has a table of its own, 10NUMBER in the kernel: one table for all would have a route
# with several next hops, which Linux chooses by flow, and not packet by packet. Where a table has no route any more,
# the rules fall through to the other ones'. The customer's prefixes are to be found where the anycast address is.
router() {
  local tag=$1 as=$2 up=${1#rt} next other number ip far customers=""
  shift 2
  for next in $prefixes; do customers+="route $next recursive $anycast; "; done
  {
    echo "router id 172.30.${up:-0}.1;"
    echo "protocol device { scan time 1; }"
    echo "protocol bfd { interface \"*\" { min rx interval 100 ms; min tx interval 100 ms; multiplier 3; }; }"
    echo "template bgp speaker { local as $as; bfd on; connect delay time 1; connect retry time 1; error wait time 1, 2; }"
    for next in "$@"; do
      IFS=, read -r number ip far <<<"$next"
      cat <<BIRD
ipv4 table t$number;
protocol bgp from$number from speaker { neighbor $ip as $far; ipv4 { table t$number; import all; export none; }; }
protocol static customer$number { ipv4 { table t$number; }; igp table t$number; $customers}
protocol kernel kernel$number { kernel table 10$number; ipv4 { table t$number; import none; export where dest != RTD_UNREACHABLE; }; }
protocol pipe all$number { table t$number; peer table master4; import none; export where source = RTS_BGP; }
BIRD
      ip -n "$(ns "$tag")" rule add fwmark "$number" lookup "10$number" pref "100$number"
      for other in "$@"; do
        ip -n "$(ns "$tag")" rule add fwmark "${other%%,*}" lookup "10$number" pref "200$number"
      done
    done
    [ -z "$up" ] || echo "protocol bgp up from speaker { neighbor 172.30.$up.254 as 65000; ipv4 { import none; export all; next hop self; }; }"
  } >"$CW_RUN/$tag.bird"
  birds "$tag"
}

# spray TAG N TURNS INTERFACES has a router mark each of N packets from these interfaces for the anycast address or the
# customer with the number of another of its tables. What comes from the nodes goes by the main table, unmarked. IKE
# is counted apart, so that it is spread too, although it is little.
spray() {
  local tag=$1 i
  in_ns "$tag" nft -f - <<NFT
table ip spray {
  map turn { typeof numgen inc mod $2 : meta mark; elements = { $3 }; }
  chain in {
    type filter hook prerouting priority -150; policy accept;
    iifname { $4 } ip daddr $anycast udp dport { 500, 4500 } meta mark set numgen inc mod $2 map @turn accept
    iifname { $4 } ip daddr { $anycast, ${prefixes// /, } } meta mark set numgen inc mod $2 map @turn
  }
}
NFT
  for i in "${nodes[@]}"; do
    [ "$tag" = "rt$(place "$i")" ] || continue
    in_ns "$tag" nft -f - <<NFT
table ip spray {
  chain out {
    type filter hook postrouting priority 0; policy accept;
    oifname "v$i" ip daddr { ${prefixes// /, } } counter comment "$i inet"
    oifname "v$i" ip protocol gre counter comment "$i gre"
    oifname "v$i" ip protocol esp counter comment "$i esp"
    oifname "v$i" udp dport { 500, 4500 } counter comment "$i ike"
  }
}
NFT
  done
}

# --- nodes ----------------------------------------------------------------------------------------

# certificates makes the cluster's authority, a certificate for each node, and the roster (docs/cluster.md).
certificates() (
  cd "$CW_RUN" || return
  umask 077
  quiet openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-384 -noenc -keyout ca.key -out ca.pem -days 2 \
    -subj "/CN=cluster CA" -addext keyUsage=critical,keyCertSign,cRLSign || return
  for i in "${nodes[@]}"; do
    printf '%s\n' "subjectAltName=IP:172.31.$i.1" keyUsage=critical,digitalSignature extendedKeyUsage=serverAuth,clientAuth >"n$i.ext"
    quiet openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout "n$i.key" -out "n$i.csr" -subj "/CN=n$i" &&
      quiet openssl x509 -req -in "n$i.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile "n$i.ext" -out "n$i.pem" &&
      "$OLDPWD/bin/causeway" cluster identity --state-dir "$CW_RUN/n$i" --name "n$i" >>roster || return
  done
  openssl rand -hex 32 >psk # of the customer and all nodes
)

# quiet COMMAND... says something only if it fails.
quiet() { "$@" >"$CW_RUN/quiet" 2>&1 || { cat "$CW_RUN/quiet"; return 1; }; }

# node I gives a node its addresses, its files, and bird with the configuration of scripts/routing, of which this
# network needs IPv4 alone. It has one port: packets of the Internet and of tunnels come and go by up0.
node() {
  local dc
  dc=$(place "$1")
  mkveth "rt$dc" "v$1" "n$1" up0 || return
  address "rt$dc" "v$1" "172.31.$1.254/24"
  address "n$1" up0 "172.31.$1.1/24" "172.31.$1.254"
  ip -n "$(ns rt)" route add "172.31.$1.0/24" via "172.30.$dc.1"
  cat >"$CW_RUN/n$1.yaml" <<YAML
node: {name: n$1, address: 172.31.$1.1, datacenter: dc$dc, state_dir: $CW_RUN/n$1}
interfaces: [{name: up0}]
workers: {busy_poll: false, cpus: [$(($1 % $(nproc)))]} # not all nodes on one core
endpoints: [$anycast]
tunnels:
  - name: customer
    endpoint: $anycast
    customer_endpoint: $customer
    interface_address: 10.213.0.10/31
    prefixes: [198.18.5.0/24]
  - name: customer-ipsec
    type: ipsec
    endpoint: $anycast
    customer_endpoint: $customer
    interface_address: 10.213.0.20/31
    ike: {psk: {file: $CW_RUN/psk}, local_id: edge.example.net, remote_id: customer.example.net}
    prefixes: [198.18.6.0/24]
  - name: customer-window
    type: ipsec
    endpoint: $anycast
    customer_endpoint: $customer
    interface_address: 10.213.0.30/31
    replay_protection: true
    ike: {psk: {file: $CW_RUN/psk}, local_id: edge.example.net, remote_id: window.example.net}
    prefixes: [198.18.7.0/24]
cluster:
  $([ "172.31.$1.1" = "${hub%:*}" ] && echo "hub: {listen: \"$hub\"}" || echo "servers: [\"tls://$hub\"]")
  roster: $CW_RUN/roster
  tls: {certificate: $CW_RUN/n$1.pem, key: $CW_RUN/n$1.key, ca: $CW_RUN/ca.pem}
metrics: {listen: "172.31.$1.1:9150"}
control: {socket: $CW_RUN/n$1.sock}
YAML
  sed -e "s/NODE4/172.31.$1.1/; s/ROUTER4/172.31.$1.254/; s/65000/6510$dc/; /^protocol bgp router6/d" scripts/routing/bird.conf >"$CW_RUN/n$1.bird"
  birds "n$1"
}

# --- the customer ---------------------------------------------------------------------------------

# customer boots the customer's router. What comes from its server's first address goes into the GRE tunnel.
customer() {
  local c=scripts/peers/customer.sh
  $c up "$guest" "$(ns cust)" up0,down0 &&
    $c addr "$guest" vec0 $customer/24 198.51.100.1 &&
    $c addr "$guest" vec1 198.18.5.1/24,198.18.6.1/24,198.18.7.1/24 &&
    $c gre "$guest" gre1 $customer $anycast 10.213.0.11/31 &&
    $c sh "$guest" 'ip rule add from 198.18.5.0/24 lookup 50
      ip route add 198.18.5.0/24 dev vec1 table 50
      ip route add default dev gre1 table 50' &&
    strongswan
}

# connection NAME CHILD NET WINDOW prints a connection of strongSwan's, and the key for it.
connection() {
  cat <<CONF
connections { $1 {
  version = 2
  local_addrs = $customer
  remote_addrs = $anycast
  proposals = aes256gcm16-prfsha384-ecp384
  mobike = no
  local { auth = psk
    id = $1.example.net }
  remote { auth = psk
    id = edge.example.net }
  children { $2 {
    local_ts = $3
    remote_ts = 0.0.0.0/0
    esp_proposals = aes128gcm16-ecp384
    replay_window = $4 } } } }
secrets { ike-$1 { id-1 = $1.example.net
  id-2 = edge.example.net
  secret = $(<"$CW_RUN/psk") } }
CONF
}

# strongswan starts strongSwan in the customer's router, with ESP in its kernel, and loads what it has to know. The
# replay window of the first tunnel is off, because each node numbers its packets by itself; that of the second is on,
# and one node encrypts for it. strongSwan is controlled from rt, since a process in the guest takes long to start. The
# guest may not see this tree, so it gets a copy of the script.
strongswan() {
  mkdir -m 700 "$swan" && cp scripts/peers/swan.sh "$swan" || return
  printf '%s\n' "install_routes = no" "delete_rekeyed_delay = 1" >"$swan/charon.conf"
  {
    connection customer net 198.18.6.0/24 0
    connection window window 198.18.7.0/24 64
  } >"$swan/swanctl.conf"
  "$swan/swan.sh" configure "$swan" netlink tcp://$customer:4502 &&
    scripts/peers/customer.sh sh "$guest" "$swan/swan.sh run $swan" &&
    in_ns rt "$swan/swan.sh" load "$swan"
}

# swanctl WORDS... tells strongSwan what to do.
swanctl() { in_ns rt "$swan/swan.sh" ctl "$swan" "$@"; }
