package main_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"causeway/control/api"
	"causeway/control/ike/message"
	"causeway/control/ike/suite"
	"causeway/pipeline/wire"
	"causeway/scripts/hosts"
)

// hardTunnels are one tunnel at each place, for what is hard on tunnels.
func hardTunnels() []*ikeTunnel {
	return []*ikeTunnel{
		{number: 101, name: "guest-hard", place: inGuest, proposals: "aes128gcm16-prfsha256-ecp256", child: "aes128gcm16-ecp256"},
		{number: 102, name: "user-hard", place: inUser, proposals: "aes256-sha384-x25519", child: "aes256gcm16-x25519", remoteID: "user.example.net"},
	}
}

const metricsLine = "metrics: {listen: \"127.0.0.1:9150\"}"

// TestRootIKEHard has two tunnels, and what is not kind to them: keys that are compared, datagrams that are lost, floods, and new
// keys every few seconds under load.
func TestRootIKEHard(t *testing.T) {
	b := newIKEBed(t, hardTunnels())
	b.run(t, b.ikeConfiguration(metricsLine))
	b.part(t, "keys", b.testKeys)
	if full() { // a minute each
		b.part(t, "loss", b.testLoss)
		b.part(t, "flood", b.testFlood)
	}
	b.part(t, "new keys under load", b.testNewKeysUnderLoad)
	b.end(t)
}

// restartSwans starts strongSwan anew, and the node without what it had with the ones before.
func (b *ikeBed) restartSwans(t *testing.T, more string) {
	t.Helper()
	for _, x := range b.tunnels {
		_ = b.client.CommandIKE(api.IKETerminate, x.name) // there may be none
	}
	for place, s := range b.swans {
		s.Kill()
		delete(b.swans, place)
	}
	const settings = "delete_rekeyed_delay = 1\nmake_before_break = yes\n"
	b.swans[inGuest] = b.guest.Swan(fmt.Sprintf("swan%d", b.swansMade), hosts.SwanOptions{Conf: swanctlConf(b.tunnels, inGuest), Settings: settings + "install_routes = no\n" + more}, b.rt, "198.51.100.2")
	b.swans[inUser] = b.user.Swan(fmt.Sprintf("swan%d", b.swansMade), hosts.SwanOptions{Conf: swanctlConf(b.tunnels, inUser), Settings: settings + more})
	b.swansMade++
}

// failures fails the test with what went wrong with the tunnels.
func (b *ikeBed) failures(t *testing.T) {
	t.Helper()
	for _, x := range b.tunnels {
		for _, e := range x.errs {
			t.Errorf("%s: %s", x.name, e)
		}
		x.errs = nil
	}
}

// testKeys compares keys that the node writes for Wireshark with those that charon logs: of a new IKE SA, of one that is rekeyed by
// each side, and of pairs with and without a key exchange of their own.
func (b *ikeBed) testKeys(t *testing.T) {
	b.restartSwans(t, hosts.SwanSecrets)
	files := map[*ikeTunnel]string{}
	for _, x := range b.tunnels {
		f, err := b.client.ExportKeys(x.name, 10*time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		files[x] = f.Path
	}
	b.step(t, "strongSwan initiates", change{true, true}, b.initiates)
	b.rekeys(t, "")
	b.failures(t)
	for _, x := range b.tunnels {
		text, err := os.ReadFile(files[x])
		if err != nil {
			t.Fatal(err)
		}
		charon := map[string]bool{}
		for _, list := range b.swans[x.place].Secrets() {
			for _, secret := range list {
				charon[secret] = true
			}
		}
		ikes, pairs := 0, 0
		for line := range strings.Lines(string(text)) {
			table, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
			var keys []string
			switch fields := strings.Split(rest, ","); table {
			case "ikev2_decryption_table":
				ikes++
				keys = []string{fields[2], fields[3]}
				if fields[5] != "" {
					keys = append(keys, fields[5], fields[6])
				}
			case "esp_sa":
				pairs++
				keys = []string{strings.TrimPrefix(strings.Trim(fields[5], `"`), "0x")}
			}
			for _, k := range keys {
				if k == "" || !charon[k] {
					t.Errorf("%s: charon has no key %s; the line of the node's file is\n%s", x.name, k, line)
				}
			}
		}
		if ikes < 3 || pairs != 2*3 {
			t.Errorf("%s: the file has %d IKE SAs and %d associations, want 3 and 6:\n%s", x.name, ikes, pairs, text)
		}
		if info, err := os.Stat(files[x]); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", files[x], info.Mode(), err)
		}
		if err := os.Remove(files[x]); err != nil {
			t.Error(err)
		}
	}
}

// testLoss drops 30 % of all IKE datagrams, each way: a tunnel has to come up and be rekeyed all the same.
func (b *ikeBed) testLoss(t *testing.T) {
	b.restartSwans(t, "")
	must(t, b.rt, "nft", `table ip loss {
		chain forward { type filter hook forward priority -10
			udp dport 500 numgen random mod 100 < 30 drop
			udp dport 4500 @th,64,32 0 numgen random mod 100 < 30 drop
		}
	}`)
	defer b.rt.Run("nft", "delete table ip loss")
	each("loss", b.tunnels, func(x *ikeTunnel) error {
		const wanted = 3
		up, children, ikes := 0, 0, 0
		var last error
		for end := time.Now().Add(4 * time.Minute); children < wanted || ikes < wanted; {
			if time.Now().After(end) {
				return fmt.Errorf("up %d times, %d children and %d IKE SAs were rekeyed; last: %w", up, children, ikes, last)
			}
			if last = b.client.CommandIKE(api.IKEInitiate, x.name); last == nil {
				up++
			}
			if last = b.client.CommandIKE(api.IKERekey, x.name); last == nil {
				children++
				last = b.echo(x.from4(), x.inside4())
			}
			if err := b.client.CommandIKE(api.IKERekeySelf, x.name); err == nil {
				ikes++
			}
		}
		return last
	})
	must(t, b.rt, "nft", "delete", "table", "ip", "loss")
	b.pings("after the loss")
	b.failures(t)
	t.Logf("datagrams that the router lost: %d retransmissions of the node", b.metric(t, "causeway_ike_retransmissions_total"))
}

// metric is a number of the node's metrics.
func (b *ikeBed) metric(t *testing.T, name string) int {
	t.Helper()
	out := must(t, b.node, "curl", "-s", "http://127.0.0.1:9150/metrics")
	for line := range strings.Lines(out) {
		var n float64
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			if _, err := fmt.Sscan(rest, &n); err == nil {
				return int(n)
			}
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// testFlood has strangers begin as fast as a core can send, from as many addresses as there are. The tunnels must not notice.
func (b *ikeBed) testFlood(t *testing.T) {
	b.restartSwans(t, "")
	b.step(t, "strongSwan initiates", change{true, true}, b.initiates)
	before := b.status(t, "VmRSS")
	stop, sent := make(chan bool), atomic.Int64{}
	done := make(chan error, 1)
	go func() { done <- b.flood(stop, &sent) }()
	time.Sleep(500 * time.Millisecond)
	for range 3 {
		b.step(t, "under the flood, the node rekeys the child", change{child: true}, b.causeway(api.IKERekey))
		b.step(t, "under the flood, strongSwan rekeys the IKE SA", change{ike: true}, b.swanctl("--rekey", "--ike"))
	}
	half := b.metric(t, "causeway_ike_half_open_sas")
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	b.failures(t)
	cookies := b.metric(t, "causeway_ike_cookies_sent_total")
	t.Logf("%d requests were sent, %d answered with cookies, %d SAs half open, %d kB more memory", sent.Load(), cookies, half, b.status(t, "VmRSS")-before)
	if cookies == 0 || half > 4096 || sent.Load() < 10_000 {
		t.Errorf("the flood of %d was none: %d cookies, %d SAs half open", sent.Load(), cookies, half)
	}
	if more := b.status(t, "VmRSS") - before; more > 100<<10 {
		t.Errorf("the daemon has %d kB more than before", more)
	}
}

// flood sends IKE_SA_INIT requests, each from another address, out of the Internet's host.
func (b *ikeBed) flood(stop chan bool, sent *atomic.Int64) error {
	p, err := suite.ParseIKE("aes128gcm16-prfsha256-ecp256", false)
	if err != nil {
		return err
	}
	p.Number = 1
	offer, err := suite.NewOffer(suite.ECP256)
	if err != nil {
		return err
	}
	c := message.Contents{SA: []message.Proposal{p}, KE: &message.KE{Method: suite.ECP256, Data: offer.Public()}, Nonce: make([]byte, 32)}
	first, body := c.Append(nil)
	h := message.Header{SPIi: 1, First: first, Major: 2, Exchange: message.IKESAInit, Initiator: true, Length: message.HeaderLen + len(body)}
	text := append(h.Append(nil), body...)
	var fd int
	var ifi *net.Interface
	b.inet.Do(func() {
		if ifi, err = net.InterfaceByName("eth0"); err == nil {
			fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		}
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	frame := initFrame(ifi.HardwareAddr, b.rt.MAC("vi"), text)
	to := &unix.SockaddrLinklayer{Ifindex: ifi.Index, Halen: 6}
	for n := uint32(1); ; n++ {
		select {
		case <-stop:
			return nil
		default:
		}
		vary(frame, n)
		if err := unix.Sendto(fd, frame, 0, to); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		sent.Add(1)
	}
}

const frameIP = 14

// initFrame is an Ethernet frame with a datagram to the endpoint's port 500.
func initFrame(from net.HardwareAddr, to string, text []byte) []byte {
	mac, _ := net.ParseMAC(to)
	f := append(append(slices.Clone([]byte(mac)), from...), 0x08, 0x00)
	ip := make([]byte, 28)
	ip[0], ip[8], ip[9] = 0x45, 64, wire.ProtoUDP
	binary.BigEndian.PutUint16(ip[2:], uint16(28+len(text)))
	copy(ip[16:], netip.MustParseAddr(endpoint4).AsSlice())
	binary.BigEndian.PutUint16(ip[20:], 500)
	binary.BigEndian.PutUint16(ip[22:], 500)
	binary.BigEndian.PutUint16(ip[24:], uint16(8+len(text))) // without a checksum (RFC 768)
	return append(append(f, ip...), text...)
}

// vary gives a frame of initFrame the n-th source and SPI.
func vary(f []byte, n uint32) {
	ip := f[frameIP:]
	binary.BigEndian.PutUint32(ip[12:], 10<<24|n&0xffffff)
	binary.BigEndian.PutUint16(ip[10:], 0)
	binary.BigEndian.PutUint16(ip[10:], wire.Checksum(ip[:20]))
	binary.BigEndian.PutUint32(ip[28:], n) // of the SPI, which is not 0
}

// status is a number of the daemon's /proc/PID/status, in kB.
func (b *ikeBed) status(t *testing.T, name string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.daemon.PID()))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), name+":")
	n := 0
	if _, err := fmt.Sscan(rest, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// testNewKeysUnderLoad has both sides make new keys every five seconds, and new IKE SAs every twenty, while packets pass both ways of
// one tunnel and then of the other. Not one may be lost between the node's two lines: the router counts what comes and what leaves.
func (b *ikeBed) testNewKeysUnderLoad(t *testing.T) {
	span, share := 10*time.Second, 40 // of the load that there is at least: a busy machine does not make what it should
	if full() {
		span, share = 3*time.Minute, 1
	}
	for _, x := range b.tunnels {
		x.lifetime = "{child: 6s, ike: 20s}"
		x.connection = "rekey_time = 18s\nover_time = 10s\nrand_time = 3s"
		x.childTiming = "rekey_time = 5s\nlife_time = 15s\nrand_time = 1s"
	}
	b.write(t, b.ikeConfiguration(metricsLine))
	must(t, b.node, b.bin, "reload", "--socket", b.socket)
	b.restartSwans(t, "")
	b.step(t, "strongSwan initiates", change{true, true}, b.initiates)
	b.failures(t)
	b.count(t)
	defer b.rt.Run("nft", "delete table ip storm")
	ringsBefore, dropped, rekeyed, locked := b.ringDrops(t), b.drops(t), b.metric(t, `causeway_ike_rekeys_total{kind="child"}`), b.status(t, "VmLck")
	b.sh(t, fmt.Sprintf("iperf3 -s -D -B %s", b.tunnels[0].inside4()))
	b.user.Start("iperf3", "-s", "-B", b.tunnels[1].inside4().String())
	time.Sleep(time.Second)

	stop, live := make(chan bool), make(chan []int)
	go func() { live <- b.watchMemory(stop) }()
	for i, x := range b.tunnels {
		rate := []int{2000, 5000}[i] // packets per second each way: a guest's socket takes no more
		// Tens at once, because a guest's clock is too coarse for one at a time.
		load := b.inet.Start("iperf3", "-c", x.inside4().String(), "-B", x.from4().String(), "-u", "--bidir", "-l", "200",
			"-b", fmt.Sprintf("%d/10", rate*200*8), "-t", fmt.Sprint(int(span.Seconds())), "--connect-timeout", "10000")
		if err := load.Wait(span + time.Minute); err != nil {
			t.Errorf("iperf3: %v\n%s", err, load.Log())
		}
		counted := b.counted(t)
		for _, way := range []string{"in", "out"} {
			if n := counted[x.place+"_"+way+"_esp"]; n < int(span.Seconds())*rate*9/10/share {
				t.Errorf("%s, %s: %d packets in %v are no load", x.name, way, n, span)
			}
		}
	}
	close(stop)
	if samples := <-live; full() {
		enough(t, samples)
	}
	time.Sleep(2 * time.Second)
	counted := b.counted(t)
	missing, rings := 0, int(b.ringDrops(t)-ringsBefore)
	for _, x := range b.tunnels {
		for _, way := range []string{"in", "out"} {
			sealed, plain := counted[x.place+"_"+way+"_esp"], counted[x.place+"_"+way+"_plain"]
			t.Logf("%s, %s: %d packets with ESP, %d without", x.name, way, sealed, plain)
			missing += max(sealed-plain, plain-sealed)
		}
	}
	// Two cores for all of this: a worker that does not get its own for a quarter of a second finds full rings, whether keys are made or
	// not. What the kernel dropped there it has counted, and nothing else may be missing.
	if t.Logf("%d packets are missing, %d were dropped at full rings", missing, rings); missing != rings {
		t.Errorf("%d packets are missing, and %d were dropped at full rings", missing, rings)
	}
	if lost := b.newDrops(t, dropped); len(lost) > 0 {
		t.Errorf("dropped: %v", lost)
	}
	n := b.metric(t, `causeway_ike_rekeys_total{kind="child"}`) - rekeyed
	t.Logf("%d pairs and %d IKE SAs were replaced", n, b.metric(t, `causeway_ike_rekeys_total{kind="ike"}`))
	if n < 2*len(b.tunnels)*int(span.Seconds())/6 {
		t.Errorf("%d pairs were replaced in %v", n, 2*span)
	}
	if stat := b.sh(t, "cat /proc/net/xfrm_stat"); !noErrors(stat) {
		t.Errorf("the guest's kernel refused packets:\n%s", stat)
	}
	b.settled(t)
	if now := b.status(t, "VmLck"); now > locked {
		t.Errorf("keys have %d kB of locked memory, %d before", now, locked)
	}
}

// watchMemory reads every two seconds, until stop is closed, what the daemon has allocated: bytes. It is not what the process has from
// the kernel, which grows until the first collection: Go is told to let garbage be four times what lives (tuneRuntime).
func (b *ikeBed) watchMemory(stop chan bool) (samples []int) {
	for {
		select {
		case <-stop:
			return samples
		case <-time.After(2 * time.Second):
		}
		out, err := b.node.Run("curl", "-s", "http://127.0.0.1:9150/metrics")
		_, rest, found := strings.Cut(out, "\ngo_memstats_alloc_bytes ")
		var bytes float64
		if _, scan := fmt.Sscan(rest, &bytes); err == nil && found && scan == nil {
			samples = append(samples, int(bytes))
		}
	}
}

// enough checks that what lives has not grown. The runtime collects every two minutes at least, so the least of each third of six is
// what was there after a collection, or, in the first, at the beginning.
func enough(t *testing.T, samples []int) {
	t.Helper()
	third := len(samples) / 3
	if third < 30 {
		t.Fatalf("%d samples of the daemon's memory", len(samples))
	}
	first, last := slices.Min(samples[:third]), slices.Min(samples[2*third:])
	if t.Logf("%d kB lived in the first two minutes, %d kB in the last", first>>10, last>>10); last > first+first/20 {
		t.Errorf("%d bytes lived in the first two minutes, %d in the last", first, last)
	}
}

// ringDrops is how many packets the kernel could not put on the node's rings.
func (b *ikeBed) ringDrops(t *testing.T) (n uint64) {
	t.Helper()
	for _, p := range show[[]api.Port](t, b.bed, "ports") {
		for _, q := range p.Queues {
			n += q.RxDropped
		}
	}
	return n
}

// noErrors reports whether a kernel found an association for each packet, and no number twice.
func noErrors(stat string) bool {
	for line := range strings.Lines(stat) {
		var name string
		var n int
		if fmt.Sscan(line, &name, &n); n > 0 && slices.Contains([]string{"XfrmInNoStates", "XfrmInStateSeqError", "XfrmInStateProtoError"}, name) {
			return false
		}
	}
	return true
}

// settled waits for a moment in which both ends have the same, and no end has anything else.
func (b *ikeBed) settled(t *testing.T) {
	t.Helper()
	eventually(t, "each tunnel has one IKE SA and at most two pairs", func() bool {
		node, swan := b.nodeViews(t), b.swanViews()
		return !slices.ContainsFunc(b.tunnels, func(x *ikeTunnel) bool {
			n, s := node[x.name], swan[x.name]
			return len(n) != 1 || len(s) != 1 || n[0].spis != s[0].spis || len(n[0].pairs) != 1 || !slices.Equal(n[0].pairs, s[0].pairs)
		})
	})
	live := 0
	for _, sa := range show[[]api.SA](t, b.bed, "sas") {
		if sa.Direction == "in" {
			live++
		}
	}
	if live > 3*len(b.tunnels) { // with those that were deleted in the last seconds
		t.Errorf("the node has %d associations for receiving of %d tunnels", live, len(b.tunnels))
	}
}

// count has the router count packets of the tunnels on both sides of the node.
func (b *ikeBed) count(t *testing.T) {
	t.Helper()
	var rules strings.Builder
	for _, x := range b.tunnels {
		line, esp := "vc", "ip protocol esp"
		if x.place == inUser {
			line, esp = "vl", "udp dport 4500 @th,64,32 != 0"
		}
		fmt.Fprintf(&rules, `
			iifname "%[1]s" ip saddr %[2]s %[4]s counter name %[5]s_in_esp
			iifname "n0" ip saddr %[3]s counter name %[5]s_in_plain
			oifname "n0" ip daddr %[3]s counter name %[5]s_out_plain
			iifname "n1" ip daddr %[2]s %[4]s counter name %[5]s_out_esp`, line, x.outer(), x.inside4(), esp, x.place)
	}
	var counters strings.Builder
	for _, x := range b.tunnels {
		for _, way := range []string{"in_esp", "in_plain", "out_esp", "out_plain"} {
			fmt.Fprintf(&counters, "counter %s_%s {\n}\n", x.place, way)
		}
	}
	must(t, b.rt, "nft", fmt.Sprintf("table ip storm {\n%schain forward { type filter hook forward priority 10%s\n}\n}", counters.String(), rules.String()))
}

func (b *ikeBed) counted(t *testing.T) map[string]int {
	t.Helper()
	var list struct {
		Nftables []struct {
			Counter struct {
				Name    string
				Packets int
			}
		}
	}
	if err := json.Unmarshal([]byte(must(t, b.rt, "nft", "-j", "list", "counters", "table", "ip", "storm")), &list); err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, c := range list.Nftables {
		out[c.Counter.Name] = c.Counter.Packets
	}
	return out
}
