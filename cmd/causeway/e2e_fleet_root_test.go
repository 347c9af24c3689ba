package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"causeway/control/api"
)

// fleetText is a document of all tunnels of the bed, and more of them.
func (b *clusterBed) fleetText(more ...string) string {
	s := "tunnels:\n"
	for _, x := range b.tunnels {
		s += x.configuration(b.keys)
	}
	for _, line := range more {
		s += line + "\n"
	}
	return s
}

// applies asks a node to apply a document, and returns what the command printed and whether it succeeded.
func (b *clusterBed) applies(t *testing.T, x *bed, text string, flags ...string) (out string, ok bool) {
	t.Helper()
	file := filepath.Join(b.files, "tunnels.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := x.node.Run(append([]string{b.bin, "apply", "-f", file, "--socket", x.socket}, flags...)...)
	t.Logf("apply at %s:\n%s", x.name, out)
	return out, err == nil
}

// withoutTunnels is a node's file for tunnels that are applied.
func (b *clusterBed) withoutTunnels(x *bed) string {
	return strings.TrimSuffix(x.configuration(nil, b.section(x)), "tunnels:\n")
}

// TestRootFleet: tunnels that are applied at one node work at all, without their files, and outlive nodes, the store, and changes.
func TestRootFleet(t *testing.T) {
	b := newClusterBed(t, []*ikeTunnel{{number: 101, name: "four", place: inGuest, proposals: "aes256gcm16-prfsha384-ecp384", child: "aes256gcm16-ecp384-noesn", childTiming: "replay_window = 0"}})
	nodes := b.nodes()
	for _, x := range nodes {
		x.write(t, b.withoutTunnels(x))
		x.start()
	}
	b.joined(t)
	b.spray(toBoth)
	b.startSwan()

	// A mistake: nothing is stored.
	if out, ok := b.applies(t, b.second, strings.Replace(b.fleetText(), endpoint4, "203.0.113.77", 1)); ok || !strings.Contains(out, "tunnels[0].endpoint: 203.0.113.77 is not one of the endpoints") {
		t.Error("a document with a mistake is applied, or nothing is said of it")
	}
	if out, ok := b.applies(t, b.second, b.fleetText(), "--dry-run"); !ok || !strings.Contains(out, "would be: 1 tunnel added, 0 removed, 0 changed") {
		t.Error("the document is not tried rightly")
	}
	if f := show[api.Fleet](t, b.bed, "fleet"); f.Serial != 0 {
		t.Errorf("the document has serial %d before one was applied", f.Serial)
	}
	if out, ok := b.applies(t, b.second, b.fleetText()); !ok || !strings.Contains(out, "2 nodes with 1") {
		t.Fatal("not applied")
	}
	key, away := filepath.Join(b.keys, "four.psk"), filepath.Join(b.keys, "away.psk")
	if err := os.Rename(key, away); err != nil { // the nodes have it
		t.Fatal(err)
	}
	b.step(t, "strongSwan initiates, each datagram to another node", change{true, true}, b.initiates)
	b.manyPings(t, "applied", nodes...)

	// While the store is away a node that is started again has its tunnels.
	b.kill(t, b.bed)
	b.kill(t, b.second)
	b.second.start()
	if list := show[[]api.Tunnel](t, b.second, "tunnels"); len(list) != 1 || list[0].Name != "four" {
		t.Fatalf("started without the store, the second node has %v", list)
	}
	b.start()
	b.joined(t)
	b.step(t, "both were started again", change{true, true}, func(x *ikeTunnel) error {
		_ = b.swanctl("--terminate", "--ike", x.name, "--force")(x)
		return b.initiates(x)
	})
	b.manyPings(t, "both were started again", nodes...)

	if err := os.Rename(away, key); err != nil { // it is read anew where something is applied
		t.Fatal(err)
	}
	b.refusedByOne(t)
	b.changesLoseNothing(t)

	// A node's own tunnels come first; without them it follows again.
	reload := func(x *bed, text string) {
		t.Helper()
		x.write(t, strings.Replace(text, "endpoints: [", "endpoints: [203.0.113.9, ", 1))
		must(t, x.node, b.bin, "reload", "--socket", x.socket)
	}
	runs := func(serial uint64, refused string) func() bool {
		return func() bool {
			for _, n := range show[api.Fleet](t, b.bed, "fleet").Nodes {
				if n.Name == "edge-2" {
					return n.Runs == serial && strings.Contains(n.Why, refused) && (refused != "" || n.Why == "")
				}
			}
			return false
		}
	}
	reload(b.second, b.fileOf(b.second))
	await(t, "edge-2 does not say that it has tunnels of its own", runs(0, "this node's own file has tunnels"))
	b.manyPings(t, "own tunnels", nodes...)
	reload(b.second, b.withoutTunnels(b.second))
	await(t, "edge-2 does not follow again", runs(6, ""))
	b.manyPings(t, "following again", nodes...)
	for _, x := range nodes {
		x.end(t)
	}
	b.aloneAndBack(t)
}

// aloneAndBack: a node that leaves the cluster keeps what was applied there, and what is applied to it alone the others get when it is back.
func (b *clusterBed) aloneAndBack(t *testing.T) {
	t.Helper()
	x := b.second
	x.write(t, strings.Replace(x.configuration(nil), "tunnels:\n", "", 1))
	x.start()
	f := show[api.Fleet](t, x, "fleet")
	if f.Clustered || f.Serial != 6 || len(f.Nodes) != 1 || f.Nodes[0].Runs != 6 {
		t.Errorf("alone it has %+v", f)
	}
	if list := show[[]api.Tunnel](t, x, "tunnels"); len(list) != 1 || list[0].Name != "four" {
		t.Errorf("alone it has the tunnels %v", list)
	}
	b.spray(toSecond)
	b.step(t, "one node is alone", change{true, true}, func(x *ikeTunnel) error {
		_ = b.swanctl("--terminate", "--ike", x.name, "--force")(x)
		return b.initiates(x)
	})
	b.manyPings(t, "one node is alone", x)
	if c := show[api.Cluster](t, x, "cluster"); c.State != "alone" || c.SAs != 1 || c.IKESAs != 1 || c.Numbered || c.SPIsReserved != 0 {
		t.Errorf("alone with one tunnel up it says %+v", c)
	}
	if out, ok := b.applies(t, x, b.fleetText("routes: [{prefix: 198.18.97.0/24, nexthop: four}]")); !ok || !strings.Contains(out, "stored as 7:") || !strings.Contains(out, "1 node with 7") {
		t.Error("not applied to the node that is alone")
	}
	x.end(t)
	x.write(t, b.withoutTunnels(x))
	for _, x := range b.nodes() {
		x.start()
	}
	b.joined(t)
	await(t, "not both have what was applied to the one that was alone", func() bool {
		f := show[api.Fleet](t, b.bed, "fleet")
		return f.Serial == 7 && strings.Contains(f.Text, "198.18.97.0/24") && len(f.Nodes) == 2 && f.Nodes[0].Runs == 7 && f.Nodes[1].Runs == 7
	})
	for _, x := range b.nodes() {
		x.end(t)
	}
}

// extra is a GRE tunnel at another endpoint than the others.
const extra = "  - {name: extra, endpoint: 203.0.113.9, customer_endpoint: 198.51.100.9, interface_address: 10.213.9.0/31, prefixes: [198.18.99.0/24]}"

// refusedByOne: a node that a document does not fit says so, and goes on with what it has, until its own file fits.
func (b *clusterBed) refusedByOne(t *testing.T) {
	t.Helper()
	reload := func(x *bed, endpoints string) {
		t.Helper()
		x.write(t, strings.Replace(b.withoutTunnels(x), "endpoints: [", "endpoints: ["+endpoints, 1))
		must(t, x.node, b.bin, "reload", "--socket", x.socket)
	}
	reload(b.second, "203.0.113.9, ")
	var out string
	var ok bool
	await(t, "the document is not put back", func() bool { // all nodes were gone, and with them the key that it was sealed with
		out, ok = b.applies(t, b.second, b.fleetText(extra))
		return !strings.Contains(out, "apply again then")
	})
	if ok || !strings.Contains(out, "edge-1 refuses 2: ") || !strings.Contains(out, "tunnels[1].endpoint: 203.0.113.9 is not one of the endpoints") || !strings.Contains(out, "not taken over by edge-1") {
		t.Error("that a node refuses is not said")
	}
	b.manyPings(t, "refused by one", b.bed, b.second)
	for x, want := range map[*bed]int{b.bed: 1, b.second: 2} {
		if n := len(show[[]api.Tunnel](t, x, "tunnels")); n != want {
			t.Errorf("%s has %d tunnels, want %d", x.name, n, want)
		}
	}
	reload(b.bed, "") // a document that does not fit keeps nothing else from being taken over
	if n := len(show[[]api.Tunnel](t, b.bed, "tunnels")); n != 1 {
		t.Errorf("edge-1 has %d tunnels after a reload", n)
	}
	reload(b.bed, "203.0.113.9, ")
	await(t, "the first node does not take it over", func() bool {
		for _, n := range show[api.Fleet](t, b.second, "fleet").Nodes {
			if n.Runs != 2 || n.Refused != 0 {
				return false
			}
		}
		return true
	})
}

// changesLoseNothing: packets of a tunnel that stays flow while others come and go.
func (b *clusterBed) changesLoseNothing(t *testing.T) {
	t.Helper()
	ping := b.inet.Start("ping", "-q", "-i", "0.01", "-c", "300", "-I", b.tunnels[0].from4().String(), b.tunnels[0].inside4().String())
	time.Sleep(200 * time.Millisecond)
	for i := range 4 {
		more := []string{"routes: [{prefix: 198.18.98.0/24, nexthop: four}]"}
		if i%2 == 0 {
			more = []string{extra, fmt.Sprintf("routes: [{prefix: 198.18.%d.0/24, nexthop: extra}]", 90+i)}
		}
		if _, ok := b.applies(t, b.nodes()[i%2], b.fleetText(more...)); !ok {
			t.Error("not applied")
		}
	}
	_ = ping.Wait(startLimit)
	log := ping.Log()
	if !strings.Contains(log, " 0% packet loss") {
		t.Errorf("packets were lost while tunnels came and went:\n%s", log[max(0, len(log)-400):])
	}
	if f := show[api.Fleet](t, b.bed, "fleet"); f.Serial != 6 || !strings.Contains(f.Text, "198.18.98.0/24") {
		t.Errorf("the document is %d:\n%s", f.Serial, f.Text)
	}
}

func (b *clusterBed) nodes() []*bed { return []*bed{b.bed, b.second} }
