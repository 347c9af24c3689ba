package main_test

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"causeway/control/api"
	"causeway/scripts/hosts"
)

// healthOf is what the node says of a tunnel's probes.
func (b *bed) healthOf(t *testing.T, tunnel string) (h api.Health) {
	t.Helper()
	for _, h := range show[[]api.Health](t, b, "health") {
		if h.Tunnel == tunnel {
			return h
		}
	}
	t.Fatalf("tunnel %s is not probed", tunnel)
	return h
}

// TestRootHealth: a node probes tunnels to a Linux kernel, in each way that there is. When one does not carry packets any more another
// one takes its place within a second, and gives it back.
func TestRootHealth(t *testing.T) {
	b := newBed(t, bedOptions{guest: true})
	const often = "interval: 100ms, recovery: {hold: 3s}"
	probes := []string{
		"{type: request, " + often + "}",
		"{type: reply, " + often + "}",
		"{type: request, family: ipv6, rate: high}",
		"{type: reply, family: ipv6, rate: high}",
		"{type: request, target: 198.18.5.10, rate: high}", // the host behind
		"{type: request, direction: unidirectional, interval: 200ms}",
		"{type: reply, direction: unidirectional, rate: high}",
		"{type: reply, interval: 200ms}", // through a firewall, later
	}
	var tunnels []greTunnel
	for i := range probes {
		endpoint := endpoint4
		if i == 2 || i == 3 || i == 6 {
			endpoint = endpoint6
		}
		tunnels = append(tunnels, newTunnel(i+1, fmt.Sprintf("t%d", i+1), endpoint, nil))
	}
	b.guestTunnels(t, tunnels)
	// What is behind the first tunnel the second one reaches too.
	tunnels[1].prefixes = append(tunnels[1].prefixes, "198.18.1.0/24")
	notices := b.takeNotices(t)
	routes := []string{"notify: {webhook: \"http://127.0.0.1:9151/\"}", "routes:", "  - {prefix: 198.18.1.0/24, nexthop: t1, priority: 100}", "  - {prefix: 198.18.1.0/24, nexthop: t2, priority: 200}"}
	b.run(t, b.configuration(plain(tunnels), routes...))
	b.warm(t, tunnels)
	for i, p := range probes {
		tunnels[i].extra = []string{"health_check: " + p}
	}
	b.write(t, b.configuration(plain(tunnels), routes...))
	must(t, b.node, b.bin, "reload", "--socket", b.socket)
	for _, x := range tunnels {
		eventually(t, x.name+" is healthy, and its probes are answered", func() bool {
			h := b.healthOf(t, x.name)
			return h.State == "healthy" && h.Answered > 5 && h.RTT > 0
		})
	}
	b.balance(t)
	b.breakLegs(t, tunnels)

	flow := b.inet.Start("ping", "-q", "-i", "0.01", "-c", "700", "-W", "1", tunnels[0].behind4().String())
	time.Sleep(time.Second)
	before := carriedBy(t, b, "t2")
	b.sh(t, "ip link set g1 down")
	eventually(t, "the first tunnel is down", func() bool { return b.healthOf(t, "t1").State == "down" })
	if h := b.healthOf(t, "t1"); h.Penalty != 1_000_000 || h.Why == "" || h.Lost < 3 {
		t.Errorf("down: %+v", h)
	}
	t.Logf("causeway show health\n%s", must(t, b.node, b.bin, "show", "health", "--socket", b.socket))
	received := pinged(t, flow, 700)
	t.Logf("of 700 packets, 100 a second, %d were lost when the tunnel broke", 700-received)
	if received < 600 {
		t.Errorf("%d packets were lost, which is more than a second", 700-received)
	}
	if after := carriedBy(t, b, "t2"); after-before < 400 {
		t.Errorf("the second tunnel has carried %d packets", after-before)
	}
	if h := b.healthOf(t, "t2"); h.State != "healthy" {
		t.Errorf("the second tunnel: %+v", h)
	}

	b.sh(t, "ip link set g1 up && ip addr replace 10.213.1.1/31 dev g1 && ip route replace default dev g1 table 101")
	eventually(t, "the first tunnel is degraded, no more down", func() bool {
		h := b.healthOf(t, "t1")
		return h.State == "degraded" && h.Penalty == 500_000
	})
	eventually(t, "the first tunnel is healthy", func() bool { return b.healthOf(t, "t1").State == "healthy" })
	first := carriedBy(t, b, "t1")
	must(t, b.inet, "ping", "-q", "-i", "0.01", "-c", "100", tunnels[0].behind4().String())
	if n := carriedBy(t, b, "t1") - first; n < 100 {
		t.Errorf("the first tunnel carries %d packets again", n)
	}
	var seen []string
	for _, e := range show[[]api.HealthEvent](t, b, "history") {
		if e.Tunnel == "t1" {
			seen = append(seen, e.Was+" "+e.State)
		}
	}
	if want := []string{"down degraded", "degraded healthy"}; len(seen) < 3 || !slices.Equal(seen[len(seen)-2:], want) {
		t.Errorf("the history of t1: %q", seen)
	}
	eventually(t, "the web server was told that t1 was down, and is healthy again", func() bool {
		text := notices.Log()
		down, healthy := strings.Index(text, `"tunnel":"t1","account":"default","was":"healthy","state":"d`), strings.LastIndex(text, `"tunnel":"t1","account":"default","was":"degraded","state":"healthy"`)
		return down >= 0 && healthy > down && strings.Contains(text, `"type":"tunnel_health"`)
	})
	b.losses(t, tunnels)
	b.balance(t)
	b.end(t)
}

// takeNotices starts a web server on the node that prints what is posted.
func (b *bed) takeNotices(t *testing.T) *hosts.Process {
	t.Helper()
	return b.node.Start("python3", "-u", "-c", `
import http.server
class H(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        print(self.rfile.read(int(self.headers["Content-Length"])).decode(), flush=True)
        self.send_response(204); self.end_headers()
    def log_message(self, *a): pass
http.server.HTTPServer(("127.0.0.1", 9151), H).serve_forever()`)
}

// losses has the router lose a share of what goes into a tunnel, and a link come and go: the tunnel is degraded or down, and its routes do not
// go to and fro.
func (b *bed) losses(t *testing.T, tunnels []greTunnel) {
	t.Helper()
	lose := func(percent string) {
		t.Helper()
		b.rt.MustRun("nft", fmt.Sprintf(`table ip loss {
			chain forward { type filter hook forward priority 0;
				ip daddr %s numgen random mod 100 < %s drop
			}
		}
`, tunnels[0].customer, percent))
	}
	changes := func() (list []api.HealthEvent) {
		return slices.DeleteFunc(show[[]api.HealthEvent](t, b, "history"), func(e api.HealthEvent) bool { return e.Tunnel != "t1" })
	}
	few := "3"
	if full() {
		few = "1" // which takes its time to be seen
	}
	for _, percent := range []string{few, "30"} {
		before, began := len(changes()), time.Now()
		lose(percent)
		await(t, "the tunnel that loses "+percent+" % stays healthy", func() bool { return b.healthOf(t, "t1").State != "healthy" })
		noticed := time.Since(began)
		time.Sleep(6 * time.Second)
		h := b.healthOf(t, "t1")
		t.Logf("%s %% are lost: %s, noticed after %v; %d changes in %v", percent, h.State, noticed.Round(100*time.Millisecond), len(changes())-before, time.Since(began).Round(time.Second))
		if n := len(changes()) - before; percent == few && n > 6 || n > 12 {
			t.Errorf("%d changes: the routes go to and fro", n)
		}
		b.rt.MustRun("nft", "delete table ip loss")
		eventually(t, "the tunnel is healthy again", func() bool { return b.healthOf(t, "t1").State == "healthy" })
	}
	before := len(changes())
	for range 4 { // a link that comes and goes
		lose("99")
		time.Sleep(700 * time.Millisecond)
		b.rt.MustRun("nft", "delete table ip loss")
		time.Sleep(1300 * time.Millisecond)
	}
	moved := 0
	for _, e := range changes()[before:] {
		if e.Was == "healthy" || e.State == "healthy" { // routes lead there, or no more
			moved++
		}
	}
	t.Logf("a link that came and went 4 times: the routes moved %d times", moved)
	if moved > 2 {
		t.Errorf("the routes moved %d times", moved)
	}
}

// breakLegs breaks a part of the way of two tunnels, and the node says which.
func (b *bed) breakLegs(t *testing.T, tunnels []greTunnel) {
	t.Helper()
	b.sh(t, fmt.Sprintf(`modprobe -a iptable_filter iptable_raw xt_conntrack && iptables-legacy -A FORWARD -i g8 -m conntrack --ctstate INVALID -j DROP &&
		iptables-legacy -t raw -A PREROUTING -s %s -d %s -j DROP`, endpoint4, tunnels[5].customer))
	defer b.sh(t, "iptables-legacy -F FORWARD && iptables-legacy -t raw -F PREROUTING")
	flow := b.srv.Start("ping", "-q", "-i", "0.1", "-I", tunnels[5].behind4().String(), "-W", "1", "-c", "40", inet4) // whose answers are lost
	eventually(t, "the tunnel behind a firewall is down, and it is known why", func() bool {
		h := b.healthOf(t, "t8")
		return h.State == "down" && strings.Contains(h.Leg, "answers requests") && strings.Contains(h.Leg, "firewall")
	})
	eventually(t, "the tunnel that carries packets one way alone is down, and it is known which", func() bool {
		h := b.healthOf(t, "t6")
		return h.State == "down" && strings.Contains(h.Leg, "packets still come out of the tunnel")
	})
	if h := b.healthOf(t, "t7"); h.State != "healthy" || h.Leg != "" {
		t.Errorf("one that nothing has happened to: %+v", h)
	}
	_ = flow.Wait(startLimit) // it has lost packets
	t.Logf("causeway show health\n%s", must(t, b.node, b.bin, "show", "health", "--socket", b.socket))
}

// pinged waits for a ping of n packets, and returns how many were answered.
func pinged(t *testing.T, flow *hosts.Process, n int) int {
	t.Helper()
	_ = flow.Wait(startLimit) // fails if a packet is not answered
	m := regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`).FindStringSubmatch(flow.Log())
	if m == nil || m[1] != strconv.Itoa(n) {
		t.Fatalf("ping printed: %s", flow.Log())
	}
	received, _ := strconv.Atoi(m[2]) // digits
	return received
}

// carriedBy is how many packets went into a tunnel.
func carriedBy(t *testing.T, b *bed, tunnel string) int {
	t.Helper()
	for _, v := range show[[]api.Tunnel](t, b, "tunnels") {
		if v.Name == tunnel {
			return int(v.TXPackets)
		}
	}
	return 0
}

// probesComeHome: of the answers to each node's probes every other one comes to the other node, and none is lost.
func (b *clusterBed) probesComeHome(t *testing.T) {
	t.Helper()
	for _, x := range []*bed{b.bed, b.second} {
		await(t, "the tunnel is not healthy at "+x.name, func() bool { return x.healthOf(t, "four").State == "healthy" })
	}
	for _, x := range []*bed{b.bed, b.second} {
		before := x.healthOf(t, "four")
		await(t, "no more answers come to "+x.name, func() bool { return x.healthOf(t, "four").Answered >= before.Answered+10 })
		after := x.healthOf(t, "four")
		if after.Lost != before.Lost {
			t.Errorf("%s: %d probes are lost", x.name, after.Lost-before.Lost)
		}
		if after.Every != 2*after.Interval || len(after.Datacenters) != 1 || after.Datacenters[0].Healthy != 2 || after.Fleet != "healthy" {
			t.Errorf("%s does not share the probing: %+v", x.name, after)
		}
	}
}

// downWithoutSA: a tunnel whose customer ends its IPsec SA is down at once, at both nodes, and no more when there is another one.
func (b *clusterBed) downWithoutSA(t *testing.T) {
	t.Helper()
	if err := b.swanctl("--terminate", "--ike")(b.tunnels[0]); err != nil {
		t.Fatal(err)
	}
	for _, x := range []*bed{b.bed, b.second} {
		await(t, "without an IPsec SA the tunnel is not down at "+x.name, func() bool {
			h := x.healthOf(t, "four")
			return h.State == "down" && strings.Contains(h.Why, "no IPsec SA")
		})
	}
	if err := b.initiates(b.tunnels[0]); err != nil {
		t.Fatal(err)
	}
	for _, x := range []*bed{b.bed, b.second} {
		await(t, "with an IPsec SA the tunnel is still down at "+x.name, func() bool { return x.healthOf(t, "four").State != "down" })
	}
}
