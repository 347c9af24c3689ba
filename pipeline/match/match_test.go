package match

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var names = Names{
	Tunnel:  func(s string) (int, bool) { i := slices.Index([]string{"cust-a", "cust-b"}, s); return i, i >= 0 },
	Account: func(s string) (int, bool) { i := slices.Index([]string{"", "acme", "zeta"}, s); return i, i > 0 },
	Reason:  func(s string) (uint8, bool) { return 9, s == "inner_source" },
	Verdict: func(w string) (uint8, bool) {
		v, ok := map[string]uint8{"forwarded": 0, "delivered": 1, "punted": 2, "dropped": 3}[w]
		return v, ok
	},
}

// packet4 is an IPv4 packet with four bytes of payload that may be ports.
func packet4(proto byte, src, dst [4]byte, sport, dport uint16, frag uint16) []byte {
	b := make([]byte, 28)
	b[0], b[3], b[8], b[9] = 0x45, 28, 64, proto
	binary.BigEndian.PutUint16(b[6:], frag)
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	binary.BigEndian.PutUint16(b[20:], sport)
	binary.BigEndian.PutUint16(b[22:], dport)
	return b
}

func packet6(proto byte, src, dst byte, sport, dport uint16) []byte {
	b := make([]byte, 48)
	b[0], b[5], b[6], b[7] = 0x60, 8, proto, 64
	copy(b[8:], []byte{0x20, 1, 0xd, 0xb8, src})
	copy(b[24:], []byte{0x20, 1, 0xd, 0xb8, dst})
	b[23], b[39] = 1, 2
	binary.BigEndian.PutUint16(b[40:], sport)
	binary.BigEndian.PutUint16(b[42:], dport)
	return b
}

// TestMatch is what only a tunnel node knows, and both packets of one.
func TestMatch(t *testing.T) {
	x := Packet{Outer: Of(packet4(47, [4]byte{198, 51, 100, 2}, [4]byte{203, 0, 113, 1}, 0, 0, 0)),
		Inner: Of(packet4(6, [4]byte{198, 18, 5, 10}, [4]byte{192, 0, 2, 10}, 1234, 443, 0)), Length: 100, In: 0, Out: -1, InAccount: 1, OutAccount: -1, Verdict: 3, Reason: 9}
	for filter, want := range map[string]bool{
		"": true, "tunnel cust-a": true, "tunnel cust-b": false, "src tunnel cust-a": true, "dst tunnel cust-a": false, "src and dst tunnel cust-a": false,
		"account acme": true, "account zeta": false, "dropped": true, "forwarded": false, "reason inner_source": true, "not reason inner_source": false,
		"gre and tcp port 443": true, "host 198.51.100.2 and port 1234": true, "not tcp": false, "not udp": true, "less 100": true, "greater 101": false,
		"! (udp || dropped)": false, "(dropped) and (tunnel cust-a or udp)": true, "udp or dropped and udp": false, "not not tcp": true,
		`ip proto \tcp`: true, "net 198.18.0.0/16 and esp": false, "src or dst net 198.18.0.0/16": true, "ip6": false, "dst portrange 400-500": true,
	} {
		p, err := Parse(filter, names)
		if err != nil {
			t.Errorf("%q: %v", filter, err)
		} else if got := p.Match(&x); got != want {
			t.Errorf("%q: %v", filter, got)
		}
	}
	if n := testing.AllocsPerRun(100, func() {
		h := Of(packetBytes)
		x.Outer = h
		long.Match(&x)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

var (
	packetBytes = packet6(6, 1, 2, 3, 4)
	long, _     = Parse("host 1.2.3.4 or net 10.0.0.0/8 or tcp port 80 or not tunnel cust-a and account acme", names)
)

func TestParseErrors(t *testing.T) {
	for filter, want := range map[string]string{
		"host": "ends too early: host wants", "host example.com": "names are not looked up", "net 10.0.0.1/8": "10.0.0.0/8", "net 10": "a prefix",
		"port 70000": "0 to 65535", "port http": "0 to 65535", "port 1-2": "portrange", "portrange 2": "two numbers", "portrange 9-2": "lower one first",
		"tunnel nobody": "show tunnels", "tunnel": "ends too early", "account": "ends too early", "reason nothing": "show drops", "tcp host 1.2.3.4": "tcp and host",
		"icmp port 3": "in front of it", "ip6 host 1.2.3.4": "family", "(tcp": "closing parenthesis", "tcp)": `word 2, ")"`, "tcp udp": `word 2, "udp"`,
		"src tcp": "a direction wants", "proto": "proto wants", "proto 256": "0 to 255", "less x": "number of bytes", "and": `word 1, "and"`, "not": "ends too early",
		strings.Repeat("not ", 100) + "tcp": "nested", strings.Repeat("(", 100): "nested", "tcp" + strings.Repeat(" or tcp", MaxConditions): "conditions",
		strings.Repeat("x", MaxText+1): "bytes", "tcp tunnel cust-a": "word 2", "host ::ffff:1.2.3.4": "address",
	} {
		if _, err := Parse(filter, names); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", filter, err, want)
		}
	}
}

// TestLikeTcpdump holds the language against tcpdump, over random packets and random expressions.
func TestLikeTcpdump(t *testing.T) {
	if _, err := exec.LookPath("tcpdump"); err != nil {
		t.Fatal("needs tcpdump: run scripts/deps.sh, or: apt-get install -y --no-install-recommends tcpdump")
	}
	rng := rand.New(rand.NewPCG(7, 8))
	protos := []byte{1, 6, 17, 47, 50, 132, 58}
	var packets [][]byte
	for range 300 {
		proto, a, b := protos[rng.IntN(len(protos))], byte(rng.IntN(3)), byte(rng.IntN(3))
		frag := []uint16{0, 0, 0, 0x2000, 5}[rng.IntN(5)]
		if rng.IntN(3) > 0 {
			packets = append(packets, packet4(proto, [4]byte{10, a, 0, 1}, [4]byte{10, b, 0, 2}, uint16(rng.IntN(4)), uint16(rng.IntN(4)), frag))
		} else {
			packets = append(packets, packet6(proto, a, b, uint16(rng.IntN(4)), uint16(rng.IntN(4))))
		}
	}
	file := filepath.Join(t.TempDir(), "in.pcap")
	pcap := []byte{0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0}
	for i, p := range packets {
		frame := append(make([]byte, 12), map[byte][]byte{4: {8, 0}, 6: {0x86, 0xdd}}[p[0]>>4]...)
		frame = append(frame, p...)
		for _, v := range []uint32{uint32(i), 0, uint32(len(frame)), uint32(len(frame))} {
			pcap = binary.LittleEndian.AppendUint32(pcap, v)
		}
		pcap = append(pcap, frame...)
	}
	if err := os.WriteFile(file, pcap, 0o644); err != nil {
		t.Fatal(err)
	}
	for range 60 {
		filter := randomFilter(rng, 3)
		var complaint bytes.Buffer
		tcpdump := exec.Command("tcpdump", "-r", file, "-tt", "-n", "-q", filter)
		tcpdump.Stderr = &complaint
		out, err := tcpdump.Output()
		if err != nil && !strings.Contains(complaint.String(), "rejects all packets") {
			t.Fatalf("tcpdump %q: %v: %s", filter, err, &complaint)
		}
		want := []int{}
		for line := range strings.Lines(string(out)) {
			if second, _, ok := strings.Cut(line, ".000000 IP"); ok { // a packet may take two lines
				i, _ := strconv.Atoi(second)
				want = append(want, i)
			}
		}
		p, err := Parse(filter, names)
		if err != nil {
			t.Fatalf("%q: %v", filter, err)
		}
		got := []int{}
		for i, b := range packets {
			if p.Match(&Packet{Outer: Of(b), Length: 14 + len(b)}) {
				got = append(got, i)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %v\ntcpdump: %v", filter, got, want)
		}
	}
}

func randomFilter(rng *rand.Rand, depth int) string {
	one := func(s ...string) string { return s[rng.IntN(len(s))] }
	if depth > 0 && rng.IntN(3) > 0 {
		a, b := randomFilter(rng, depth-1), randomFilter(rng, depth-1)
		switch rng.IntN(4) {
		case 0:
			return "not (" + a + ")"
		case 1:
			return "(" + a + ") " + one("and", "or") + " " + b
		default:
			return a + " " + one("and", "or", "&&", "||") + " " + b
		}
	}
	dir := one("", "", "src ", "dst ", "src or dst ", "src and dst ")
	switch rng.IntN(7) {
	case 0:
		return one("", "ip ") + dir + "host " + one("10.0.0.1", "10.1.0.2", "10.2.0.1")
	case 1:
		return one("", "ip6 ") + dir + "net " + one("2001:db8::/40", "2001:db8:100::/40", "2001:db8::/32")
	case 2:
		return dir + "net " + one("10.0.0.0/16", "10.0.0.0/15", "10.0.0.0/8")
	case 3:
		return one("", "tcp ", "udp ", "sctp ") + dir + "port " + one("0", "1", "2")
	case 4:
		return one("", "tcp ", "udp ") + dir + "portrange " + one("0-1", "1-2", "2-3")
	case 5:
		return one("less", "greater") + " " + one("42", "62", "50")
	}
	return one("tcp", "udp", "icmp", "icmp6", "esp", "ip", "ip6", "sctp", "proto 47", "ip proto 6", "ip6 proto 17", "proto 50", "not tcp")
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"tcp port 80 and not (src host 1.2.3.4 or net 2001:db8::/32)", "tunnel cust-a && dropped", "!((", "proto \\tcp", "less 9"} {
		f.Add(s, []byte{0x45, 0, 0, 20})
	}
	f.Add("ip6 and udp portrange 1-2", packet6(0, 1, 2, 3, 4))
	f.Fuzz(func(t *testing.T, text string, ip []byte) {
		p, err := Parse(text, names)
		h := Of(ip)
		_ = h.String()
		if err != nil {
			return
		}
		x := Packet{Outer: h, Inner: Of(bytes.Clone(ip))}
		got := p.Match(&x)
		if strings.TrimSpace(text) == "" {
			return
		}
		if not, err := Parse("not ("+text+")", names); err == nil && not.Match(&x) == got {
			t.Errorf("%q and its negation are both %v", text, got)
		}
	})
}
