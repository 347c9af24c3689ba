package main

import (
	"strings"
	"testing"
	"time"

	"causeway/control/api"
)

// A link that goes down leaves its tunnels to the next best route, and takes them back when it returns: no restart is needed.
func TestRootLinkGoesAndComes(t *testing.T) {
	b := newBed(t, 2, 1)
	b.echo()
	b.configure(custA)
	d := b.run()
	p := b.peer("198.51.100.2", 42, "203.0.113.9")
	p.works(0)
	for round := range uint32(3) {
		b.node.MustRun("ip", "link", "set", "eth1", "down")
		b.routed("via 192.0.2.254 dev eth0") // the default route
		if lost := p.exchange(100*round+100, 5, time.Millisecond, 50*time.Millisecond); lost != 5 {
			t.Errorf("%d of 5 packets lost although the other way leads nowhere", lost)
		}
		b.node.MustRun("ip", "link", "set", "eth1", "up")
		b.routed("via 198.51.100.2 dev eth1")
		p.works(100*round + 150)
	}
	b.balanced()
	if err := d.Stop(); err != nil {
		t.Errorf("ended with %v", err)
	}
}

// An MTU above what a frame holds, set while the daemon runs, is said by the log and by show ports; shorter packets still
// flow. Lowered again, all is as before.
func TestRootMTUChangesWhileRunning(t *testing.T) {
	b := newBed(t, 2, 1)
	b.echo()
	b.configure(custA)
	d := b.run()
	p := b.peer("198.51.100.2", 42, "203.0.113.9")
	p.works(0)
	for i, c := range []struct {
		mtu     string
		problem string
	}{
		{"2000", "port eth0: mtu 2000: a frame holds packets of an mtu up to 1726, and the kernel drops what is longer (rx_dropped); `ip link set eth0 mtu 1500`"},
		{"1500", ""},
	} {
		b.node.MustRun("ip", "link", "set", "eth0", "mtu", c.mtu)
		b.portIs("eth0", c.mtu, c.problem)
		p.works(uint32(100 * (i + 1)))
	}
	for _, want := range []string{"the mtu of a port has changed", "before=1500 now=2000", "before=2000 now=1500", "a frame holds packets of an mtu up to 1726"} {
		if n := strings.Count(d.Log(), want); n == 0 {
			t.Errorf("the log lacks %q:\n%s", want, d.Log())
		}
	}
	b.balanced()
}

// portIs waits until show ports tells the MTU and the problem.
func (b *bed) portIs(name, mtu, problem string) {
	b.t.Helper()
	var got api.Port
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for _, got = range show[[]api.Port](b, "ports") {
			if got.Name == name && num(got.MTU) == mtu && got.Problem == problem {
				return
			}
		}
	}
	b.t.Errorf("show ports: %+v, want mtu %s and problem %q", got, mtu, problem)
}

// routed waits until the way to cust-a's customer endpoint is the wanted one, and resolved.
func (b *bed) routed(want string) {
	b.t.Helper()
	u := b.tunnel("cust-a")
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end) && (u.Route != want || u.RouteState != "ok"); time.Sleep(20 * time.Millisecond) {
		u = b.tunnel("cust-a")
	}
	if u.Route != want || u.RouteState != "ok" {
		b.t.Errorf("the way is %q (%s), want %q", u.Route, u.RouteState, want)
	}
}

// The host's own packets to a customer go through the customer's tunnel, and the answers come back.
func TestRootHostReachesCustomers(t *testing.T) {
	b := newBed(t, 2, 1)
	b.configure(custA)
	b.run()
	capture := b.cust.Capture("eth0", "proto 47")
	_, _ = b.node.Run("ping", "-c2", "-i0.1", "-W0.5", "-I", endpoint, "203.0.113.9")
	rows := b.net.Tshark(capture.Stop(), "icmp.type == 8", "ip.src", "ip.dst", "gre.key")
	if len(rows) == 0 {
		t.Fatal("nothing went through the tunnel")
	}
	if last := rows[len(rows)-1]; last[0] != endpoint+","+endpoint || last[1] != "198.51.100.2,203.0.113.9" {
		t.Errorf("on the wire: %v", last)
	}
}
