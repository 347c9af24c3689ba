package main

import (
	"bytes"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"text/template"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"causeway/crypto/aesgcm"
	"causeway/crypto/esp"
)

//go:embed peers/ipsec-secgw.cfg
var secgwConfig string

// secgwPackets is how many packets the rival gets again and again: at 1400 bytes they stay in its cache, as the frames of
// the scenario do.
const secgwPackets = 64

// secgwSPI names the rival's one association.
const secgwSPI = 0x10000

var (
	secgwKey   = []byte("sixteen byte keysalt")
	secgwPlain = netip.MustParsePrefix("198.18.0.0/16") // destinations outside of tunnels
)

// secgwTraffic is what the rival receives, and what must become of it.
type secgwTraffic struct {
	c      espCase
	frames [][]byte
	inner  [][]byte
}

// newSecgwTraffic makes packets into the tunnel or, sealed by the customer, out of it.
func newSecgwTraffic(c espCase) (*secgwTraffic, error) {
	t := &secgwTraffic{c: c}
	rng := rand.New(rand.NewPCG(4, 4))
	for range secgwPackets {
		src, dst := hostIn(secgwPlain, rng), hostIn(inside(0), rng)
		if c.kind == "decap" {
			src, dst = dst, src
		}
		inner := udpPacket(src, dst, c.size)
		t.inner = append(t.inner, inner)
		t.frames = append(t.frames, ethernet(hopMAC, ownMAC, inner))
	}
	if c.kind == "encap" {
		return t, nil
	}
	return t, t.seal()
}

// seal puts the inner packets in ESP, as the customer does.
func (t *secgwTraffic) seal() (err error) {
	v := aesgcm.NewVault(aesgcm.Options{Unlocked: true})
	defer func() { err = errors.Join(err, v.Close()) }()
	out, err := esp.NewOutbound(v, secgwParams(), 1)
	if err != nil {
		return err
	}
	ivs, err := esp.NewIVSource(1, 0)
	if err != nil {
		return err
	}
	ivs.Reserve(1 << 44) // they are taken in ranges
	out.Mark(secgwPackets + 1)
	sealer := esp.NewSealer(ivs)
	var packets [][]byte
	for _, inner := range t.inner {
		packet := make([]byte, esp.AES128GCM16.PacketLen(len(inner)))
		start := esp.AES128GCM16.Before()
		copy(packet[start:], inner)
		if _, _, v := sealer.Add(out, packet, start, start+len(inner), esp.NextIPv4); v != esp.OK {
			return fmt.Errorf("the customer of ipsec-secgw cannot seal: %v", v)
		}
		if packets = append(packets, packet); sealer.Full() {
			sealer.Seal()
		}
	}
	sealer.Seal()
	for i, p := range packets {
		t.frames[i] = ethernet(hopMAC, ownMAC, ipv4(customer(0), endpoint, 50, 64, true, 0, p))
	}
	return nil
}

func secgwParams() esp.Params {
	return esp.Params{SPI: secgwSPI, Suite: esp.AES128GCM16, Key: secgwKey}
}

// verify says what is wrong with the frames that the rival sent, when each of its packets came once.
func (t *secgwTraffic) verify(sent [][]byte) (err error) {
	want := map[string]int{}
	for _, p := range t.inner {
		want[string(p[20:])+string(p[12:20])]++
	}
	v := aesgcm.NewVault(aesgcm.Options{Unlocked: true})
	defer func() { err = errors.Join(err, v.Close()) }()
	in, err := esp.NewInbound(v, secgwParams(), 1024)
	if err != nil {
		return err
	}
	for i, frame := range sent {
		inner := frame[min(14, len(frame)):]
		if t.c.kind == "encap" {
			if inner, err = unsealed(in, inner); err != nil {
				return fmt.Errorf("frame %d of ipsec-secgw: %w", i, err)
			}
		}
		// It may do with the TTL and the header's other fields what it likes: that costs the same.
		if len(inner) != t.c.size {
			return fmt.Errorf("frame %d of ipsec-secgw has %d bytes inside, want %d", i, len(inner), t.c.size)
		}
		key := string(inner[20:]) + string(inner[12:20])
		if want[key] == 0 {
			return fmt.Errorf("frame %d of ipsec-secgw was not expected: %x", i, frame)
		}
		want[key]--
	}
	if len(sent) != len(t.inner) {
		return fmt.Errorf("ipsec-secgw sent %d frames of %d", len(sent), len(t.inner))
	}
	return nil
}

// unsealed opens an IPv4 packet with ESP inside as the customer does.
func unsealed(in *esp.Inbound, ip []byte) ([]byte, error) {
	if len(ip) < 20 || ip[9] != 50 {
		return nil, fmt.Errorf("is no ESP: %x", ip)
	}
	if dst, _ := netip.AddrFromSlice(ip[16:20]); dst != customer(0) {
		return nil, fmt.Errorf("goes to %v, want %v", dst, customer(0))
	}
	return opened(in, ip[20:])
}

// configuration is the rival's configuration file.
func (t *secgwTraffic) configuration() ([]byte, error) {
	text, err := template.New("peers/ipsec-secgw.cfg").Parse(secgwConfig)
	if err != nil {
		return nil, err
	}
	var key []string
	for _, b := range secgwKey {
		key = append(key, hex.EncodeToString([]byte{b}))
	}
	var b bytes.Buffer
	err = text.Execute(&b, map[string]any{
		"Encap": t.c.kind == "encap", "SPI": secgwSPI, "Key": strings.Join(key, ":"), "Endpoint": endpoint, "Customer": customer(0),
		"Inside": inside(0), "Plain": secgwPlain, "Hop": net.HardwareAddr(hopMAC[:])})
	return b.Bytes(), err
}

// writePcap makes a capture file of the frames.
func writePcap(path string, frames [][]byte) error {
	var b bytes.Buffer
	w := pcapgo.NewWriter(&b)
	if err := w.WriteFileHeader(65535, layers.LinkTypeEthernet); err != nil {
		return err
	}
	for _, f := range frames {
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: time.Unix(0, 0), CaptureLength: len(f), Length: len(f)}, f); err != nil {
			return err
		}
	}
	return os.WriteFile(path, b.Bytes(), 0o600)
}

// readPcap returns the frames of a capture file.
func readPcap(path string) (frames [][]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := pcapgo.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for {
		frame, _, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return frames, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: frame %d: %w", path, len(frames), err)
		}
		frames = append(frames, frame)
	}
}
