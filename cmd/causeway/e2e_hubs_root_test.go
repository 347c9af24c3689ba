package main_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"causeway/control/api"
	"causeway/scripts/hosts"
)

// address3 is the third hub's. No packets of customers come to it.
const address3 = "172.31.5.1"

// linkThird adds a third node, which has the store too.
func (b *clusterBed) linkThird(t *testing.T) {
	t.Helper()
	third := *b.bed
	third.node, third.dir, third.name, third.daemon = b.net.Host("node3"), t.TempDir(), "edge-3", nil
	third.socket, third.more = filepath.Join(third.dir, "s"), ", address: "+address3
	b.net.Link(b.rt, "w0", third.node, "eth0", hosts.LinkOptions{})
	b.net.Link(b.rt, "w1", third.node, "eth1", hosts.LinkOptions{})
	b.rt.Addr("w0", "172.31.5.254/24")
	third.node.Addr("eth0", address3+"/24")
	third.node.Route("default", "via", "172.31.5.254")
	b.third = &third
}

// hubs makes all nodes hubs with the store in common, and starts them.
func (b *clusterBed) hubs(t *testing.T, nodes map[string]*bed) {
	t.Helper()
	b.certifyAll(t, nodes)
	for address, x := range nodes {
		var others []string
		for other := range nodes {
			if other != address {
				others = append(others, fmt.Sprintf(`"tls://%s:4223"`, other))
			}
		}
		b.startWith(t, x, fmt.Sprintf(`hub: {listen: "%[1]s:4222", share: {listen: "%[1]s:4223", hubs: [%[2]s]}}`, address, strings.Join(others, ", ")))
	}
}

// certifyAll makes certificates and the roster of nodes, by their addresses.
func (b *clusterBed) certifyAll(t *testing.T, nodes map[string]*bed) {
	t.Helper()
	authority := makeCertificate(t, b.files, "ca", nil, nil)
	var roster strings.Builder
	for address, x := range nodes {
		makeCertificate(t, b.files, x.name, authority, net.ParseIP(address))
		roster.WriteString(x.node.MustRun(b.bin, "cluster", "identity", "--state-dir", x.dir, "--name", x.name))
	}
	if err := os.WriteFile(filepath.Join(b.files, "roster"), []byte(roster.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// startWith starts a node that is joined to others as a part of its section cluster says.
func (b *clusterBed) startWith(t *testing.T, x *bed, joined string) {
	t.Helper()
	s := x.configuration(nil, fmt.Sprintf("cluster: {%s, roster: %[2]s/roster, tls: {certificate: %[2]s/%[3]s.pem, key: %[2]s/%[3]s.key, ca: %[2]s/ca.pem}}", joined, b.files, x.name))
	for _, tunnel := range b.tunnels {
		s += tunnel.configuration(b.keys)
	}
	x.write(t, s)
	x.start()
}

// whole waits until a node sees three replicas of the store that have all.
func whole(t *testing.T, x *bed) {
	t.Helper()
	began := time.Now()
	await(t, x.name+" does not see three replicas that have all", func() bool {
		c := show[api.Cluster](t, x, "cluster")
		n := 0
		for _, r := range c.Replicas {
			if r.Current && !r.Offline && r.Lag == 0 {
				n++
			}
		}
		return c.State == "joined" && c.Nodes == 3 && n == 3 && show[api.Status](t, x, "status").Ready
	})
	t.Logf("%s sees three replicas that have all after %v", x.name, time.Since(began).Round(100*time.Millisecond))
}

// rekeysAtOnce has a node replace the pairs while the hubs that are left choose who leads, which takes up to 12 s: nothing is stored
// meanwhile, and what the router has agreed to stays.
func (b *clusterBed) rekeysAtOnce(t *testing.T, step string, rest ...*bed) {
	t.Helper()
	b.step(t, step, change{child: true}, func(x *ikeTunnel) (err error) {
		for end := time.Now().Add(startLimit); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			if err = b.causeway(api.IKERekey)(x); err == nil {
				return nil
			}
		}
		return err // nobody has taken over what the dead one had
	})
	for _, x := range rest {
		await(t, step+": "+x.name+" has something that is not stored", func() bool { return show[api.Cluster](t, x, "cluster").NotStored == 0 })
	}
}

// TestRootHubs: three hubs are one store. One is killed and loses its disk, with CAUSEWAY_FULL another one too: packets pass, keys are replaced, and
// IKE_SA_INIT is not seen.
func TestRootHubs(t *testing.T) {
	b := newClusterBed(t, []*ikeTunnel{{number: 101, name: "four", place: inGuest, proposals: "aes256gcm16-prfsha384-ecp384", child: "aes256gcm16-ecp384-noesn", childTiming: "replay_window = 0"}})
	b.linkThird(t)
	b.hubs(t, map[string]*bed{address1: b.bed, address2: b.second, address3: b.third})
	for _, x := range []*bed{b.bed, b.second, b.third} {
		whole(t, x)
	}
	b.spray(toBoth)
	b.startSwan()
	b.step(t, "strongSwan initiates, each datagram to another hub", change{true, true}, b.initiates)
	b.manyPings(t, "sprayed", b.bed, b.second)
	negotiations := b.rt.Capture("vc", "udp port 500 or udp port 4500")
	order := []*bed{b.bed, b.second} // first the one without the IKE SA: the other one goes on with it, and asks for a pair at once
	if b.holder("four") == b.bed {
		slices.Reverse(order)
	}
	if !full() {
		order = []*bed{b.second}
	}
	for _, x := range order {
		rest, way := b.second, toSecond
		if x == b.second {
			rest, way = b.bed, toFirst
		}
		b.kill(t, x)
		b.spray(way)
		b.rekeysAtOnce(t, x.name+" was killed just now: the node rekeys the child", rest, b.third)
		b.manyPings(t, x.name+" is dead", rest)
		b.rekeys(t, x.name+" is dead: ")
		if x == b.second { // as with another disk
			if err := os.RemoveAll(filepath.Join(x.dir, "cluster")); err != nil {
				t.Fatal(err)
			}
		}
		x.start()
		whole(t, x)
		b.spray(toBoth)
		b.manyPings(t, x.name+" is there again", b.bed, b.second)
	}
	b.rekeys(t, "all are there again: ")
	b.noNegotiation(t, negotiations.Stop())
	for _, x := range []*bed{b.third, b.second, b.bed} {
		x.end(t)
	}
}
