#!/bin/bash
# strongSwan's IKE daemon, charon, as a customer's router: several on one machine, each with a
# directory, a /run and a control socket of its own. It runs where `run` is called: in a network
# namespace (ip netns exec), or in a guest.
#
#   swan.sh configure DIR netlink|libipsec [URI]   DIR is swanctl's: swanctl.conf, private/, x509/, x509ca/
#   swan.sh run       DIR                          charon, in the background
#   swan.sh load      DIR                          waits for it, and loads DIR
#   swan.sh ctl       DIR SWANCTL-WORDS...         --initiate --child net | --rekey --ike c | --list-sas --raw
#   swan.sh kill      DIR                          ends it at once: peers are not told
#
# netlink is ESP in the kernel. libipsec is ESP in user space, for a kernel without it: with UDP
# encapsulation only, which it gets by claiming to be behind a NAT; no ESN; on a device ipsec0.
#
# URI is the control socket, unix://DIR/vici by default. With tcp://ADDRESS:PORT, load and ctl may
# run on another machine than run, which is what a guest wants: there each process costs a second.
#
# DIR/charon.conf, if it is there, has more lines for charon { }. DIR/log is the daemon's log.
# It ends CW_SWAN_MAX (600) seconds after its start, whatever happens to the test that wanted it.
set -u
cmd=${1:-} dir=${2:-}

# openssl comes first, because the AES-GCM of the plugin gcm is several times slower.
crypto="random nonce openssl aes sha1 sha2 hmac kdf pem pkcs1 pkcs8 x509 pubkey constraints gcm ccm ctr chapoly curve25519"

# Each --initiate holds a thread until the peer has answered, and eight have other things to do: of 16, the default, eight
# at the same time would leave none to receive the answers.
configure() {
  local kernel=kernel-netlink
  [ "$1" = netlink ] || kernel="kernel-libipsec kernel-netlink"
  echo "$2" >"$dir/uri"
  cat >"$dir/strongswan.conf" <<CONF
charon {
  load = $crypto $kernel socket-default updown vici
  threads = 32
  retransmit_tries = 3
  retransmit_timeout = 2
  plugins {
    vici {
      socket = $2
    }
  }
  filelog {
    f {
      path = $dir/log
      time_format = %T
      flush_line = yes
      default = 1
    }
  }
$(cat "$dir/charon.conf" 2>/dev/null)
}
CONF
}

# /run is its own, because of /run/charon.pid. The process group has the number of its first process.
run() {
  if [ ! -x /usr/lib/ipsec/charon ]; then
    echo "swan.sh: no charon: run scripts/deps.sh" >&2
    exit 1
  fi
  STRONGSWAN_CONF=$dir/strongswan.conf setsid unshare --mount sh -c \
    "mount -t tmpfs tmpfs /run && exec timeout -k 3 ${CW_SWAN_MAX:-600} /usr/lib/ipsec/charon" >"$dir/stdout" 2>&1 </dev/null &
  echo $! >"$dir/pid"
}

ctl() {
  local verb=$1
  shift
  SWANCTL_DIR=$dir STRONGSWAN_CONF=$dir/strongswan.conf swanctl "$verb" --uri "$(cat "$dir/uri")" "$@"
}

load() {
  local end=$((SECONDS + 60))
  until ctl --version --daemon >/dev/null 2>&1; do
    if [ $SECONDS -ge $end ]; then
      echo "swan.sh: charon does not answer on $(cat "$dir/uri")" >&2
      exit 1
    fi
    sleep .05
  done
  ctl --load-all --file "$dir/swanctl.conf" >"$dir/load" 2>&1 || { cat "$dir/load" >&2; exit 1; }
}

# end_it kills the process group, and waits until it is gone.
end_it() {
  local pid
  [ -f "$dir/pid" ] || return 0
  pid=$(cat "$dir/pid")
  kill -9 -- "-$pid" 2>/dev/null
  for _ in $(seq 100); do
    pgrep -g "$pid" -r R,S,D,T,t >/dev/null || break # what is left are zombies
    sleep .02
  done
  rm -f "$dir/pid"
}

case $cmd in
configure) configure "${3:?netlink or libipsec}" "${4:-unix://$dir/vici}" ;;
run) run ;;
load) load ;;
ctl) shift 2; ctl "$@" ;;
kill) end_it ;;
*) sed -n '6,10s/^# *//p' "$0" >&2; exit 2 ;;
esac
