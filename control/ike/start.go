package ike

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"causeway/control/ike/message"
)

// Waits between tries of a tunnel that we begin.
const (
	firstRetry = time.Second
	longRetry  = time.Minute
)

// storeWait is how long an operator's command waits for a store that is not reached: hubs that choose who leads after a loss take up to 12 s.
const storeWait = 15 * time.Second

// A starter is a tunnel that is to be begun.
type starter struct {
	timer *time.Timer
	tries int
}

// startLater begins a tunnel after a while, unless that is planned already.
func (d *Daemon) startLater(name string, wait time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	st := d.starting[name]
	if st == nil {
		st = &starter{}
		d.starting[name] = st
	}
	if d.stopped || st.timer != nil {
		return
	}
	st.timer = time.AfterFunc(wait, func() { d.start(name) })
}

// start begins a tunnel that has no IKE SA.
func (d *Daemon) start(name string) {
	t := d.index.Load().byName[name]
	d.mu.Lock()
	st := d.starting[name]
	if st == nil || d.stopped {
		d.mu.Unlock()
		return
	}
	st.timer = nil
	st.tries++
	up := len(d.byTunnel[name]) > 0
	if up || t == nil || !t.Initiate {
		delete(d.starting, name)
	}
	d.mu.Unlock()
	if t == nil || !t.Initiate || up {
		return
	}
	if !d.begins(name) {
		d.startLater(name, leadTime)
		return
	}
	d.initiate(t)
}

// leadTime is how often a node that does not begin a tunnel looks whether that is its turn now.
const leadTime = 2 * time.Second

// begins reports whether this node is to begin a tunnel: of a fleet one does, if none has it.
func (d *Daemon) begins(name string) bool {
	return d.fleet == nil || d.fleet.Leads(name) && len(d.fleet.Of(name)) == 0
}

// lost is told that an IKE SA has ended: a tunnel that we begin is begun again, less and less often.
func (d *Daemon) lost(name string) {
	t := d.index.Load().byName[name]
	if t == nil || !t.Initiate {
		return
	}
	d.mu.Lock()
	up, wait := len(d.byTunnel[name]) > 0, firstRetry
	if st := d.starting[name]; st != nil {
		wait = min(firstRetry<<min(st.tries, 6), longRetry)
	}
	d.mu.Unlock()
	if !up {
		d.startLater(name, wait)
	}
}

// Initiate negotiates a tunnel now, and returns when it is up, or why it is not.
func (d *Daemon) Initiate(ctx context.Context, name string) error {
	t := d.index.Load().byName[name]
	switch {
	case t == nil:
		return fmt.Errorf("there is no tunnel %q with ike", name)
	case !t.Customer.IsValid():
		return fmt.Errorf("tunnel %s has no customer_endpoint: its customer has to begin", name)
	}
	if err := d.awaitStore(ctx); err != nil {
		return err
	}
	switch {
	case len(d.Elsewhere(name)) > 0:
		return d.notHere(name)
	case len(d.of(name)) > 0:
		return fmt.Errorf("tunnel %s has an IKE SA already: `causeway ike rekey %s` makes new child SAs, `causeway ike terminate %s` ends it", name, name, name)
	}
	s := d.initiate(t)
	done := make(chan error, 1)
	s.mu.Lock()
	switch s.phase {
	case dead:
		done <- errors.New(s.why)
	case opening, proving:
		s.waiters = append(s.waiters, done)
	default:
		done <- nil
	}
	s.mu.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%v has not answered yet; it is tried on", t.Customer)
	}
}

// awaitStore waits until something new can be begun, or returns ErrStoreAway.
func (d *Daemon) awaitStore(ctx context.Context) error {
	for end := time.Now().Add(storeWait); d.refuses(); {
		if time.Now().After(end) || !sleep(ctx, storeAgain) {
			return fmt.Errorf("%w; see `causeway show cluster`", ErrStoreAway)
		}
	}
	return nil
}

// sleep waits, and reports whether ctx has not ended before.
func sleep(ctx context.Context, wait time.Duration) bool {
	select {
	case <-time.After(wait):
		return true
	case <-ctx.Done():
		return false
	}
}

// Rekey replaces the child SAs of a tunnel, or its IKE SA, and returns when that is done. A peer that is busy with the same is
// asked again, and so it is done again if the store was lost meanwhile.
func (d *Daemon) Rekey(ctx context.Context, name string, ike bool) error {
	for {
		if _, err := d.newest(name); err != nil {
			return err
		}
		if err := d.awaitStore(ctx); err != nil {
			return err
		}
		err := d.rekey(ctx, name, ike)
		var refused refusedError
		busy := errors.As(err, &refused) && refused.is == message.NotifyTemporaryFailure
		if !busy && !errors.Is(err, ErrStoreAway) {
			return err
		}
		if !sleep(ctx, firstRetry/2+rand.N(firstRetry)) { // two that are busy with each other do not meet again and again
			return err
		}
	}
}

func (d *Daemon) rekey(ctx context.Context, name string, ike bool) error {
	s, err := d.newest(name)
	if err != nil {
		return err
	}
	var done chan error
	n := 0
	s.do(func() {
		done = make(chan error, 1+len(s.Children)) // nobody may be there to take the answers
		if ike {
			n = 1
			s.rekeySelf(func(err error) { done <- err })
			return
		}
		if len(s.Children) == 0 {
			n = 1
			s.createChild(nil, func(err error) { done <- err })
		}
		for _, c := range append([]*ChildState(nil), s.Children...) {
			if !c.Replaced && !c.deleting && !c.rekeying {
				n++
				s.createChild(c, func(err error) { done <- err })
			}
		}
	})
	if n == 0 {
		return fmt.Errorf("tunnel %s: its child SAs are being rekeyed or deleted just now", name)
	}
	for range n {
		select {
		case err := <-done:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return errors.New("the peer has not answered yet; it is tried on")
		}
	}
	return nil
}

// Terminate deletes all IKE SAs of a tunnel with their children, and returns when the peer has confirmed it or did not answer.
func (d *Daemon) Terminate(ctx context.Context, name string) error {
	list := d.allOf(name)
	if len(list) == 0 {
		_, err := d.newest(name) // says why there is none
		return err
	}
	for _, s := range list {
		d.post(s, func() { s.terminate("the operator terminated it") })
	}
	for _, s := range list {
		for s != nil {
			select {
			case <-s.gone:
			case <-ctx.Done():
				return errors.New("the peer has not answered yet; the tunnel is deleted in a few seconds all the same")
			}
			s = s.heir // which does not change any more
		}
	}
	return nil
}

// notHere says which node has a tunnel's IKE SA.
func (d *Daemon) notHere(name string) error {
	list := d.Elsewhere(name)
	o := list[len(list)-1]
	if o.Where == Vacant {
		return fmt.Errorf("the IKE SA of tunnel %s is that of node %s, which is gone: another node takes it over in a moment; try again then", name, o.Node)
	}
	return fmt.Errorf("node %s has the IKE SA of tunnel %s: give the command there", o.Node, name)
}

// newest is the IKE SA of a tunnel that was established last.
func (d *Daemon) newest(name string) (*ikeSA, error) {
	if d.index.Load().byName[name] == nil {
		return nil, fmt.Errorf("there is no tunnel %q with ike", name)
	}
	list := d.of(name)
	if len(list) == 0 && len(d.Elsewhere(name)) > 0 {
		return nil, d.notHere(name)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("tunnel %s has no IKE SA; `causeway ike initiate %s` makes one", name, name)
	}
	return list[len(list)-1], nil
}
