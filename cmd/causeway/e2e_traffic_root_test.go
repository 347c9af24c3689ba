package main_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
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
			if err := ping(f, count); err != nil {
				t.Errorf("%s: %v", f.name, err)
			}
		})
	}
	wg.Wait()
}

// ping sends echo requests along a flow, one after the other, and returns an error unless each is answered with its own data.
// Each is a run of its own: ping waits for the last answer of several no longer than for those before, and the machine
// may be slow.
func ping(f flow, count int) error {
	args := append([]string{"ping", "-c1", "-W10", "-I", f.from.String()}, f.pingArguments...)
	for range count {
		out, err := f.client.Run(append(args, f.to.String())...)
		if err == nil && strings.Contains(out, "wrong data") {
			err = errors.New("the answer is not what was sent")
		}
		if err != nil {
			return fmt.Errorf("%s: %s -> %s: %w\n%s", strings.Join(args, " "), f.from, f.to, err, out)
		}
	}
	return nil
}

// numbered is n bytes in which every place is different. Random ones would now and then look to tshark like some
// protocol within TCP, with checksums that are wrong.
func numbered(n int) []byte {
	b := make([]byte, 0, n+8)
	for len(b) < n {
		b = fmt.Appendf(b, "%08d", len(b))
	}
	return b[:n]
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
	if _, err := io.MultiWriter(h, out).Write(numbered(n)); err != nil {
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
