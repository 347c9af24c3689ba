package node

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"

	"causeway/config"
	"causeway/control/ike"
	"causeway/control/ike/sa"
	"causeway/crypto/aesgcm"
	"causeway/crypto/esp"
	"causeway/pipeline"
)

// fakeEngine notes the children that each tunnel has.
type fakeEngine struct {
	mu   sync.Mutex
	has  map[string][]pipeline.SASpec
	sets int
	err  error
}

func (e *fakeEngine) SetChildren(tunnel string, list []pipeline.SASpec) func() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sets++
	if e.err != nil {
		err := e.err
		e.err = nil
		return func() error { return err }
	}
	e.has[tunnel] = list
	return func() error { return nil }
}

// order is the SPIs of a tunnel's children, those first by which packets leave.
func (e *fakeEngine) order(tunnel string) (spis []uint32) {
	for _, c := range e.has[tunnel] {
		spis = append(spis, c.Inbound[0].SPI())
	}
	return spis
}

// ikeConfig has tunnels with IKE, each after how it differs from the usual one, and behind them more.
func ikeConfig(t *testing.T, tunnels map[string]string, more string) *config.Config {
	t.Helper()
	var s strings.Builder
	s.WriteString("interfaces: [{name: eth0}]\nendpoints: [192.0.2.1]\ntunnels:\n")
	for k, name := range slices.Sorted(maps.Keys(tunnels)) {
		change := tunnels[name]
		ike, fields := "psk: a key that nobody guesses", ""
		if before, after, found := strings.Cut(change, "|"); found {
			fields, ike = before, ike+", "+after
		} else {
			fields = change
		}
		if !strings.Contains(ike, "remote_id") {
			ike += ", remote_id: " + name + ".example.net"
		}
		fmt.Fprintf(&s, "  - {name: %s, type: ipsec, endpoint: 192.0.2.1, interface_address: 10.213.%d.%d/31, %s ike: {%s}}\n", name, k>>7, k*2&255, fields, ike)
	}
	s.WriteString(more)
	c, err := config.Parse("test.yaml", []byte(s.String()))
	if err != nil {
		t.Fatalf("%v\n%s", err, s.String())
	}
	return c
}

const manualTunnel = "  - {name: manual, type: ipsec, lab: true, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.77, interface_address: 10.214.0.0/31, " +
	"manual_sas: [{spi_in: %d, spi_out: 4098, encryption: aes128gcm16, key_in: \"0101010101010101010101010101010101010101\", key_out: \"0202020202020202020202020202020202020202\"}]}\n"

func newTestChildren(t *testing.T, c *config.Config) (*children, *fakeEngine) {
	t.Helper()
	vault := aesgcm.NewVault(aesgcm.Options{Unlocked: true})
	t.Cleanup(func() { vault.Close() })
	e := &fakeEngine{has: map[string][]pipeline.SASpec{}}
	k := newChildren(vault, new(esp.IVSource))
	k.engine = e
	if err := k.prepare(c); err != nil {
		t.Fatal(err)
	}
	return k, e
}

var testPeer = netip.MustParseAddrPort("198.51.100.9:4500")

// testChild is a child of tunnel a with an SPI of the node's choice.
func testChild(t *testing.T, c *children, change ...func(*sa.Child)) *sa.Child {
	t.Helper()
	spi, err := c.ReserveSPI()
	if err != nil {
		t.Fatal(err)
	}
	k := &sa.Child{Tunnel: "a", SPIIn: spi, SPIOut: 0x9000, Suite: esp.AES128GCM16, KeyIn: bytes.Repeat([]byte{byte(spi)}, 20), KeyOut: bytes.Repeat([]byte{byte(spi >> 8)}, 20),
		Endpoint: netip.MustParseAddr("192.0.2.1"), Peer: testPeer}
	for _, f := range change {
		f(k)
	}
	return k
}

func behind(prefixes ...string) func(*sa.Child) {
	return func(k *sa.Child) {
		for _, p := range prefixes {
			k.Remote = append(k.Remote, netip.MustParsePrefix(p))
		}
	}
}

// TestSPIs: all differ, none is reserved by a standard or of a tunnel with keys in the file, and those given up come back.
func TestSPIs(t *testing.T) {
	c, _ := newTestChildren(t, ikeConfig(t, map[string]string{"a": ""}, fmt.Sprintf(manualTunnel, 0x1001)))
	seen := map[uint32]bool{}
	for range 5000 {
		spi, err := c.ReserveSPI()
		if err != nil || seen[spi] || spi < 256 || spi == 0x1001 {
			t.Fatalf("spi %#x, %v", spi, err)
		}
		seen[spi] = true
	}
	for spi := range seen {
		c.ReleaseSPI(spi)
	}
	if len(c.spis) != 0 {
		t.Errorf("%d are still reserved", len(c.spis))
	}
	k := testChild(t, c)
	if err := c.Install(k); err != nil {
		t.Fatal(err)
	}
	c.ReleaseSPI(k.SPIIn)
	if _, taken := c.spis[k.SPIIn]; !taken {
		t.Error("the SPI of a child is free")
	}
	if err := c.prepare(ikeConfig(t, map[string]string{"a": ""}, fmt.Sprintf(manualTunnel, k.SPIIn))); err == nil {
		t.Error("the file may have the SPI of a child")
	}
}

// TestSPIsOfTheFile: chance does not choose one.
func TestSPIsOfTheFile(t *testing.T) {
	var chosen [2]uint32
	for i := range chosen {
		cryptotest.SetGlobalRandom(t, 7)
		more := ""
		if i > 0 {
			more = fmt.Sprintf(manualTunnel, chosen[0])
		}
		c, _ := newTestChildren(t, ikeConfig(t, map[string]string{"a": ""}, more))
		cryptotest.SetGlobalRandom(t, 8)
		var err error
		if chosen[i], err = c.ReserveSPI(); err != nil {
			t.Fatal(err)
		}
	}
	if chosen[0] == chosen[1] {
		t.Errorf("spi %#x is the file's", chosen[0])
	}
	cryptotest.SetGlobalRandom(t, 8)
	c, _ := newTestChildren(t, ikeConfig(t, map[string]string{"a": ""}, ""))
	cryptotest.SetGlobalRandom(t, 8)
	if spi, err := c.ReserveSPI(); err != nil || spi != chosen[0] {
		t.Errorf("chance is not fixed: %#x and %#x, %v", spi, chosen[0], err)
	}
}

// TestWhichChildSends goes through lives of tunnels: which child is asked first, and which next.
func TestWhichChildSends(t *testing.T) {
	any, narrow := behind(), behind("10.7.0.0/16")
	wide := behind("::/0", "0.0.0.0/0") // all there is: any
	for name, c := range map[string]struct {
		install []func(*sa.Child)
		use     []int
		remove  []int
		want    []int
	}{
		"the first":                   {install: []func(*sa.Child){any}, want: []int{0}},
		"a rekey until it is used":    {install: []func(*sa.Child){any, any}, want: []int{0, 1}},
		"any in other words":          {install: []func(*sa.Child){any, wide}, want: []int{0, 1}},
		"a rekey that is used":        {install: []func(*sa.Child){any, any}, use: []int{1}, want: []int{1, 0}},
		"used twice":                  {install: []func(*sa.Child){any, any}, use: []int{1, 1}, want: []int{1, 0}},
		"rekeyed by both sides":       {install: []func(*sa.Child){any, any, any}, use: []int{2}, want: []int{2, 0, 1}},
		"a rekey that is over":        {install: []func(*sa.Child){any, any}, use: []int{1}, remove: []int{0}, want: []int{1}},
		"the old one goes first":      {install: []func(*sa.Child){any, any}, remove: []int{0}, want: []int{1}},
		"other selectors at once":     {install: []func(*sa.Child){any, narrow}, want: []int{1, 0}},
		"a rekey stays in its place":  {install: []func(*sa.Child){any, narrow, any}, use: []int{2}, want: []int{1, 2, 0}},
		"selectors in another order":  {install: []func(*sa.Child){behind("10.0.0.0/8", "fd00::/8"), behind("fd00::/8", "10.0.0.0/8")}, want: []int{0, 1}},
		"none is left":                {install: []func(*sa.Child){any}, remove: []int{0}},
		"what is not there, and more": {install: []func(*sa.Child){any, narrow}, remove: []int{1, 1, 1}, want: []int{0}},
	} {
		t.Run(name, func(t *testing.T) {
			k, e := newTestChildren(t, ikeConfig(t, map[string]string{"a": ""}, ""))
			var moved int
			k.onMove = func(string) { moved++ }
			var spis, want []uint32
			for _, f := range c.install {
				child := testChild(t, k, f)
				if err := k.Install(child); err != nil {
					t.Fatal(err)
				}
				spis = append(spis, child.SPIIn)
			}
			for _, i := range c.use {
				if err := k.Use("a", spis[i]); err != nil {
					t.Fatal(err)
				}
			}
			for _, i := range c.remove {
				k.Remove("a", spis[i])
			}
			for _, i := range c.want {
				want = append(want, spis[i])
			}
			if got := e.order("a"); !slices.Equal(got, want) {
				t.Errorf("order %#x, want %#x", got, want)
			}
			if moved != e.sets {
				t.Errorf("told of %d changes out of %d", moved, e.sets)
			}
			if len(k.spis) != len(want) {
				t.Errorf("%d SPIs are taken by %d children", len(k.spis), len(want))
			}
			k.close()
			if err := k.Install(testChild(t, k)); err == nil {
				t.Error("a closed node takes a child")
			}
		})
	}
}

// TestWhatTheWorkersAreTold of a child.
func TestWhatTheWorkersAreTold(t *testing.T) {
	c, e := newTestChildren(t, ikeConfig(t, map[string]string{"a": "replay_window: 128,"}, ""))
	k := testChild(t, c, behind("10.7.1.1/16"), func(k *sa.Child) {
		k.UDP, k.NAT, k.Peer = true, true, netip.MustParseAddrPort("198.51.100.9:61000")
		k.Life.HardPackets = 7
	})
	if err := c.Install(k); err != nil {
		t.Fatal(err)
	}
	got := e.has["a"][0]
	if !got.UDP || !got.NAT || !got.Either || got.Peer != k.Peer || got.Endpoint != k.Endpoint || got.Source == nil || len(got.Local) != 0 ||
		!slices.Equal(got.Remote, []netip.Prefix{netip.MustParsePrefix("10.7.0.0/16")}) || got.Inbound[0].SPI() != k.SPIIn || got.Outbound.SPI() != k.SPIOut {
		t.Errorf("%+v", got)
	}
	clear(k.KeyIn)
	list := c.show("a", func(uint32) int { return 3 })
	if len(list) != 2 || list[0].Direction != "in" || list[0].SPI != k.SPIIn || list[0].ReplayWindow != 128 || !list[0].UDPEncap || list[0].Worker != 3 ||
		list[1].Direction != "out" || list[1].SPI != k.SPIOut || list[1].Sequence != 1 || list[0].KeyID == list[1].KeyID || list[0].Encryption != "aes128gcm16" {
		t.Errorf("%+v", list)
	}
	c.Move("a", k.SPIIn, netip.MustParseAddrPort("198.51.100.10:4501"))
	if p := e.has["a"][0].Peer; p.String() != "198.51.100.10:4501" {
		t.Errorf("packets go to %s", p)
	}
	if u, ok := c.Usage("a", k.SPIIn); !ok || u.Source.IsValid() || e.has["a"][0].Source == got.Source || e.has["a"][0].Source.Get() != e.has["a"][0].Peer {
		t.Errorf("%+v: no packet has come since IKE has moved the peer, and where they came from before says nothing", u)
	}
	c.tunnels["a"].list[0].source = pipeline.NewPeerSource(got.Peer) // as if a packet had come from the old place since
	if u, ok := c.Usage("a", k.SPIIn); !ok || u.Source != got.Peer {
		t.Errorf("%+v: the peer is back at %s", u, got.Peer)
	}
	moved := map[uint32]netip.AddrPort{}
	c.Moved(func(spi uint32, _ uint64, from netip.AddrPort) { moved[spi] = from })
	if len(moved) != 1 || moved[k.SPIIn] != got.Peer {
		t.Errorf("told of other nodes' children: %v", moved)
	}
	for _, wrong := range []string{"[2001:db8::1]:4500", "198.51.100.10:0"} {
		c.Move("a", k.SPIIn, netip.MustParseAddrPort(wrong))
		if p := e.has["a"][0].Peer; p.String() != "198.51.100.10:4501" {
			t.Errorf("packets go to %s", p)
		}
	}
	peer, paths := c.paths("a", 5)
	if peer.String() != "198.51.100.10" || len(paths) != 1 || paths[0].SPI != k.SPIOut || !paths[0].UDP || paths[0].Port != 4501 || paths[0].ID != 5 {
		t.Errorf("%s, %+v", peer, paths)
	}
	if n := paths[0].Fits(1500); k.Suite.PacketLen(n)+28 > 1500 || k.Suite.PacketLen(n+1)+28 <= 1500 {
		t.Errorf("%d bytes fit 1500", n)
	}
}

// TestInstallRefuses: what cannot be leaves nothing behind.
func TestInstallRefuses(t *testing.T) {
	c, e := newTestChildren(t, ikeConfig(t, map[string]string{"a": ""}, fmt.Sprintf(manualTunnel, 0x1001)))
	for name, f := range map[string]func(k *sa.Child){
		"no such tunnel":   func(k *sa.Child) { k.Tunnel = "b" },
		"keys in the file": func(k *sa.Child) { k.Tunnel = "manual" },
		"not reserved":     func(k *sa.Child) { k.SPIIn++ },
		"other families":   func(k *sa.Child) { k.Peer = netip.MustParseAddrPort("[2001:db8::1]:500") },
		"no peer":          func(k *sa.Child) { k.Peer = netip.AddrPort{} },
		"no endpoint":      func(k *sa.Child) { k.Endpoint = netip.Addr{} },
		"port 0":           func(k *sa.Child) { k.UDP, k.Peer = true, netip.AddrPortFrom(k.Peer.Addr(), 0) },
		"reserved spi":     func(k *sa.Child) { k.SPIOut = 255 },
		"short key":        func(k *sa.Child) { k.KeyOut = k.KeyOut[1:] },
		"no suite":         func(k *sa.Child) { k.Suite = 0 },
		"no prefix":        func(k *sa.Child) { k.Local = []netip.Prefix{{}} },
		"too many selectors": func(k *sa.Child) {
			for i := range maxSelectors {
				k.Local = append(k.Local, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32))
			}
			k.Remote = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
		},
		"workers that don't": func(*sa.Child) { e.err = errors.New("no") },
	} {
		k := testChild(t, c, f)
		if err := c.Install(k); err == nil {
			t.Errorf("%s: installed", name)
		}
		if _, ok := c.Usage(k.Tunnel, k.SPIIn); ok || len(e.has["a"]) > 0 || len(c.tunnels["a"].list) > 0 {
			t.Errorf("%s: something is left", name)
		}
		c.ReleaseSPI(k.SPIIn)
	}
	k := testChild(t, c)
	if err := c.Install(k); err != nil {
		t.Fatal(err)
	}
	if err := c.Install(k); err == nil {
		t.Error("a child was installed twice")
	}
	if err := c.Use("a", k.SPIIn+1); err == nil {
		t.Error("what is not there is used")
	}
	if err := c.Use("b", k.SPIIn); err == nil {
		t.Error("what is not there is used")
	}
	c.Remove("b", k.SPIIn)
	c.Remove("a", k.SPIIn+1)
	c.Move("b", k.SPIIn, testPeer)
	if _, ok := c.Usage("b", k.SPIIn); ok {
		t.Error("another tunnel has the child")
	}
	if s := fmt.Sprintf("%v %+v", k, k); strings.Contains(s, fmt.Sprint(k.KeyIn[0])+" "+fmt.Sprint(k.KeyIn[0])) {
		t.Errorf("a key is printed: %s", s)
	}
}

// TestIVsOfIKE come from the node's source, up to its mark.
func TestIVsOfIKE(t *testing.T) {
	c, _ := newTestChildren(t, ikeConfig(t, map[string]string{"a": ""}, ""))
	if _, err := c.IV(); err == nil {
		t.Error("an IV before any is reserved")
	}
	if err := c.ivs.Begin(5, 100); err != nil {
		t.Fatal(err)
	}
	c.ivs.Reserve(102)
	for _, want := range []uint64{5<<44 | 100, 5<<44 | 101} {
		if iv, err := c.IV(); err != nil || iv != want {
			t.Errorf("%#x, %v; want %#x", iv, err, want)
		}
	}
	if _, err := c.IV(); err == nil {
		t.Error("an IV beyond the mark")
	}
}

// TestIVsAreReservedForIKE: a node whose tunnels all negotiate has marks too.
func TestIVsAreReservedForIKE(t *testing.T) {
	a := newTestAssociations(t.TempDir())
	defer a.dir.close()
	defer a.close()
	if err := a.prepare(ikeConfig(t, map[string]string{"a": ""}, "")); err != nil {
		t.Fatal(err)
	}
	if _, ok := a.ivs.One(); !ok || !a.loaded {
		t.Error("no IV is reserved")
	}
}

func negotiable(t *testing.T, c *config.Config) []*ike.Tunnel {
	t.Helper()
	list, _, err := ikeTunnels(c)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestChildrenOverReloads: which live on.
func TestChildrenOverReloads(t *testing.T) {
	old := ikeConfig(t, map[string]string{"a": "", "b": "", "c": "", "d": "", "e": "", "f": ""}, "")
	c, e := newTestChildren(t, old)
	spis := map[string]uint32{}
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		k := testChild(t, c, func(k *sa.Child) { k.Tunnel = name })
		if err := c.Install(k); err != nil {
			t.Fatal(err)
		}
		spis[name] = k.SPIIn
	}
	next := ikeConfig(t, map[string]string{"a": "mtu: 1300, replay_window: 64,", "b": "|remote_id: another.example.net", "c": "customer_endpoint: 198.51.100.9,",
		"d": "selectors: {remote: [10.0.0.0/8]},", "g": ""},
		"  - {name: f, type: gre, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.78, interface_address: 10.214.0.2/31}\n"+fmt.Sprintf(manualTunnel, 0x1001))
	if err := c.prepare(next); err != nil {
		t.Fatal(err)
	}
	if len(c.tunnels) != 7 {
		t.Errorf("%d tunnels during the reload, want 7", len(c.tunnels))
	}
	d := ike.New(ike.Options{})
	d.SetTunnels(negotiable(t, old))
	c.retain(next, d.Renewed(negotiable(t, next)))
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		_, lives := c.Usage(name, spis[name])
		if lives != (name == "a") || lives != (len(e.has[name]) == 1) {
			t.Errorf("the child of %s lives: %v", name, lives)
		}
		if _, taken := c.spis[spis[name]]; taken != lives {
			t.Errorf("the spi of %s is taken: %v", name, taken)
		}
	}
	if got := slices.Sorted(maps.Keys(c.tunnels)); !slices.Equal(got, []string{"a", "b", "c", "d", "g"}) {
		t.Errorf("tunnels %v", got)
	}
	if c.manual[0x1001] != "manual" || c.tunnels["a"].of.IPsec.ReplayWindow != 64 || c.tunnels["a"].of.MTU != 1300 {
		t.Error("the new configuration is not known")
	}
	if err := c.Install(testChild(t, c, func(k *sa.Child) { k.Tunnel = "f" })); err == nil {
		t.Error("a tunnel without ike gets a child")
	}
	c.retain(old, nil) // a configuration that was not taken over
	if len(c.manual) != 0 {
		t.Errorf("manual SPIs %v", c.manual)
	}
}
