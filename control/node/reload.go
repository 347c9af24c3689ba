package node

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"causeway/config"
	"causeway/control/api"
	"causeway/control/cluster"
	"causeway/control/ike"
	"causeway/pipeline"
)

// Reload reads the configuration file again and takes over what can change while packets flow: endpoints, accounts,
// tunnels and routes. Packets of tunnels that stay are not lost. A file with mistakes, or with changes that need a
// restart, is refused as a whole, and everything stays as it was.
func (n *Node) Reload() (api.Reload, error) {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	if n.draining.Load() {
		return api.Reload{}, errors.New("the daemon is stopping")
	}
	own, err := config.Load(n.path)
	if err != nil {
		n.log.Error("configuration not taken over", "file", n.path, "error", err)
		return api.Reload{}, err
	}
	c, d, err := n.merged(own)
	r, err := n.reloaded(own, c, err)
	if err != nil && d.Serial != 0 && n.fleet.running.Serial != 0 && !same(d, n.fleet.running) && !n.inEffect(c) {
		return n.reloadWithRunning(own, d, err)
	}
	switch {
	case d.Serial == 0 || err != nil && !n.inEffect(c):
	case own.HasTunnels():
		n.fleet.running = cluster.Document{}
		n.settleFleet(d, nil, errOwnTunnels)
	default:
		n.settleFleet(d, c, err)
	}
	return r, err
}

// reloaded takes over a node's own file, together with the fleet's as c, unless that could not be read.
func (n *Node) reloaded(own, c *config.Config, fault error) (r api.Reload, err error) {
	if fault != nil {
		n.log.Error("configuration not taken over", "file", n.path, "error", fault)
		return r, fault
	}
	r, err = n.takeOver(c, n.path)
	if n.inEffect(c) {
		n.fleet.own = own
		if n.opts.Reloaded != nil {
			if fault := n.opts.Reloaded(); fault != nil {
				r.Warnings = append(r.Warnings, fault.Error())
			}
		}
	}
	return r, err
}

// inEffect reports whether a configuration is what the node works with, be it without a part that could not be had. nil: it is none.
func (n *Node) inEffect(c *config.Config) bool { return c != nil && n.Config() == c }

// reloadWithRunning takes over a node's own file where the newest of the fleet's configurations does not fit it: the one that is in effect
// stays. Who is admitted, for one, must not wait for that.
func (n *Node) reloadWithRunning(own *config.Config, newest cluster.Document, why error) (api.Reload, error) {
	c, err := withDocument(own, n.fleet.running)
	r, err := n.reloaded(own, c, err)
	if err != nil {
		return r, errors.Join(why, err)
	}
	n.settleFleet(newest, nil, why)
	r.Warnings = append(r.Warnings, fmt.Sprintf("the fleet's configuration %d stays in effect, since %d does not fit: %v", n.fleet.running.Serial, newest.Serial, why))
	return r, nil
}

// takeOver brings a configuration into effect, all of it or nothing. what names it in messages. It is called with reloading held.
func (n *Node) takeOver(c *config.Config, what string) (api.Reload, error) {
	fail := func(err error) (api.Reload, error) {
		n.log.Error("configuration not taken over", "error", err)
		return api.Reload{}, err
	}
	old := n.Config()
	changes := config.Diff(old, c)
	if len(changes.Restart) > 0 {
		return fail(restartError(what, changes.Restart))
	}
	tunnels, more, err := ikeTunnels(c)
	admitted, badAdmission := n.admissionOf(c)
	with, before := n.peered(c), n.peered(old)
	if err := errors.Join(err, badAdmission, n.sas.prepare(c), n.children.prepare(with)); err != nil {
		n.giveUp(old)
		return fail(fmt.Errorf("%s: not taken over: %w", what, err))
	}
	if err := n.takeTables(func(l []pipeline.LinkSpec) *pipeline.Spec { return union(before, with, l, n.sas.of) }); err != nil {
		n.giveUp(old)
		return fail(fmt.Errorf("%s: not taken over: %w", what, err))
	}
	renewed := n.ike.Renewed(tunnels)
	if err := n.change(c, renewed, tunnels, admitted); err != nil {
		n.log.Error("configuration not taken over completely", "error", err)
		return api.Reload{}, err
	}
	r := summary(c, changes)
	r.TunnelsRenewed = slices.AppendSeq(r.TunnelsRenewed, maps.Keys(renewed))
	slices.Sort(r.TunnelsRenewed)
	for _, w := range more {
		r.Warnings = append(r.Warnings, w.String())
	}
	n.sayTaken(what, changes, r)
	return r, nil
}

func (n *Node) sayTaken(what string, changes config.Changes, r api.Reload) {
	n.log.Info("configuration reloaded", "file", what, "tunnels_added", len(r.TunnelsAdded), "tunnels_removed", len(r.TunnelsRemoved),
		"tunnels_changed", len(r.TunnelsChanged), "routes_added", r.RoutesAdded, "routes_removed", r.RoutesRemoved)
	for _, t := range firstOf(changes.TunnelsChanged) {
		n.log.Info("tunnel changed", "tunnel", t.New.Name, "fields", strings.Join(t.Fields, ", "))
	}
	for _, w := range firstOf(changes.Warnings()) {
		n.log.Warn("configuration reloaded", "warning", w)
	}
}

// change follows on tables that have both the old tunnels and the new ones, so that no packet meets a route to a tunnel
// that the workers do not know: now come the routes, and then the tables with the new tunnels alone.
func (n *Node) change(c *config.Config, renewed map[string]bool, tunnels []*ike.Tunnel, admitted admission) error {
	before, with := n.Config(), n.peered(c)
	n.setDevices(c)
	steered, routed := n.steer.setEndpoints(steered(c), c.Endpoints), n.routes.Apply(with)
	taken := n.takeTables(func(l []pipeline.LinkSpec) *pipeline.Spec { return specOf(with, l, n.sas.of) })
	n.mu.Lock()
	n.cfg = c
	n.mu.Unlock()
	if taken == nil {
		n.sas.retain(c) // no worker uses the others any more; one that came back later would have its window of today
		n.children.retain(with, renewed)
	}
	if n.cluster != nil {
		n.cluster.SetRoster(admitted.roster)
		n.certificate.current.Store(admitted.certificate)
		n.warnOfEnd(time.Now())
		n.cluster.SetOwned(protected(c))
		n.release(before, c)
		n.owning.stale.Store(true)
		n.cluster.Retake() // there are tunnels now that there were not
	}
	n.moving.Lock()
	n.learned.SetTunnels(n.learnable(c))
	n.moving.Unlock()
	n.setProbed(c)
	listening := n.negotiate(c, tunnels)
	n.awaitPublished() // whoever asked for the reload may send packets now
	return errors.Join(steered, routed, taken, listening)
}

// giveUp forgets what was prepared of a configuration that is not taken over.
func (n *Node) giveUp(old *config.Config) {
	n.sas.retain(old)
	n.children.retain(n.peered(old), nil)
}

func restartError(path string, restart []config.Restart) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: not taken over, because these changes need a restart of the daemon:", path)
	for _, r := range restart {
		fmt.Fprintf(&b, "\n  %s: %s", r.Path, r.Reason)
	}
	return errors.New(b.String())
}

// firstOf shortens a list for the log.
func firstOf[T any](list []T) []T { return list[:min(len(list), 20)] }

func summary(c *config.Config, ch config.Changes) api.Reload {
	r := api.Reload{
		TunnelsAdded: tunnelNames(ch.TunnelsAdded), TunnelsRemoved: tunnelNames(ch.TunnelsRemoved), TunnelsChanged: []string{}, TunnelsRenewed: []string{},
		RoutesAdded: len(ch.RoutesAdded), RoutesRemoved: len(ch.RoutesRemoved),
		Endpoints: len(ch.EndpointsAdded) + len(ch.EndpointsRemoved),
		Settings:  append([]string{}, ch.Settings...),
		Warnings:  []string{},
	}
	for _, t := range ch.TunnelsChanged {
		r.TunnelsChanged = append(r.TunnelsChanged, t.New.Name)
	}
	for _, w := range c.Warnings() {
		r.Warnings = append(r.Warnings, w.String())
	}
	r.Warnings = append(r.Warnings, ch.Warnings()...)
	return r
}

func tunnelNames(tunnels []config.Tunnel) []string {
	names := []string{}
	for _, t := range tunnels {
		names = append(names, t.Name)
	}
	return names
}
