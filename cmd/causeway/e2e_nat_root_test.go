package main_test

import (
	"fmt"
	"testing"

	"causeway/control/api"
	"causeway/scripts/hosts"
)

// TestRootClusterNAT: the customer's router is behind a NAT, and everything of it comes to two nodes in turn. The NAT forgets what it knows,
// so that the router's packets come from other ports: whichever nodes they come to, all of them send there.
func TestRootClusterNAT(t *testing.T) {
	tunnels := []*ikeTunnel{
		{number: 101, name: "one", proposals: "aes256gcm16-prfsha384-ecp384", child: "aes256gcm16-ecp384-noesn"},
		{number: 102, name: "two", proposals: "aes128-sha256-x25519", child: "aes128-sha256-noesn"},
		{number: 103, name: "six", v6: true, proposals: "chacha20poly1305-prfsha256-x25519", child: "chacha20poly1305-x25519-noesn"},
	}
	for _, x := range tunnels {
		x.place, x.nat, x.anywhere, x.remoteID, x.childTiming = inGuest, true, true, x.name+".example.net", "replay_window = 0"
	}
	b := newClusterBed(t, tunnels)
	b.second.node.Route("198.51.102.0/24", "via", "172.31.4.254")
	b.second.node.Route("2001:db8:e::/64", "via", "2001:db8:34::fe")
	b.spray(toBoth)
	b.startNodes(t)
	b.startSwan()
	b.step(t, "strongSwan initiates through a NAT, each datagram to another node", change{true, true}, b.initiates)
	wires := []*hosts.Capture{b.rt.Capture("n1", "udp port 4500"), b.rt.Capture("m1", "udp port 4500")}
	b.manyPings(t, "through a NAT", b.bed, b.second)
	negotiations := b.rt.Capture("vn", "udp port 500 or udp port 4500")
	b.natForgets(t)
	b.manyPings(t, "the NAT has forgotten", b.bed, b.second)
	b.rekeys(t, "through a NAT that has forgotten: ")
	b.kill(t, b.second)
	b.spray(toFirst)
	b.natForgets(t)
	b.manyPings(t, "the NAT has forgotten while a node died", b.bed)
	b.step(t, "a node is dead: the other one rekeys the child", change{child: true}, b.causeway(api.IKERekey))
	b.noNegotiation(t, negotiations.Stop())
	for _, x := range wires {
		if ports := b.portsToward(x.Stop()); len(ports) < 2*len(tunnels) {
			t.Errorf("the customer's packets came from %d ports: the test does not change them", len(ports))
		}
	}
	b.end(t)
}

// natForgets has the NAT give other ports to everything, and the router send something from each tunnel, without which nobody could know them.
func (b *clusterBed) natForgets(t *testing.T) {
	t.Helper()
	b.nat.MustRun("bash", "-c", `ip link set dev up down && ip link set dev up up && ip addr replace 2001:db8:e::1/64 dev up nodad &&
		ip route replace default via 198.51.102.254 && ip -6 route replace default via 2001:db8:e::fe`) // masquerade forgets what left by a link that is down
	for _, x := range b.tunnels {
		await(t, x.name+": its packets do not get through", func() bool {
			_, err := b.guest.Sh(fmt.Sprintf("ping -q -c 1 -W 1 -I %s %s", x.inside4(), x.from4()))
			return err == nil
		})
	}
}

// portsToward are the ports that the endpoint has sent to.
func (b *clusterBed) portsToward(pcap string) map[string]bool {
	ports := map[string]bool{}
	for _, row := range b.net.Tshark(pcap, "udp.srcport == 4500", "udp.dstport") {
		ports[row[0]] = true
	}
	return ports
}
