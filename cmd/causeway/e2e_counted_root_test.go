package main_test

import (
	"encoding/json"
	"testing"

	"causeway/control/api"
)

// counted is what a node's GraphQL says that each node has counted of a tunnel, and together; and which nodes it lacks.
type counted struct {
	together uint64
	nodes    map[string]uint64
	p95, max uint64
	missing  []string
}

// countedBy asks a node for all that was counted of a tunnel.
func (b *clusterBed) countedBy(t *testing.T, x *bed, tunnel string) (c counted) {
	t.Helper()
	type group struct {
		Sum        struct{ Packets uint64 }
		Max, P95   struct{ PacketRate uint64 }
		Dimensions struct{ EdgePopName string }
	}
	var answer struct {
		Data struct {
			Viewer struct{ Accounts []struct{ All, Each []group } }
		}
		Errors     []struct{ Message string }
		Extensions struct{ MissingNodes []struct{ Node, Why string } }
	}
	const where = `(limit: 10, filter: {datetime_geq: "-10m", tunnelName: $tunnel})`
	body, err := json.Marshal(map[string]any{"variables": map[string]string{"tunnel": tunnel}, "query": `query($tunnel: string!) { viewer { accounts(filter: {accountTag: "*"}) {
		all: magicTransitTunnelTrafficAdaptiveGroups` + where + ` { sum { packets } max { packetRate } p95 { packetRate } }
		each: magicTransitTunnelTrafficAdaptiveGroups` + where + ` { sum { packets } dimensions { edgePopName } } } } }`})
	if err != nil {
		t.Fatal(err)
	}
	out := x.node.MustRun("curl", "-sS", "--max-time", "20", "-H", "Content-Type: application/json", "--data-binary", string(body), "http://127.0.0.1:9151/client/v4/graphql")
	if err := json.Unmarshal([]byte(out), &answer); err != nil || len(answer.Errors) > 0 || len(answer.Data.Viewer.Accounts) != 1 {
		t.Fatalf("%s answers %s: %v", x.name, out, err)
	}
	c.nodes = map[string]uint64{}
	for _, g := range answer.Data.Viewer.Accounts[0].All {
		c.together, c.max, c.p95 = g.Sum.Packets, g.Max.PacketRate, g.P95.PacketRate
	}
	for _, g := range answer.Data.Viewer.Accounts[0].Each {
		c.nodes[g.Dimensions.EdgePopName] = g.Sum.Packets
	}
	for _, m := range answer.Extensions.MissingNodes {
		c.missing = append(c.missing, m.Node)
	}
	return c
}

// oneCountsForBoth: whichever node is asked answers for both what they have counted.
func (b *clusterBed) oneCountsForBoth(t *testing.T) {
	t.Helper()
	const tunnel = "chacha" // which is not probed: nothing moves
	want := map[string]uint64{}
	for _, x := range []*bed{b.bed, b.second} {
		for _, v := range show[[]api.Tunnel](t, x, "tunnels") {
			if v.Name == tunnel {
				want[x.name] = v.RXPackets + v.TXPackets
			}
		}
	}
	for _, x := range []*bed{b.bed, b.second} {
		var got counted
		await(t, x.name+" does not answer for both nodes", func() bool {
			got = b.countedBy(t, x, tunnel)
			return got.nodes["edge-1"] == want["edge-1"] && got.nodes["edge-2"] == want["edge-2"]
		})
		if got.together != want["edge-1"]+want["edge-2"] || got.together == 0 || got.max == 0 || got.max < got.p95 || len(got.missing) > 0 {
			t.Errorf("%s: %+v, want %v", x.name, got, want)
		}
	}
}

// oneIsMissing: what a dead node has counted is missing, and the answer says so.
func (b *clusterBed) oneIsMissing(t *testing.T) {
	t.Helper()
	await(t, "edge-1 does not say that it lacks edge-2", func() bool {
		got := b.countedBy(t, b.bed, "chacha")
		return len(got.missing) == 1 && got.missing[0] == "edge-2" && got.nodes["edge-1"] > 0 && got.nodes["edge-2"] == 0 && got.together == got.nodes["edge-1"]
	})
}
