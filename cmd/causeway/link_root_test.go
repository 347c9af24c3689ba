package main

import (
	"testing"
	"time"
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
