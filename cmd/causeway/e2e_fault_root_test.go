package main_test

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"causeway/control/api"
)

// testLinkDown takes the node's links away in the middle of a transfer, one after the other, and gives them back.
func (b *bed) testLinkDown(t *testing.T, x greTunnel) {
	before := b.balance(t)
	for _, f := range b.flows([]greTunnel{x}, true) {
		done := make(chan error, 1)
		go func() { done <- transfer(f, 30<<20) }()
		for _, port := range []string{"eth0", "eth1"} {
			time.Sleep(100 * time.Millisecond) // in the middle, wherever that is
			must(t, b.node, "ip", "link", "set", "dev", port, "down")
			time.Sleep(300 * time.Millisecond)
			must(t, b.node, "ip", "link", "set", "dev", port, "up")
			b.routesOf(port) // a kernel forgets the routes of a link that goes down
		}
		if err := <-done; err != nil {
			t.Errorf("%s: a transfer while links went away: %v", f.name, err)
		}
	}
	b.warm(t, []greTunnel{x})
	if after := b.balance(t); after.Forwarded == before.Forwarded {
		t.Error("nothing was forwarded")
	}
}

// routesOf gives the node the routes, and IPv6 the address, that go with a link.
func (b *bed) routesOf(port string) {
	lines := map[string][][]string{
		"eth0": {{"-6", "addr", "replace", "2001:db8:31::1/64", "dev", "eth0", "nodad"}, {"-4", "route", "replace", "default", "via", "172.31.1.254"},
			{"-6", "route", "replace", "default", "via", "2001:db8:31::fe"}},
		"eth1": {{"-6", "addr", "replace", "2001:db8:32::1/64", "dev", "eth1", "nodad"}, {"-4", "route", "replace", "198.51.100.0/24", "via", "172.31.2.254"},
			{"-6", "route", "replace", "2001:db8:c::/64", "via", "2001:db8:32::fe"}},
	}
	for _, words := range lines[port] {
		b.node.MustRun(append([]string{"ip"}, words...)...)
	}
}

// testKill ends the daemon with SIGKILL in the middle of a transfer. The interfaces then work as if it had never run, and
// the next one starts without anybody cleaning up, in time for the transfer to end.
func (b *bed) testKill(t *testing.T, x greTunnel) {
	f := b.flows([]greTunnel{x}, true)[0]
	done := make(chan error, 1)
	go func() { done <- transfer(f, 30<<20) }()
	time.Sleep(200 * time.Millisecond)
	b.daemon.Kill()
	b.daemon = nil

	for _, port := range []string{"eth0", "eth1"} {
		if out := must(t, b.node, "ip", "link", "show", "dev", port); strings.Contains(out, "xdp") {
			t.Errorf("an XDP program is left:\n%s", out)
		}
	}
	if out, err := b.node.Run("ip", "link", "show", "dev", "causeway"); err == nil {
		t.Errorf("the TUN device is left:\n%s", out)
	}
	// What was the worker's is the kernel's now: it forwards the customer's prefix, if asked to.
	pingAll(t, 2, []flow{
		{"node", b.rt, addr("172.31.1.254"), b.node, addr("172.31.1.1"), []string{"-s", "1400"}},
		{"node", b.rt, addr("172.31.2.254"), b.node, addr("172.31.2.1"), nil},
		{"node", b.rt, addr("2001:db8:31::fe"), b.node, addr("2001:db8:31::1"), nil},
	})
	wire := b.rt.Capture("n1", "dst host "+x.behind4().String())
	b.node.Sysctl("net.ipv4.ip_forward", "1")
	b.node.Route("198.18.0.0/16", "via", "172.31.2.254")
	b.inet.Run("ping", "-c1", "-W1", "-t", "5", x.behind4().String())
	must(t, b.node, "ip", "route", "del", "198.18.0.0/16")
	b.node.Sysctl("net.ipv4.ip_forward", "0")
	if rows := b.net.Tshark(wire.Stop(), "icmp && !gre", "frame.number"); len(rows) == 0 {
		t.Error("the node's kernel did not forward a packet to a customer's prefix after the daemon's death")
	}
	if _, err := os.Stat(b.socket); err != nil {
		t.Errorf("the control socket of a killed daemon: %v; the restart has nothing to overcome", err)
	}
	b.start()
	if err := <-done; err != nil {
		t.Errorf("a transfer over the death of the daemon: %v", err)
	}
	b.balance(t)
}

// testTerminate ends the daemon in order in the middle of a transfer, by which it loses no frame and leaves nothing.
func (b *bed) testTerminate(t *testing.T, x greTunnel) {
	f := b.flows([]greTunnel{x}, false)[0]
	done := make(chan error, 1)
	go func() { done <- transfer(f, 30<<20) }()
	time.Sleep(200 * time.Millisecond)
	b.daemon.Signal(unix.SIGTERM)
	if err := b.daemon.Wait(startLimit); err != nil {
		t.Errorf("causeway run ended with %v", err)
	}
	if log := b.daemon.Log(); !strings.Contains(log, "msg=drained") || !strings.Contains(log, "left=0") {
		t.Errorf("the daemon did not drain:\n%s", log)
	}
	b.start()
	if err := <-done; err != nil {
		t.Errorf("a transfer over a restart: %v", err)
	}
}

// relink makes the node's links anew, with other numbers of queues. The daemon must not run.
func (b *bed) relink(queues0, queues1 int) {
	b.rt.MustRun("ip", "link", "del", "dev", "n0")
	b.rt.MustRun("ip", "link", "del", "dev", "n1")
	b.linkNode(queues0, queues1)
}

// testQueues runs the node with these numbers of queues and workers: a worker may lack a queue of a port, and then hands over
// what leaves by it; numbered GRE packets have one owner; fragments of a datagram meet at one worker.
func (b *bed) testQueues(t *testing.T, tunnels []greTunnel, queues0, queues1 int, cpus string) {
	b.end(t)
	b.relink(queues0, queues1)
	b.run(t, b.configuration(plain(tunnels), "workers: {cpus: "+cpus+"}"))
	b.warm(t, tunnels)
	wire := b.rt.Capture("n1", "proto 47 or ip6 proto 47 or ip6 proto 60")
	both := append(b.flows(tunnels, true), b.flows(tunnels, false)...)
	pingAll(t, 2, both)
	b.transferAll(t, both, 256<<10)
	large := b.flows(tunnels[:1], false)[0]
	large.pingArguments = []string{"-s", "4000", "-M", "dont"}
	pingAll(t, 3, []flow{large})
	b.judgeGRE(t, wire.Stop(), tunnels)
	if f := b.balance(t); f.Held != 0 {
		t.Errorf("%d frames are held", f.Held)
	}
	for _, w := range show[api.Workers](t, b, "workers").Workers {
		if w.Frames.Received == 0 {
			t.Errorf("worker %d, of queues %v, received nothing: the traffic shows nothing about it", w.Worker, w.Queues)
		}
	}
}

// testNumbers kills the daemon and ends it in order. Whatever happens, the sequence numbers of a tunnel grow: Linux, which
// has seen the ones before, would drop what is behind.
func (b *bed) testNumbers(t *testing.T, tunnels []greTunnel) {
	wire := b.rt.Capture("n1", "src host "+endpoint4+" or src host "+endpoint6)
	ping := func() { pingAll(t, 3, b.flows(tunnels, true)) }
	ping()
	b.daemon.Kill()
	b.start()
	b.warm(t, tunnels)
	ping()
	b.end(t)
	b.start()
	b.warm(t, tunnels)
	ping()
	last, jumps := map[string]uint32{}, 0
	for _, row := range b.net.Tshark(wire.Stop(), "gre.sequence_number", "ip.src", "gre.sequence_number") {
		tunnel := "over IPv6"
		if strings.HasPrefix(row[0], endpoint4) {
			tunnel = "over IPv4"
		}
		number, err := strconv.ParseUint(row[1], 0, 32)
		if err != nil {
			t.Fatalf("sequence number %q: %v", row[1], err)
		}
		before, seen := last[tunnel]
		if seen && uint32(number) <= before {
			t.Errorf("%s: number %d comes after %d", tunnel, number, before)
		}
		if seen && uint32(number) > before+1 {
			jumps++
		}
		last[tunnel] = uint32(number)
	}
	if len(last) != 2 || jumps != 2 {
		t.Errorf("%d tunnels with numbers and %d jumps: want two, and one jump each, where the daemon was killed", len(last), jumps)
	}
}
