package routes

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"causeway/config"
	"causeway/pipeline"
	"causeway/pipeline/memport"
	"causeway/xsk"
)

// newEngine makes an engine with one worker and ports in memory; it does not run unless a test runs it.
func newEngine(t testing.TB, ports int) *pipeline.Engine {
	t.Helper()
	u, err := xsk.NewUMEM(xsk.UMEMConfig{Parts: 1, FramesPerPart: 256})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	c := pipeline.EngineConfig{UMEM: u, Ports: ports, Workers: []pipeline.WorkerConfig{{CPU: -1}}}
	for p := range ports {
		c.Workers[0].Queues = append(c.Workers[0].Queues, pipeline.QueueConfig{Port: p, Queue: memport.New(u, 32), FillSize: 32})
	}
	e, err := pipeline.NewEngine(c)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// parse makes a configuration of one interface name and the given lines.
func parse(t testing.TB, name, rest string) *config.Config {
	t.Helper()
	c, err := config.Parse("test.yaml", []byte(fmt.Sprintf("node: {name: edge-1}\ninterfaces: [{name: %s}]\n%s", name, rest)))
	if err != nil {
		t.Fatalf("%v\n%s", err, rest)
	}
	return c
}

// configure gives c to the engine and then to m, as the daemon does.
func configure(t testing.TB, e *pipeline.Engine, m *Manager, c *config.Config) {
	t.Helper()
	s := pipeline.Spec{Endpoints: c.Endpoints, Links: m.Links()}
	for _, a := range c.Accounts {
		s.Accounts = append(s.Accounts, pipeline.AccountSpec{Name: a.Name, Peers: a.Peers})
	}
	for _, x := range c.Tunnels {
		s.Tunnels = append(s.Tunnels, pipeline.TunnelSpec{
			Name: x.Name, Account: x.Account, Endpoint: x.Endpoint, CustomerEndpoint: x.CustomerEndpoint,
			Interface4: x.InterfaceAddress, Interface6: x.InterfaceAddress6, MTU: x.MTU, TTL: x.TTL, Prefixes: x.Prefixes,
			Negotiated: x.IPsec != nil && x.IPsec.IKE != nil,
		})
	}
	if err := e.Apply(&s); err != nil {
		t.Fatal(err)
	}
	if err := m.Apply(c); err != nil {
		t.Fatal(err)
	}
}

// lookup is what a worker finds for an address.
func lookup(e *pipeline.Engine, account, addr string) pipeline.Leaf {
	v, ok := e.VRF(account)
	if !ok {
		return 0
	}
	a := netip.MustParseAddr(addr)
	if a.Is4() {
		b := a.As4()
		return v.V4.Lookup(binary.BigEndian.Uint32(b[:]))
	}
	b := a.As16()
	return v.V6.Lookup(binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:]))
}

// explain writes a leaf in words that do not depend on numbers given out by chance.
func (m *Manager) explain(l pipeline.Leaf) string {
	i := pipeline.LeafIndex(l)
	switch pipeline.LeafKind(l) {
	case pipeline.KindNeighbour:
		s := m.slots.list[i]
		return fmt.Sprintf("%s%%%d", s.host.addr, s.host.ifindex)
	case pipeline.KindGlean:
		return fmt.Sprintf("glean %d", m.devices.links[i].ifindex)
	case pipeline.KindTunnel, pipeline.KindTunnelAddress:
		return fmt.Sprintf("%s %s", pipeline.LeafKind(l), m.tunnels[uint32(i)].name)
	case pipeline.KindGroup:
		members := map[string]uint32{}
		for _, x := range m.groups.members(l) {
			members[m.explain(x.Value)] += x.Weight
		}
		return words(members)
	}
	if l == pipeline.MakeLeaf(pipeline.KindBlackhole, pipeline.BlackholeUnlearned) {
		return "unlearned"
	}
	return pipeline.LeafKind(l).String()
}

// at explains what account finds for addr.
func (m *Manager) at(account, addr string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.explain(lookup(m.engine, account, addr))
}
