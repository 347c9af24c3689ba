package wire

import (
	"encoding/binary"
	"sort"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// cut4 fragments pkt the way a caller does.
func cut4(t testing.TB, pkt []byte, mtu int, id uint16) [][]byte {
	t.Helper()
	plan := make([]Piece, 1024)
	n, f := PlanIPv4(pkt, mtu, plan)
	if f != OK {
		t.Fatalf("%d bytes to %d: %q", len(pkt), mtu, f)
	}
	hlen := int(pkt[0]&15) * 4
	var out [][]byte
	for _, p := range plan[:n] {
		frame := make([]byte, IPv4MaxLen+p.Len)
		h := PutFragment4(frame, pkt, p, id)
		out = append(out, frame[:h+copy(frame[h:], pkt[hlen+p.Off:][:p.Len])])
	}
	return out
}

// join4 is the oracle: it puts a datagram's payload together byte by byte, and
// fails on gaps, overlaps, and fragments that the checks refuse.
func join4(t testing.TB, frags [][]byte, mtu int, id uint16) (payload []byte, first int, more bool) {
	t.Helper()
	sort.Slice(frags, func(i, j int) bool { return off4(frags[i]) < off4(frags[j]) })
	first = off4(frags[0])
	for i, b := range frags {
		hlen, total, f := CheckIPv4(b)
		if f == OK {
			f = CheckIPv4Fragment(b, hlen, total)
		}
		if f != OK || total != len(b) || total > mtu {
			t.Fatalf("fragment %d: %q, %d bytes in %d, mtu %d", i, f, total, len(b), mtu)
		}
		gotID, off, mf, df := IPv4Fragment(b)
		if gotID != id || df || off != first+len(payload) || i < len(frags)-1 && !mf {
			t.Fatalf("fragment %d: id %d, offset %d behind %d bytes, more %v, df %v", i, gotID, off, first+len(payload), mf, df)
		}
		more = mf
		payload = append(payload, b[hlen:]...)
	}
	return payload, first, more
}

func off4(b []byte) int { _, off, _, _ := IPv4Fragment(b); return off }

func TestFragment4(t *testing.T) {
	for _, payload := range []int{0, 1, 8, 100, 1480, 2000, 65515} {
		for _, mtu := range []int{28, 68, 576, 1475, 1476} {
			if payload/((mtu-20)&^7) > 1000 {
				continue
			}
			pkt := make4(ProtoUDP, nil, pattern(payload))
			got, first, more := join4(t, cut4(t, pkt, mtu, 9), mtu, 9)
			if string(got) != string(pkt[20:]) || first != 0 || more {
				t.Fatalf("%d bytes to %d: joined %d bytes from %d, more %v", payload, mtu, len(got), first, more)
			}
		}
	}
}

// TestFragment4Sizes is the arithmetic of RFC 791 section 3.2 by hand.
func TestFragment4Sizes(t *testing.T) {
	plan := make([]Piece, 4)
	n, f := PlanIPv4(make4(ProtoUDP, nil, pattern(2980)), 1476, plan)
	if f != OK {
		t.Fatal(f)
	}
	want := []Piece{{0, 1456, true}, {1456, 1456, true}, {2912, 68, false}}
	if d := cmp.Diff(want, plan[:n]); d != "" {
		t.Error(d)
	}
}

// TestFragment4Options: the first piece keeps all options, the others those with
// the copied flag (RFC 791 section 3.1), and use the room that this leaves.
func TestFragment4Options(t *testing.T) {
	pkt := make4(ProtoUDP, []byte{7, 7, 4, 0, 0, 0, 0, 1, 148, 4, 0, 0, 130, 3, 1, 1}, pattern(100))
	frags := cut4(t, pkt, 76, 5)
	payload, _, _ := join4(t, frags, 76, 5)
	if string(payload) != string(pkt[36:]) {
		t.Error("payload changed")
	}
	if got := frags[0][20:36]; string(got) != string(pkt[20:36]) {
		t.Errorf("first: options % x", got)
	}
	if len(frags) != 3 || len(frags[0]) != 76 || len(frags[1]) != 76 {
		t.Errorf("%d fragments of %d, %d bytes", len(frags), len(frags[0]), len(frags[1]))
	}
	for _, b := range frags[1:] {
		if want := []byte{148, 4, 0, 0, 130, 3, 1, 0}; string(b[20:28]) != string(want) || b[0] != 0x47 {
			t.Errorf("later: options % x, want % x", b[20:28], want)
		}
	}
}

// TestFragment4OfFragment cuts what is a fragment already: offsets add up, and
// the last piece keeps the flag.
func TestFragment4OfFragment(t *testing.T) {
	for _, word := range []uint16{IPv4MF, IPv4MF | 100, 100} {
		pkt := frag4(word, 800)
		payload, first, more := join4(t, cut4(t, pkt, 300, 0x1234), 300, 0x1234)
		if string(payload) != string(pkt[20:]) || first != int(word&IPv4FragMask)*8 || more != (word&IPv4MF != 0) {
			t.Errorf("%#04x: %d bytes from %d, more %v", word, len(payload), first, more)
		}
	}
}

// TestFragment4InPlace cuts the first piece from the packet itself, last.
func TestFragment4InPlace(t *testing.T) {
	pkt := make4(ProtoUDP, []byte{7, 7, 4, 0, 0, 0, 0, 1}, pattern(100))
	want := cut4(t, pkt, 68, 5)
	plan := make([]Piece, 8)
	PlanIPv4(pkt, 68, plan)
	h := PutFragment4(pkt, pkt, plan[0], 5)
	if got := pkt[:h+plan[0].Len]; string(got) != string(want[0]) {
		t.Errorf("got % x, want % x", got, want[0])
	}
}

// TestPlanFits: a packet that fits is one piece, whatever its flags.
func TestPlanFits(t *testing.T) {
	plan := make([]Piece, 1)
	if n, f := PlanIPv4(frag4(IPv4DF, 100), 120, plan); n != 1 || f != OK || plan[0] != (Piece{Len: 100}) {
		t.Errorf("ipv4: %d, %q, %+v", n, f, plan[0])
	}
	c, _ := WalkIPv6(plain6)
	if n, f := PlanIPv6(plain6, &c, len(plain6), plan); n != 1 || f != OK || plan[0] != (Piece{Len: 16}) {
		t.Errorf("ipv6: %d, %q, %+v", n, f, plan[0])
	}
}

// TestFragment6 puts the pieces together and takes the fragment header out again.
func TestFragment6(t *testing.T) {
	limit := []byte{ProtoGRE, 0, 4, 1, 4, 1, 1, 0}
	for _, pkt := range [][]byte{
		make6(ProtoGRE, pattern(1461)),
		make6(NextDestination, join(limit, pattern(1453))),
		make6(NextHopByHop, join(ext(NextRouting), []byte{ProtoGRE, 0, 4, 0, 0, 0, 0, 0}, pattern(3000))),
		make6(NextHopByHop, join(ext(NextDestination), limit, pattern(5000))),
	} {
		for _, mtu := range []int{100, 1280, 1499} {
			c, _ := WalkIPv6(pkt)
			plan := make([]Piece, 200)
			n, f := PlanIPv6(pkt, &c, mtu, plan)
			if f != OK || n < 2 {
				t.Fatalf("%d bytes to %d: %d pieces, %q", len(pkt), mtu, n, f)
			}
			var data []byte
			var head []byte
			for i, p := range plan[:n] {
				frame := make([]byte, 200+p.Len)
				h := PutFragment6(frame, pkt, &c, p, 77)
				frame = frame[:h+copy(frame[h:], pkt[c.UnfragLen+p.Off:][:p.Len])]
				if total, f := CheckIPv6(frame); f != OK || total != len(frame) || total > mtu {
					t.Fatalf("piece %d: %q, %d of %d, mtu %d", i, f, total, len(frame), mtu)
				}
				fc, f := WalkIPv6(frame)
				if f != OK || !fc.Fragmented || fc.FragID != 77 || fc.FragOff != len(data) || fc.FragMore != (i < n-1) {
					t.Fatalf("piece %d: %q, %+v", i, f, fc)
				}
				head = frame[:fc.FragHdr]
				head[fc.UnfragNext] = frame[fc.FragHdr]
				data = append(data, frame[fc.FragHdr+IPv6FragmentLen:]...)
			}
			whole := join(head, data)
			binary.BigEndian.PutUint16(whole[IPv6OffPayload:], uint16(len(whole)-IPv6Len))
			if string(whole) != string(pkt) {
				t.Errorf("%d bytes to %d: not the packet that was cut", len(pkt), mtu)
			}
		}
	}
}

func FuzzFragment(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte, mtu, id uint16) {
		if len(b) < IPv4Len {
			return
		}
		// Make most inputs good datagrams: fragmentation comes after the checks.
		b[0] = 0x40 | max(5, b[0]&15)
		if hlen := int(b[0]&15) * 4; hlen > len(b) {
			return
		}
		binary.BigEndian.PutUint16(b[IPv4OffTotal:], uint16(len(b)))
		fix4(b)
		hlen, total, fault := CheckIPv4(b)
		if fault != OK || CheckIPv4Fragment(b, hlen, total) != OK {
			return
		}
		plan := make([]Piece, 64)
		if n, fault := PlanIPv4(b, int(mtu), plan); fault != OK || n == 1 {
			return
		}
		b[IPv4OffFrag] &^= IPv4DF >> 8
		payload, first, more := join4(t, cut4(t, b, int(mtu), id), int(mtu), id)
		_, off, mf, _ := IPv4Fragment(b)
		if string(payload) != string(b[hlen:]) || first != off || more != mf {
			t.Fatalf("joined %d bytes from %d, more %v; cut %d from %d, more %v", len(payload), first, more, len(b)-hlen, off, mf)
		}
	})
}
