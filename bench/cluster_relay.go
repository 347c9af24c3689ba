package main

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A relay passes on what comes to an address on loopback, each way after a delay, and counts it: a wide area between two nodes.
// A server that loses its connection may find another way: it was told the address behind the relay.
type relay struct {
	listener net.Listener
	to       netip.AddrPort
	delay    atomic.Int64  // ns
	bytes    atomic.Uint64 // both ways

	mu     sync.Mutex
	closed bool
	conns  []net.Conn
	all    sync.WaitGroup
}

func newRelay(to netip.AddrPort) (*relay, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{listener: l, to: to}
	r.all.Go(r.accept)
	return r, nil
}

func (r *relay) address() string { return r.listener.Addr().String() }

// close ends all connections too.
func (r *relay) close() {
	r.listener.Close()
	r.mu.Lock()
	r.closed = true
	for _, c := range r.conns {
		c.Close()
	}
	r.mu.Unlock()
	r.all.Wait()
}

func (r *relay) accept() {
	for {
		near, err := r.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", r.to.String())
		if err != nil {
			near.Close() // it tries again
			continue
		}
		if !r.keep(near, far) {
			return
		}
		r.pump(near, far)
		r.pump(far, near)
	}
}

// keep notes connections, so that close ends them.
func (r *relay) keep(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		for _, c := range conns {
			c.Close()
		}
		return false
	}
	r.conns = append(r.conns, conns...)
	return true
}

// A parcel is on its way.
type parcel struct {
	due  time.Time
	data []byte
}

// pump passes on one direction. What is on its way does not hold up what is sent after it.
func (r *relay) pump(from, to net.Conn) {
	way := make(chan parcel, 1<<16)
	r.all.Go(func() {
		defer close(way)
		for {
			b := make([]byte, 4<<10)
			n, err := from.Read(b)
			if n > 0 {
				r.bytes.Add(uint64(n))
				way <- parcel{time.Now().Add(time.Duration(r.delay.Load())), b[:n]}
			}
			if err != nil {
				return
			}
		}
	})
	r.all.Go(func() {
		var err error
		for p := range way { // to the end, so that the reader never waits
			time.Sleep(time.Until(p.due))
			if err == nil {
				_, err = to.Write(p.data)
			}
			if err != nil {
				from.Close()
			}
		}
		from.Close()
		to.Close()
	})
}
