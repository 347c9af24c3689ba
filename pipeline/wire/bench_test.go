package wire

import "testing"

var sinkInt int

func BenchmarkParseEthernet(b *testing.B) {
	buf := make([]byte, 64)
	buf[12], buf[13] = 8, 0
	for b.Loop() {
		e, f := ParseEthernet(buf)
		sinkInt += e.L3 + int(f)
	}
}
func BenchmarkParseGRE(b *testing.B) {
	buf := make([]byte, 64)
	buf[2] = 8
	for b.Loop() {
		e, f := ParseGRE(buf)
		sinkInt += e.Len + int(f)
	}
}
func BenchmarkParseGREKey(b *testing.B) {
	buf := make([]byte, 64)
	buf[2], buf[0] = 8, 0x20
	for b.Loop() {
		e, f := ParseGRE(buf)
		sinkInt += e.Len + int(f)
	}
}
func BenchmarkCheckIPv4(b *testing.B) {
	buf := make([]byte, 64)
	PutIPv4(buf, IPv4Header{Src: 1, Total: 64})
	for b.Loop() {
		e, n, f := CheckIPv4(buf)
		sinkInt += e + n + int(f)
	}
}
func BenchmarkCheckIPv6(b *testing.B) {
	buf := make([]byte, 64)
	PutIPv6(buf, &IPv6Header{Payload: 10})
	for b.Loop() {
		n, f := CheckIPv6(buf)
		sinkInt += n + int(f)
	}
}
func BenchmarkWalkIPv6(b *testing.B) {
	buf := make([]byte, 64)
	PutIPv6(buf, &IPv6Header{Payload: 10, Next: 47})
	for b.Loop() {
		n, f := WalkIPv6(buf)
		sinkInt += n.Offset + int(f)
	}
}
func BenchmarkDecTTL4(b *testing.B) {
	buf := make([]byte, 64)
	PutIPv4(buf, IPv4Header{Src: 1, Total: 64})
	for b.Loop() {
		DecTTL4(buf)
	}
}
func BenchmarkClampMSSData(b *testing.B) {
	buf := make([]byte, 64)
	for b.Loop() {
		c, f := ClampMSS(buf, 1400)
		if c {
			sinkInt += int(f)
		}
	}
}
func BenchmarkSum1400(b *testing.B) {
	buf := make([]byte, 1400)
	b.SetBytes(1400)
	for b.Loop() {
		sinkInt += int(Sum(buf, 0))
	}
}
func BenchmarkSum20(b *testing.B) {
	buf := make([]byte, 20)
	b.SetBytes(20)
	for b.Loop() {
		sinkInt += int(Sum(buf, 0))
	}
}
