package main_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"causeway/control/api"
	"causeway/scripts/hosts"
)

// flow sends n packets through a tunnel in each of some streams, and returns how many were answered. Without -l ping would wait for answers.
func (b *clusterBed) flow(t *testing.T, tunnel *ikeTunnel, every time.Duration, n, streams int) (answered int) {
	t.Helper()
	var pings []*hosts.Process
	for range streams {
		pings = append(pings, b.inet.Start("ping", "-q", "-l", strconv.Itoa(n/20), "-W", "1", "-i", fmt.Sprint(every.Seconds()), "-c", strconv.Itoa(n), "-I", tunnel.from4().String(), tunnel.inside4().String()))
	}
	for _, p := range pings {
		answered += pinged(t, p, n)
	}
	return answered
}

// passes sends packets through each tunnel, which must all be answered.
func (b *clusterBed) passes(t *testing.T, when string) {
	t.Helper()
	for _, x := range b.tunnels {
		if answered := b.flow(t, x, 5*time.Millisecond, 200, 1); answered != 200 {
			t.Errorf("%s: %s: %d of 200 packets are answered", when, x.name, answered)
		}
	}
}

// cut lets nothing pass between a node and the hub; "": everything passes. Connections are reset, so that both notice at once: TestRootLong
// has the case in which nothing answers.
func (b *clusterBed) cut(t *testing.T, node string) {
	t.Helper()
	b.rt.MustRun("nft", "table inet cut\ndelete table inet cut")
	if node != "" {
		b.rt.MustRun("nft", fmt.Sprintf(`table inet cut { chain c { type filter hook forward priority 0;
			ip saddr { %[1]s, %[2]s } ip daddr { %[1]s, %[2]s } meta l4proto tcp reject with tcp reset
			ip saddr { %[1]s, %[2]s } ip daddr { %[1]s, %[2]s } drop
		}
}`, node, address3))
	}
}

// TestRootPartition: one node is 50 ms farther away than the other; then either is cut off from the store, the one that encrypts for a
// tunnel with its window on, and the other one.
func TestRootPartition(t *testing.T) {
	const gcm = "aes256gcm16-prfsha384-ecp384"
	tunnels := []*ikeTunnel{
		{number: 101, name: "four", place: inGuest, proposals: gcm, child: "aes256gcm16-ecp384-noesn", childTiming: "replay_window = 0"},
		{number: 102, name: "delta", place: inGuest, proposals: gcm, child: "aes256gcm16-ecp384-noesn", childTiming: "replay_window = 64", protected: true},
	}
	b := newClusterBed(t, tunnels)
	b.linkThird(t)
	b.certifyAll(t, map[string]*bed{address3: b.third, address1: b.bed, address2: b.second})
	b.startWith(t, b.third, fmt.Sprintf(`hub: {listen: "%s:4222"}`, address3))
	for _, x := range []*bed{b.bed, b.second} {
		b.startWith(t, x, fmt.Sprintf(`servers: ["tls://%s:4222"]`, address3))
	}
	b.three(t)
	b.spray(toBoth)
	b.startSwan()
	b.step(t, "strongSwan initiates", change{true, true}, b.initiates)
	b.passes(t, "nothing is wrong")
	b.fartherAway(t)
	b.partition(t)
	for _, x := range []*bed{b.bed, b.second, b.third} {
		x.end(t)
	}
}

// delayLine gives back each packet that is routed into its device, later. The kernels here have no netem.
const delayLine = `
import collections, fcntl, os, select, struct, time
tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
fcntl.ioctl(tun, 0x400454ca, struct.pack("16sH", b"later", 0x1001))  # TUNSETIFF: IFF_TUN | IFF_NO_PI
print("ready", flush=True)
waiting = collections.deque()
while True:
    left = waiting[0][0] - time.monotonic() if waiting else 1
    if left > 0 and select.select([tun], [], [], left)[0]:
        waiting.append((time.monotonic() + 0.05, os.read(tun, 65536)))
    while waiting and waiting[0][0] <= time.monotonic():
        os.write(tun, waiting.popleft()[1])
`

// farther has what goes to the second node come 50 ms later, until what it returns is called.
func (b *clusterBed) farther(t *testing.T) (nearer func()) {
	t.Helper()
	line := b.rt.Start("python3", "-c", delayLine)
	await(t, "there is no delay line", func() bool { return strings.Contains(line.Log(), "ready") })
	b.rt.MustRun("bash", "-c", fmt.Sprintf(`ip link set later up && sysctl -qw net.ipv4.conf.later.rp_filter=0 net.ipv4.conf.all.rp_filter=0 && ip rule add iif later lookup 103 pref 100 &&
		ip route add %[1]s via 172.31.4.1 table 103 && ip route add 198.18.0.0/16 via 172.31.3.1 table 103 &&
		ip route replace %[1]s dev later table 102 && ip route replace 198.18.0.0/16 dev later table 102`, endpoint4))
	return func() {
		b.rt.MustRun("bash", "-c", fmt.Sprintf("ip route replace %s via 172.31.4.1 table 102 && ip route replace 198.18.0.0/16 via 172.31.3.1 table 102", endpoint4))
		line.Signal(unix.SIGKILL)
		_ = line.Wait(startLimit)
	}
}

// fartherAway: 2,000 packets a second lose nothing, to the customer and from it, where each other one comes 50 ms later.
func (b *clusterBed) fartherAway(t *testing.T) {
	t.Helper()
	defer b.farther(t)()
	for _, x := range b.tunnels {
		began := time.Now()
		answered := b.flow(t, x, time.Millisecond, 4000, 2)
		t.Logf("%s: with 50 ms between the ways %d of 8000 packets are answered, in %v", x.name, answered, time.Since(began).Round(100*time.Millisecond))
		if answered < 7960 { // what a busy machine may lose on the way
			t.Errorf("%s: %d of 8000 packets are answered", x.name, answered)
		}
	}
	for _, x := range []*bed{b.bed, b.second} {
		for _, reason := range []string{"esp_left_of_window", "esp_below_floor", "esp_replayed"} {
			if n := x.drops(t)[reason]; n > 0 {
				t.Errorf("%s dropped %d packets: %s", x.name, n, reason)
			}
		}
	}
}

// partition cuts the nodes off from the store, one after the other.
func (b *clusterBed) partition(t *testing.T) {
	t.Helper()
	owner, other := b.bed, b.second
	if show[api.Cluster](t, b.second, "cluster").OwnedHere > 0 {
		owner, other = b.second, b.bed
	}
	addresses := map[*bed]string{b.bed: address1, b.second: address2}
	ways := map[*bed]string{b.bed: toFirst, b.second: toSecond}
	away := func(x *bed) {
		await(t, x.name+" does not say that the store is away", func() bool { return show[api.Cluster](t, x, "cluster").State == "away" })
	}

	b.cut(t, addresses[other])
	away(other)
	b.passes(t, "who does not encrypt is cut off from the store")
	b.cut(t, "")
	b.three(t)
	b.passes(t, "it is joined again")

	b.cut(t, addresses[owner])
	away(owner)
	await(t, "no other node encrypts", func() bool {
		return show[api.Cluster](t, other, "cluster").OwnedHere+show[api.Cluster](t, b.third, "cluster").OwnedHere == 1
	})
	b.spray(ways[other])
	b.passes(t, "who encrypts is cut off from the store, and packets come to the other node")
	await(t, "the node that is cut off does not say that its numbers are not reserved", func() bool { return show[api.Cluster](t, owner, "cluster").Unconfirmed > 0 })
	b.spray(ways[owner])
	answered := b.flow(t, b.tunnels[1], 5*time.Millisecond, 200, 1)
	t.Logf("packets that come to the node that is cut off, and still encrypts: %d of 200 are answered", answered)
	if answered == 200 {
		t.Error("the customer takes all that two nodes number: the test shows nothing")
	}
	if answered := b.flow(t, b.tunnels[0], 5*time.Millisecond, 200, 1); answered != 200 {
		t.Errorf("the tunnel without a window: %d of 200 packets are answered", answered)
	}
	b.spray(toBoth)
	b.cut(t, "")
	b.three(t)
	await(t, "two nodes encrypt", func() bool {
		n := 0
		for _, x := range []*bed{b.bed, b.second, b.third} {
			n += show[api.Cluster](t, x, "cluster").OwnedHere
		}
		return n == 1
	})
	b.passes(t, "all are joined again")
	b.rekeys(t, "all are joined again: ")
}
