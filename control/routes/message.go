package routes

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The kernel's messages, decoded by hand: netlink's own structures cost about 1 KiB of garbage per route, and lack
// RTA_NH_ID and next hop objects. Numbers are in host byte order, addresses in network order.

var errShort = errors.New("message is too short")

const rtaNextHopID = 30 // RTA_NH_ID, which golang.org/x/sys/unix lacks

// attributes walks over netlink attributes. A malformed one ends the walk.
type attributes struct{ rest []byte }

func (a *attributes) next() (kind uint16, value []byte, ok bool) {
	if len(a.rest) < unix.SizeofRtAttr {
		return 0, nil, false
	}
	n := int(binary.NativeEndian.Uint16(a.rest))
	if n < unix.SizeofRtAttr || n > len(a.rest) {
		return 0, nil, false
	}
	kind = binary.NativeEndian.Uint16(a.rest[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
	value = a.rest[unix.SizeofRtAttr:n]
	a.rest = a.rest[min((n+3)&^3, len(a.rest)):]
	return kind, value, true
}

func u32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}

func addrOf(b []byte) netip.Addr { a, _ := netip.AddrFromSlice(b); return a }

// routeMessage is RTM_NEWROUTE or RTM_DELROUTE. hops keeps its memory from message to message.
type routeMessage struct {
	prefix   netip.Prefix
	table    uint32
	tos      uint8
	kind     uint8 // RTN_*
	cloned   bool  // a cache entry
	metric   uint32
	nexthop  uint32 // next hop object, 0: none
	hops     []hop
	encap    bool // a hop has an encapsulation that only the kernel can add
	protocol uint8
}

// A hop is one of the next hops of a path. A path with a gateway has no resolution beyond its interface.
type hop struct {
	ifindex int
	gateway netip.Addr // invalid: the destination is on the link
	weight  uint16
}

func (r *routeMessage) decode(b []byte) error {
	if len(b) < unix.SizeofRtMsg {
		return errShort
	}
	*r = routeMessage{hops: r.hops[:0], tos: b[3], table: uint32(b[4]), protocol: b[5], kind: b[7]}
	r.cloned = binary.NativeEndian.Uint32(b[8:])&unix.RTM_F_CLONED != 0
	dst := netip.IPv6Unspecified()
	if b[0] == unix.AF_INET {
		dst = netip.IPv4Unspecified()
	} else if b[0] != unix.AF_INET6 {
		return nil // a family that is not ours: no prefix
	}
	single := hop{weight: 1}
	for a := (attributes{b[unix.SizeofRtMsg:]}); ; {
		kind, v, ok := a.next()
		if !ok {
			break
		}
		switch kind {
		case unix.RTA_DST:
			dst = addrOf(v)
		case unix.RTA_TABLE:
			r.table = u32(v)
		case unix.RTA_PRIORITY:
			r.metric = u32(v)
		case rtaNextHopID:
			r.nexthop = u32(v)
		case unix.RTA_MULTIPATH:
			r.multipath(v)
		default:
			r.encap = single.attribute(kind, v) || r.encap
		}
	}
	if len(r.hops) == 0 && single.ifindex != 0 {
		r.hops = append(r.hops, single)
	}
	if dst.BitLen() < int(b[1]) {
		return errShort
	}
	r.prefix = netip.PrefixFrom(dst, int(b[1])).Masked()
	return nil
}

// attribute takes what describes one hop, and reports whether it asks for an encapsulation.
func (h *hop) attribute(kind uint16, v []byte) (encap bool) {
	switch kind {
	case unix.RTA_OIF:
		h.ifindex = int(u32(v))
	case unix.RTA_GATEWAY:
		h.gateway = addrOf(v)
	case unix.RTA_VIA: // a gateway of the other family (RFC 8950): family, address
		if len(v) > 2 {
			h.gateway = addrOf(v[2:])
		}
	case unix.RTA_ENCAP, unix.RTA_ENCAP_TYPE, unix.RTA_NEWDST:
		return true
	}
	return false
}

// multipath decodes a list of struct rtnexthop, each with its attributes.
func (r *routeMessage) multipath(b []byte) {
	for len(b) >= unix.SizeofRtNexthop {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtNexthop || n > len(b) {
			return
		}
		h := hop{ifindex: int(int32(binary.NativeEndian.Uint32(b[4:]))), weight: uint16(b[3]) + 1}
		for a := (attributes{b[unix.SizeofRtNexthop:n]}); ; {
			kind, v, ok := a.next()
			if !ok {
				break
			}
			r.encap = h.attribute(kind, v) || r.encap
		}
		r.hops = append(r.hops, h)
		b = b[min((n+3)&^3, len(b)):]
	}
}

// neighbourMessage is RTM_NEWNEIGH or RTM_DELNEIGH.
type neighbourMessage struct {
	family  uint8
	ifindex int
	addr    netip.Addr
	mac     [6]byte
	hasMAC  bool
	state   uint16 // NUD_*
	flags   uint8  // NTF_*
	managed bool   // the kernel keeps it fresh (NTF_EXT_MANAGED)
}

func (n *neighbourMessage) decode(b []byte) error {
	if len(b) < unix.SizeofNdMsg {
		return errShort
	}
	*n = neighbourMessage{
		family:  b[0],
		ifindex: int(int32(binary.NativeEndian.Uint32(b[4:]))),
		state:   binary.NativeEndian.Uint16(b[8:]),
		flags:   b[10],
	}
	for a := (attributes{b[unix.SizeofNdMsg:]}); ; {
		kind, v, ok := a.next()
		if !ok {
			return nil
		}
		switch kind {
		case netlink.NDA_DST:
			n.addr = addrOf(v)
		case netlink.NDA_LLADDR:
			if n.hasMAC = len(v) == len(n.mac); n.hasMAC {
				copy(n.mac[:], v)
			}
		case netlink.NDA_FLAGS_EXT:
			n.managed = u32(v)&netlink.NTF_EXT_MANAGED != 0
		}
	}
}

// linkMessage is RTM_NEWLINK or RTM_DELLINK.
type linkMessage struct {
	family  uint8
	ifindex int
	flags   uint32 // IFF_*
	name    string
	mac     [6]byte
	mtu     int
	parent  int    // IFLA_LINK
	vlan    uint16 // with isVLAN
	isVLAN  bool   // an 802.1Q sub-interface
}

func (l *linkMessage) decode(b []byte) error {
	if len(b) < unix.SizeofIfInfomsg {
		return errShort
	}
	*l = linkMessage{family: b[0], ifindex: int(int32(binary.NativeEndian.Uint32(b[4:]))), flags: binary.NativeEndian.Uint32(b[8:])}
	for a := (attributes{b[unix.SizeofIfInfomsg:]}); ; {
		kind, v, ok := a.next()
		if !ok {
			return nil
		}
		switch kind {
		case unix.IFLA_IFNAME:
			l.name = unix.ByteSliceToString(v)
		case unix.IFLA_ADDRESS:
			if len(v) == len(l.mac) {
				copy(l.mac[:], v)
			}
		case unix.IFLA_MTU:
			l.mtu = int(u32(v))
		case unix.IFLA_LINK:
			l.parent = int(u32(v))
		case unix.IFLA_LINKINFO:
			l.info(v)
		}
	}
}

// info finds the VLAN of a sub-interface.
func (l *linkMessage) info(b []byte) {
	isVLAN := false
	for a := (attributes{b}); ; {
		kind, v, ok := a.next()
		if !ok {
			return
		}
		switch {
		case kind == unix.IFLA_INFO_KIND:
			isVLAN = unix.ByteSliceToString(v) == "vlan"
		case kind == unix.IFLA_INFO_DATA && isVLAN: // it follows the kind
			l.vlanData(v)
		}
	}
}

func (l *linkMessage) vlanData(b []byte) {
	l.isVLAN = true
	for a := (attributes{b}); ; {
		kind, v, ok := a.next()
		if !ok {
			return
		}
		switch {
		case kind == unix.IFLA_VLAN_ID && len(v) >= 2:
			l.vlan = binary.NativeEndian.Uint16(v)
		case kind == unix.IFLA_VLAN_PROTOCOL && len(v) >= 2:
			l.isVLAN = binary.BigEndian.Uint16(v) == unix.ETH_P_8021Q
		}
	}
}

// addressMessage is RTM_NEWADDR or RTM_DELADDR.
type addressMessage struct {
	ifindex int
	scope   uint8
	addr    netip.Prefix
}

func (m *addressMessage) decode(b []byte) error {
	if len(b) < unix.SizeofIfAddrmsg {
		return errShort
	}
	*m = addressMessage{scope: b[3], ifindex: int(binary.NativeEndian.Uint32(b[4:]))}
	var addr, local netip.Addr
	for a := (attributes{b[unix.SizeofIfAddrmsg:]}); ; {
		kind, v, ok := a.next()
		if !ok {
			break
		}
		switch kind {
		case unix.IFA_ADDRESS:
			addr = addrOf(v)
		case unix.IFA_LOCAL: // where both are there, IFA_ADDRESS is the peer's
			local = addrOf(v)
		}
	}
	if !local.IsValid() {
		local = addr
	}
	m.addr = netip.PrefixFrom(local, int(b[1]))
	return nil
}

// objectMessage is RTM_NEWNEXTHOP or RTM_DELNEXTHOP: a hop, a group of other objects, or a blackhole.
type objectMessage struct {
	id        uint32
	hop       hop
	blackhole bool
	encap     bool
	members   []objectMember
}

// objectMember is one entry of a group of next hop objects.
type objectMember struct {
	id     uint32
	weight uint16
}

func (o *objectMessage) decode(b []byte) error {
	const header = 8 // struct nhmsg
	if len(b) < header {
		return errShort
	}
	*o = objectMessage{hop: hop{weight: 1}}
	for a := (attributes{b[header:]}); ; {
		kind, v, ok := a.next()
		if !ok {
			return nil
		}
		switch kind {
		case unix.NHA_ID:
			o.id = u32(v)
		case unix.NHA_OIF:
			o.hop.ifindex = int(u32(v))
		case unix.NHA_GATEWAY:
			o.hop.gateway = addrOf(v)
		case unix.NHA_BLACKHOLE:
			o.blackhole = true
		case unix.NHA_ENCAP_TYPE:
			o.encap = true
		case unix.NHA_GROUP:
			for ; len(v) >= 8; v = v[8:] { // struct nexthop_grp: id, weight - 1 in two halves since 6.12
				w := uint16(v[4]) | uint16(v[5])<<8
				o.members = append(o.members, objectMember{u32(v), min(w, 1<<16-2) + 1})
			}
		}
	}
}
