package ike

import (
	"net/netip"
	"reflect"
	"slices"
	"time"

	"causeway/control/ike/auth"
	"causeway/control/ike/message"
	"causeway/control/ike/suite"
)

// A Tunnel is what a tunnel's two ends may agree on. It is not changed after SetTunnels.
type Tunnel struct {
	Name     string
	Endpoint netip.Addr
	Customer netip.Addr // not valid: the identity decides

	LocalID, RemoteID message.ID
	AnyID             bool // with a PSK: at the address Customer the peer may have any identity

	PSK         []byte // or
	Certificate *auth.Certificate
	Trust       *auth.Trust

	Proposals, ChildProposals []message.Proposal
	Local, Remote             []netip.Prefix // selectors; none: anything

	IKELife, ChildLife       time.Duration
	ChildPackets, ChildBytes uint64 // 0: without end
	DPD                      time.Duration
	Initiate                 bool
}

// same reports whether SAs that were made for t are right for u. What is only about when to do something may differ: it takes effect
// on the SAs that live.
func (t *Tunnel) same(u *Tunnel) bool {
	a, b := *t, *u
	for _, x := range []*Tunnel{&a, &b} {
		x.Certificate, x.Trust = nil, nil
		x.IKELife, x.ChildLife, x.DPD, x.Initiate = 0, 0, 0, false
	}
	return reflect.DeepEqual(a, b) && t.Certificate.Equal(u.Certificate) && t.Trust.Equal(u.Trust)
}

// An index finds tunnels by what a peer shows of itself. It is not changed after newIndex.
type index struct {
	byName     map[string]*Tunnel
	byID       map[identity][]*Tunnel // each tunnel with its local identity and without
	byPair     map[addressPair][]*Tunnel
	byEndpoint map[netip.Addr]*group // all tunnels of an endpoint
	pairs      map[addressPair]*group
	wanted     map[netip.Addr][]message.CertReq // certificates, by endpoint
	trusts     map[netip.Addr]*auth.Trust       // of one tunnel of an endpoint
}

type identity struct {
	endpoint      netip.Addr
	remote, local string // that equal ones have in common; local may be empty: any
}

type addressPair struct{ endpoint, customer netip.Addr }

// A group is tunnels any of which a peer may mean before it has said who it is: what may be agreed on with it is what one
// of them permits.
type group struct {
	proposals []message.Proposal
	words     map[string]bool
}

func (g *group) add(proposals []message.Proposal) {
	for _, p := range proposals {
		if w := suite.Words(p); !g.words[w] {
			g.words[w] = true
			g.proposals = append(g.proposals, p)
		}
	}
}

func newIndex(tunnels []*Tunnel) *index {
	x := &index{map[string]*Tunnel{}, map[identity][]*Tunnel{}, map[addressPair][]*Tunnel{}, map[netip.Addr]*group{}, map[addressPair]*group{}, map[netip.Addr][]message.CertReq{}, map[netip.Addr]*auth.Trust{}}
	for _, t := range tunnels {
		x.byName[t.Name] = t
		for _, local := range []*message.ID{nil, &t.LocalID} {
			id := identityOf(t.Endpoint, t.RemoteID, local)
			x.byID[id] = append(x.byID[id], t)
		}
		addTo(x.byEndpoint, t.Endpoint, t.Proposals)
		x.want(t)
		if t.Customer.IsValid() {
			pair := addressPair{t.Endpoint, t.Customer}
			x.byPair[pair] = append(x.byPair[pair], t)
			addTo(x.pairs, pair, t.Proposals)
		}
	}
	return x
}

// maxWanted bounds the authorities that a response names: 20 bytes each.
const maxWanted = 32

// want notes whose certificates are verified at an endpoint.
func (x *index) want(t *Tunnel) {
	if t.Trust == nil {
		return
	}
	x.trusts[t.Endpoint] = t.Trust
	for _, r := range t.Trust.Requests() {
		list := x.wanted[t.Endpoint]
		if !slices.ContainsFunc(list, func(o message.CertReq) bool { return slices.Equal(o.Authorities, r.Authorities) }) && len(list) < maxWanted {
			x.wanted[t.Endpoint] = append(list, r)
		}
	}
}

// requests is what IKE_SA_INIT asks for at an endpoint.
func (x *index) requests(endpoint netip.Addr) []message.CertReq { return x.wanted[endpoint] }

func addTo[K comparable](groups map[K]*group, key K, proposals []message.Proposal) {
	g := groups[key]
	if g == nil {
		g = &group{words: map[string]bool{}}
		groups[key] = g
	}
	g.add(proposals)
}

func identityOf(endpoint netip.Addr, remote message.ID, local *message.ID) identity {
	id := identity{endpoint: endpoint, remote: auth.Comparable(remote)}
	if local != nil {
		id.local = auth.Comparable(*local)
	}
	return id
}

// proposals is what may be agreed on with a peer of which only the addresses are known.
func (x *index) proposals(endpoint, customer netip.Addr) []message.Proposal {
	if g := x.pairs[addressPair{endpoint, customer}]; g != nil {
		return g.proposals
	}
	if g := x.byEndpoint[endpoint]; g != nil {
		return g.proposals
	}
	return nil
}

// find returns the tunnel of a peer: by its identity, among several by its address, by the address alone if the identity is
// that of an address which a NAT has changed.
func (x *index) find(endpoint, customer netip.Addr, remote message.ID, local *message.ID) *Tunnel {
	list := x.byID[identityOf(endpoint, remote, local)]
	for _, t := range list {
		if t.Customer == customer {
			return t
		}
	}
	if len(list) > 0 {
		return list[0]
	}
	for _, t := range x.byPair[addressPair{endpoint, customer}] {
		if t.AnyID && t.PSK != nil && (local == nil || auth.SameID(t.LocalID, *local)) {
			return t
		}
	}
	return nil
}
