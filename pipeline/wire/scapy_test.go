package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"testing"
)

// craft runs testdata/craft.py, where scapy makes every packet of these tests
// from a description in its own words, and returns them by name.
func craft(t *testing.T) map[string][]byte {
	t.Helper()
	const python = "/usr/bin/python3" // where Debian's python3-scapy is installed
	if _, err := os.Stat(python); err != nil {
		t.Fatalf("needs scapy: %v: apt-get install -y python3-scapy", err)
	}
	cmd := exec.Command(python, "testdata/craft.py")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("testdata/craft.py: %v\n%s\nif scapy is missing: apt-get install -y python3-scapy", err, stderr.Bytes())
	}
	var lines map[string]string
	if err := json.Unmarshal(out, &lines); err != nil {
		t.Fatalf("testdata/craft.py printed no JSON: %v\n%s", err, out)
	}
	packets := map[string][]byte{}
	for name, s := range lines {
		packets[name], err = hex.DecodeString(s)
		if err != nil {
			t.Fatalf("testdata/craft.py: %s: %v", name, err)
		}
	}
	return packets
}

// same compares byte for byte and says where the first difference is.
func same(t *testing.T, name string, got, want []byte) {
	t.Helper()
	if want == nil {
		t.Errorf("%s: scapy made no such packet", name)
		return
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Errorf("%s: differs from byte %d on\ngot   % x\nscapy % x", name, i, got, want)
			return
		}
	}
}

// TestScapy writes the packets that scapy crafted once more and compares bytes.
func TestScapy(t *testing.T) {
	p := craft(t)
	t.Run("gre", func(t *testing.T) { scapyGRE(t, p) })
	t.Run("errors", func(t *testing.T) { scapyErrors(t, p) })
	t.Run("echo", func(t *testing.T) { scapyEcho(t, p) })
	t.Run("clamp", func(t *testing.T) { scapyClamp(t, p) })
	t.Run("fragments", func(t *testing.T) { scapyFragments(t, p) })
	t.Run("ttl", func(t *testing.T) {
		got := edit(p["inner4"], DecTTL4)
		same(t, "inner4-ttl63", got, p["inner4-ttl63"])
	})
}

// scapyGRE encapsulates both inner packets in both outer ones with every
// combination of fields.
func scapyGRE(t *testing.T, p map[string][]byte) {
	for _, inner := range []struct {
		name  string
		proto uint16
	}{{"inner4", EtherTypeIPv4}, {"inner6", EtherTypeIPv6}} {
		for _, flags := range greKinds() {
			payload := p[inner.name]
			b := make([]byte, IPv6Len+GREMaxLen+len(payload))
			gre := b[IPv6Len:]
			n := PutGRE(gre, inner.proto, flags, 0x0a0b0c0d, 0x00010002)
			gre = gre[:n+copy(gre[n:], payload)]
			if flags&GREFlagChecksum != 0 {
				SetGREChecksum(gre)
			}
			name := inner.name
			for _, bit := range []struct {
				flag uint16
				name string
			}{{GREFlagChecksum, "-csum"}, {GREFlagKey, "-key"}, {GREFlagSequence, "-seq"}} {
				if flags&bit.flag != 0 {
					name += bit.name
				}
			}
			outer := b[IPv6Len-IPv4Len : IPv6Len+len(gre)]
			PutIPv4(outer, IPv4Header{Src: src4, Dst: dst4, Total: len(outer), Frag: IPv4DF, TOS: 0x28, TTL: 64, Proto: ProtoGRE})
			same(t, "gre4-"+name, outer, p["gre4-"+name])

			outer = b[:IPv6Len+len(gre)]
			PutIPv6(outer, &IPv6Header{Src: src6, Dst: dst6, Payload: len(gre), Flow: 0x28<<20 | 0x54321, Next: ProtoGRE, HopLimit: 64})
			same(t, "gre6-"+name, outer, p["gre6-"+name])

			g, f := ParseGRE(p["gre4-"+name][IPv4Len:])
			if f != OK || g.HasChecksum && !GREChecksumOK(p["gre4-"+name][IPv4Len:]) || g.Len != n {
				t.Errorf("%s: read as %+v, %q", name, g, f)
			}
		}
	}
}

func scapyErrors(t *testing.T, p map[string][]byte) {
	const node = 0xcb007101 // 203.0.113.1
	node6 := [16]byte{0x20, 0x01, 0x0d, 0xb8, 0, 0xff, 15: 1}
	for name, e := range map[string]ICMPError{
		"frag-needed": {Type: ICMP4Unreachable, Code: ICMP4CodeFragNeeded, MTU: 1400},
		"ttl":         {Type: ICMP4TimeExceeded, Code: ICMP4CodeTTL},
		"host":        {Type: ICMP4Unreachable, Code: ICMP4CodeHost},
		"admin":       {Type: ICMP4Unreachable, Code: ICMP4CodeAdmin},
	} {
		for _, about := range []string{"inner4", "big4"} {
			b := make([]byte, MaxICMP4Error)
			n := AppendICMP4Error(b, node, e, p[about])
			name := "error4-" + name + "-" + about
			same(t, name, b[:n], p[name])
			r, f := ParseICMPError4(p[name][IPv4Len:])
			if f != OK || r.MTU != e.MTU || r.Total != len(p[about]) {
				t.Errorf("%s: read as %+v, %q", name, r, f)
			}
		}
	}
	for name, e := range map[string]ICMPError{
		"too-big": {Type: ICMP6TooBig, MTU: 1456},
		"ttl":     {Type: ICMP6TimeExceeded, Code: ICMP6CodeHopLimit},
		"noroute": {Type: ICMP6Unreachable, Code: ICMP6CodeNoRoute},
	} {
		for _, about := range []string{"inner6", "big6"} {
			b := make([]byte, MaxICMP6Error)
			n := AppendICMP6Error(b, &node6, e, p[about])
			name := "error6-" + name + "-" + about
			same(t, name, b[:n], p[name])
			r, f := ParseICMPError6(p[name], p[name][IPv6Len:])
			if f != OK || r.MTU != e.MTU || r.Total != len(p[about]) {
				t.Errorf("%s: read as %+v, %q", name, r, f)
			}
		}
	}
}

func scapyEcho(t *testing.T, p map[string][]byte) {
	for name, reply := range map[string]func([]byte) Fault{"echo4": EchoReply4, "echo4-zero": EchoReply4, "echo6": EchoReply6} {
		b := edit(p[name], func([]byte) {})
		if f := reply(b); f != OK {
			t.Errorf("%s: %q", name, f)
		}
		same(t, name, b, p[name+"-reply"])
	}
}

func scapyClamp(t *testing.T, p map[string][]byte) {
	for _, name := range []string{"syn4", "syn6", "syn4-odd"} {
		hdr := IPv4Len
		if name == "syn6" {
			hdr = IPv6Len
		}
		b := edit(p[name], func([]byte) {})
		if changed, f := ClampMSS(b[hdr:], 1406); !changed || f != OK {
			t.Errorf("%s: %v, %q", name, changed, f)
		}
		same(t, name, b, p[name+"-clamped"])
	}
}

// scapyFragments cuts as scapy's fragment functions do. For IPv4 scapy is told
// the size of the data and for IPv6 that of the packet.
func scapyFragments(t *testing.T, p map[string][]byte) {
	got := cut4(t, p["cut4"], 20+544, 0x1234)
	for i, b := range got {
		name := "cut4-" + string(rune('0'+i))
		same(t, name, b, p[name])
	}
	if p["cut4-"+string(rune('0'+len(got)))] != nil {
		t.Errorf("scapy makes more than %d fragments", len(got))
	}
	pkt := p["cut6"]
	c, _ := WalkIPv6(pkt)
	var plan [16]Piece
	n, f := PlanIPv6(pkt, &c, 1280, plan[:])
	if f != OK {
		t.Fatal(f)
	}
	for i, piece := range plan[:n] {
		frame := make([]byte, 1280)
		h := PutFragment6(frame, pkt, &c, piece, 0xdeadbeef)
		frame = frame[:h+copy(frame[h:], pkt[c.UnfragLen+piece.Off:][:piece.Len])]
		name := "cut6-" + string(rune('0'+i))
		if want := p[name]; want != nil && binary.BigEndian.Uint32(want[c.UnfragLen+4:]) != 0xdeadbeef {
			t.Fatalf("%s: scapy's identification is %x", name, want[c.UnfragLen+4:][:4])
		}
		same(t, name, frame, p[name])
	}
	if p["cut6-"+string(rune('0'+n))] != nil {
		t.Errorf("scapy makes more than %d fragments", n)
	}
}
