package main_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"causeway/control/api"
)

// guestBird starts bird in the guest with a configuration, and guestFRR daemons of FRR.
func (b *bed) guestBird(t *testing.T, conf string) {
	t.Helper()
	b.sh(t, "cat >/tmp/bird.conf <<'EOF'\nrouter id 10.99.0.1;\nprotocol device {}\n"+conf+"\nEOF\nbird -c /tmp/bird.conf -s /tmp/bird.ctl -P /tmp/bird.pid")
}

func (b *bed) guestFRR(t *testing.T, conf string, daemons ...string) {
	t.Helper()
	b.sh(t, "mkdir -p /tmp/frr && cat >/tmp/frr/frr.conf <<'EOF'\n"+conf+"\nEOF\necho 'no service integrated-vtysh-config' >/tmp/frr/vtysh.conf; chown -R frr:frr /tmp/frr")
	for _, name := range append([]string{"zebra"}, daemons...) {
		more := ""
		if name == "bfdd" {
			more = " --bfdctl /tmp/frr/bfdd.sock"
		}
		b.sh(t, fmt.Sprintf("/usr/lib/frr/%[1]s -d -f /tmp/frr/frr.conf -z /tmp/frr/zserv.api -i /tmp/frr/%[1]s.pid --vty_socket /tmp/frr -u frr -g frr%s", name, more))
	}
}

// TestRootBFD: bird and FRR on a Linux router speak BFD with a node, over one hop and more, in both families. When a tunnel breaks another one
// takes its place after three intervals, and gives it back when the first has been up for a while.
func TestRootBFD(t *testing.T) {
	b := newBed(t, bedOptions{guest: true})
	var tunnels []greTunnel
	for i, words := range []string{"{hold: 2s}", "{hold: 2s, family: ipv6}", "{hold: 2s, multihop: true}", "{hold: 2s, interval: 50ms, multiplier: 5}"} {
		endpoint := endpoint4
		if i == 2 {
			endpoint = endpoint6
		}
		tunnels = append(tunnels, newTunnel(i+1, fmt.Sprintf("t%d", i+1), endpoint, []string{"bfd: " + words}))
	}
	tunnels[1].extra = append(tunnels[1].extra, "health_check: {type: request, interval: 200ms}") // both
	b.guestTunnels(t, tunnels)
	tunnels[3].prefixes = append(tunnels[3].prefixes, "198.18.1.0/24")
	routes := []string{"routes:", "  - {prefix: 198.18.1.0/24, nexthop: t1, priority: 100}", "  - {prefix: 198.18.1.0/24, nexthop: t4, priority: 200}"}
	b.run(t, b.configuration(plain(tunnels), routes...))
	for _, daemon := range []string{"bird", "FRR"} {
		t.Run(daemon, func(t *testing.T) { b.testBFD(t, daemon, tunnels) })
	}
	b.startBFD(t, "bird")
	for _, x := range tunnels {
		eventually(t, x.name+": BFD is up once more", func() bool { return b.healthOf(t, x.name).BFD.State == "up" })
	}
	// A session that is taken out of the file is no failure.
	for i := range tunnels {
		tunnels[i].extra = nil
	}
	b.write(t, b.configuration(plain(tunnels), routes...))
	must(t, b.node, b.bin, "reload", "--socket", b.socket)
	eventually(t, "the router knows that the sessions were ended on purpose", func() bool {
		return strings.Count(b.sh(t, "birdc -s /tmp/bird.ctl show bfd sessions"), " Down ") == len(tunnels)
	})
	if list := show[[]api.Health](t, b, "health"); len(list) > 0 {
		t.Errorf("still there: %+v", list)
	}
	b.balance(t)
	b.end(t)
}

// startBFD starts a daemon that speaks BFD on the router, with all tunnels.
func (b *bed) startBFD(t *testing.T, daemon string) {
	t.Helper()
	if daemon == "bird" {
		b.guestBird(t, `protocol bfd {
	interface "g4" { min rx interval 50 ms; min tx interval 50 ms; multiplier 5; };
	interface "g*" { min rx interval 100 ms; min tx interval 100 ms; multiplier 3; };
	multihop { min rx interval 100 ms; min tx interval 100 ms; multiplier 3; };
	neighbor 10.213.1.0 dev "g1" local 10.213.1.1;
	neighbor fd00:213:2::a dev "g2" local fd00:213:2::b;
	neighbor 10.213.3.0 local 10.213.3.1 multihop yes;
	neighbor 10.213.4.0 dev "g4" local 10.213.4.1;
}`)
		return
	}
	b.guestFRR(t, `bfd
 peer 10.213.1.0 local-address 10.213.1.1 interface g1
  receive-interval 100
  transmit-interval 100
 peer fd00:213:2::a local-address fd00:213:2::b interface g2
  receive-interval 100
  transmit-interval 100
 peer 10.213.3.0 multihop local-address 10.213.3.1
  receive-interval 100
  transmit-interval 100
 peer 10.213.4.0 local-address 10.213.4.1 interface g4
  receive-interval 50
  transmit-interval 50
  detect-multiplier 5
`, "bfdd")
}

// testBFD has a daemon of somebody else's speak BFD with the node, and breaks a tunnel.
func (b *bed) testBFD(t *testing.T, daemon string, tunnels []greTunnel) {
	b.startBFD(t, daemon)
	defer b.sh(t, "pkill -9 'bird|bfdd|zebra'; rm -f /tmp/bird.ctl; true")
	defer func() {
		if t.Failed() {
			out, _ := b.guest.Sh("birdc -s /tmp/bird.ctl show bfd sessions; vtysh --vty_socket /tmp/frr --config_dir /tmp/frr -c 'show bfd peers'")
			t.Logf("causeway show health\n%s\nin the guest\n%s", must(t, b.node, b.bin, "show", "health", "--socket", b.socket), out)
		}
	}()
	for _, x := range tunnels {
		eventually(t, x.name+": BFD is up", func() bool {
			h := b.healthOf(t, x.name)
			return h.BFD != nil && h.BFD.State == "up" && h.BFD.Remote == "up" && h.State == "healthy"
		})
	}
	if d := b.healthOf(t, "t4").BFD.Detection; d != 0.25 {
		t.Errorf("the detection time of t4 is %v s", d)
	}
	// What the router sends it sends by BFD's rules, as tshark knows them.
	wire := b.rt.Capture("n1", "ip proto 47")
	time.Sleep(time.Second)
	for _, line := range b.net.Tshark(wire.Stop(), "bfd", "bfd.sta", "_ws.malformed") {
		if len(line) != 2 || line[0] != "0x03" || line[1] != "" {
			t.Errorf("BFD on the wire: %q", line)
			break
		}
	}
	t.Logf("causeway show health\n%s", must(t, b.node, b.bin, "show", "health", "--socket", b.socket))

	flow := b.inet.Start("ping", "-q", "-i", "0.01", "-c", "500", "-W", "1", tunnels[0].behind4().String())
	time.Sleep(time.Second)
	b.sh(t, "ip link set g1 down")
	eventually(t, "the first tunnel is down", func() bool { return b.healthOf(t, "t1").State == "down" })
	if h := b.healthOf(t, "t1"); !strings.Contains(h.Why, "nothing came in time") || h.Penalty != 1_000_000 {
		t.Errorf("down: %+v", h)
	}
	received := pinged(t, flow, 500)
	t.Logf("of 500 packets, 100 a second, %d were lost when the tunnel broke", 500-received)
	if received < 440 {
		t.Errorf("%d packets were lost, which is more than 0.6 s", 500-received)
	}
	for _, x := range tunnels[1:] {
		if h := b.healthOf(t, x.name); h.State != "healthy" || h.BFD.State != "up" {
			t.Errorf("one that nothing has happened to: %+v %+v", h, h.BFD)
		}
	}

	b.sh(t, "ip link set g1 up && ip addr replace 10.213.1.1/31 dev g1 && ip route replace default dev g1 table 101")
	eventually(t, "the first tunnel is degraded, for it was down", func() bool { return b.healthOf(t, "t1").State == "degraded" })
	eventually(t, "the first tunnel is healthy again", func() bool { return b.healthOf(t, "t1").State == "healthy" })
	before := carriedBy(t, b, "t1")
	must(t, b.inet, "ping", "-q", "-i", "0.01", "-c", "100", tunnels[0].behind4().String())
	if n := carriedBy(t, b, "t1") - before; n < 100 {
		t.Errorf("the first tunnel carries %d packets again", n)
	}
}

// oneSpeaks: of two nodes one speaks BFD with the router, through IPsec. It stays up whichever node the router's packets come to.
func (b *clusterBed) oneSpeaks(t *testing.T) {
	t.Helper()
	x := b.tunnels[0]
	b.guestBird(t, fmt.Sprintf(`protocol bfd {
	multihop { min rx interval 200 ms; min tx interval 200 ms; multiplier 5; };
	neighbor 10.213.%[1]d.0 local 10.213.%[1]d.1 multihop yes;
}
protocol static { ipv4; route 198.19.77.0/24 unreachable; route 198.18.%[1]d.0/25 unreachable; }
protocol bgp { local 10.213.%[1]d.1 as 65010; neighbor 10.213.%[1]d.0 as 65001; multihop 3; hold time 9; connect retry time 1; connect delay time 1; error wait time 1, 2; ipv4 { import none; export all; }; }
`, x.number))
	var speaker *bed
	await(t, "nobody has a session of BFD that is up", func() bool {
		first, second := b.healthOf(t, x.name).BFD, b.second.healthOf(t, x.name).BFD
		if speaker = b.bed; second.State != "" {
			speaker = b.second
		}
		return first.Node == second.Node && first.Node == speaker.name && (first.State == "") != (second.State == "") && speaker.healthOf(t, x.name).BFD.State == "up"
	})
	for _, way := range []string{toFirst, toSecond} {
		b.spray(way)
		before := speaker.healthOf(t, x.name).BFD
		time.Sleep(3 * time.Second)
		after := speaker.healthOf(t, x.name).BFD
		if after.State != "up" || after.Changes != before.Changes || after.Received < before.Received+10 {
			t.Errorf("%s speaks, and all packets come to one node (%s): %+v, %+v", speaker.name, way, before, after)
		}
	}
	b.spray(toBoth)
}
