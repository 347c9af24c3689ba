package main_test

import (
	"fmt"
	"regexp"
	"testing"

	"causeway/control/api"
	"causeway/scripts/hosts"
)

// TestRootWhileAway: the store is gone, and two nodes of a data center go on without it, as the operator has chosen: the customer begins,
// all datagrams come to both in turn, and everything is replaced by both ends. A tunnel that was up before outlives its pair. When the store is there again the third node has it all,
// and goes on with it when the negotiator dies.
func TestRootWhileAway(t *testing.T) {
	const gcm = "aes256gcm16-prfsha384-ecp384"
	tunnels := []*ikeTunnel{
		{number: 101, name: "four", place: inGuest, proposals: gcm, child: "aes256gcm16-ecp384-noesn", childTiming: "replay_window = 0"},
		{number: 102, name: "delta", place: inGuest, proposals: gcm, child: "aes256gcm16-ecp384-noesn", childTiming: "replay_window = 64", protected: true},
		{number: 103, name: "six", place: inGuest, v6: true, proposals: "aes128-sha256-x25519", child: "aes128-sha256-noesn", childTiming: "replay_window = 0"},
		{number: 104, name: "before", place: inGuest, proposals: gcm, child: "aes256gcm16-ecp384-noesn", childTiming: "replay_window = 0", lifetime: "{child: 30s}"}, // due after 24 to 27 s
	}
	b := newClusterBed(t, tunnels)
	b.linkThird(t)
	b.certifyAll(t, map[string]*bed{address3: b.third, address1: b.bed, address2: b.second})
	b.third.more += ", datacenter: fra1"
	b.startWith(t, b.third, fmt.Sprintf(`hub: {listen: "%s:4222"}, while_away: datacenter`, address3))
	for _, x := range []*bed{b.bed, b.second} {
		x.more += ", datacenter: ams1"
		b.startWith(t, x, fmt.Sprintf(`servers: ["tls://%s:4222"], while_away: datacenter`, address3))
	}
	b.three(t)
	await(t, "nobody encrypts for the tunnel with a window", func() bool {
		return show[api.Cluster](t, b.bed, "cluster").OwnedHere+show[api.Cluster](t, b.second, "cluster").OwnedHere == 1
	})
	b.spray(toBoth)
	wires := []*hosts.Capture{b.rt.Capture("n1", "ip proto 50 or ip6 proto 50"), b.rt.Capture("m1", "ip proto 50 or ip6 proto 50")}

	b.startSwan()
	b.tunnels = tunnels[3:]
	b.step(t, "strongSwan initiates the tunnel that is there before", change{true, true}, b.initiates)
	before := b.inet.Start("ping", "-q", "-l", "20", "-i", "0.05", "-c", "600", "-W", "1", "-I", tunnels[3].from4().String(), tunnels[3].inside4().String()) // for 30 s
	b.tunnels = tunnels[:3]

	b.kill(t, b.third)
	for _, x := range []*bed{b.bed, b.second} {
		await(t, x.name+" does not say that it negotiates without the store", func() bool {
			c := show[api.Cluster](t, x, "cluster")
			return c.State == "away" && c.Local
		})
	}
	b.step(t, "without the store: strongSwan initiates, each datagram to another node", change{true, true}, b.initiates)
	negotiations := b.rt.Capture("vc", fmt.Sprintf("(udp port 500 or udp port 4500) and not host %s", tunnels[3].outer())) // that one is begun anew
	b.manyPings(t, "without the store", b.bed, b.second)
	b.rekeys(t, "without the store: ")
	b.manyPings(t, "without the store, rekeyed", b.bed, b.second)
	for _, x := range []*bed{b.bed, b.second} {
		await(t, x.name+" has told something that was not acknowledged", func() bool { return show[api.Cluster](t, x, "cluster").NotTold == 0 })
	}
	// The router sends by the new pair when it has answered, a moment before the node has understood that.
	m := regexp.MustCompile(`600 packets transmitted, (59[7-9]|600) received`)
	if err := before.Wait(startLimit); err != nil || !m.MatchString(before.Log()) {
		t.Errorf("packets of a tunnel whose pair has ended while the store was away: %v\n%s", err, before.Log())
	}

	b.third.start()
	b.tunnels = tunnels
	b.three(t)
	for _, x := range []*bed{b.bed, b.second} {
		await(t, x.name+" has something that is not stored", func() bool { return show[api.Cluster](t, x, "cluster").NotStored == 0 })
	}
	await(t, "the third node does not have what was negotiated without it", func() bool {
		c := show[api.Cluster](t, b.third, "cluster")
		return c.SAs == len(b.tunnels) && c.IKESAs == len(b.tunnels) && c.NotInstalled == 0
	})
	b.passes(t, "the store is there again")
	b.tunnels = tunnels[:3]

	for _, x := range []*bed{b.bed, b.second} { // whoever has an IKE SA that was made without the store
		if b.holder("four") == x {
			rest, way := b.second, toSecond
			if x == b.second {
				rest, way = b.bed, toFirst
			}
			b.kill(t, x)
			b.spray(way)
			b.manyPings(t, "the negotiator is dead", rest)
			b.step(t, "the negotiator is dead: strongSwan rekeys the IKE SA", change{ike: true}, b.swanctl("--rekey", "--ike"))
			b.step(t, "the negotiator is dead: the node rekeys the child", change{child: true}, b.causeway(api.IKERekey))
			x.start()
			b.three(t)
			break
		}
	}
	b.noNegotiation(t, negotiations.Stop())
	b.differentIVs(t, wires[0].Stop(), wires[1].Stop())
	for _, x := range []*bed{b.bed, b.second, b.third} {
		x.end(t)
	}
}
