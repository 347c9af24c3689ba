package main_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"causeway/scripts/hosts"
)

// A flow is a pair of addresses to test between: the one of the Internet host and one behind a tunnel.
type flow struct {
	name          string
	client        *hosts.Host
	from          netip.Addr
	server        *hosts.Host
	to            netip.Addr
	pingArguments []string
}

// pingAll pings along all flows at once; each must lose nothing.
func pingAll(t *testing.T, count int, flows []flow) {
	t.Helper()
	var wg sync.WaitGroup
	slots := make(chan bool, 8) // the machine has few cores
	for _, f := range flows {
		wg.Go(func() {
			slots <- true
			defer func() { <-slots }()
			args := append([]string{"ping", "-c", strconv.Itoa(count), "-i", ".1", "-W", "10", "-I", f.from.String()}, f.pingArguments...)
			if out, err := f.client.Run(append(args, f.to.String())...); err != nil {
				t.Errorf("%s: ping %s -> %s: %v\n%s", f.name, f.from, f.to, err, out)
			}
		})
	}
	wg.Wait()
}

// transfer sends n bytes over TCP from the client to the server, which must get the same bytes.
func transfer(f flow, n int) error {
	var listener net.Listener
	var out net.Conn
	var err error
	f.server.Do(func() { listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(f.to, 0))) })
	if err != nil {
		return err
	}
	defer listener.Close()
	type result struct {
		sum []byte
		err error
	}
	got := make(chan result, 1)
	go func() {
		in, err := listener.Accept()
		if err != nil {
			got <- result{nil, err}
			return
		}
		defer in.Close()
		in.SetDeadline(time.Now().Add(time.Minute))
		h := sha256.New()
		_, err = io.Copy(h, in)
		got <- result{h.Sum(nil), err}
	}()
	f.client.Do(func() {
		d := net.Dialer{Timeout: 30 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(f.from, 0))}
		out, err = d.Dial("tcp", listener.Addr().String())
	})
	if err != nil {
		return err
	}
	out.SetDeadline(time.Now().Add(time.Minute))
	h := sha256.New()
	source := io.LimitReader(rand.NewChaCha8([32]byte{byte(n)}), int64(n))
	if _, err := io.Copy(io.MultiWriter(h, out), source); err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	if err := out.Close(); err != nil {
		return err
	}
	r := <-got
	if r.err == nil && !bytes.Equal(r.sum, h.Sum(nil)) {
		r.err = fmt.Errorf("%d bytes were sent, others came", n)
	}
	return r.err
}
