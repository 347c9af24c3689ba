package main_test

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"causeway/control/api"
	"causeway/scripts/hosts"
)

// An espTunnel is an IPsec tunnel between the node and the guest, whose kernel does ESP by policy.
type espTunnel struct {
	greTunnel
	suite         string
	esn, udp      bool
	window        int
	keyIn, keyOut []byte // as in the configuration: enciphering key, then salt or the HMAC's key
}

// linuxSuites are how ip xfrm names the algorithms: what stands before the key or keys, and how long the first of two is.
var linuxSuites = map[string]struct {
	size   int
	header int // bytes of IV and check value
	align  int
	words  func(key []byte) string
}{
	"aes128gcm16":      {20, 24, 4, aead("rfc4106(gcm(aes))")},
	"aes256gcm16":      {36, 24, 4, aead("rfc4106(gcm(aes))")},
	"chacha20poly1305": {36, 24, 4, aead("rfc7539esp(chacha20,poly1305)")},
	"aes128-sha256":    {48, 32, 16, cbc(16, "hmac(sha256)", 128)},
	"aes256-sha256":    {64, 32, 16, cbc(32, "hmac(sha256)", 128)},
	"aes128-sha1":      {36, 28, 16, cbc(16, "hmac(sha1)", 96)},
	"aes256-sha1":      {52, 28, 16, cbc(32, "hmac(sha1)", 96)},
	"null-sha256":      {32, 16, 4, cbc(0, "hmac(sha256)", 128)},
	"null-sha1":        {20, 12, 4, cbc(0, "hmac(sha1)", 96)},
}

func aead(name string) func([]byte) string {
	return func(key []byte) string { return fmt.Sprintf("aead '%s' 0x%x 128", name, key) }
}

func cbc(size int, mac string, bits int) func([]byte) string {
	return func(key []byte) string {
		enc := "enc 'ecb(cipher_null)' ''"
		if size > 0 {
			enc = fmt.Sprintf("enc 'cbc(aes)' 0x%x", key[:size])
		}
		return fmt.Sprintf("auth-trunc '%s' 0x%x %d %s", mac, key[size:], bits, enc)
	}
}

// espTunnels are every suite over IPv4, and what differs otherwise once or twice.
func espTunnels() []espTunnel {
	rng := rand.New(rand.NewPCG(8, 8))
	var list []espTunnel
	add := func(suite, endpoint string, change ...func(*espTunnel)) {
		x := espTunnel{suite: suite, window: 64}
		for _, f := range change {
			f(&x)
		}
		k := len(list) + 101
		for range linuxSuites[suite].size {
			x.keyIn, x.keyOut = append(x.keyIn, byte(rng.Uint32())), append(x.keyOut, byte(rng.Uint32()))
		}
		extra := []string{"type: ipsec", "lab: true", "allow_weak: true", "allow_null_cipher: true", fmt.Sprintf("replay_window: %d", x.window),
			fmt.Sprintf("manual_sas: [{spi_in: %#x, spi_out: %#x, encryption: %s, key_in: \"%s\", key_out: \"%s\", esn: %v, udp_encap: %v}]",
				x.spiIn(k), x.spiOut(k), suite, hex.EncodeToString(x.keyIn), hex.EncodeToString(x.keyOut), x.esn, x.udp)}
		x.greTunnel = newTunnel(k, fmt.Sprintf("e%d-%s", k, suite), endpoint, extra)
		outer := 20
		if x.v6 {
			outer = 40
		}
		if x.udp {
			outer += 8
		}
		s := linuxSuites[suite]
		x.esp = func(path int) int {
			room := path - outer - 8 - s.header
			return room - room%s.align - 2
		}
		x.mtu = x.esp(1500)
		list = append(list, x)
	}
	for _, suite := range []string{"aes128gcm16", "aes256gcm16", "chacha20poly1305", "aes128-sha256", "aes256-sha256", "aes128-sha1", "aes256-sha1",
		"null-sha256", "null-sha1"} {
		add(suite, endpoint4)
	}
	esn := func(x *espTunnel) { x.esn, x.window = true, 128 }
	udp := func(x *espTunnel) { x.udp = true }
	add("aes128gcm16", endpoint6)
	add("aes256-sha256", endpoint6)
	add("aes256gcm16", endpoint4, esn)
	add("aes128-sha256", endpoint4, esn)
	add("chacha20poly1305", endpoint6, esn)
	add("aes128gcm16", endpoint4, udp)
	add("aes256-sha1", endpoint4, udp)
	return list
}

func (x *espTunnel) spiIn(k int) int  { return 0x10000 + k }
func (x *espTunnel) spiOut(k int) int { return 0x20000 + k }

// guestESP gives the guest the other ends. Its kernel takes what a tunnel's network sends by policy; what it says itself to
// that network it does not.
func (b *bed) guestESP(t *testing.T, tunnels []espTunnel) {
	t.Helper()
	var s strings.Builder
	for _, x := range tunnels {
		k := x.number
		if x.v6 {
			fmt.Fprintf(&s, "ip -6 addr add %s/64 dev vec0 nodad || exit\n", x.customer)
		} else {
			fmt.Fprintf(&s, "ip addr add %s/24 dev vec0 || exit\n", x.customer)
		}
		fmt.Fprintf(&s, "ip addr add 198.18.%d.1/24 dev vec1 && ip -6 addr add 2001:db8:18:%d::1/64 dev vec1 nodad || exit\n", k, k)
		more := "replay-window 64"
		if x.esn {
			more = "flag esn replay-window 128"
		}
		if x.udp {
			more += " encap espinudp 4500 4500 0.0.0.0"
		}
		state := func(src, dst string, spi int, key []byte) {
			flag := "flag af-unspec "
			if x.esn {
				flag = strings.Replace(more, "flag esn", "flag af-unspec flag esn", 1)
			} else {
				flag += more
			}
			fmt.Fprintf(&s, "ip xfrm state add src %s dst %s proto esp spi %#x reqid %d mode tunnel %s %s || exit\n",
				src, dst, spi, k, linuxSuites[x.suite].words(key), flag)
		}
		state(x.customer, x.endpoint, x.spiIn(k), x.keyIn)
		state(x.endpoint, x.customer, x.spiOut(k), x.keyOut)
		// The server behind asks now and then from its link-local address whether this router is still there (RFC 4861 7.3.3).
		fmt.Fprintf(&s, "ip xfrm policy add src fe80::/10 dst 2001:db8:18:%d::/64 dir in priority 1 || exit\n", k)
		for _, net := range [][2]string{{fmt.Sprintf("198.18.%d.0/24", k), "0.0.0.0/0"}, {fmt.Sprintf("2001:db8:18:%d::/64", k), "::/0"}} {
			fmt.Fprintf(&s, "ip xfrm policy add src %s dst %s dir out priority 1 || exit\n", net[0], net[0])
			fmt.Fprintf(&s, "ip xfrm policy add src %s dst %s dir out priority 9 tmpl src %s dst %s proto esp reqid %d mode tunnel || exit\n",
				net[0], net[1], x.customer, x.endpoint, k)
			for _, dir := range []string{"in", "fwd"} {
				fmt.Fprintf(&s, "ip xfrm policy add src %s dst %s dir %s priority 9 tmpl src %s dst %s proto esp reqid %d mode tunnel || exit\n",
					net[1], net[0], dir, x.endpoint, x.customer, k)
			}
		}
	}
	b.sh(t, s.String())
	for i, x := range tunnels {
		must(t, b.srv, "ip", "addr", "add", x.behind4().String()+"/24", "dev", "eth0")
		must(t, b.srv, "ip", "addr", "add", x.behind6().String()+"/64", "dev", "eth0", "nodad")
		if i == 0 {
			must(t, b.srv, "ip", "-4", "route", "replace", "default", "via", fmt.Sprintf("198.18.%d.1", x.number))
			must(t, b.srv, "ip", "-6", "route", "replace", "default", "via", fmt.Sprintf("2001:db8:18:%d::1", x.number))
		}
	}
}

// natTraversal opens the guest's port 4500 for ESP in UDP, as an IKE daemon does (RFC 3948): the kernel needs a socket for it.
func (b *bed) natTraversal(t *testing.T) {
	t.Helper()
	b.sh(t, `cat >/tmp/natt.py <<'END'
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_UDP, 100, 2)  # UDP_ENCAP, UDP_ENCAP_ESPINUDP
s.bind(("0.0.0.0", 4500))
time.sleep(3600)
END
setsid python3 /tmp/natt.py >/dev/null 2>&1 </dev/null &
sleep 1`)
}

// TestRootLinuxIPsec runs a node against a Linux kernel's ESP: every suite, ESN, UDP encapsulation, both families.
func TestRootLinuxIPsec(t *testing.T) {
	b := newBed(t, bedOptions{guest: true})
	esp := espTunnels()
	var tunnels []greTunnel
	for _, x := range esp {
		tunnels = append(tunnels, x.greTunnel)
	}
	b.guestESP(t, esp)
	b.natTraversal(t)
	b.run(t, b.configuration(plain(tunnels)))

	b.warm(t, tunnels)
	b.part(t, "wire", func(t *testing.T) { b.testESPWire(t, esp, tunnels) })
	b.part(t, "ping", func(t *testing.T) { b.testPing(t, tunnels) })
	b.part(t, "mss", func(t *testing.T) { b.testMSS(t, tunnels, fits) })
	b.part(t, "transfer", func(t *testing.T) {
		b.transferAll(t, append(b.flows(tunnels, true), b.flows(tunnels, false)...), 256<<10)
		b.balance(t)
	})
	b.part(t, "path mtu", func(t *testing.T) { b.testPathMTU(t, tunnels) })
	b.part(t, "narrow path", func(t *testing.T) { b.testNarrowPath(t, tunnels) })
	b.part(t, "restart", func(t *testing.T) { b.testESPRestart(t, esp) })
	b.part(t, "show", func(t *testing.T) { b.testShowSAs(t, esp) })
	b.part(t, "new keys", func(t *testing.T) { b.testNewKeys(t, esp[0], plain(tunnels)) })
	b.part(t, "what the kernel did not like", func(t *testing.T) {
		out := b.sh(t, "cat /proc/net/xfrm_stat")
		for line := range strings.Lines(out) {
			f := strings.Fields(line)
			if len(f) == 2 && f[1] != "0" && f[0] != "XfrmInNoPols" {
				t.Errorf("%s is %s", f[0], f[1])
			}
		}
	})
	b.end(t)
}

// tsharkSuites are the suites that tshark decrypts and checks; with ESN it does neither.
var tsharkSuites = map[string][2]string{
	"aes128gcm16":   {"AES-GCM with 16 octet ICV [RFC4106]", "NULL"},
	"aes256gcm16":   {"AES-GCM with 16 octet ICV [RFC4106]", "NULL"},
	"aes128-sha256": {"AES-CBC [RFC3602]", "HMAC-SHA-256-128 [RFC4868]"},
	"aes256-sha256": {"AES-CBC [RFC3602]", "HMAC-SHA-256-128 [RFC4868]"},
	"aes128-sha1":   {"AES-CBC [RFC3602]", "HMAC-SHA-1-96 [RFC2404]"},
	"aes256-sha1":   {"AES-CBC [RFC3602]", "HMAC-SHA-1-96 [RFC2404]"},
	"null-sha256":   {"NULL", "HMAC-SHA-256-128 [RFC4868]"},
	"null-sha1":     {"NULL", "HMAC-SHA-1-96 [RFC2404]"},
}

// testESPWire pings through every tunnel while tshark, with the keys, watches the wire: each packet is ESP of the right SPI,
// its check value is right, its sequence numbers grow by one, and inside is the ping.
func (b *bed) testESPWire(t *testing.T, esp []espTunnel, tunnels []greTunnel) {
	wire := b.rt.Capture("n1", "esp or ip6 proto 50 or udp port 4500")
	const pings = 3
	pingAll(t, pings, b.flows(tunnels, true))
	pcap := wire.Stop()
	options := []string{"-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE"}
	for _, x := range esp {
		names, ok := tsharkSuites[x.suite]
		if !ok || x.esn {
			continue
		}
		family := "IPv4"
		if x.v6 {
			family = "IPv6"
		}
		for spi, key := range map[int][]byte{x.spiIn(x.number): x.keyIn, x.spiOut(x.number): x.keyOut} {
			enc, mac := key, []byte(nil)
			if names[1] != "NULL" {
				size := map[string]int{"aes128": 16, "aes256": 32, "null-s": 0}[x.suite[:6]]
				enc, mac = key[:size], key[size:]
			}
			hexed := func(k []byte) string {
				if len(k) == 0 {
					return ""
				}
				return fmt.Sprintf("0x%x", k)
			}
			options = append(options, "-o", fmt.Sprintf(`uat:esp_sa:"%s","*","*","0x%08x","%s","%s","%s","%s"`, family, spi, names[0], hexed(enc), names[1], hexed(mac)))
		}
	}
	type seen struct {
		packets, good, pings int
		last                 uint64
	}
	bySPI := map[string]*seen{}
	for _, r := range b.net.TsharkWith(options, pcap, "esp", "esp.spi", "esp.sequence", "esp.icv_good", "icmp.type", "icmpv6.type") {
		s := bySPI[first(r[0])]
		if s == nil {
			s = &seen{}
			bySPI[first(r[0])] = s
		}
		s.packets++
		n, err := strconv.ParseUint(first(r[1]), 10, 64)
		if err != nil || s.last != 0 && n != s.last+1 {
			t.Errorf("spi %s: sequence number %s after %d", r[0], r[1], s.last)
		}
		s.last = n
		if r[2] == "True" || r[2] == "1" {
			s.good++
		}
		if r[3]+r[4] != "" {
			s.pings++
		}
	}
	for _, x := range esp {
		for _, spi := range []int{x.spiIn(x.number), x.spiOut(x.number)} {
			s := bySPI[fmt.Sprintf("0x%08x", spi)]
			if s == nil || s.packets < 2*pings {
				t.Errorf("%s: spi %#x: %+v, want %d packets", x.name, spi, s, 2*pings)
				continue
			}
			if _, ok := tsharkSuites[x.suite]; ok && !x.esn && (s.good != s.packets || s.pings != s.packets) {
				t.Errorf("%s: spi %#x: of %d packets tshark finds %d right, and a ping in %d", x.name, spi, s.packets, s.good, s.pings)
			}
		}
	}
}

// testESPRestart kills the node again and again under traffic, which goes on each time: the kernel, with its windows of 64,
// takes the packets after each start. On the wire no IV and no sequence number is seen twice, though the keys are the same.
func (b *bed) testESPRestart(t *testing.T, esp []espTunnel) {
	rounds := 6
	if full() {
		rounds = 200
	}
	few := []espTunnel{esp[0], esp[2], esp[3], esp[11]} // AES-GCM, ChaCha20-Poly1305, CBC, AES-GCM with ESN
	wire := b.rt.Capture("n1", "esp and src host "+endpoint4)
	var flows []greTunnel
	var pings []*hosts.Process
	for _, x := range few {
		flows = append(flows, x.greTunnel)
		pings = append(pings, b.inet.Start("ping", "-q", "-i", "0.003", x.behind4().String()))
	}
	var pauses []time.Duration
	for range rounds {
		time.Sleep(time.Duration(50+rand.IntN(150)) * time.Millisecond)
		b.daemon.Kill()
		killed := time.Now()
		b.start()
		pauses = append(pauses, time.Since(killed))
	}
	b.warm(t, flows)
	for _, p := range pings {
		p.Kill()
	}
	slices.Sort(pauses)
	t.Logf("%d times killed and started again: nothing is forwarded for %v in the median, %v at the most", rounds, pauses[rounds/2], pauses[rounds-1])
	judgeNumbers(t, wire.Stop(), few, 100*rounds)
}

// testNewKeys gives tunnel x new keys in the order of docs/operations.md, with a second tunnel beside it for a while, and no
// packet of a ping is lost.
func (b *bed) testNewKeys(t *testing.T, x espTunnel, all []tunnel) {
	k := x.number
	fresh := x
	fresh.name, fresh.interface4, fresh.interface6 = x.name+"-new", "10.214.0.0/31", "fd00:214::a/127"
	fresh.keyIn, fresh.keyOut = slices.Clone(x.keyIn), slices.Clone(x.keyOut)
	fresh.keyIn[0]++
	fresh.keyOut[0]++
	spiIn, spiOut := x.spiIn(k)+0x1000, x.spiOut(k)+0x1000
	fresh.extra = slices.Clone(x.extra)
	fresh.extra[len(fresh.extra)-1] = fmt.Sprintf("manual_sas: [{spi_in: %#x, spi_out: %#x, encryption: %s, key_in: \"%x\", key_out: \"%x\"}]",
		spiIn, spiOut, x.suite, fresh.keyIn, fresh.keyOut)
	routes := "routes:\n"
	for _, p := range x.prefixes {
		routes += fmt.Sprintf("  - {prefix: %q, nexthop: %s, priority: 200}\n  - {prefix: %q, nexthop: %s, priority: 100}\n", p, x.name, p, fresh.name)
	}
	state := func(src, dst string, spi int, key []byte) {
		b.sh(t, fmt.Sprintf("ip xfrm state add src %s dst %s proto esp spi %#x reqid %d mode tunnel %s flag af-unspec replay-window 64",
			src, dst, spi, k, linuxSuites[x.suite].words(key)))
	}
	forget := func(src, dst string, spi int) {
		b.sh(t, fmt.Sprintf("ip xfrm state del src %s dst %s proto esp spi %#x", src, dst, spi))
	}
	reload := func(configuration string) {
		b.write(t, configuration)
		if out, err := b.node.Run(b.bin, "reload", "--socket", b.socket); err != nil {
			t.Fatalf("reload: %v\n%s", err, out)
		}
	}
	const pings = 400
	ping := b.inet.Start("ping", "-q", "-i", "0.02", "-c", strconv.Itoa(pings), "-W", "5", x.behind4().String())

	state(x.endpoint, x.customer, spiOut, fresh.keyOut) // the other end takes the new SPI beside the old one
	reload(b.configuration(append(slices.Clone(all), fresh.tunnel), routes))
	time.Sleep(time.Second)
	state(x.customer, x.endpoint, spiIn, fresh.keyIn) // it sends by its new SPI alone
	forget(x.customer, x.endpoint, x.spiIn(k))
	time.Sleep(time.Second)
	if old := b.receivedBy(t, x.name); old == 0 {
		t.Error("nothing came by the old SPI")
	} else if time.Sleep(300 * time.Millisecond); b.receivedBy(t, x.name) != old {
		t.Error("packets still come by the old SPI")
	}
	if b.receivedBy(t, fresh.name) == 0 {
		t.Error("nothing comes by the new SPI")
	}
	last := slices.DeleteFunc(slices.Clone(all), func(y tunnel) bool { return y.name == x.name })
	reload(b.configuration(append(last, fresh.tunnel)))
	forget(x.endpoint, x.customer, x.spiOut(k))

	ping.Wait(30 * time.Second)
	if out := ping.Log(); !strings.Contains(out, fmt.Sprintf("%d packets transmitted, %d received", pings, pings)) {
		t.Errorf("packets were lost:\n%s", out)
	}
}

// receivedBy is how many packets the node received through a tunnel.
func (b *bed) receivedBy(t *testing.T, name string) uint64 {
	t.Helper()
	for _, x := range show[[]api.Tunnel](t, b, "tunnels") {
		if x.Name == name {
			return x.RXPackets
		}
	}
	t.Fatalf("no tunnel %s", name)
	return 0
}

// judgeNumbers reads what the node sent: no sequence number comes twice under an SPI, and no IV of a counter mode at all.
func judgeNumbers(t *testing.T, path string, tunnels []espTunnel, least int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	suites := map[uint32]string{}
	for _, x := range tunnels {
		suites[uint32(x.spiOut(x.number))] = x.suite
	}
	type number struct{ spi, sequence uint32 }
	numbers, ivs := map[number]bool{}, map[uint64]bool{}
	packets := 0
	for {
		data, _, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		e, ok := gopacket.NewPacket(data, r.LinkType(), gopacket.Default).Layer(layers.LayerTypeIPSecESP).(*layers.IPSecESP)
		if !ok || suites[e.SPI] == "" {
			continue
		}
		packets++
		if n := (number{e.SPI, e.Seq}); numbers[n] {
			t.Fatalf("spi %#x: sequence number %d came twice", e.SPI, e.Seq)
		} else {
			numbers[n] = true
		}
		if strings.Contains(suites[e.SPI], "gcm") || strings.Contains(suites[e.SPI], "chacha") {
			iv := binary.BigEndian.Uint64(e.Encrypted)
			if ivs[iv] {
				t.Fatalf("spi %#x: iv %#x came twice", e.SPI, iv)
			}
			ivs[iv] = true
		}
	}
	if packets < least || len(ivs) < least/4 {
		t.Errorf("only %d packets with %d IVs were seen", packets, len(ivs))
	}
}

// testShowSAs: what the operator sees has every association, and no key.
func (b *bed) testShowSAs(t *testing.T, tunnels []espTunnel) {
	text := must(t, b.node, b.bin, "show", "sas", "--socket", b.socket)
	json := must(t, b.node, b.bin, "show", "sas", "-o", "json", "--socket", b.socket)
	for _, x := range tunnels {
		for _, want := range []string{x.name, x.suite, fmt.Sprintf("%#x", x.spiIn(x.number)), fmt.Sprintf("%#x", x.spiOut(x.number))} {
			if !strings.Contains(text, want) {
				t.Errorf("show sas lacks %q:\n%s", want, text)
			}
		}
		for _, key := range [][]byte{x.keyIn, x.keyOut} {
			if h := hex.EncodeToString(key[:6]); strings.Contains(text+json, h) {
				t.Errorf("show sas prints a key: %s", h)
			}
		}
	}
	sas := show[[]api.SA](t, b, "sas")
	if len(sas) != 2*len(tunnels) {
		t.Fatalf("%d associations, want %d", len(sas), 2*len(tunnels))
	}
	for i, x := range tunnels {
		in, out := sas[2*i], sas[2*i+1]
		if in.Direction != "in" || out.Direction != "out" || in.ReplayWindow != x.window || in.ESN != x.esn || out.UDPEncap != x.udp || out.Sequence == 0 {
			t.Errorf("%s: %+v, %+v", x.name, in, out)
		}
	}
}
