package pipeline

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"causeway/pipeline/fib"
	"causeway/pipeline/wire"
)

// registry gives tunnels and accounts numbers that stay theirs across reloads, so that counters, routes and
// learned path MTUs of a tunnel that stays are untouched.
type registry struct {
	tunnels  map[string]int
	freed    []int // tunnel ids that no snapshot names any more
	holders  [MaxTunnels]uint8
	accounts map[string]int
}

func (r *registry) tunnel(name string, limit int) (int, error) {
	if id, ok := r.tunnels[name]; ok {
		return id, nil
	}
	if n := len(r.freed); n > 0 {
		id := r.freed[n-1]
		r.freed = r.freed[:n-1]
		r.tunnels[name] = id
		return id, nil
	}
	id := len(r.tunnels)
	if id >= limit {
		return 0, fmt.Errorf("tunnel %q: this node has %d tunnels already, which is the limit", name, limit)
	}
	r.tunnels[name] = id
	return id, nil
}

// TunnelID returns the number of the tunnel of that name.
func (e *Engine) TunnelID(name string) (int, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	id, ok := e.names.tunnels[name]
	return id, ok
}

// VRF returns the routing table of an account; the empty name is the Internet's.
func (e *Engine) VRF(account string) (*VRF, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	id, ok := e.names.accounts[account]
	if !ok {
		return nil, false
	}
	return e.fwd.vrfs[id], true
}

// Apply makes tables of s and gives them to the workers, which use them from their next batch on. Tunnels and
// accounts that s still names keep their numbers, counters and learned state; packets of theirs that are on their
// way are not lost. When Apply returns no worker reads the tables from before.
func (e *Engine) Apply(s *Spec) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	t, err := e.build(s)
	if err != nil {
		return err
	}
	e.tables.Store(t)
	e.quiesce()
	e.forget(s)
	e.children.spare = nil
	return nil
}

func (e *Engine) build(s *Spec) (*Tables, error) {
	t := &Tables{pairs: make(map[pair]bool, len(s.Tunnels))}
	for _, a := range s.Endpoints {
		if a.Is4() {
			t.endpoints4 = append(t.endpoints4, word4(a))
		} else {
			t.endpoints6 = append(t.endpoints6, a.As16())
		}
	}
	if len(s.Links) > MaxLinks {
		return nil, fmt.Errorf("%d links: at most %d are possible", len(s.Links), MaxLinks)
	}
	t.links = new([MaxLinks]link)
	for i, l := range s.Links {
		if l.Port < 0 || l.Port >= e.ports {
			return nil, fmt.Errorf("link %d: port %d does not exist, the node has %d", i, l.Port, e.ports)
		}
		t.links[i] = makeLink(l)
		if l.VLAN == 0 {
			t.macs[l.Port] = linkAddressOf(l.MAC)
		}
	}
	t.setErrorSources(s)
	if err := e.buildAccounts(s); err != nil {
		return nil, err
	}
	t.vrfs = slices.Clone(e.fwd.vrfs)
	t.sampling.otherwise, t.sampling.every = s.Sampling, s.Sampling
	var errs []error
	between := betweenNodes{map[uint32]int{}, map[uint32]int{}}
	for i := range s.Tunnels {
		errs = append(errs, e.addTunnel(t, &s.Tunnels[i], &between))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for _, id := range between.owned { // all tunnels have their numbers
		t.esp[id].via = e.viaOf(id)
		t.lead(id)
	}
	t.tagged.build(between.owned)
	t.nodes.build(between.nodes)
	t.index.build(t.rx)
	for i := range t.rx {
		if r := &t.rx[i]; r.flags&tunLive != 0 {
			t.pairs[r.pair()] = true
		}
	}
	return t, nil
}

func makeLink(l LinkSpec) link {
	out := link{port: uint16(l.Port), vlan: l.VLAN, mtu: uint32(l.MTU), mac: mac48(l.MAC)}
	if l.Addr4.Is4() {
		out.addr4 = word4(l.Addr4)
	}
	if l.Addr6.Is6() {
		out.addr6 = l.Addr6.As16()
	}
	return out
}

// setErrorSources chooses where ICMP errors toward the Internet come from: an endpoint, never a private address.
func (t *Tables) setErrorSources(s *Spec) {
	if len(t.endpoints4) > 0 {
		t.errorSource4 = t.endpoints4[0]
	}
	if len(t.endpoints6) > 0 {
		t.errorSource6 = t.endpoints6[0]
	}
	for _, l := range s.Links {
		if t.errorSource4 == 0 && l.Addr4.Is4() {
			t.errorSource4 = word4(l.Addr4)
		}
		if t.errorSource6 == [16]byte{} && l.Addr6.Is6() {
			t.errorSource6 = l.Addr6.As16()
		}
	}
}

// buildAccounts gives every account that has a tunnel or is named a routing table of its own.
func (e *Engine) buildAccounts(s *Spec) error {
	want := func(name string) error {
		if _, ok := e.names.accounts[name]; ok {
			return nil
		}
		if len(e.fwd.vrfs) >= 1<<16 {
			return fmt.Errorf("account %q: this node has %d accounts already, which is the limit", name, len(e.fwd.vrfs)-1)
		}
		id := len(e.fwd.vrfs)
		e.names.accounts[name] = id
		e.fwd.vrfs = append(slices.Clip(e.fwd.vrfs), e.newVRF(name, id))
		return nil
	}
	for i := range s.Tunnels {
		if err := want(s.Tunnels[i].Account); err != nil {
			return err
		}
	}
	for _, a := range s.Accounts {
		if err := want(a.Name); err != nil {
			return err
		}
	}
	// Peers belong to the snapshot, so tables get copies that share their routes with the ones before.
	for i, v := range e.fwd.vrfs {
		c := *v
		c.peers = nil
		e.fwd.vrfs[i] = &c
	}
	for _, a := range s.Accounts {
		v := e.fwd.vrfs[e.names.accounts[a.Name]]
		for _, p := range a.Peers {
			id, ok := e.names.accounts[p]
			if !ok {
				return fmt.Errorf("account %q: peer %q has no tunnels and no entry of its own", a.Name, p)
			}
			v.peers = append(v.peers, uint16(id))
		}
	}
	return nil
}

// accountRootBits is the first stride of an account's tables: 256 slots, for most accounts have few routes and there may
// be thousands. With 10,000 routes in one account a look-up takes no longer than with 16 bits (measured by bench
// pipeline). Only the Internet tables, which may hold a million routes, pay for 24 bits.
const accountRootBits = 8

func (e *Engine) newVRF(name string, id int) *VRF {
	root := accountRootBits
	if id == 0 {
		root = 24
	}
	return &VRF{Account: name, id: uint16(id), V4: fib.NewTable4(root, e.retire), V6: fib.NewTable6(root, e.retire)}
}

func (e *Engine) addTunnel(t *Tables, s *TunnelSpec, between *betweenNodes) error {
	id, err := e.names.tunnel(s.Name, MaxTunnels)
	if err != nil {
		return err
	}
	for id >= len(t.rx) {
		t.rx = append(t.rx, rxTunnel{})
		t.tx = append(t.tx, txTunnel{})
		t.sources = append(t.sources, sourceSet{})
		t.names, t.tags, t.devices = append(t.names, ""), append(t.tags, 0), append(t.devices, false)
		t.esp, t.out = append(t.esp, nil), append(t.out, nil)
		t.sampling.tunnels = append(t.sampling.tunnels, 0)
	}
	vrf := uint16(e.names.accounts[s.Account])
	t.names[id], t.devices[id] = s.Name, s.Device
	t.sampling.set(id, s.Sampling)
	t.sources[id] = makeSources(s)
	t.rx[id] = makeRX(s, vrf, &t.sources[id])
	t.tx[id] = makeTX(s, vrf)
	t.tx[id].holder = e.holder(id, vrf)
	t.tx[id].owner = uint8(e.owner(id))
	if s.isESP() {
		if s.Owned {
			t.tags[id] = TunnelTag(s.Name)
		}
		e.noteOwner(s, id)
		return errors.Join(between.add(t.names, s, id), e.addESP(t, s, id))
	}
	if t.tx[id].flags&(tunOuter6|tunChecksum|tunSequence) == 0 {
		t.tx[id].way = wayGRE
	}
	if s.Sequence && !e.numbers(id) {
		e.workers[t.tx[id].owner].sequence[id].set(s.FirstNumber) // the owner leaves it alone until it sees the new tables
	}
	return nil
}

// noteOwner notes what an IPsec tunnel is between nodes. An owner that is known stays.
func (e *Engine) noteOwner(s *TunnelSpec, id int) {
	if _, known := e.children.owners[id]; !s.Owned {
		delete(e.children.owners, id)
	} else if !known {
		e.children.owners[id] = Owner{}
	}
	delete(e.children.nodes, id)
	if s.Node {
		e.children.nodes[id] = true
	}
}

// addESP completes an IPsec tunnel. A GRE packet never finds it.
func (e *Engine) addESP(t *Tables, s *TunnelSpec, id int) error {
	t.rx[id].flags &^= tunLive
	children := e.children.of[id]
	if !s.Negotiated {
		children = []SASpec{s.manual()}
	}
	children, err := withoutConflicts(id, children, &t.associations)
	if err != nil {
		return err
	}
	t.put(id, e.newESPTunnel(id, t.tx[id], children))
	return nil
}

// holder tells a tunnel from those that had its number, or were in another account, before. A packet that was routed to one of
// these may still be on its way between workers: Apply waits for batches, not for what they handed over.
func (e *Engine) holder(id int, vrf uint16) uint8 {
	if now := e.tables.Load(); id < len(now.tx) && now.tx[id].flags&tunLive != 0 && now.tx[id].vrf != vrf {
		e.names.holders[id]++
	}
	return e.names.holders[id]
}

// owner is the worker that numbers the packets of tunnel id.
func (e *Engine) owner(id int) int { return id % len(e.workers) }

// numbers reports whether the workers number the packets of tunnel id now.
func (e *Engine) numbers(id int) bool {
	t := e.tables.Load()
	return id < len(t.tx) && t.esp[id] == nil && t.tx[id].flags&(tunLive|tunSequence) == tunLive|tunSequence
}

// NextNumber returns the sequence number that the next packet of tunnel id gets, or false if its packets have none.
func (e *Engine) NextNumber(id int) (uint64, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.numbers(id) {
		return 0, false
	}
	return e.workers[e.owner(id)].sequence[id].get(), true
}

func (s *TunnelSpec) flags() uint8 {
	f := tunLive
	set := func(on bool, bit uint8) {
		if on {
			f |= bit
		}
	}
	set(s.Endpoint.Is6(), tunOuter6)
	set(s.HasKey, tunKey)
	set(s.Checksum, tunChecksum)
	set(s.Sequence, tunSequence)
	set(s.ClearDF, tunClearDF)
	set(s.Interface4.IsValid(), tunInterface4)
	set(s.Interface6.IsValid(), tunInterface6)
	return f
}

func makeRX(s *TunnelSpec, vrf uint16, src *sourceSet) rxTunnel {
	r := rxTunnel{vrf: vrf, flags: s.flags(), key: s.Key, net4: 1, net6: [2]uint64{0, 1}}
	switch {
	case !s.CustomerEndpoint.IsValid(): // of a negotiated tunnel: each child has a peer of its own
	case s.Endpoint.Is4():
		r.customer4, r.endpoint4 = word4(s.CustomerEndpoint), word4(s.Endpoint)
	default:
		r.customer6, r.endpoint6 = words6(s.CustomerEndpoint.As16()), words6(s.Endpoint.As16())
	}
	for _, p := range s.Prefixes {
		if p.Addr().Is4() && r.net4 == 1 {
			r.mask4 = ^uint32(0) << (32 - p.Bits())
			r.net4 = word4(p.Addr()) & r.mask4
		}
	}
	if len(src.prefixes6) > 0 {
		p := src.prefixes6[0]
		r.mask6 = mask128(p.Bits())
		w := words6(p.Addr().As16())
		r.net6 = [2]uint64{w[0] & r.mask6[0], w[1] & r.mask6[1]}
	}
	if s.Interface4.IsValid() {
		r.interface4 = word4(s.Interface4.Addr())
	}
	return r
}

func (r *rxTunnel) pair() (k pair) {
	if r.flags&tunOuter6 == 0 {
		return pairOf4(r.customer4, r.endpoint4)
	}
	for i, w := range [4]uint64{r.customer6[0], r.customer6[1], r.endpoint6[0], r.endpoint6[1]} {
		binary.BigEndian.PutUint64(k[8*i:], w)
	}
	return k
}

func mask128(ones int) [2]uint64 {
	if ones <= 64 {
		return [2]uint64{^uint64(0) << (64 - ones), 0}
	}
	return [2]uint64{^uint64(0), ^uint64(0) << (128 - ones)}
}

func makeSources(s *TunnelSpec) sourceSet {
	var set sourceSet
	for _, p := range s.Prefixes {
		if p.Addr().Is4() {
			set.prefixes4 = append(set.prefixes4, range4Of(p))
		} else {
			set.prefixes6 = append(set.prefixes6, p.Masked())
		}
	}
	slices.SortFunc(set.prefixes4, func(a, b range4) int { return int(int64(a.first) - int64(b.first)) })
	if s.Interface4.IsValid() {
		set.interface4 = range4Of(s.Interface4)
	}
	if s.Interface6.IsValid() {
		set.interface6 = s.Interface6.Masked()
		set.own6 = s.Interface6.Addr().As16()
	}
	return set
}

func range4Of(p netip.Prefix) range4 {
	mask := ^uint32(0) << (32 - p.Bits())
	if p.Bits() == 0 {
		mask = 0
	}
	first := word4(p.Addr()) & mask
	return range4{first, first | ^mask}
}

// makeTX writes the outer header as it will stand before every packet of the tunnel. That of ESP is each child's.
func makeTX(s *TunnelSpec, vrf uint16) txTunnel {
	x := txTunnel{vrf: vrf, flags: s.flags(), mtu: uint16(s.MTU), clamp: int32(s.MSSClamp), ttl: s.TTL}
	if x.ttl == 0 {
		x.ttl = 64
	}
	if !s.isESP() {
		putGREFlags(x.putOuter(s.Endpoint, s.CustomerEndpoint, wire.ProtoGRE, s.Overhead()-s.outerIP()), s)
	}
	return x
}

// forget frees the numbers of tunnels that s no longer names, and notes which ones negotiate. The workers have left the tables before.
func (e *Engine) forget(s *Spec) {
	named := make(map[string]bool, len(s.Tunnels))
	for i := range s.Tunnels {
		t := &s.Tunnels[i]
		named[t.Name] = true
		id := e.names.tunnels[t.Name]
		if list, ok := e.children.of[id]; t.Negotiated && !ok {
			e.children.of[id] = list
		} else if !t.Negotiated {
			delete(e.children.of, id)
		}
	}
	for name, id := range e.names.tunnels {
		if named[name] {
			continue
		}
		delete(e.names.tunnels, name)
		e.names.freed = append(e.names.freed, id)
		e.names.holders[id]++
		delete(e.children.of, id)
		delete(e.children.owners, id)
		delete(e.children.nodes, id)
		e.fwd.tunnels[id].v.Store(0)
		for _, w := range e.workers {
			w.resetTunnel(id)
		}
	}
}
