package node

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"causeway/config"
	"causeway/control/cluster"
	"causeway/control/ike/sa"
	"causeway/crypto/aesgcm"
	"causeway/crypto/esp"
	"causeway/pipeline"
)

// leastSPI is the lowest SPI that means an association (RFC 4303, section 2.1).
const leastSPI = 256

// children is the associations that IKE negotiates: it has all of them, and tells the engine which a tunnel has now. It is what
// IKE sees of the node. Its methods may be called by any goroutine.
type children struct {
	vault  *aesgcm.Vault
	ivs    *esp.IVSource
	engine childEngine
	onMove func(tunnel string) // told when packets of a tunnel may go elsewhere, or under another SPI; nil: nobody is

	mu        sync.Mutex // not held while the workers are waited for
	closed    bool
	clustered bool // tunnels with replay protection have owners
	tunnels   map[string]*negotiated
	spis      map[uint32]*child // of those that are taken; nil: reserved
	manual    map[uint32]string // SPIs of the configuration, with their tunnels
}

// childEngine is what children needs of a *pipeline.Engine.
type childEngine interface {
	SetChildren(tunnel string, list []pipeline.SASpec) (wait func() error)
}

// negotiated is a tunnel with IKE.
type negotiated struct {
	of   config.Tunnel
	list []*child // in the order in which they are asked whether they want a packet
}

// child is a child, whose keys it has not.
type child struct {
	sa.Child
	in            *esp.Inbound
	out           *esp.Outbound
	source        *pipeline.PeerSource // nil: not behind NAT
	window        int
	inKey, outKey string // to tell them apart
}

func newChildren(vault *aesgcm.Vault, ivs *esp.IVSource) *children {
	return &children{vault: vault, ivs: ivs, tunnels: map[string]*negotiated{}, spis: map[uint32]*child{}, manual: map[uint32]string{}}
}

// count is how many there are, without those of tunnels to other nodes.
func (c *children) count() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, t := range c.tunnels {
		if !isPeer(name) {
			n += len(t.list)
		}
	}
	return n
}

// ReserveSPI is described with sa.Dataplane, like the other methods up to IV.
func (c *children) ReserveSPI() (uint32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range 100 {
		var b [4]byte
		rand.Read(b[:])
		spi := binary.BigEndian.Uint32(b[:])
		if _, taken := c.spis[spi]; taken || spi < leastSPI || c.manual[spi] != "" {
			continue
		}
		c.spis[spi] = nil
		return spi, nil
	}
	return 0, fmt.Errorf("no SPI is free: %d are in use", len(c.spis))
}

// Adopt is described with cluster.Dataplane.
func (c *children) Adopt(spi uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, taken := c.spis[spi]; taken || c.manual[spi] != "" {
		return fmt.Errorf("spi %#x is taken on this node", spi)
	}
	c.spis[spi] = nil
	return nil
}

// ReleaseSPI: see ReserveSPI.
func (c *children) ReleaseSPI(spi uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spis[spi] == nil {
		delete(c.spis, spi)
	}
}

// Install: see ReserveSPI.
func (c *children) Install(k *sa.Child) error {
	if err := checkChild(k); err != nil {
		return fmt.Errorf("tunnel %s: child %#x: %w", k.Tunnel, k.SPIIn, err)
	}
	c.mu.Lock()
	n, err := c.mayInstall(k)
	if err != nil {
		c.mu.Unlock()
		return err
	}
	made, err := c.make(k, n.of.IPsec)
	if err != nil {
		c.mu.Unlock()
		return fmt.Errorf("tunnel %s: child %#x: %w", k.Tunnel, k.SPIIn, err)
	}
	n.install(made)
	c.spis[k.SPIIn] = made
	wait := c.tell(k.Tunnel)
	c.mu.Unlock()
	if err := wait(); err != nil {
		c.remove(k.Tunnel, false, k.SPIIn)
		return err
	}
	c.moved(k.Tunnel)
	return nil
}

func checkChild(k *sa.Child) error {
	switch {
	case !k.Endpoint.IsValid() || k.Endpoint.Is4() != k.Peer.Addr().Is4():
		return fmt.Errorf("it cannot be between %s and %s", k.Endpoint, k.Peer)
	case k.UDP && k.Peer.Port() == 0:
		return errors.New("UDP to port 0")
	case k.SPIOut < leastSPI:
		return fmt.Errorf("the peer's spi %#x: 0 to 255 are reserved", k.SPIOut)
	}
	for _, p := range slices.Concat(k.Local, k.Remote) {
		if !p.IsValid() {
			return errors.New("a selector is no prefix")
		}
	}
	return nil
}

// mayInstall is called with the lock held.
func (c *children) mayInstall(k *sa.Child) (*negotiated, error) {
	n := c.tunnels[k.Tunnel]
	has, taken := c.spis[k.SPIIn]
	switch {
	case c.closed:
		return nil, errors.New("the node is closed")
	case n == nil:
		return nil, fmt.Errorf("tunnel %s: there is no tunnel of this name with ike", k.Tunnel)
	case !taken || has != nil:
		return nil, fmt.Errorf("tunnel %s: spi %#x was not reserved, or a child has it already", k.Tunnel, k.SPIIn)
	}
	prefixes := len(k.Local) + len(k.Remote)
	for _, o := range n.list {
		prefixes += len(o.Local) + len(o.Remote)
	}
	if prefixes > maxSelectors {
		return nil, fmt.Errorf("tunnel %s: the selectors of its children would have %d prefixes, %d at most are allowed", k.Tunnel, prefixes, maxSelectors)
	}
	return n, nil
}

// maxSelectors is how many prefixes all children of a tunnel may have in their selectors, with those that are being replaced. A
// packet costs hardly more with many (pipeline/policy.go), but a change of the tunnel's children takes half a millisecond with so
// many, during which no other tunnel's can change.
const maxSelectors = 1024

// make makes the associations of a child.
func (c *children) make(k *sa.Child, of *config.IPsec) (*child, error) {
	made := &child{Child: *k, window: of.ReplayWindow, inKey: keyID(k.KeyIn), outKey: keyID(k.KeyOut)}
	made.KeyIn, made.KeyOut = nil, nil
	made.Local, made.Remote = selectorsOf(k.Local), selectorsOf(k.Remote)
	if isAny(made.Local) {
		made.Local = nil
	}
	if isAny(made.Remote) {
		made.Remote = nil
	}
	var err error
	if made.in, err = esp.NewInbound(c.vault, esp.Params{SPI: k.SPIIn, Suite: k.Suite, Key: k.KeyIn, ESN: k.ESN, Life: k.Life}, made.window); err != nil {
		return nil, err
	}
	if made.out, err = esp.NewOutbound(c.vault, esp.Params{SPI: k.SPIOut, Suite: k.Suite, Key: k.KeyOut, ESN: k.ESN, Life: k.Life}, 1); err != nil {
		made.in.Wipe()
		return nil, err
	}
	if !c.clustered || !of.ReplayProtection { // else its owner reserves numbers
		// The keys die with the process, so no number can come again, and none has to be on disk.
		made.out.Mark(1<<64 - 1)
		if !k.ESN {
			made.out.Mark(allNumbers)
		}
	}
	if k.UDP && k.NAT {
		made.source = pipeline.NewPeerSource(k.Peer)
	}
	return made, nil
}

// selectorsOf brings prefixes into one form, to compare them.
func selectorsOf(list []netip.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, p := range list {
		out[i] = p.Masked()
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// isAny reports whether every address lies within a list.
func isAny(list []netip.Prefix) bool {
	return slices.Contains(list, netip.PrefixFrom(netip.IPv4Unspecified(), 0)) && slices.Contains(list, netip.PrefixFrom(netip.IPv6Unspecified(), 0))
}

// install puts a child before all others, or if there are some with its selectors, behind these: Use changes that.
func (n *negotiated) install(k *child) {
	at := 0
	for i, o := range n.list {
		if o.sameSelectors(k) {
			at = i + 1
		}
	}
	n.list = slices.Insert(n.list, at, k)
}

func (k *child) sameSelectors(o *child) bool {
	return slices.Equal(k.Local, o.Local) && slices.Equal(k.Remote, o.Remote)
}

// Use: see ReserveSPI.
func (c *children) Use(tunnel string, spiIn uint32) error {
	c.mu.Lock()
	n := c.tunnels[tunnel]
	i := n.index(spiIn)
	if i < 0 {
		c.mu.Unlock()
		return fmt.Errorf("tunnel %s: no child has spi %#x", tunnel, spiIn)
	}
	k := n.list[i]
	first := slices.IndexFunc(n.list, k.sameSelectors)
	if first == i {
		c.mu.Unlock()
		return nil
	}
	n.list = slices.Insert(slices.Delete(n.list, i, i+1), first, k)
	wait := c.tell(tunnel)
	c.mu.Unlock()
	if err := wait(); err != nil {
		return err
	}
	c.moved(tunnel)
	return nil
}

// Remove: see ReserveSPI.
func (c *children) Remove(tunnel string, spisIn ...uint32) { c.remove(tunnel, true, spisIn...) }

// remove ends children, and gives up their SPIs if free.
func (c *children) remove(tunnel string, free bool, spisIn ...uint32) {
	c.mu.Lock()
	var gone []*child
	n := c.tunnels[tunnel]
	for _, spi := range spisIn {
		if i := n.index(spi); i >= 0 {
			gone = append(gone, n.list[i])
			n.list = slices.Delete(n.list, i, i+1)
		}
	}
	if len(gone) == 0 {
		c.mu.Unlock()
		return
	}
	wait := c.tell(tunnel)
	c.mu.Unlock()
	_ = wait() // the tunnel may be gone, and its children with it
	c.end(gone, free)
	c.moved(tunnel)
}

// end wipes the keys of children that no worker uses.
func (c *children) end(gone []*child, free bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range gone {
		k.in.Wipe()
		k.out.Wipe()
		c.spis[k.SPIIn] = nil
		if free {
			delete(c.spis, k.SPIIn)
		}
	}
}

// Move: see ReserveSPI.
func (c *children) Move(tunnel string, spiIn uint32, peer netip.AddrPort) {
	c.mu.Lock()
	n := c.tunnels[tunnel]
	i := n.index(spiIn)
	if i < 0 || n.list[i].Peer == peer || peer.Addr().Is4() != n.list[i].Endpoint.Is4() || n.list[i].UDP && peer.Port() == 0 {
		c.mu.Unlock()
		return
	}
	n.list[i].Peer = peer
	if n.list[i].source != nil { // where packets came from before says nothing any more: IKE would move back
		n.list[i].source = pipeline.NewPeerSource(peer)
	}
	wait := c.tell(tunnel)
	c.mu.Unlock()
	_ = wait() // the tunnel may be gone
	c.moved(tunnel)
}

// Usage: see ReserveSPI.
func (c *children) Usage(tunnel string, spiIn uint32) (sa.Usage, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.tunnels[tunnel]
	i := n.index(spiIn)
	if i < 0 {
		return sa.Usage{}, false
	}
	k := n.list[i]
	u := k.usage()
	u.Source = k.elsewhere()
	return u, true
}

// elsewhere is where the newest authentic packet came from, if that is not the peer.
func (k *child) elsewhere() netip.AddrPort {
	if k.source == nil {
		return netip.AddrPort{}
	}
	s := k.source.Get()
	if s == k.Peer {
		return netip.AddrPort{}
	}
	return s
}

// IV: see ReserveSPI.
func (c *children) IV() (uint64, error) {
	iv, ok := c.ivs.One()
	if !ok {
		return 0, errors.New("no iv is reserved for this process: see node.state_dir")
	}
	return iv, nil
}

// usage is what the workers have done with a child.
func (k *child) usage() sa.Usage {
	return sa.Usage{PacketsIn: k.in.Packets(), BytesIn: k.in.Bytes(), PacketsOut: k.out.Packets(), BytesOut: k.out.Bytes(),
		SoftExpired: k.in.Soft() || k.out.Soft(), HardExpired: k.in.Hard() || k.out.Hard()}
}

var _ cluster.Dataplane = (*children)(nil)

// Received is described with cluster.Dataplane. Children of other nodes have no part in it: each packet of theirs is for this node.
func (c *children) Received(f func(spi uint32, highest uint64)) {
	type one struct {
		spi     uint32
		highest uint64
	}
	var list []one
	c.mu.Lock()
	for name, n := range c.tunnels {
		if isPeer(name) {
			continue
		}
		for _, k := range n.list {
			list = append(list, one{k.SPIIn, k.in.Received()})
		}
	}
	c.mu.Unlock()
	for _, x := range list {
		f(x.spi, x.highest)
	}
}

// Limited is described with cluster.Dataplane.
func (c *children) Limited(f func(spi uint32, u sa.Usage)) {
	list := map[uint32]sa.Usage{}
	c.mu.Lock()
	for name, n := range c.tunnels {
		for _, k := range n.list {
			if u := k.usage(); !isPeer(name) && (k.Life != esp.Life{} || u.SoftExpired || u.HardExpired) {
				list[k.SPIIn] = u
			}
		}
	}
	c.mu.Unlock()
	for spi, u := range list {
		f(spi, u)
	}
}

// Moved is described with cluster.Dataplane.
func (c *children) Moved(f func(spi uint32, highest uint64, from netip.AddrPort)) {
	type one struct {
		spi     uint32
		highest uint64
		from    netip.AddrPort
	}
	var list []one
	c.mu.Lock()
	for _, n := range c.tunnels {
		for _, k := range n.list {
			if from := k.elsewhere(); from.IsValid() {
				list = append(list, one{k.SPIIn, k.in.Received(), from})
			}
		}
	}
	c.mu.Unlock()
	for _, x := range list {
		f(x.spi, x.highest, x.from)
	}
}

// SetFloor is described with cluster.Dataplane.
func (c *children) SetFloor(spi uint32, floor uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.spis[spi]; k != nil && floor > uint64(k.window) {
		k.in.SetFloor(floor - uint64(k.window))
	}
}

// spisOf lists our SPIs of a tunnel's children, those first by which packets leave.
func (c *children) spisOf(tunnel string) (spis []uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.tunnels[tunnel]; n != nil {
		for _, k := range n.list {
			spis = append(spis, k.SPIIn)
		}
	}
	return spis
}

// outbound lists the associations for sending of a tunnel's children.
func (c *children) outbound(tunnel string) (list []outboundChild) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.tunnels[tunnel]; n != nil {
		for _, k := range n.list {
			list = append(list, outboundChild{k.SPIIn, k.out})
		}
	}
	return list
}

// An outboundChild is a child's association for sending.
type outboundChild struct {
	spiIn uint32
	out   *esp.Outbound
}

// index is where the child with an SPI is, or -1.
func (n *negotiated) index(spiIn uint32) int {
	if n == nil {
		return -1
	}
	return slices.IndexFunc(n.list, func(k *child) bool { return k.SPIIn == spiIn })
}

// tell tells the engine what children a tunnel has. It is called with the lock held, so that the engine learns of changes in
// their order.
func (c *children) tell(tunnel string) (wait func() error) {
	var list []pipeline.SASpec
	for _, k := range c.tunnels[tunnel].list {
		list = append(list, k.spec())
	}
	return c.engine.SetChildren(tunnel, list)
}

func (k *child) spec() pipeline.SASpec {
	return pipeline.SASpec{Inbound: []*esp.Inbound{k.in}, Outbound: k.out, UDP: k.UDP, Local: k.Local, Remote: k.Remote,
		Endpoint: k.Endpoint, Peer: k.Peer, NAT: k.NAT, Either: true, Source: k.source}
}

func (c *children) moved(tunnel string) {
	if c.onMove != nil {
		c.onMove(tunnel)
	}
}
