package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"causeway/control/ike"
	"causeway/control/ike/message"
	"causeway/control/ike/suite"
)

// An end of the ike scenario is the daemon in a process of its own, on one core, in a network namespace:
//
//	bench ike-end ADDRESS...
//
// It takes orders from its standard input, one JSON object a line, answers each with one, and ends with its input.
const ikeEndCommand = "ike-end"

// An order is what an end is to do, and an account what came of it.
type order struct {
	Do       string // tunnels, initiate, rekey, rekey-ike, terminate, memory
	Tunnels  tunnelOrder
	Count    int // of tunnels, from the first
	InFlight int // at once
}

type account struct {
	Error   string `json:",omitempty"`
	Seconds float64
	Heap    uint64 // bytes in use after a collection, stacks of goroutines with them
}

// A tunnelOrder is tunnels t0, t1, ... between two addresses. Each of their customers has a name of its own.
type tunnelOrder struct {
	Gateway            bool // this end has the name of the gateway, else those of the customers
	Endpoint, Customer netip.Addr
	IKE                []string // proposals, in strongSwan's words
	ESP                string
}

const (
	ikeGateway = "gateway.bench.example"
	ikeSecret  = "a key that both ends of all tunnels have"
)

func ikeCustomer(i int) string { return fmt.Sprintf("c%d.bench.example", i) }
func ikeTunnel(i int) string   { return fmt.Sprintf("t%d", i) }

// make makes n tunnels.
func (o tunnelOrder) make(n int) ([]*ike.Tunnel, error) {
	var proposals []message.Proposal
	for _, words := range o.IKE {
		p, err := suite.ParseIKE(words, false)
		if err != nil {
			return nil, err
		}
		proposals = append(proposals, p)
	}
	child, err := suite.ParseESP(o.ESP, false, false)
	if err != nil {
		return nil, err
	}
	fqdn := func(s string) message.ID { return message.ID{Type: message.IDFQDN, Data: []byte(s)} }
	list := make([]*ike.Tunnel, n)
	for i := range list {
		t := &ike.Tunnel{Name: ikeTunnel(i), Endpoint: o.Endpoint, Customer: o.Customer, LocalID: fqdn(ikeCustomer(i)), RemoteID: fqdn(ikeGateway),
			PSK: []byte(ikeSecret), Proposals: proposals, ChildProposals: []message.Proposal{child},
			IKELife: 8 * time.Hour, ChildLife: time.Hour, DPD: 30 * time.Second}
		if o.Gateway {
			t.LocalID, t.RemoteID = t.RemoteID, t.LocalID
		}
		list[i] = t
	}
	return list, nil
}

// runIKEEnd is the whole of such a process.
func runIKEEnd(args []string, in io.Reader, out io.Writer) int {
	if err := serveIKE(args, in, out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

func serveIKE(args []string, in io.Reader, out io.Writer) (err error) {
	var endpoints []netip.Addr
	for _, a := range args {
		addr, err := netip.ParseAddr(a)
		if err != nil {
			return err
		}
		endpoints = append(endpoints, addr)
	}
	debug.SetGCPercent(400) // as `causeway run` does
	sockets := &ike.Sockets{}
	unlimited := 1 << 20
	d := ike.New(ike.Options{Log: slog.New(slog.DiscardHandler), Dataplane: newAgreeablePlane(), Transport: sockets,
		HalfOpen: unlimited, PerSource: unlimited, CookiesFrom: unlimited})
	if err := sockets.Serve(d, endpoints); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = d.Run(ctx) }) // it returns no error
	defer func() {
		cancel()
		wg.Wait()
		err = errors.Join(err, sockets.Close())
	}()
	orders, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var o order
		if err := orders.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		begun := time.Now()
		var a account
		if err := carryOut(d, o, &a); err != nil {
			a.Error = err.Error()
		}
		a.Seconds = time.Since(begun).Seconds()
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
}

// ikePatience is how long one negotiation may take.
const ikePatience = time.Minute

func carryOut(d *ike.Daemon, o order, a *account) error {
	each := func(f func(ctx context.Context, tunnel string) error) error {
		return inFlight(o.Count, o.InFlight, func(i int) error {
			ctx, cancel := context.WithTimeout(context.Background(), ikePatience)
			defer cancel()
			return f(ctx, ikeTunnel(i))
		})
	}
	switch o.Do {
	case "tunnels":
		list, err := o.Tunnels.make(o.Count)
		if err == nil {
			d.SetTunnels(list)
		}
		return err
	case "initiate":
		return each(d.Initiate)
	case "rekey":
		return each(func(ctx context.Context, tunnel string) error { return d.Rekey(ctx, tunnel, false) })
	case "rekey-ike":
		return each(func(ctx context.Context, tunnel string) error { return d.Rekey(ctx, tunnel, true) })
	case "terminate":
		return each(d.Terminate)
	case "memory":
		a.Heap = heapInUse()
		return nil
	}
	return fmt.Errorf("no order %q", o.Do)
}

// inFlight calls f for 0 to n-1, so many at once.
func inFlight(n, atOnce int, f func(i int) error) error {
	var next atomic.Int64
	errs := make([]error, atOnce)
	var wg sync.WaitGroup
	for k := range errs {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && errs[k] == nil; i = int(next.Add(1)) - 1 {
				errs[k] = f(i)
			}
		})
	}
	wg.Wait()
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return errs[i] // the others say the same
	}
	return nil
}

// heapInUse is what is alive. The second collection takes what finalizers and pools have held over the first.
func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
