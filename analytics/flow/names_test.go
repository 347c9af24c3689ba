package flow

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/gopacket/layers"
)

func TestProtocolName(t *testing.T) {
	for number, want := range map[uint8]string{
		1: "ICMP", 6: "TCP", 17: "UDP", 47: "GRE", 50: "ESP", 51: "AH", 58: "ICMPv6", 132: "SCTP", 253: "253",
	} {
		if got := ProtocolName(number); got != want {
			t.Errorf("protocol %d is %q, want %q", number, got, want)
		}
	}
	// gopacket knows some of the names too, in another spelling.
	for _, p := range []layers.IPProtocol{layers.IPProtocolIGMP, layers.IPProtocolOSPF, layers.IPProtocolVRRP, layers.IPProtocolUDPLite,
		layers.IPProtocolEtherIP} {
		if got, want := ProtocolName(uint8(p)), p.String(); !strings.EqualFold(got, want) && !strings.HasPrefix(want, got) {
			t.Errorf("protocol %d is %q, gopacket says %q", p, got, want)
		}
	}
	seen := map[string]int{}
	for i := range 256 {
		name := ProtocolName(uint8(i))
		if before, twice := seen[name]; twice || name == "" {
			t.Errorf("protocols %d and %d are both %q", before, i, name)
		}
		if n, err := strconv.Atoi(name); err == nil && n != i {
			t.Errorf("protocol %d is %q", i, name)
		}
		seen[name] = i
	}
}

func TestTCPFlagNames(t *testing.T) {
	for flags, want := range map[uint8]string{0: "", 0x02: "SYN", 0x12: "SYN ACK", 0x18: "PSH ACK", 0x11: "FIN ACK",
		0xff: "FIN SYN RST PSH ACK URG ECE CWR"} {
		if got := TCPFlagNames(flags); got != want {
			t.Errorf("flags %#x are %q, want %q", flags, got, want)
		}
	}
	if n := testing.AllocsPerRun(10, func() { _ = TCPFlagNames(SYN|ACK) + ProtocolName(200)[:0] }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func TestTexts(t *testing.T) {
	in, out := &Tunnel{}, &Tunnel{}
	for _, c := range []struct {
		s    Sample
		want string
	}{{Sample{}, "none"}, {Sample{In: in}, "egress"}, {Sample{Out: out}, "ingress"}, {Sample{In: in, Out: out}, "lateral"}} {
		if got := c.s.Direction().String(); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
	if Dropped.String() != "dropped" || Forwarded.String() != "forwarded" {
		t.Errorf("verdicts are %v and %v", Dropped, Forwarded)
	}
}
