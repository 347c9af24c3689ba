#!/bin/bash
# A real Linux kernel as a peer: Debian's user-mode-linux. Its root is the host's own root
# (hostfs, read-only), so every package of the host is in the guest; its network cards are
# tap devices inside a network namespace.
#
#   uml.sh start NAME NETNS TAP[,TAP2...] [MEMORY]   boot (about 2 s); vec0, vec1... are the taps
#   uml.sh exec  NAME 'shell text'                   run it in the guest as root: its output, its exit status
#   uml.sh stop  NAME
#
# A guest ends by itself CW_UML_MAX (600) seconds after its start, whatever happens to the test
# that wanted it. exec gives up with status 124 after CW_UML_EXEC_MAX (60) seconds, and with 125
# when the guest is gone. In the guest $PEER is the run directory, shared with the host for
# reading and writing; /tmp, /run and /var/log are empty and its own.
set -u
here=$(cd "$(dirname "$0")" && pwd)
runroot=/tmp/causeway-uml
cmd=${1:-} name=${2:-}
run=$runroot/$name

# guest_init prints the guest's init: mounts, forwarding on, then one command after the other
# from the host, read and answered on the second console.
guest_init() {
  cat <<'INIT'
#!/bin/bash
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
PEER=$(sed 's/.*peer_run=\([^ ]*\).*/\1/' /proc/cmdline)
for d in /run /tmp /var/log /var/tmp; do mount -t tmpfs tmpfs $d; done
mkdir -p /dev/pts /dev/shm /dev/net
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mkdir -p "$PEER"
mount -t hostfs -o "$PEER" none "$PEER"
mount -t hostfs -o /usr/lib/uml/modules none /lib/modules
export PEER
hostname "$(sed 's/.*peer_name=\([^ ]*\).*/\1/' /proc/cmdline)"
modprobe ipv6 2>/dev/null
sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
  net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
  net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
ip link set lo up
for i in /sys/class/net/vec*; do ip link set "${i##*/}" up; done
stty -F /dev/tty1 -echo -opost -icrnl -isig
exec 5<>/dev/tty1
echo "READY $(cat /proc/uptime)" >&5
while read -r id <&5; do
  [ "$id" = halt ] && break
  ( exec 5>&-; cd /tmp; bash "$PEER/cmd.$id" >"$PEER/out.$id" 2>&1 </dev/null; echo $? >"$PEER/rc.$id" )
  sync "$PEER/out.$id"
  echo "DONE $id" >&5
done
halt -f -p
INIT
}

# xstate_library prints the path of xstate.c, compiled (see there why a guest needs it).
xstate_library() {
  local lib=$runroot/xstate.so
  if [ ! "$lib" -nt "$here/xstate.c" ]; then
    "$(command -v clang || command -v gcc)" -O2 -shared -fPIC -o "$lib.$$" "$here/xstate.c" && mv "$lib.$$" "$lib" || return
  fi
  echo "$lib"
}

start() {
  local netns=$1 taps=$2 memory=${3:-256M} vec=() k=0 tap line preload
  if ! command -v linux.uml >/dev/null; then
    echo "uml.sh: no linux.uml: apt-get install -y --no-install-recommends user-mode-linux kmod" >&2
    exit 1
  fi
  mkdir -p "$run" /lib/modules
  rm -f "$run"/*
  preload=$(xstate_library) || { echo "uml.sh: cannot compile xstate.c: apt-get install -y --no-install-recommends clang libc6-dev" >&2; exit 1; }
  mkfifo "$run/in" "$run/out"
  guest_init >"$run/init.sh"
  chmod 755 "$run/init.sh"
  for tap in ${taps//,/ }; do
    vec+=("vec$k:transport=tap,ifname=$tap,depth=128,gro=0")
    k=$((k + 1))
  done
  # Opened for both directions, so that neither end ever sees the FIFO close.
  exec 7<>"$run/in" 8<>"$run/out"
  # A pid namespace of its own: when the kernel process goes, all the guest's processes go.
  setsid ip netns exec "$netns" timeout -k 3 "${CW_UML_MAX:-600}" unshare --pid --fork --kill-child \
    env LD_PRELOAD="$preload" linux.uml mem="$memory" root=/dev/root rootfstype=hostfs rootflags=/ ro init="$run/init.sh" \
    con=null con0=null,fd:1 con1=fd:7,fd:8 ssl=null uml_dir="$run" umid=uml \
    "${vec[@]}" peer_run="$run" peer_name="$name" >"$run/console" 2>&1 </dev/null &
  echo $! >"$run/pid"
  if read -r -t 60 line <&8 && [[ $line == READY* ]]; then
    return
  fi
  echo "guest $name did not boot:" >&2
  tail -20 "$run/console" >&2
  kill -9 -- "-$(cat "$run/pid")"
  exit 1
}

exec_in() {
  local id line end part=
  exec 9>"$run/lock" || { echo "guest $name is not there" >&2; exit 125; }
  flock 9
  id=$(($(cat "$run/seq" 2>/dev/null || echo 0) + 1))
  echo $id >"$run/seq"
  printf '%s\n' "$1" >"$run/cmd.$id"
  exec 7<>"$run/in" 8<>"$run/out"
  echo $id >&7
  end=$((SECONDS + ${CW_UML_EXEC_MAX:-60}))
  while :; do
    if read -r -t 1 line <&8; then
      line=$part${line%$'\r'} part=
      [ "$line" != "DONE $id" ] || break
    else
      part+=$line # the console writes letter by letter, and the second may end in the middle
    fi
    if [ $SECONDS -ge $end ]; then
      echo "guest $name: no answer in ${CW_UML_EXEC_MAX:-60} s to: $1" >&2
      cat "$run/out.$id"
      exit 124
    fi
    if ! kill -0 "$(cat "$run/pid")" 2>/dev/null; then
      echo "guest $name is gone:" >&2
      tail -20 "$run/console" >&2
      exit 125
    fi
  done
  cat "$run/out.$id"
  exit "$(cat "$run/rc.$id")"
}

# Nothing in the guest is worth saving (its root is read-only), so it is not shut down but killed.
stop() {
  local pid
  [ -f "$run/pid" ] || return 0
  pid=$(cat "$run/pid")
  kill -9 -- "-$pid" 2>/dev/null
  for _ in $(seq 50); do
    pgrep -g "$pid" -r R,S,D,T,t >/dev/null || break # what is left are zombies
    sleep .02
  done
  rm -rf "$run"
}

case $cmd in
start) start "$3" "$4" "${5:-}" ;;
exec) exec_in "$3" ;;
stop) stop ;;
*) sed -n '6,8s/^# *//p' "$0" >&2; exit 2 ;;
esac
