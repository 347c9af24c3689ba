package graph

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/graph-gophers/graphql-go"

	"causeway/analytics/store"
)

// Text and Number are what the fields of a Tunnel are made of.
type (
	Text   = text
	Number = number
)

// A Tunnel is one as the node that answers knows it now. Sizes are in bytes, ages in seconds; the schema says what each field is. Of keys
// nothing is here, not even their checksums: customers read it.
type Tunnel struct {
	TunnelName, TunnelID, Account, Kind, EdgePopName Text
	Endpoint, CustomerEndpoint                       Text
	InterfaceAddress, InterfaceAddress6              Text
	Prefixes                                         []Text
	Mtu, EffectiveMtu, PathMtu, MssIPv4, MssIPv6     Number
	RouteState                                       Text
	Health                                           *TunnelHealth // nil: it is not probed
	IpsecPairs                                       Number
	IkeFailure                                       Text
	IkeSas                                           []IKESA
	IkeElsewhere                                     []Text // nodes
	EspSas                                           []ESPSA
}

// TunnelHealth is what the node's probes say of a tunnel.
type TunnelHealth struct {
	State, Why, FleetState        Text
	SinceSeconds                  Number
	Probes, Lost, RttMicroseconds Number
	BfdState                      Text // empty: BFD is not spoken
}

// An IKESA is a security association of IKE with the pairs that it has made.
type IKESA struct {
	State, Role, Suite         Text
	LocalAddress, PeerAddress  Text
	LocalIdentity              Text
	PeerIdentity               Text
	NatLocal, NatPeer          bool
	AgeSeconds, RekeyInSeconds Number
	Pairs                      []IPsecPair
}

// An IPsecPair is the two associations of ESP that were negotiated together.
type IPsecPair struct {
	State, Suite, LocalSelectors, PeerSelectors Text
	SpiIn, SpiOut                               Number
	AgeSeconds, RekeyInSeconds                  Number
	PacketsIn, BytesIn, PacketsOut, BytesOut    Number
}

// An ESPSA is one association of ESP, negotiated or not.
type ESPSA struct {
	Direction, Encryption               Text
	Spi, Packets, Bytes, RefusedPackets Number
	Esn, UdpEncapsulation               bool
}

// entries is how many things of the answer a tunnel is, of those lists that were asked for.
func (t *Tunnel) entries(fields []string) int {
	n := 1
	for _, f := range fields {
		switch f {
		case "prefixes":
			n += len(t.Prefixes)
		case "ikeElsewhere":
			n += len(t.IkeElsewhere)
		case "espSas":
			n += len(t.EspSas)
		case "ikeSas":
			n += len(t.IkeSas)
		case "ikeSas.pairs":
			for i := range t.IkeSas {
				n += len(t.IkeSas[i].Pairs)
			}
		}
	}
	return n
}

// A tunnelList is what the node told last. Telling costs the control side more than it costs to ask, so it is asked once a second at
// most, whatever the number of streams.
type tunnelList struct {
	mu     sync.Mutex
	source func() []Tunnel // nil: there are none
	list   []Tunnel
	until  time.Time
}

func (l *tunnelList) at(now time.Time) []Tunnel {
	if l.source == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !now.Before(l.until) {
		l.list, l.until = l.source(), now.Add(time.Second)
	}
	return l.list
}

type tunnelArgs struct {
	Filter *struct{ TunnelName given }
}

// CausewayTunnels lists the tunnels of the account, and of no other.
func (a *account) CausewayTunnels(ctx context.Context, args tunnelArgs) ([]*Tunnel, error) {
	var name any
	if args.Filter != nil {
		name = args.Filter.TunnelName.value
	}
	only, ok := name.(string)
	if !ok && name != nil {
		return nil, at("filter: tunnelName", wrong(name, "text in quotes"))
	}
	if err := a.request.begin(); err != nil {
		return nil, err
	}
	out := []*Tunnel{}
	entries, fields := 0, graphql.SelectedFieldNames(ctx)
	list := a.request.tunnels.at(a.request.now)
	for i := range list {
		t := &list[i]
		if (a.tag != store.Operator && string(t.Account) != a.tag) || (name != nil && string(t.TunnelName) != only) {
			continue
		}
		out = append(out, t)
		entries += t.entries(fields)
	}
	return out, a.request.charge(entries)
}

// CausewayAccounts are the accounts that the token may see. Of a token for all they are those that the node knows, after the one that
// stands for everybody's rows.
func (v *viewer) CausewayAccounts() ([]text, error) {
	if err := v.request.begin(); err != nil { // the node makes the list anew for each alias
		return nil, err
	}
	names := slices.Clone(v.request.grant.accounts)
	if v.request.grant.covers(store.Operator) {
		names = nil
		if v.request.accounts != nil {
			names = slices.Clone(v.request.accounts())
		}
	}
	slices.Sort(names)
	if v.request.grant.covers(store.Operator) {
		names = slices.Insert(names, 0, store.Operator)
	}
	out := make([]text, len(names))
	for i, n := range names {
		out[i] = text(n)
	}
	return out, v.request.charge(len(out))
}
