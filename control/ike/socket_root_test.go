package ike

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"causeway/scripts/hosts"
)

// TestRootSockets: an endpoint whose port another process has is served when that has ended, and one that is not wanted any more still
// sends for a moment, so that peers hear of the end.
func TestRootSockets(t *testing.T) {
	n := hosts.New(t)
	h := n.Host("h")
	h.MustRun("ip", "link", "set", "lo", "up")
	a, b := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	d := New(Options{})
	s := &Sockets{}
	h.Do(func() {
		if err := s.Serve(d, []netip.Addr{a}); err != nil {
			t.Fatal(err)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan bool)
	go func() { _ = d.Run(ctx); close(done) }()

	var other *net.UDPConn
	h.Do(func() {
		var err error
		if other, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(b, Port))); err != nil {
			t.Fatal(err)
		}
		if err = s.SetEndpoints([]netip.Addr{b}); err == nil {
			t.Error("a port that another process has was opened")
		}
	})
	if err := s.Send(netip.AddrPortFrom(a, Port), netip.AddrPortFrom(b, Port), []byte("x")); err != nil {
		t.Errorf("the last message of an endpoint: %v", err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	// Sockets belong to the namespace of the thread that opens them; a node has one for all.
	h.Do(s.settle)
	if err := s.Send(netip.AddrPortFrom(b, Port), netip.AddrPortFrom(a, Port), []byte("x")); err != nil {
		t.Errorf("the port is free: %v", err)
	}
	if err := s.Send(netip.AddrPortFrom(a, Port), netip.AddrPortFrom(b, Port), []byte("x")); err == nil {
		t.Error("an endpoint that is not wanted is open")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	cancel()
	<-done
}
