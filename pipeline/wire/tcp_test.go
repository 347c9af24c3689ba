package wire

import (
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// fixTCP makes the checksum of tcp right, with a pseudo-header of zeros.
func fixTCP(tcp []byte) {
	tcp[TCPOffChecksum], tcp[TCPOffChecksum+1] = 0, 0
	binary.BigEndian.PutUint16(tcp[TCPOffChecksum:], ^naiveSum(tcp))
}

func TestClampMSS(t *testing.T) {
	for _, c := range []struct {
		name    string
		opts    []byte
		max     uint16
		want    []byte
		changed bool
	}{
		{"lowered", []byte{2, 4, 0x05, 0xb4}, 1436, []byte{2, 4, 0x05, 0x9c}, true},
		{"equal stays", []byte{2, 4, 0x05, 0x9c}, 1436, []byte{2, 4, 0x05, 0x9c}, false},
		{"lower is never raised", []byte{2, 4, 0x02, 0x18}, 1436, []byte{2, 4, 0x02, 0x18}, false},
		{"no option is never added", []byte{1, 1, 4, 2}, 1436, []byte{1, 1, 4, 2}, false},
		{"at an odd offset", []byte{1, 2, 4, 0xff, 0x01, 1, 1, 0}, 0x01ff, []byte{1, 2, 4, 0x01, 0xff, 1, 1, 0}, true},
		{"as Linux sends it", unhex(t, "020405b4 0402080a 00000001 00000000 01030307"), 1406,
			unhex(t, "0204057e 0402080a 00000001 00000000 01030307"), true},
		{"last of 40 bytes", join(make40(36), []byte{2, 4, 0xff, 0xff}), 0, join(make40(36), []byte{2, 4, 0, 0}), true},
		{"twice", []byte{2, 4, 0x05, 0xb4, 2, 4, 0x06, 0}, 1436, []byte{2, 4, 0x05, 0x9c, 2, 4, 0x05, 0x9c}, true},
		{"behind the end of the list", []byte{0, 2, 4, 0x05, 0xb4, 0, 0, 0}, 1436, []byte{0, 2, 4, 0x05, 0xb4, 0, 0, 0}, false},
		{"no options", nil, 1436, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, flags := range []byte{TCPFlagSYN, TCPFlagSYN | 0x10} { // SYN, SYN-ACK
				tcp := join(synWith(c.opts...), []byte("data"))
				tcp[TCPOffFlags] = flags
				fixTCP(tcp)
				changed, f := ClampMSS(tcp, c.max)
				if f != OK || changed != c.changed {
					t.Fatalf("got %v, %q; want %v", changed, f, c.changed)
				}
				want := join(synWith(c.want...), []byte("data"))
				want[TCPOffFlags] = flags
				fixTCP(want)
				if string(tcp) != string(want) {
					t.Errorf("got  % x\nwant % x", tcp, want)
				}
			}
		})
	}
}

// make40 returns n no-operation options.
func make40(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = tcpOptNop
	}
	return b
}

// TestClampMSSOnlySYN shows that what is not a SYN is left alone, malformed or
// not.
func TestClampMSSOnlySYN(t *testing.T) {
	for flags := range 256 {
		if flags&TCPFlagSYN != 0 {
			continue
		}
		tcp := synWith(2, 4, 0xff, 0xff, 2, 0, 0, 0)
		tcp[TCPOffFlags] = byte(flags)
		want := string(tcp)
		if changed, f := ClampMSS(tcp, 500); changed || f != OK || string(tcp) != want {
			t.Fatalf("flags %#02x: %v, %q", flags, changed, f)
		}
	}
}

// TestClampMSSFaultChangesNothing puts the fault behind an option that would be
// lowered.
func TestClampMSSFaultChangesNothing(t *testing.T) {
	tcp := synWith(2, 4, 0xff, 0xff, 8, 0, 0, 0)
	want := string(tcp)
	if changed, f := ClampMSS(tcp, 500); changed || f != TCPOptionLength || string(tcp) != want {
		t.Errorf("got %v, %q, % x", changed, f, tcp)
	}
}

// TestClampMSSChecksumEdges lowers every value to every edge, at both parities,
// with checksums at the ends of their range.
func TestClampMSSChecksumEdges(t *testing.T) {
	for _, lead := range [][]byte{nil, {1}} {
		for _, old := range edges {
			for _, max := range edges {
				for _, window := range edges {
					tcp := synWith(join(lead, []byte{2, 4, byte(old >> 8), byte(old)})...)
					binary.BigEndian.PutUint16(tcp[TCPOffWindow:], window)
					fixTCP(tcp)
					if _, f := ClampMSS(tcp, max); f != OK {
						t.Fatal(f)
					}
					if want := edit(tcp, fixTCP); string(tcp) != string(want) {
						t.Fatalf("%#04x to %#04x behind %d: got % x, want % x", old, max, len(lead), tcp, want)
					}
				}
			}
		}
	}
}

// slowMSS returns the offsets of the MSS values of a header, or false where the
// option list is malformed: the rules of RFC 9293 section 3.2, by recursion.
func slowMSS(opts []byte, at int) ([]int, bool) {
	switch {
	case len(opts) == 0 || opts[0] == 0:
		return nil, true
	case opts[0] == 1:
		return slowMSS(opts[1:], at+1)
	case len(opts) < 2 || opts[1] < 2 || int(opts[1]) > len(opts) || opts[0] == 2 && opts[1] != 4:
		return nil, false
	}
	rest, ok := slowMSS(opts[opts[1]:], at+int(opts[1]))
	if opts[0] == 2 {
		rest = append(rest, at+2)
	}
	return rest, ok
}

func FuzzClampMSS(f *testing.F) {
	f.Fuzz(func(t *testing.T, tcp []byte, max uint16) {
		if len(tcp) >= TCPLen {
			fixTCP(tcp)
		}
		before := append([]byte(nil), tcp...)
		changed, fault := ClampMSS(tcp, max)
		if !changed && string(tcp) != string(before) {
			t.Fatal("changed without saying so")
		}
		if fault != OK || len(tcp) < TCPLen || tcp[TCPOffFlags]&TCPFlagSYN == 0 {
			if changed {
				t.Fatalf("changed with %q", fault)
			}
			return
		}
		at, ok := slowMSS(before[TCPLen:int(before[12]>>4)*4], TCPLen)
		if !ok {
			t.Fatal("a list that the oracle refuses")
		}
		want, lower := before, false
		for _, at := range at {
			if binary.BigEndian.Uint16(want[at:]) > max {
				binary.BigEndian.PutUint16(want[at:], max)
				lower = true
			}
		}
		if lower {
			fixTCP(want)
		}
		if lower != changed || string(want) != string(tcp) {
			t.Fatalf("got  % x\nwant % x", tcp, want)
		}
		// gopacket must see the same options in what we accept.
		var l layers.TCP
		if err := l.DecodeFromBytes(tcp, gopacket.NilDecodeFeedback); err != nil {
			t.Fatalf("gopacket: %v", err)
		}
		for _, o := range l.Options {
			if o.OptionType == layers.TCPOptionKindMSS && binary.BigEndian.Uint16(o.OptionData) > max {
				t.Fatalf("gopacket sees mss %d above %d", o.OptionData, max)
			}
		}
	})
}
