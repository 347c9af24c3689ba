package wire

import "testing"

// Names are Function/case. Each measures one call on bytes in the first-level
// cache: what a batch adds is the pipeline's benchmark.

var sink int

func BenchmarkParseEthernet(b *testing.B) {
	frame := join(make([]byte, 12), []byte{8, 0}, plain4)
	for b.Loop() {
		e, f := ParseEthernet(frame)
		sink += e.L3 + int(f)
	}
}

func BenchmarkCheckIPv4(b *testing.B) {
	for b.Loop() {
		hlen, total, f := CheckIPv4(plain4)
		sink += hlen + total + int(f)
	}
}

func BenchmarkDecTTL4(b *testing.B) {
	pkt := edit(plain4, func([]byte) {})
	for b.Loop() {
		DecTTL4(pkt)
	}
}

func BenchmarkCheckIPv6(b *testing.B) {
	for b.Loop() {
		total, f := CheckIPv6(plain6)
		sink += total + int(f)
	}
}

func BenchmarkWalkIPv6(b *testing.B) {
	linux := make6(NextDestination, join(ext(ProtoGRE), pattern(64)))
	for _, c := range []struct {
		name string
		pkt  []byte
	}{{"plain", plain6}, {"destination", linux}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				chain, f := WalkIPv6(c.pkt)
				sink += chain.Offset + int(f)
			}
		})
	}
}

func BenchmarkParseGRE(b *testing.B) {
	for _, c := range []struct {
		name  string
		flags uint16
	}{{"plain", 0}, {"key", GREFlagKey}, {"all", greFields}} {
		pkt := make([]byte, 64)
		PutGRE(pkt, EtherTypeIPv4, c.flags, 1, 2)
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				g, f := ParseGRE(pkt)
				sink += g.Len + int(g.Key) + int(f)
			}
		})
	}
}

func BenchmarkClampMSS(b *testing.B) {
	data := synWith()
	data[TCPOffFlags] = 0x10
	b.Run("data", func(b *testing.B) {
		for b.Loop() {
			_, f := ClampMSS(data, 1436)
			sink += int(f)
		}
	})
	syn := synWith(unhex(b, "020405b4 0402080a 00000001 00000000 01030307")...)
	b.Run("syn", func(b *testing.B) {
		for b.Loop() {
			syn[23] = 0xb4
			_, f := ClampMSS(syn, 1436)
			sink += int(f)
		}
	})
}

// TestNoAllocation runs what the packet path may call.
func TestNoAllocation(t *testing.T) {
	dst, plan := make([]byte, 1500), make([]Piece, 8)
	big := make4(ProtoUDP, nil, pattern(1000))
	echo := make4(ProtoICMP, nil, icmp4(ICMP4Echo, 0, nil))
	n := testing.AllocsPerRun(100, func() {
		sink += AppendICMP4Error(dst, 1, ICMPError{Type: ICMP4TimeExceeded}, big)
		sink += AppendICMP6Error(dst, &src6, ICMPError{Type: ICMP6TooBig, MTU: 1280}, plain6)
		pieces, _ := PlanIPv4(big, 576, plan)
		sink += PutFragment4(dst, big, plan[pieces-1], 1)
		c, _ := WalkIPv6(plain6)
		sink += PutFragment6(dst, plain6, &c, plan[0], 1)
		EchoReply4(echo)
		PutIPv6(dst, &IPv6Header{Src: src6, Dst: dst6})
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
