package wire

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"
)

// unhex decodes hexadecimal digits; spaces are for the reader.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatalf("test data: %v", err)
	}
	return b
}

// Addresses of RFC 5737 and RFC 3849 that the tests use.
const (
	src4 = 0xc0000201 // 192.0.2.1
	dst4 = 0xc6336402 // 198.51.100.2
)

var (
	src6 = [16]byte{0x20, 0x01, 0x0d, 0xb8, 15: 1}
	dst6 = [16]byte{0x20, 0x01, 0x0d, 0xb8, 0, 1, 15: 2}
)

// make4 returns a datagram with these options, padded with no-operation, and
// payload.
func make4(proto uint8, opts, payload []byte) []byte {
	for len(opts)%4 != 0 {
		opts = append(opts, ipv4OptNop)
	}
	hlen := IPv4Len + len(opts)
	b := make([]byte, hlen+len(payload))
	PutIPv4(b, IPv4Header{Src: src4, Dst: dst4, Total: len(b), ID: 0x1234, TTL: 64, Proto: proto})
	b[0] = 0x40 | byte(hlen/4)
	copy(b[IPv4Len:], opts)
	copy(b[hlen:], payload)
	fix4(b)
	return b
}

// fix4 makes the header checksum of b right.
func fix4(b []byte) {
	hlen := int(b[0]&15) * 4
	b[IPv4OffChecksum], b[IPv4OffChecksum+1] = 0, 0
	binary.BigEndian.PutUint16(b[IPv4OffChecksum:], ^uint16(naiveSum(b[:hlen])))
}

// make6 returns a packet whose first header is next.
func make6(next uint8, payload []byte) []byte {
	b := make([]byte, IPv6Len+len(payload))
	PutIPv6(b, &IPv6Header{Src: src6, Dst: dst6, Payload: len(payload), Next: next, HopLimit: 64})
	copy(b[IPv6Len:], payload)
	return b
}

// pattern returns n bytes that differ from their neighbours.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// join puts byte strings one behind the other.
func join(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// edit returns a copy of b that change has worked on.
func edit(b []byte, change func([]byte)) []byte {
	b = append([]byte(nil), b...)
	change(b)
	return b
}

// naiveSum is the oracle for Sum: one 16-bit word after the other, folded.
func naiveSum(b []byte) uint16 {
	sum := 0
	for i := 0; i < len(b); i += 2 {
		word := int(b[i]) << 8
		if i+1 < len(b) {
			word |= int(b[i+1])
		}
		sum += word
		if sum > 0xffff {
			sum -= 0xffff
		}
	}
	return uint16(sum)
}
