package main_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"iter"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"golang.org/x/sys/unix"

	"causeway/control/api"
	"causeway/scripts/hosts"
)

// A clusterBed is the bed of IKE with a second node. The router gives ESP and IKE from the customer, and packets for it, to the two in
// turn, packet by packet.
//
//	rt  n0 n1 --- eth0 eth1 node   (edge-1, which serves the cluster)
//	    m0 m1 --- eth0 eth1 node2  (edge-2)
type clusterBed struct {
	*ikeBed
	files string // certificates and the roster
}

// Unicast addresses of the nodes.
const (
	address1 = "172.31.1.1"
	address2 = "172.31.3.1"
)

func newClusterBed(t *testing.T, tunnels []*ikeTunnel) *clusterBed {
	t.Helper()
	b := &clusterBed{ikeBed: newIKEBed(t, tunnels), files: t.TempDir()}
	b.addSecond(t)
	return b
}

// addSecond adds the second node.
func (b *clusterBed) addSecond(t *testing.T) {
	t.Helper()
	second := *b.bed
	b.second = &second
	second.node, second.dir, second.name, second.daemon = b.net.Host("node2"), t.TempDir(), "edge-2", nil
	second.socket = filepath.Join(second.dir, "s")
	b.linkSecond()
	b.bed.more, second.more = ", address: "+address1, ", address: "+address2
	b.certify(t)
}

// linkSecond joins the second node and the router as the first one is.
func (b *clusterBed) linkSecond() {
	node := b.second.node
	b.net.Link(b.rt, "m0", node, "eth0", hosts.LinkOptions{})
	b.net.Link(b.rt, "m1", node, "eth1", hosts.LinkOptions{})
	b.rt.Addr("m0", "172.31.3.254/24", "2001:db8:33::fe/64")
	b.rt.Addr("m1", "172.31.4.254/24", "2001:db8:34::fe/64")
	node.Addr("eth0", "172.31.3.1/24", "2001:db8:33::1/64")
	node.Addr("eth1", "172.31.4.1/24", "2001:db8:34::1/64")
	node.Route("default", "via", "172.31.3.254")
	node.Route("default", "via", "2001:db8:33::fe")
	node.Route("198.51.100.0/24", "via", "172.31.4.254")
	node.Route("2001:db8:c::/64", "via", "2001:db8:34::fe")
	for table, gateways := range map[string][4]string{
		"1": {"172.31.2.1", "172.31.1.1", "2001:db8:32::1", "2001:db8:31::1"},
		"2": {"172.31.4.1", "172.31.3.1", "2001:db8:34::1", "2001:db8:33::1"},
	} {
		b.rt.MustRun("bash", "-c", fmt.Sprintf(`ip rule add fwmark %[1]s lookup 10%[1]s && ip -6 rule add fwmark %[1]s lookup 10%[1]s &&
			ip route add %[2]s via %[3]s table 10%[1]s && ip route add 198.18.0.0/16 via %[4]s table 10%[1]s &&
			ip -6 route add %[5]s via %[6]s table 10%[1]s && ip -6 route add 2001:db8:18::/48 via %[7]s table 10%[1]s`,
			table, endpoint4, gateways[0], gateways[1], endpoint6, gateways[2], gateways[3]))
	}
}

// How the router gives packets to nodes.
const (
	toBoth   = "0 : 1, 1 : 2" // in turn
	toFirst  = "0 : 1, 1 : 1"
	toSecond = "0 : 2, 1 : 2"
)

func (b *clusterBed) spray(turn string) {
	b.rt.MustRun("nft", fmt.Sprintf(`table inet spray
		delete table inet spray
		table inet spray {
		map turn { typeof numgen inc mod 2 : meta mark; elements = { %[1]s }; }
		chain pre { type filter hook prerouting priority mangle;
			ip protocol esp ip daddr %[2]s meta mark set numgen inc mod 2 map @turn
			ip protocol gre ip daddr %[2]s meta mark set numgen inc mod 2 map @turn
			ip6 nexthdr esp ip6 daddr %[3]s meta mark set numgen inc mod 2 map @turn
			ip daddr %[2]s udp dport {500, 4500} meta mark set numgen inc mod 2 map @turn
			ip6 daddr %[3]s udp dport {500, 4500} meta mark set numgen inc mod 2 map @turn
			ip daddr 198.18.0.0/16 meta mark set numgen inc mod 2 map @turn
			ip6 daddr 2001:db8:18::/48 meta mark set numgen inc mod 2 map @turn
		}
		}
`, turn, endpoint4, endpoint6))
}

// certify makes the nodes' certificates and the roster.
func (b *clusterBed) certify(t *testing.T) {
	t.Helper()
	authority := makeCertificate(t, b.files, "ca", nil, nil)
	makeCertificate(t, b.files, "edge-1", authority, net.ParseIP(address1))
	makeCertificate(t, b.files, "edge-2", authority, net.ParseIP(address2))
	var roster strings.Builder
	for _, x := range []*bed{b.bed, b.second} {
		roster.WriteString(x.node.MustRun(b.bin, "cluster", "identity", "--state-dir", x.dir, "--name", x.name))
	}
	if err := os.WriteFile(filepath.Join(b.files, "roster"), []byte(roster.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A certificate is one that may certify others.
type certificate struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

// makeCertificate makes NAME.pem and NAME.key, certified by an authority or, without one, by itself.
func makeCertificate(t *testing.T, dir, name string, by *certificate, address net.IP) *certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		BasicConstraintsValid: true, IsCA: by == nil}
	if address != nil {
		x.IPAddresses = []net.IP{address}
	}
	if by == nil {
		by = &certificate{x, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, x, by.Certificate, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for suffix, block := range map[string]*pem.Block{".pem": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(dir, name+suffix), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &certificate{x, key}
}

// section is a node's section cluster.
func (b *clusterBed) section(x *bed) string {
	with := fmt.Sprintf(`servers: ["tls://%s:4222"]`, address1)
	if x == b.bed {
		with = fmt.Sprintf(`hub: {listen: "%s:4222"}`, address1)
	}
	return fmt.Sprintf("cluster: {%s, roster: %[2]s/roster, tls: {certificate: %[2]s/%[3]s.pem, key: %[2]s/%[3]s.key, ca: %[2]s/ca.pem}}", with, b.files, x.name)
}

// startSwan starts the customer's strongSwan on its kernel, with more settings of its own.
func (b *clusterBed) startSwan(more ...string) {
	settings := append([]string{"delete_rekeyed_delay = 1", "install_routes = no"}, more...)
	b.swans[inGuest] = b.guest.Swan("swan", hosts.SwanOptions{Conf: swanctlConf(b.tunnels, inGuest), Settings: strings.Join(settings, "\n")}, b.rt, "198.51.100.2")
}

// startNodes starts both, and waits until each sees the other.
func (b *clusterBed) startNodes(t *testing.T) {
	t.Helper()
	for _, x := range []*bed{b.bed, b.second} {
		x.write(t, b.fileOf(x))
		x.start()
	}
	b.joined(t)
}

// fileOf is a node's configuration: both have the same tunnels.
func (b *clusterBed) fileOf(x *bed) string {
	var routes []string
	for _, tunnel := range b.tunnels {
		if tunnel.device { // BGP comes at the end
			routes = append(routes, `analytics: {listen: "127.0.0.1:9151"}`)
			routes = append(routes, "routes:", fmt.Sprintf("  - {prefix: 198.18.%d.0/24, nexthop: %s}", tunnel.number, tunnel.name), fmt.Sprintf("  - {prefix: %q, nexthop: %s}", fmt.Sprintf("2001:db8:18:%d::/64", tunnel.number), tunnel.name))
		}
	}
	s := x.configuration(nil, append([]string{b.section(x)}, routes...)...)
	for _, tunnel := range b.tunnels {
		s += tunnel.configuration(b.keys)
	}
	return s
}

func (b *clusterBed) joined(t *testing.T) {
	t.Helper()
	for _, x := range []*bed{b.bed, b.second} {
		await(t, x.name+" has not joined", func() bool {
			c := show[api.Cluster](t, x, "cluster")
			return c.State == "joined" && c.Nodes == 2 && c.SPIsReserved > 0 && c.NotInstalled == 0 && show[api.Status](t, x, "status").Ready
		})
	}
}

// await fails the test if something does not come true.
func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(startLimit); !f(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s in %v", what, startLimit)
		}
	}
}

// carried is how many packets a node has taken from tunnels and given to them.
func carried(t *testing.T, x *bed) (rx, tx uint64) {
	t.Helper()
	for _, v := range show[[]api.Tunnel](t, x, "tunnels") {
		rx, tx = rx+v.RXPackets, tx+v.TXPackets
	}
	return rx, tx
}

// manyPings sends packets through each tunnel, each of which must be answered, and checks that both nodes had their part of them.
func (b *clusterBed) manyPings(t *testing.T, step string, nodes ...*bed) {
	t.Helper()
	const times = 10
	var before [][2]uint64
	for _, x := range nodes {
		rx, tx := carried(t, x)
		before = append(before, [2]uint64{rx, tx})
	}
	for range times {
		b.pings(step)
	}
	b.failures(t)
	for i, x := range nodes {
		rx, tx := carried(t, x)
		if least := uint64(times * 2 * len(b.tunnels) / 4); rx-before[i][0] < least || tx-before[i][1] < least {
			t.Errorf("%s: %s had %d packets of the customer's and %d for it: the test does not spray", step, x.name, rx-before[i][0], tx-before[i][1])
		}
	}
}

// threeTunnels are of different families and suites.
func threeTunnels() []*ikeTunnel {
	return []*ikeTunnel{
		{number: 101, name: "four", place: inGuest, proposals: "aes256gcm16-prfsha384-ecp384", child: "aes256gcm16-ecp384-noesn", childTiming: "replay_window = 0"},
		{number: 102, name: "six", place: inGuest, v6: true, proposals: "aes128-sha256-x25519", child: "aes128-sha256-noesn", childTiming: "replay_window = 0"},
		{number: 103, name: "chacha", place: inGuest, proposals: "chacha20poly1305-prfsha256-x25519", child: "chacha20poly1305-x25519-noesn", childTiming: "replay_window = 0"},
	}
}

// TestRootCluster: what one node negotiates another one carries, packet by packet, and goes on with when the first is gone.
func TestRootCluster(t *testing.T) {
	tunnels := threeTunnels()
	tunnels[0].probed, tunnels[0].device = true, true
	newClusterBed(t, tunnels).goesOn(t)
}

func (b *clusterBed) goesOn(t *testing.T) {
	t.Helper()
	b.spray(toBoth)
	b.startNodes(t)
	b.startSwan()
	wires := []*hosts.Capture{b.rt.Capture("n1", "ip proto 50 or ip6 proto 50"), b.rt.Capture("m1", "ip proto 50 or ip6 proto 50")}

	b.step(t, "strongSwan initiates, each datagram to another node", change{true, true}, b.initiates)
	b.manyPings(t, "sprayed", b.bed, b.second)
	flow := b.inet.Start("ping", "-q", "-l", "20", "-i", "0.002", "-c", "3000", "-W", "1", "-I", b.tunnels[0].from4().String(), b.tunnels[0].inside4().String())
	b.rekeys(t, "sprayed: ")
	if err := flow.Wait(startLimit); err != nil || !strings.Contains(flow.Log(), "3000 packets transmitted, 3000 received") {
		t.Errorf("packets while all is replaced: %v\n%s\ndropped: %v, %v", err, flow.Log(), b.drops(t), b.second.drops(t))
	}
	b.manyPings(t, "sprayed after rekeys", b.bed, b.second)
	await(t, "what was replaced is not gone on both nodes", func() bool {
		for _, n := range show[[]api.ClusterNode](t, b.second, "nodes") {
			if n.SAs != len(b.tunnels) || !n.Agrees {
				return false
			}
		}
		return true
	})

	if b.tunnels[0].probed {
		b.probesComeHome(t)
		b.oneCountsForBoth(t)
	}

	negotiations := b.rt.Capture("vc", "udp port 500 or udp port 4500")
	b.spray(toSecond)
	b.takenBy(t, b.second)
	b.rekeys(t, "the second node has all: ")
	b.kill(t, b.second)
	b.spray(toFirst)
	if b.tunnels[0].probed {
		b.oneIsMissing(t)
	}
	b.manyPings(t, "the negotiator is dead", b.bed)
	b.rekeys(t, "the negotiator is dead: ")
	b.manyPings(t, "another node has all", b.bed)

	b.second.start()
	b.joined(t)
	b.spray(toBoth)
	b.manyPings(t, "the second node is there again", b.bed, b.second)
	b.rekeys(t, "the second node is there again: ")

	b.kill(t, b.bed) // it has the store
	b.spray(toSecond)
	b.manyPings(t, "the store is gone", b.second)
	await(t, "the second node does not say that the store is away", func() bool { return show[api.Cluster](t, b.second, "cluster").State == "away" })
	b.start()
	b.joined(t)
	b.spray(toBoth)
	b.manyPings(t, "the store is there again", b.bed, b.second)
	b.rekeys(t, "the store is there again: ")
	b.noNegotiation(t, negotiations.Stop())
	if b.tunnels[0].probed {
		b.downWithoutSA(t)
		b.oneSpeaks(t)
		b.bothLearn(t)
	}
	b.differentIVs(t, wires[0].Stop(), wires[1].Stop())
	for _, x := range []*bed{b.second, b.bed} {
		x.end(t)
	}
}

// takenBy has a node get all IKE SAs: the other one stops in good order, and starts again.
func (b *clusterBed) takenBy(t *testing.T, x *bed) {
	t.Helper()
	for _, tunnel := range b.tunnels {
		if b.holder(tunnel.name) != x {
			other := b.bed
			if x == b.bed {
				other = b.second
			}
			t.Logf("%s has the IKE SA of %s: it stops", other.name, tunnel.name)
			other.daemon.Signal(unix.SIGTERM)
			if err := other.daemon.Wait(startLimit); err != nil {
				t.Fatal(err)
			}
			other.daemon = nil
			other.start()
			b.joined(t)
			break
		}
	}
	for _, tunnel := range b.tunnels {
		await(t, x.name+" does not have the IKE SA of "+tunnel.name, func() bool { return b.holder(tunnel.name) == x })
	}
}

// kill ends a node without a word.
func (b *clusterBed) kill(t *testing.T, x *bed) {
	t.Helper()
	x.daemon.Signal(unix.SIGKILL)
	_ = x.daemon.Wait(startLimit)
	x.daemon = nil
}

// noNegotiation checks that no IKE SA was begun, and that there was IKE.
func (b *clusterBed) noNegotiation(t *testing.T, pcap string) {
	t.Helper()
	if n := len(b.net.Tshark(pcap, "isakmp.exchangetype == 34", "frame.number")); n > 0 {
		t.Errorf("%s has %d messages IKE_SA_INIT", pcap, n)
	}
	if n := len(b.net.Tshark(pcap, "isakmp.exchangetype == 36", "frame.number")); n < 4*len(b.tunnels) {
		t.Errorf("%s has %d messages CREATE_CHILD_SA", pcap, n)
	}
}

// differentIVs checks that no two packets of the nodes have one IV under one SPI, and so under one key.
func (b *clusterBed) differentIVs(t *testing.T, pcaps ...string) {
	t.Helper()
	type use struct {
		spi uint32
		iv  string
	}
	seen := map[use]string{}
	for _, pcap := range pcaps {
		packets := 0
		for p := range readESP(t, pcap) {
			u := use{p.SPI, string(p.Encrypted[:8])}
			if before, twice := seen[u]; twice {
				t.Errorf("%s: number %d under spi %#x has the iv %x of a packet in %s", pcap, p.Seq, p.SPI, u.iv, before)
			}
			seen[u] = pcap
			packets++
		}
		if packets < 100 {
			t.Errorf("%s has %d packets to the customer", pcap, packets)
		}
	}
}

// readESP are the ESP packets of a recording that endpoints have sent.
func readESP(t *testing.T, pcap string) iter.Seq[*layers.IPSecESP] {
	t.Helper()
	f, err := os.Open(pcap)
	if err != nil {
		t.Fatal(err)
	}
	r, err := pcapgo.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	return func(yield func(*layers.IPSecESP) bool) {
		defer f.Close()
		for {
			b, _, err := r.ReadPacketData()
			if err != nil {
				return
			}
			p := gopacket.NewPacket(b, layers.LinkTypeEthernet, gopacket.Default)
			source := ""
			if n := p.NetworkLayer(); n != nil {
				source = n.NetworkFlow().Src().String()
			}
			esp, ok := p.Layer(layers.LayerTypeIPSecESP).(*layers.IPSecESP)
			if ok && (source == endpoint4 || source == endpoint6) && !yield(esp) {
				return
			}
		}
	}
}

// TestRootReplayProtection: the customer's window is on, packets come to both nodes, and one encrypts; it is killed, and the other one
// goes on at once, ahead of all numbers that were used.
func TestRootReplayProtection(t *testing.T) {
	tunnels := []*ikeTunnel{
		{number: 101, name: "delta", place: inGuest, proposals: "aes256gcm16-prfsha384-ecp384", child: "aes256gcm16-ecp384-noesn", childTiming: "replay_window = 64", protected: true}, // edge-2's
		{number: 102, name: "six", place: inGuest, v6: true, proposals: "aes128-sha256-x25519", child: "aes128-sha256-esn", childTiming: "replay_window = 64", protected: true},        // edge-1's
	}
	b := newClusterBed(t, tunnels)
	b.spray(toBoth)
	b.startNodes(t)
	b.startSwan()
	wires := []*hosts.Capture{b.rt.Capture("n1", "ip proto 50 or ip6 proto 50"), b.rt.Capture("m1", "ip proto 50 or ip6 proto 50")}
	b.step(t, "strongSwan initiates", change{true, true}, b.initiates)
	b.manyPings(t, "sprayed, with a window")
	b.rekeys(t, "sprayed, with a window: ")
	b.manyPings(t, "after rekeys")
	if n := b.forwarded(t); n == 0 {
		t.Error("nothing was forwarded between the nodes")
	}

	b.ownerKilled(t, b.second, tunnels[0])
	b.manyPings(t, "one node is dead")
	b.rekeys(t, "one node is dead: ")
	b.second.start()
	b.joined(t)
	b.spray(toBoth)
	b.manyPings(t, "it is there again")
	b.rekeys(t, "it is there again: ")
	b.ownerDrained(t, tunnels[0])
	b.noNumberTwice(t, wires[0].Stop(), wires[1].Stop())
	for _, x := range b.alive() {
		x.end(t)
	}
}

// ownerKilled kills the node that encrypts for a tunnel, and checks that packets that come to the other one pass again within a second
// (the lease of a node is three).
func (b *clusterBed) ownerKilled(t *testing.T, x *bed, tunnel *ikeTunnel) {
	t.Helper()
	b.spray(toFirst)
	const gap = 10 * time.Millisecond
	ping := b.inet.Start("ping", "-q", "-i", "0.01", "-w", "4", "-I", tunnel.from4().String(), tunnel.inside4().String())
	time.Sleep(time.Second)
	b.kill(t, x)
	_ = ping.Wait(startLimit)
	m := regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`).FindStringSubmatch(ping.Log())
	if m == nil {
		t.Fatalf("ping printed: %s", ping.Log())
	}
	sent, _ := strconv.Atoi(m[1])
	received, _ := strconv.Atoi(m[2])
	lost := time.Duration(sent-received) * gap
	t.Logf("the node that encrypts is killed: %d of %d packets, one each %v, are lost", sent-received, sent, gap)
	if lost > time.Second || received < 100 {
		t.Errorf("%s is dead: %d of %d packets are lost", x.name, sent-received, sent)
	}
}

// ownerDrained drains the node that encrypts for a tunnel, while packets come to the other one: it has nothing to do any more soon.
func (b *clusterBed) ownerDrained(t *testing.T, tunnel *ikeTunnel) {
	t.Helper()
	x, way := b.second, toFirst
	if show[api.Cluster](t, b.bed, "cluster").OwnedHere > 0 {
		x, way = b.bed, toSecond
	}
	b.spray(way)
	ping := b.inet.Start("ping", "-q", "-i", "0.01", "-w", "20", "-I", tunnel.from4().String(), tunnel.inside4().String())
	time.Sleep(time.Second)
	began := time.Now()
	out, err := x.node.Run(b.bin, "drain", "--limit", "15s", "--socket", x.socket)
	took := time.Since(began).Round(100 * time.Millisecond)
	if err != nil {
		t.Errorf("%s does not drain: %v\n%s", x.name, err, out)
	}
	_ = x.daemon.Wait(startLimit)
	x.daemon = nil
	ping.Signal(unix.SIGINT)
	_ = ping.Wait(startLimit)
	m := regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`).FindStringSubmatch(ping.Log())
	if m == nil {
		t.Fatalf("ping printed: %s", ping.Log())
	}
	t.Logf("%s, which encrypts, is drained in %v: of %s packets %s are answered", x.name, took, m[1], m[2])
	sent, _ := strconv.Atoi(m[1])
	received, _ := strconv.Atoi(m[2])
	if sent-received > 20 || took > 10*time.Second {
		t.Error("that is too many, or takes too long")
	}
}

// forwarded is how many packets the nodes have forwarded to the one that encrypts.
func (b *clusterBed) forwarded(t *testing.T) (n uint64) {
	t.Helper()
	for _, x := range b.alive() {
		n += show[api.Workers](t, x, "workers").Total.ToOwner
	}
	return n
}

// noNumberTwice checks that no sequence number was sent twice under an SPI, by whichever node.
func (b *clusterBed) noNumberTwice(t *testing.T, pcaps ...string) {
	t.Helper()
	type use struct{ spi, number uint32 }
	seen := map[use]string{}
	for _, pcap := range pcaps {
		for p := range readESP(t, pcap) {
			u := use{p.SPI, p.Seq}
			if before, twice := seen[u]; twice {
				t.Errorf("number %d under spi %#x is in %s and in %s", p.Seq, p.SPI, before, pcap)
			}
			seen[u] = pcap
		}
	}
	if len(seen) < 100 {
		t.Errorf("%d packets to the customer were seen", len(seen))
	}
}

// TestRootReplay: packets of the customer's that somebody has captured on their way to one node pass at no other, nor at the same one
// again, nor at one that was started since.
func TestRootReplay(t *testing.T) {
	tunnel := &ikeTunnel{number: 101, name: "four", place: inGuest, proposals: "aes256gcm16-prfsha384-ecp384", child: "aes256gcm16-ecp384-noesn", childTiming: "replay_window = 0", window: 32}
	b := newClusterBed(t, []*ikeTunnel{tunnel})
	b.spray(toFirst)
	b.startNodes(t)
	b.startSwan()
	b.step(t, "strongSwan initiates", change{true, true}, b.initiates)
	wire := b.rt.Capture("n1", "ip proto 50 and dst host "+endpoint4)
	ping := func() {
		b.inet.MustRun("ping", "-q", "-c", "150", "-i", "0.01", "-I", tunnel.from4().String(), tunnel.inside4().String())
	}
	ping()
	captured := wire.Stop()
	ping()
	time.Sleep(4 * time.Second) // the floor is as high as the numbers were two seconds ago
	b.inject(t, "at the other node", captured, b.second, "m1", "esp_below_floor")
	b.inject(t, "at the same node", captured, b.bed, "n1", "esp_left_of_window")
	b.kill(t, b.second)
	b.second.start()
	b.joined(t)
	b.inject(t, "at a node that was started since", captured, b.second, "m1", "esp_below_floor")
	b.spray(toSecond)
	ping()
	b.spray(toBoth)
	ping()
	for _, x := range []*bed{b.second, b.bed} {
		x.end(t)
	}
}

// inject sends what was captured to a node, and checks that it drops all for a reason.
func (b *clusterBed) inject(t *testing.T, where, pcap string, x *bed, link, reason string) {
	t.Helper()
	const packets = 40
	before, drops := carriedIn(t, x), x.drops(t)[reason]
	b.rt.Scapy(fmt.Sprintf(`
n = 0
for p in rdpcap(%q):
    if p.haslayer(IP) and p[IP].proto == 50 and n < %d:
        p[Ether].dst = %q
        sendp(p, iface=%q, verbose=0)
        n += 1
assert n == %[2]d, n
`, pcap, packets, x.node.MAC("eth1"), link))
	await(t, where+": not all are dropped", func() bool { return x.drops(t)[reason] >= drops+packets })
	if n := carriedIn(t, x); n != before {
		t.Errorf("%s: %d of %d packets pass", where, n-before, packets)
	}
}

func carriedIn(t *testing.T, x *bed) uint64 {
	t.Helper()
	rx, _ := carried(t, x)
	return rx
}
