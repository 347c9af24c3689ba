package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// These need neither DPDK nor a network: what only a run can show, each run of the scenario verifies by itself.

// stdlibOpens opens an ESP packet in an IPv4 packet with crypto/cipher.
func stdlibOpens(t *testing.T, ip []byte) []byte {
	t.Helper()
	block, err := aes.NewCipher(secgwKey[:16])
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	packet := ip[20:]
	text, err := aead.Open(nil, slices.Concat(secgwKey[16:], packet[8:16]), packet[16:], packet[:8])
	if err != nil {
		t.Fatalf("%x: %v", packet, err)
	}
	if spi := binary.BigEndian.Uint32(packet); spi != secgwSPI || text[len(text)-1] != 4 {
		t.Fatalf("SPI %#x, next header %d", spi, text[len(text)-1])
	}
	return text[:len(text)-2-int(text[len(text)-2])]
}

// TestSecgwTraffic: the rival's packets come back from the capture file, and open with another implementation.
func TestSecgwTraffic(t *testing.T) {
	for _, c := range []espCase{{kind: "encap", size: 64}, {kind: "encap", size: 1400}, {kind: "decap", size: 64}, {kind: "decap", size: 1400}} {
		traffic, err := newSecgwTraffic(c)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), secgwIn)
		if err := writePcap(path, traffic.frames); err != nil {
			t.Fatal(err)
		}
		frames, err := readPcap(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(frames) != secgwPackets || len(traffic.inner) != secgwPackets {
			t.Fatalf("%s/%d: %d frames of %d packets", c.kind, c.size, len(frames), len(traffic.inner))
		}
		for i, frame := range frames {
			if !bytes.Equal(frame[:14], ethernet(hopMAC, ownMAC, nil)) || checksum(frame[14:34]) != 0 {
				t.Fatalf("%s/%d: wrong headers: %x", c.kind, c.size, frame[:34])
			}
			inner := frame[14:]
			if c.kind == "decap" {
				inner = stdlibOpens(t, inner)
			}
			if len(inner) != c.size || !bytes.Equal(inner, traffic.inner[i]) {
				t.Fatalf("%s/%d: %x inside, want %x", c.kind, c.size, inner, traffic.inner[i])
			}
		}
	}
}

// TestSecgwVerify lets the customer's packets stand for the rival's, right and wrong.
func TestSecgwVerify(t *testing.T) {
	sealed, err := newSecgwTraffic(espCase{kind: "decap", size: 64})
	if err != nil {
		t.Fatal(err)
	}
	plain := secgwTraffic{espCase{kind: "decap", size: 64}, nil, sealed.inner}
	plainFrames := func() (fs [][]byte) {
		for _, p := range sealed.inner {
			fs = append(fs, ethernet(hopMAC, ownMAC, hopped(p)))
		}
		return fs
	}
	esp := secgwTraffic{espCase{kind: "encap", size: 64}, nil, sealed.inner}
	espFrames := func() (fs [][]byte) {
		for _, f := range sealed.frames {
			f = bytes.Clone(f)
			to := customer(0).As4()
			copy(f[30:], to[:]) // from the node, not to it
			fs = append(fs, f)
		}
		return fs
	}
	for _, way := range []struct {
		name   string
		t      secgwTraffic
		frames func() [][]byte
	}{{"plain", plain, plainFrames}, {"esp", esp, espFrames}} {
		if err := way.t.verify(way.frames()); err != nil {
			t.Errorf("%s: %v", way.name, err)
		}
		for name, spoil := range map[string]func([][]byte) [][]byte{
			"one is missing": func(f [][]byte) [][]byte { return f[1:] },
			"one came twice": func(f [][]byte) [][]byte { f[1] = f[0]; return f },
			"a wrong byte":   func(f [][]byte) [][]byte { f[5][len(f[5])-1] ^= 1; return f },
			"a short frame":  func(f [][]byte) [][]byte { f[5] = f[5][:20]; return f },
			"not handled": func([][]byte) [][]byte {
				if way.name == "esp" {
					return plainFrames()
				}
				return espFrames()
			},
		} {
			if way.t.verify(spoil(way.frames())) == nil {
				t.Errorf("%s: %s, which is not noticed", way.name, name)
			}
		}
	}
}

func TestSecgwConfiguration(t *testing.T) {
	for kind, want := range map[string][]string{
		"encap": {"sp ipv4 out esp protect 65536 pri 1 dst 10.0.0.0/24 ", "sa out 65536 ", "mode ipv4-tunnel src 203.0.113.1 dst 100.70.0.0", "rt ipv4 dst 100.70.0.0/32 port 1"},
		"decap": {"sp ipv4 in esp protect 65536 pri 1 src 10.0.0.0/24 ", "sa in 65536 ", "mode ipv4-tunnel src 100.70.0.0 dst 203.0.113.1", "rt ipv4 dst 198.18.0.0/16 port 1"},
	} {
		b, err := (&secgwTraffic{c: espCase{kind: kind}}).configuration()
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range append(want, "aead_algo aes-128-gcm aead_key 73:69:78:", "neigh port 1 02:00:00:00:00:02") {
			if !strings.Contains(string(b), w) {
				t.Errorf("%s: no %q in\n%s", kind, w, b)
			}
		}
		if n := bytes.Count(b, []byte("\nsa ")); n != 1 {
			t.Errorf("%s: %d associations", kind, n)
		}
	}
}

func TestPortStats(t *testing.T) {
	for text, want := range map[string]portStats{
		`{"/ethdev/stats":{"ipackets":34888096,"opackets":7,"ibytes":2721271488,"q_ipackets":[34888096,0]}}`: {34888096, 7},
		`{"/ethdev/stats":null}`: {}, // no such port yet
	} {
		if got, err := parsePortStats([]byte(text)); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "{}", `{"/ethdev/list":[0]}`, `{"/ethdev/stats":{"ipackets":-1}}`} {
		if got, err := parsePortStats([]byte(text)); err == nil {
			t.Errorf("%q: %+v, no error", text, got)
		}
	}
}

func TestLost(t *testing.T) {
	for _, c := range []struct {
		in, out uint64
		bad     bool
	}{{1000, 1000, false}, {1000, 1005, false}, {1000, 991, false}, {1000, 980, true}, {1000, 0, true}, {0, 0, true}} {
		if err := lost(c.in, c.out); (err != nil) != c.bad {
			t.Errorf("%d in, %d out: %v", c.in, c.out, err)
		}
	}
}

// TestSecgwMissing: one line says what is not there and where it is from.
func TestSecgwMissing(t *testing.T) {
	all := func(string) bool { return true }
	if got := secgwMissing(all); got != "" {
		t.Errorf("all is there: %q", got)
	}
	got := secgwMissing(func(name string) bool { return name != "cc" && !strings.Contains(name, "dpdk/") })
	want := "it needs /usr/include/dpdk/rte_ethdev.h, cc (Debian: apt-get install libdpdk-dev gcc)"
	if got != want {
		t.Errorf("%q, want %q", got, want)
	}
	s := secgw{why: got}
	var one, many Result
	if err := s.compare(espCase{kind: "encap", size: 64, sas: 1}, &one); err != nil || one.Note != want || one.SecgwNS != 0 {
		t.Errorf("%+v, %v", one, err)
	}
	if err := s.compare(espCase{kind: "encap", size: 64, sas: 1000}, &many); err != nil || many.Note != "" {
		t.Errorf("%+v, %v", many, err)
	}
}

func TestDebianSources(t *testing.T) {
	got, err := debianSources("ID=debian\nVERSION_CODENAME=\"bookworm\"\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []string{"/debian\nSuites: bookworm bookworm-updates\n", "/debian-security\nSuites: bookworm-security\n"} {
		if !strings.Contains(got, w) {
			t.Errorf("no %q in\n%s", w, got)
		}
	}
	if n := strings.Count(got, "Signed-By: "+debianKeys); n != strings.Count(got, "URIs:") {
		t.Errorf("%d entries are signed in\n%s", n, got)
	}
	for _, other := range []string{"", "ID=ubuntu\nVERSION_CODENAME=noble\n", "ID=debian\n"} {
		if got, err := debianSources(other); err == nil {
			t.Errorf("%q: %s", other, got)
		}
	}
}

func TestDPDKMemory(t *testing.T) {
	for free, want := range map[int]string{0: "--no-huge", dpdkMiB/2 - 1: "--no-huge", dpdkMiB / 2: "--in-memory"} {
		if got, note := dpdkMemory(free); !slices.Contains(got, want) || (want == "--no-huge") != strings.Contains(note, "without") {
			t.Errorf("%d pages: %v, %q", free, got, note)
		}
	}
}

func TestComplaint(t *testing.T) {
	for out, want := range map[string]string{
		"EAL: Error - exiting with code: 1\n  Cause: no ports\nClosing\n": "no ports",
		"one\ntwo\n": "two",
	} {
		if got := complaint([]byte(out)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := fmt.Sprint(orStatus0(nil)); got != "exit status 0" {
		t.Errorf("%q", got)
	}
}
