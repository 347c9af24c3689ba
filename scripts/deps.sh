#!/bin/bash
# Installs the Debian packages that building from source, the tests and the demo need. Does nothing,
# quickly, when all are there.
#   deps.sh          install what is missing
#   deps.sh --list   print the packages and what each is for
set -u

packages='
clang                           compiles the XDP programs (make generate) and scripts/peers/xstate.c
llvm                            llvm-strip, for the same
libbpf-dev                      BPF headers, for the same
libc6-dev                       C headers, for the same; with gcc for make test-race
gcc                             the race detector links with it
iproute2                        ip: network namespaces, links, addresses, routes
ethtool                         offloads off on test links, queues of a port
procps                          sysctl, pgrep
kmod                            modprobe in guests
user-mode-linux                 a real Linux kernel as the customer router
nftables                        routers of test networks that spray, lose and count packets
iptables                        a firewall in guests, whose kernel has no families of nftables
iputils-ping                    ping
traceroute                      traceroute through tunnels
iperf3                          TCP load
netcat-openbsd                  the simplest TCP peer
tcpdump                         records what is on the wire
tshark                          judges it
python3-scapy                   makes packets that no stack would send, and judges too
bird2                           a routing daemon on a node, as in operation
frr                             another one
strongswan-charon               the IKE daemon of strongSwan: the router that negotiates with a node
strongswan-swanctl              tells it what to do, and what it did
libcharon-extra-plugins         for it, ESP in user space (kernel-libipsec): there is none in the kernel of a test machine
libstrongswan-standard-plugins  for it, AES-GCM
libstrongswan-extra-plugins     for it, AES-CCM, ChaCha20-Poly1305, X25519
openssl                         makes certificates and signatures, and judges ours
strongswan-pki                  certificates made by another than who must read them
pmacct                          nfacctd and sfacctd, which collect our flows and samples
fastnetmon                      another collector, which detects attacks
clickhouse-server               a store of analytics, which each test starts for itself
chromium                        opens the dashboard as a viewer does
prometheus                      promtool, which checks and tests the alert rules
jq                              reads the JSON output of commands in scripts
curl                            reads metrics in scripts
shellcheck                      make lint
qemu-user                       make test-arm64
'

list() { awk 'NF { print $1 }' <<<"$packages"; }

# missing prints those that dpkg does not call installed.
missing() {
  list | sort >"$work/wanted"
  # shellcheck disable=SC2046 # a list of names
  dpkg-query -W -f '${db:Status-Status} ${Package}\n' $(list) 2>/dev/null |
    awk '$1 == "installed" { print $2 }' | sort -u | comm -13 - "$work/wanted"
}

# install asks for nothing, starts no daemon (RUNLEVEL for invoke-rc.d, SYSTEMD_OFFLINE for systemctl), and
# waits for another apt to end.
install() {
  DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 SYSTEMD_OFFLINE=1 apt-get -o DPkg::Lock::Timeout=300 -y -qq \
    --no-install-recommends install "$@" >"$work/log" 2>&1
}

if [ "${1:-}" = --list ]; then
  printf '%s' "${packages#?}"
  exit
fi
if ! command -v dpkg-query >/dev/null; then
  echo "deps.sh: this is not Debian: install yourself what deps.sh --list names" >&2
  exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mapfile -t want < <(missing)
[ ${#want[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ]; then
  echo "deps.sh: not installed: ${want[*]}" >&2
  echo "deps.sh: as root: apt-get install -y --no-install-recommends ${want[*]}" >&2
  exit 1
fi

echo "installing ${want[*]}"
if ! install "${want[@]}"; then
  # Stale or no package lists are the usual reason; without a network the second attempt fails as well.
  apt-get update -qq >"$work/update" 2>&1
  if ! install "${want[@]}"; then
    cat "$work/update" "$work/log" >&2
    echo "deps.sh: cannot install ${want[*]} (is the package mirror reachable?)" >&2
    exit 1
  fi
fi
