package main_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"causeway/control/api"
	"causeway/scripts/hosts"
)

// TestRootLong: nodes are killed and started again, keys replaced by both ends, the store is lost, cut off, and put back from an old
// copy. Then no IV was sent twice under a key, of ESP or IKE, and no sequence number twice for the tunnel whose customer has its
// window on. With CAUSEWAY_FULL 50 kills and 400 replaced keys, else 1 and 8.
func TestRootLong(t *testing.T) {
	rounds := 1
	if full() {
		rounds = 50
	}
	const gcm, asks = "aes256gcm16-prfsha384-ecp384", "dpd_delay = 1s"
	tunnels := []*ikeTunnel{
		{number: 101, name: "four", place: inGuest, proposals: gcm, child: "aes256gcm16-ecp384-noesn", childTiming: "replay_window = 0", connection: asks},
		{number: 102, name: "delta", place: inGuest, proposals: gcm, child: "aes256gcm16-ecp384-noesn", childTiming: "replay_window = 64", protected: true, connection: asks},
	}
	b := newClusterBed(t, tunnels)
	b.linkThird(t)
	nodes := map[string]*bed{address3: b.third, address1: b.bed, address2: b.second}
	b.certifyAll(t, nodes)
	b.startWith(t, b.third, fmt.Sprintf(`hub: {listen: "%s:4222"}`, address3))
	for _, x := range []*bed{b.bed, b.second} {
		b.startWith(t, x, fmt.Sprintf(`servers: ["tls://%s:4222"]`, address3))
	}
	b.three(t)
	b.spray(toBoth)
	b.startSwan(impatient...)
	const filter = "ip proto 50 or udp port 500 or udp port 4500"
	wires := []*hosts.Capture{b.rt.Capture("n1", filter), b.rt.Capture("m1", filter), b.rt.Capture("w0", filter)}
	negotiations := b.rt.Capture("vc", "udp port 500 or udp port 4500")
	b.step(t, "strongSwan initiates", change{true, true}, b.initiates)
	old, numbered := filepath.Join(t.TempDir(), "old"), map[uint32]bool{}
	for i := range rounds {
		x, rest, way := b.bed, b.second, toSecond
		if i%2 == 1 {
			x, rest, way = b.second, b.bed, toFirst
		}
		round := fmt.Sprintf("round %d: ", i+1)
		b.kill(t, x)
		b.spray(way)
		time.Sleep(time.Second) // in which the tunnel with its window on may lose packets: the node that encrypts for it may be dead
		b.carries(t, round+x.name+" is dead", rest)
		b.numberedBy(t, "delta", numbered)
		b.rekeys(t, round+x.name+" is dead: ")
		x.start()
		b.three(t)
		b.spray(toBoth)
		b.carries(t, round+"both", b.bed, b.second)
		b.numberedBy(t, "delta", numbered)
		if i == rounds/2 {
			b.storeGoesAndComes(t, old)
		}
	}
	inits := len(b.net.Tshark(negotiations.Stop(), "isakmp.exchangetype == 34", "frame.number"))
	if inits != 2*len(tunnels) {
		t.Errorf("%d messages IKE_SA_INIT, want those of the beginning, %d", inits, 2*len(tunnels))
	}
	b.oldStore(t, old)
	var pcaps []string
	for _, w := range wires {
		pcaps = append(pcaps, w.Stop())
	}
	b.uniqueOnTheWire(t, pcaps, numbered)
	for _, x := range []*bed{b.bed, b.second, b.third} {
		x.end(t)
	}
}

// impatient has strongSwan give an IKE SA up 4 s after the first request without an answer; asked is longer than that, and when it asks.
var impatient = []string{"retransmit_tries = 3", "retransmit_timeout = 0.5", "retransmit_base = 1.5"}

const asked = 7 * time.Second

// asksWithoutHub: while the hub is away and the customer's IKE comes to either node, both say that they live, and the one that has an IKE
// SA gets what comes to the other.
func (b *clusterBed) asksWithoutHub(t *testing.T) {
	t.Helper()
	for _, way := range []string{toFirst, toSecond} {
		b.spray(way)
		time.Sleep(asked)
	}
	for _, x := range b.tunnels {
		way := toFirst
		if b.holder(x.name) == b.bed {
			way = toSecond
		}
		b.spray(way)
		before := strings.Count(b.swans[inGuest].Log(), "TEMPORARY_FAILURE")
		if err := b.swanctl("--rekey", "--ike")(x); err != nil {
			t.Error(err)
		}
		await(t, "a request that came to the other node is not answered", func() bool {
			return strings.Count(b.swans[inGuest].Log(), "TEMPORARY_FAILURE") > before
		})
	}
	b.spray(toBoth)
}

// three waits until all three nodes have joined.
func (b *clusterBed) three(t *testing.T) {
	t.Helper()
	for _, x := range []*bed{b.third, b.bed, b.second} {
		await(t, x.name+" has not joined", func() bool {
			c := show[api.Cluster](t, x, "cluster")
			return c.State == "joined" && c.Nodes == 3 && c.SPIsReserved > 0 && c.NotInstalled == 0 && show[api.Status](t, x, "status").Ready
		})
	}
}

// carries sends packets through each tunnel, each of which must be answered.
func (b *clusterBed) carries(t *testing.T, step string, nodes ...*bed) {
	t.Helper()
	for range 5 {
		b.pings(step)
	}
	b.failures(t)
	for _, x := range nodes {
		if rx, tx := carried(t, x); rx+tx == 0 {
			t.Errorf("%s: %s carries nothing", step, x.name)
		}
	}
}

// storeGoesAndComes: the hub is killed, and then cut off in silence. A copy of its store is kept.
func (b *clusterBed) storeGoesAndComes(t *testing.T, old string) {
	t.Helper()
	away := func() {
		for _, x := range []*bed{b.bed, b.second} {
			await(t, x.name+" does not say that the store is away", func() bool { return show[api.Cluster](t, x, "cluster").State == "away" })
		}
		b.carries(t, "the store is away", b.bed, b.second)
	}
	b.kill(t, b.third)
	away()
	b.asksWithoutHub(t)
	if err := os.CopyFS(old, os.DirFS(filepath.Join(b.third.dir, "cluster"))); err != nil {
		t.Fatal(err)
	}
	b.third.start()
	b.three(t)
	b.step(t, "the hub was killed: strongSwan asks again to rekey the IKE SA", change{true, false}, func(*ikeTunnel) error { return nil })
	b.rekeys(t, "the hub was killed: ")
	b.rt.MustRun("nft", fmt.Sprintf("table inet cut { chain c { type filter hook forward priority 0; ip saddr %[1]s drop; ip daddr %[1]s drop; }\n}", address3))
	away()
	b.rt.MustRun("nft", "delete table inet cut")
	b.three(t)
	b.rekeys(t, "the hub was cut off: ")
}

// oldStore: a copy of the store that is put back is refused, tunnels go on, and what the message says to do helps.
func (b *clusterBed) oldStore(t *testing.T, old string) {
	t.Helper()
	store := filepath.Join(b.third.dir, "cluster")
	b.third.end(t)
	if err := os.RemoveAll(store); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(store, os.DirFS(old)); err != nil {
		t.Fatal(err)
	}
	b.third.start()
	for _, x := range []*bed{b.bed, b.second} {
		await(t, x.name+" does not refuse the old store", func() bool {
			return strings.Contains(show[api.Cluster](t, x, "cluster").Why, "the store is older than it was")
		})
	}
	b.carries(t, "the store is an old copy", b.bed, b.second)
	b.third.end(t)
	if err := os.RemoveAll(store); err != nil {
		t.Fatal(err)
	}
	b.third.start()
	for _, x := range []*bed{b.bed, b.second} {
		x.end(t)
		x.start()
	}
	b.three(t)
	b.step(t, "a new store", change{true, true}, func(x *ikeTunnel) error {
		_ = b.swanctl("--terminate", "--ike", x.name, "--force")(x)
		return b.initiates(x)
	})
	b.carries(t, "a new store", b.bed, b.second)
}

// uniqueOnTheWire checks what the nodes have sent. numbered are the SPIs toward the customer of the tunnel whose window is on.
func (b *clusterBed) uniqueOnTheWire(t *testing.T, pcaps []string, numbered map[uint32]bool) {
	t.Helper()
	type use struct {
		key string
		iv  string
	}
	esp, ike, spis, numbers := map[use]string{}, map[use]string{}, map[uint32]bool{}, map[[2]uint32]bool{}
	for _, pcap := range pcaps {
		for p := range readESP(t, pcap) {
			u := use{fmt.Sprint(p.SPI), string(p.Encrypted[:8])}
			if before, twice := esp[u]; twice {
				t.Errorf("iv %x under spi %#x is in %s and in %s", u.iv, p.SPI, before, pcap)
			}
			esp[u], spis[p.SPI] = pcap, true
			if !numbered[p.SPI] {
				continue
			}
			if numbers[[2]uint32{p.SPI, p.Seq}] {
				t.Errorf("number %d under spi %#x comes twice, the second time in %s", p.Seq, p.SPI, pcap)
			}
			numbers[[2]uint32{p.SPI, p.Seq}] = true
		}
		for _, m := range readIKE(t, pcap) {
			u := use{string(m[:16]), string(ivOf(m))}
			if before, twice := ike[u]; twice && before != string(m) { // what is sent again is the same
				t.Errorf("iv %x of the IKE SA %x is in two messages", u.iv, u.key)
			}
			ike[u] = string(m)
		}
	}
	t.Logf("%d packets of ESP under %d SPIs, %d of them numbered by one node at a time, and %d messages of IKE: no IV twice, no number twice", len(esp), len(spis), len(numbers), len(ike))
	if len(esp) < 150 || len(ike) < 20 || len(numbers) < 30 {
		t.Error("too few to say anything")
	}
}

// readIKE are the encrypted messages of IKE in a recording that endpoints have sent.
func readIKE(t *testing.T, pcap string) (list [][]byte) {
	t.Helper()
	f, err := os.Open(pcap)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for {
		b, _, err := r.ReadPacketData()
		if err != nil {
			return list
		}
		p := gopacket.NewPacket(b, layers.LinkTypeEthernet, gopacket.Default)
		udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
		if !ok || p.NetworkLayer().NetworkFlow().Src().String() != endpoint4 {
			continue
		}
		m := udp.Payload
		if udp.SrcPort == 4500 { // RFC 3948 2.2: four zeros, or it is ESP
			if len(m) < 4 || !bytes.Equal(m[:4], make([]byte, 4)) {
				continue
			}
			m = m[4:]
		}
		if len(m) > 60 && ivOf(m) != nil {
			list = append(list, m)
		}
	}
}

// ivOf is the IV of a message of IKE whose first payload is an encrypted one (RFC 7296 3.14, RFC 7383 2.5), for algorithms with 8 bytes of it.
func ivOf(m []byte) []byte {
	const header, generic, sk, skf = 28, 4, 46, 53
	switch m[16] {
	case sk:
		return m[header+generic:][:8]
	case skf:
		return m[header+generic+4:][:8]
	}
	return nil
}

// numberedBy adds the SPIs toward the customer that a tunnel has now.
func (b *clusterBed) numberedBy(t *testing.T, tunnel string, spis map[uint32]bool) {
	t.Helper()
	for _, x := range b.alive() {
		for _, a := range show[[]api.SA](t, x, "sas") {
			if a.Tunnel == tunnel && a.Direction == "out" {
				spis[a.SPI] = true
			}
		}
	}
}
