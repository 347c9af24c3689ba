package bfd

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

var (
	four = Ends{Local: netip.MustParseAddr("10.213.0.10"), Remote: netip.MustParseAddr("10.213.0.11"), SourcePort: 49152}
	six  = Ends{Local: netip.MustParseAddr("fd00:213::a"), Remote: netip.MustParseAddr("fd00:213::b"), SourcePort: 50000, Multihop: true}
)

func (e Ends) other() Ends {
	return Ends{Local: e.Remote, Remote: e.Local, SourcePort: 60000, Multihop: e.Multihop}
}

var sample = Control{Diagnostic: DetectionExpired, State: Init, Poll: true, Multiplier: 3, Mine: 0x01020304, Yours: 0xa0b0c0d0, MinTX: 100 * time.Millisecond, MinRX: 50 * time.Millisecond}

// gopacket, which is somebody else's, reads what is written here; and what it writes is read here.
func TestPacketsByGopacket(t *testing.T) {
	for _, e := range []Ends{four, six} {
		b := e.packet(&sample)
		first := gopacket.Decoder(layers.LayerTypeIPv4)
		if e.Local.Is6() {
			first = layers.LayerTypeIPv6
		}
		g := gopacket.NewPacket(b, first, gopacket.Default)
		x, ok := g.Layer(layers.LayerTypeBFD).(*layers.BFD)
		if !e.Multihop && !ok {
			t.Fatalf("gopacket does not find BFD in %x: %v", b, g.ErrorLayer())
		}
		if !ok { // it knows the port of one hop alone
			x = new(layers.BFD)
			if err := x.DecodeFromBytes(g.ApplicationLayer().Payload(), gopacket.NilDecodeFeedback); err != nil {
				t.Fatal(err)
			}
		}
		if x.Version != 1 || x.Diagnostic != 1 || x.State != layers.BFDStateInit || !x.Poll || x.Final || x.DetectMultiplier != 3 || x.MyDiscriminator != 0x01020304 ||
			x.YourDiscriminator != 0xa0b0c0d0 || x.DesiredMinTxInterval != 100_000 || x.RequiredMinRxInterval != 50_000 || x.RequiredMinEchoRxInterval != 0 {
			t.Errorf("gopacket reads %+v", x)
		}
		other := e.other()
		if got, err := other.parsePacket(b); err != nil || got != sample {
			t.Errorf("got %+v, %v", got, err)
		}
	}
}

// Each mistake that RFC 5880, section 6.8.6, names is one, and each of UDP and of the TTL.
func TestMistakes(t *testing.T) {
	at4 := 20 + 8
	good := four.packet(&sample)
	sums := func(b []byte) []byte { b[26], b[27] = 0, 0; return b } // no UDP checksum
	set := func(at int, v byte) []byte {
		b := bytes.Clone(good)
		b[at] = v
		return sums(b)
	}
	zero := func(at int) []byte {
		b := bytes.Clone(good)
		clear(b[at : at+4])
		return sums(b)
	}
	other := four.other()
	for _, c := range []struct {
		what string
		b    []byte
		want error
	}{
		{"version 0", set(at4, 0), errVersion}, {"version 2", set(at4, 0x40), errVersion},
		{"length 23", set(at4+3, 23), errShort}, {"length 25", set(at4+3, 25), errShort},
		{"multiplier 0", set(at4+2, 0), errMultiplier}, {"multipoint", set(at4+1, good[at4+1]|1), errMultipoint},
		{"no discriminator", zero(at4 + 4), errMine}, {"not that of this end", zero(at4 + 8), errYours},
		{"authenticated", set(at4+1, good[at4+1]|4), errAuthentication},
		{"TTL 254", set(8, 254), errTTL}, {"another port", set(23, 0xc9), errNotControl}, {"another source", set(15, 99), errNotControl}, {"TCP", set(9, 6), errNotControl},
		{"a fragment", set(6, 0x20), errNotControl}, {"cut", good[:len(good)-1], errNotControl}, {"nothing", nil, errNotControl}, {"a byte", []byte{0x45}, errNotControl},
		{"a wrong checksum", func() []byte { b := bytes.Clone(good); b[27] ^= 1; return b }(), errNotControl},
		{"no checksum", sums(bytes.Clone(good)), nil}, {"all is well", good, nil},
	} {
		if _, err := other.parsePacket(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
	none := six.packet(&sample)
	none[46], none[47] = 0, 0
	if _, err := func() (Control, error) { o := six.other(); return o.parsePacket(none) }(); !errors.Is(err, errNotControl) {
		t.Errorf("IPv6 without a checksum (RFC 8200, section 8.1): %v", err)
	}
	far := six.packet(&sample)
	far[7] = 60
	if _, err := func() (Control, error) { o := six.other(); return o.parsePacket(far) }(); err != nil {
		t.Errorf("from some hops away: %v", err)
	}
	down := sample
	down.State, down.Yours = Down, 0
	if _, err := other.parsePacket(four.packet(&down)); err != nil {
		t.Errorf("the first packet: %v", err)
	}
}

// tshark finds nothing wrong with what is sent, in both families and over one hop and more.
func TestPacketsByTshark(t *testing.T) {
	var dump strings.Builder
	for _, e := range []Ends{four, six} {
		fmt.Fprintf(&dump, "000000 % x\n", e.packet(&sample))
	}
	file := t.TempDir() + "/bfd.pcap"
	make := exec.Command("text2pcap", "-q", "-l", "101", "-", file)
	make.Stdin = strings.NewReader(dump.String())
	if out, err := make.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.Command("tshark", "-r", file, "-o", "udp.check_checksum:TRUE", "-T", "fields", "-e", "bfd.sta", "-e", "bfd.my_discriminator", "-e", "udp.checksum.status", "-e", "_ws.malformed").Output()
	if want := "0x02\t0x01020304\t1\t\n"; err != nil || string(out) != want+want {
		t.Errorf("tshark says %q, %v", out, err)
	}
}

func FuzzPacket(f *testing.F) {
	f.Add(four.packet(&sample))
	f.Add(six.packet(&sample))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, e := range []Ends{four.other(), six.other()} {
			c, err := e.parsePacket(b)
			if err != nil {
				continue
			}
			if c.MinEchoRX = 0; c.Mine == 0 || c.Multiplier == 0 {
				t.Fatalf("%+v", c)
			}
			o := e.other()
			if again, err := e.parsePacket(o.packet(&c)); err != nil || again != c {
				t.Fatalf("%+v, %v, want %+v", again, err, c)
			}
		}
	})
}
