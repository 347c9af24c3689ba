package main

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"causeway/analytics"
	"causeway/analytics/attack"
	"causeway/analytics/graph"
	"causeway/analytics/sketch"
	"causeway/analytics/store"
	"causeway/analytics/store/clickhouse"
	"causeway/config"
	"causeway/control/api"
	"causeway/control/metrics"
)

// The configuration has a threshold for each vector, by its name.
func TestThresholds(t *testing.T) {
	text := "interfaces: [{name: eth0}]\nanalytics:\n  attacks:\n"
	for v := range attack.Vectors {
		text += fmt.Sprintf("    %s: %d\n", vectorName(v), 100+v)
	}
	c, err := config.Parse("c.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for v, n := range thresholds(c.Analytics.Attacks) {
		if n != float64(100+v) {
			t.Errorf("%v: %v packets a second, want %d", attack.Vector(v), n, 100+v)
		}
	}
	some := thresholds(map[string]int64{"syn_ack_flood": 0})
	if all := attack.DefaultConfig().Thresholds; some[attack.SYNACKFlood] != 0 || some[attack.SYNFlood] != all[attack.SYNFlood] {
		t.Errorf("%v", some)
	}
}

// The webhook is told some of the packets, as they were.
func TestNoticeOfAttack(t *testing.T) {
	x := noticeOf(&attack.Event{Vector: attack.SYNFlood, Rate: 7, Attack: store.Attack{ID: "a-1", Dst: "203.0.113.7"}, Headers: [][]byte{{0x45, 0, 0xff}, {0x60}}}, "started")
	if x.State != "started" || x.ID != "a-1" || x.Destination != "203.0.113.7" || x.Rate != 7 || fmt.Sprint(x.Samples) != "[4500ff 60]" {
		t.Errorf("%+v", x)
	}
}

// The webhook is told who attacks, of a scan too, whose event has its targets.
func TestSourcesOfAttacks(t *testing.T) {
	entries := []sketch.Entry[netip.Addr]{{Key: netip.MustParseAddr("192.0.2.1")}, {Key: netip.MustParseAddr("192.0.2.2")}}
	for v, want := range map[attack.Vector]string{attack.SYNFlood: "[192.0.2.1 192.0.2.2]", attack.Scan: "[192.0.2.66]"} {
		if got := fmt.Sprint(sourcesOf(&attack.Event{Vector: v, Attack: store.Attack{Src: "192.0.2.66"}, Sources: entries})); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
}

// What is told of a tunnel is all that `causeway show` has, but for keys, next hops and the legs of the way.
func TestTunnelsForCustomers(t *testing.T) {
	tunnels := []api.Tunnel{
		{Name: "a", Account: "acme", Type: "ipsec", Endpoint: "192.0.2.1", CustomerEndpoint: "198.51.100.7", InterfaceAddress: "10.0.0.0/31", Prefixes: []string{"203.0.113.0/24"},
			MTU: 1436, EffectiveMTU: 1400, PathMTU: 1400, MSS4: 1396, MSS6: 1376, Route: "via 10.9.9.9 dev eth7", RouteState: "ok"},
		{Name: "b", Account: "beta", Type: "gre", MTU: 1476, EffectiveMTU: 1476},
	}
	health := []api.Health{{Tunnel: "a", State: "degraded", Why: "3 of 10 probes lost", Fleet: "healthy", Leg: "via 10.9.9.9 dev eth7", Since: 61.9, Probes: 10, Lost: 3, RTT: 0.0125,
		BFD: &api.HealthBFD{State: "up"}}, {Tunnel: "gone"}}
	sas := []api.SA{{Tunnel: "a", Direction: "in", SPI: 0x80000001, Encryption: "AES_GCM_16_256", KeyID: "deadbeef", ESN: true, UDPEncap: true, Packets: 7, Bytes: 700,
		Refused: map[string]uint64{"replay": 2, "auth": 3}},
		{Tunnel: "a", Direction: "out", SPI: 5, Packets: 9, Bytes: 900}, {Tunnel: "a", Direction: "out", SPI: 0x80000001, Packets: 1}, {Tunnel: "gone"}}
	negotiated := []api.IKE{{Tunnel: "a", Failure: "the peer did not answer", Elsewhere: []api.IKEElsewhere{{SPI: "1", Node: "edge-2"}}, SAs: []api.IKESA{{
		Role: "responder", State: "established", Suite: "AES_GCM_16_256/PRF_HMAC_SHA2_384/ECP_384", Local: "192.0.2.1:4500", Remote: "198.51.100.7:4500",
		LocalID: "edge", RemoteID: "router@acme", NATRemote: true, Age: 100.5, RekeyIn: -3,
		Children: []api.IKEPair{{SPIIn: 0x80000001, SPIOut: 5, Suite: "AES_GCM_16_256", Local: "0.0.0.0/0", Remote: "203.0.113.0/24", State: "installed", Age: 50, RekeyIn: 3000}}}}},
		{Tunnel: "gone"}}
	got := tunnelsFor("edge-1", tunnels, health, negotiated, sas)
	want := graph.Tunnel{TunnelName: "a", TunnelID: graph.Text(tunnelID("acme", "a")), Account: "acme", Kind: "IPSec", EdgePopName: "edge-1", Endpoint: "192.0.2.1",
		CustomerEndpoint: "198.51.100.7", InterfaceAddress: "10.0.0.0/31", Prefixes: []graph.Text{"203.0.113.0/24"}, Mtu: 1436, EffectiveMtu: 1400, PathMtu: 1400,
		MssIPv4: 1396, MssIPv6: 1376, RouteState: "ok", IpsecPairs: 2, IkeFailure: "the peer did not answer", IkeElsewhere: []graph.Text{"edge-2"},
		Health: &graph.TunnelHealth{State: "degraded", Why: "3 of 10 probes lost", FleetState: "healthy", SinceSeconds: 61, Probes: 10, Lost: 3, RttMicroseconds: 12500, BfdState: "up"},
		EspSas: []graph.ESPSA{{Direction: "in", Encryption: "AES_GCM_16_256", Spi: 0x80000001, Packets: 7, Bytes: 700, RefusedPackets: 5, Esn: true, UdpEncapsulation: true},
			{Direction: "out", Spi: 5, Packets: 9, Bytes: 900}, {Direction: "out", Spi: 0x80000001, Packets: 1}},
		IkeSas: []graph.IKESA{{State: "established", Role: "responder", Suite: "AES_GCM_16_256/PRF_HMAC_SHA2_384/ECP_384", LocalAddress: "192.0.2.1:4500",
			PeerAddress: "198.51.100.7:4500", LocalIdentity: "edge", PeerIdentity: "router@acme", NatPeer: true, AgeSeconds: 100,
			Pairs: []graph.IPsecPair{{State: "installed", Suite: "AES_GCM_16_256", LocalSelectors: "0.0.0.0/0", PeerSelectors: "203.0.113.0/24", SpiIn: 0x80000001, SpiOut: 5,
				AgeSeconds: 50, RekeyInSeconds: 3000, PacketsIn: 7, BytesIn: 700, PacketsOut: 9, BytesOut: 900}}}}}
	if len(got) != 2 || !reflect.DeepEqual(got[0], want) {
		t.Errorf("got  %+v\nwant %+v", got[0], want)
	}
	if b := got[1]; b.Kind != "GRE" || b.Health != nil || b.EspSas == nil || b.IkeSas == nil || b.Prefixes == nil || b.IkeElsewhere == nil {
		t.Errorf("%+v", b)
	}
	for _, secret := range []string{"deadbeef", "10.9.9.9", "eth7"} {
		if strings.Contains(fmt.Sprintf("%+v %+v", got, *got[0].Health), secret) {
			t.Errorf("%s is told", secret)
		}
	}
}

// Accounts are listed once each, those that tunnels alone name too.
func TestAccountNames(t *testing.T) {
	c := &config.Config{Accounts: []config.Account{{Name: "beta"}, {Name: "acme"}}, Tunnels: []config.Tunnel{{Account: "beta"}, {Account: "default"}}}
	if got := strings.Join(accountNames(c), " "); got != "acme beta default" {
		t.Error(got)
	}
}

// What waits for ClickHouse is told where it is the store.
func TestBufferMetrics(t *testing.T) {
	m := metricsOf(analytics.Stats{Buffer: &clickhouse.Stats{Buffered: 1, Limit: 2, Sent: 3, Lost: 4, Refused: 5, Away: true}})
	if want := (metrics.Buffer{Bytes: 1, Limit: 2, Sent: 3, Lost: 4, Refused: 5, Away: true}); m.Buffer == nil || *m.Buffer != want {
		t.Errorf("%+v, want %+v", m.Buffer, want)
	}
	if m := metricsOf(analytics.Stats{}); m.Buffer != nil {
		t.Errorf("without ClickHouse: %+v", m.Buffer)
	}
}
