package config

import (
	"net/netip"
	"slices"

	"github.com/goccy/go-yaml/ast"
)

// DefaultAccount is the account of tunnels that name none.
const DefaultAccount = "default"

const defaultTTL = 64

const (
	noBGP = "this version does not speak BGP itself, the host's bird or FRR does: write kernel_interface: true, and see docs/bgp.md"
)

var tunnelSchema = schema{
	fields: append(slices.Clip(commonFields), "key", "checksum", "sequence"),
	refused: map[string]string{
		"replay_protection": onlyIPsec,
		"replay_window":     onlyIPsec,
		"allow_null_cipher": onlyIPsec,
		"allow_weak":        onlyIPsec,
		"selectors":         onlyIPsec,
		"lab":               onlyIPsec,
		"manual_sas":        onlyIPsec,
		"ike":               onlyIPsec,
		"psk":               onlyIPsec,

		"keepalive": "keepalives are answered always, there is nothing to configure: remove the field",

		// what the Magic Transit API has and this file has not
		"cloudflare_gre_endpoint":  "unknown field: here it is endpoint",
		"cloudflare_endpoint":      "unknown field: here it is endpoint",
		"customer_gre_endpoint":    "unknown field: here it is customer_endpoint",
		"bgp":                      noBGP,
		"automatic_return_routing": "this version has no automatic return routing: write routes, and remove the field",
	},
}

// tunnels decodes the tunnels, as many as the file has.
func (d *decoder) tunnels(v value) []Tunnel {
	elements, _ := v.list("tunnels")
	list := make([]Tunnel, len(elements))
	for i, e := range elements {
		s := tunnelSchema
		if kind := e.textField("type"); kind != nil && kind.Value == "ipsec" {
			s = ipsecSchema
		}
		if f, ok := e.mapping(s); ok {
			d.tunnel(f, &list[i])
		}
	}
	return list
}

// textField returns a field of a mapping before its schema is known.
func (v value) textField(name string) *ast.StringNode {
	node, ok := v.node.(ast.MapNode)
	if !ok {
		return nil
	}
	for i := node.MapRange(); i.Next(); {
		if key, ok := i.Key().(*ast.StringNode); ok && key.Value == name {
			text, _ := i.Value().(*ast.StringNode)
			return text
		}
	}
	return nil
}

func (d *decoder) tunnel(f fields, t *Tunnel) {
	t.Account, t.PMTU, t.TTL = DefaultAccount, true, defaultTTL
	if v, ok := f.need("name", "a name of its own"); ok {
		t.Name, _ = v.tunnelName()
	}
	if v, ok := f.get("account"); ok {
		t.Account, _ = v.name()
	}
	ipsec := false
	if v, ok := f.get("type"); ok {
		i, _ := v.word("gre", "ipsec")
		ipsec = i == 1
	}
	d.tunnelAddresses(f, t)
	d.greHeader(f, t)
	if ipsec {
		d.ipsec(f, t)
	}
	d.tunnelSizes(f, t)
	if v, ok := f.get("pmtu"); ok {
		i, _ := v.word("on", "off")
		t.PMTU = i == 0
	}
	if v, ok := f.get("df"); ok {
		i, _ := v.word(dfWords...)
		t.DF = DFMode(i)
	}
	if v, ok := f.get("prefixes"); ok {
		t.Prefixes = d.tunnelPrefixes(v)
	}
	d.healthCheck(f, t)
	d.bfd(f, t)
	d.kernelInterface(f, t)
	if v, ok := f.get("sampling"); ok {
		if t.Sampling = v.sampling(); t.Sampling == 0 {
			t.Sampling = SamplingOff
		}
	}
}

func (v value) tunnelName() (string, bool) {
	s, ok := v.name()
	if ok && isAddress(s) {
		v.fail("%s reads as an address, and a route's nexthop could not tell: choose another name", quote(s))
		return "", false
	}
	return s, ok
}

func (d *decoder) tunnelAddresses(f fields, t *Tunnel) {
	if v, ok := f.need("endpoint", "one of the addresses under endpoints"); ok {
		t.Endpoint, _ = v.unicast()
	}
	if !f.given["ike"] || f.given["customer_endpoint"] {
		if v, ok := f.need("customer_endpoint", "the outer address of the customer's router"); ok {
			t.CustomerEndpoint, _ = v.unicast()
		}
	}
	if v, ok := f.need("interface_address", "our address inside the tunnel, such as 10.213.0.10/31"); ok {
		t.InterfaceAddress, _ = v.interfaceAddress()
	}
	if v, ok := f.get("interface_address6"); ok {
		t.InterfaceAddress6, _ = v.interfaceAddress6()
	}
}

// interfaceRanges are where interface addresses come from, as in the product.
var interfaceRanges = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("169.254.240.0/20"),
}

// interfaceAddress returns our side of a /31 (RFC 3021) or /30.
func (v value) interfaceAddress() (netip.Prefix, bool) {
	p, ok := v.anyPrefix("10.213.0.10/31")
	if !ok {
		return netip.Prefix{}, false
	}
	inRange := false
	for _, r := range interfaceRanges {
		inRange = inRange || r.Contains(p.Addr())
	}
	last := p.Addr().AsSlice()[p.Addr().BitLen()/8-1] & 3
	switch {
	case !p.Addr().Is4():
		v.fail("%s is not IPv4: an IPv6 address goes into interface_address6", p)
	case p.Bits() != 30 && p.Bits() != 31:
		v.fail("%s has the length /%d: it must be /31, or /30", p, p.Bits())
	case !inRange:
		v.fail("%s is not private: it must be in 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 169.254.240.0/20", p)
	case p.Bits() == 30 && (last == 0 || last == 3):
		first := p.Masked().Addr().Next()
		v.fail("%s is the network or broadcast address of its /30: use %s or %s", p.Addr(), first, first.Next())
	default:
		return p, true
	}
	return netip.Prefix{}, false
}

// interfaceAddress6 returns our side of a /127 (RFC 6164).
func (v value) interfaceAddress6() (netip.Prefix, bool) {
	p, ok := v.anyPrefix("fd00:213::a/127")
	if !ok {
		return netip.Prefix{}, false
	}
	kind, bad := reservedName(netip.PrefixFrom(p.Addr(), p.Addr().BitLen()))
	switch {
	case p.Addr().Is4():
		v.fail("%s is not IPv6: an IPv4 address goes into interface_address", p)
	case p.Bits() != 127:
		v.fail("%s has the length /%d: it must be /127", p, p.Bits())
	case bad:
		v.fail("%s is %s: use a unicast address, such as one of fd00::/8", p, kind)
	default:
		return p, true
	}
	return netip.Prefix{}, false
}

// greHeader decodes what the outer and GRE headers carry.
func (d *decoder) greHeader(f fields, t *Tunnel) {
	if v, ok := f.get("ttl"); ok {
		if i, ok := v.integer(1, 255); ok {
			t.TTL = uint8(i)
		}
	}
	if v, ok := f.get("key"); ok {
		i, _ := v.integer(0, 1<<32-1)
		t.Key, t.HasKey = uint32(i), true
	}
	if v, ok := f.get("checksum"); ok {
		v.boolean(&t.Checksum)
	}
	if v, ok := f.get("sequence"); ok {
		v.boolean(&t.Sequence)
	}
}

// tunnelSizes decodes mtu and mss_clamp. The limits depend on the header, so
// this comes after the endpoint, greHeader and ipsec.
func (d *decoder) tunnelSizes(f fields, t *Tunnel) {
	t.MTU = t.defaultMTU()
	if v, ok := f.get("mtu"); ok {
		d.mtu(v, t)
	}
	v, ok := f.get("mss_clamp")
	switch {
	case !ok || v.isWord("auto"):
		return
	case v.isWord("off"):
		t.MSSClamp.Mode = ClampOff
		return
	}
	if _, number := v.node.(*ast.IntegerNode); !number {
		v.fail("must be auto, off or a number of bytes, got %s", v)
		return
	}
	fits := int64(t.MTU - ipv4Header - tcpHeader)
	bytes, ok := v.anyInteger(minMSS, fits)
	switch {
	case !ok:
	case bytes > fits:
		v.fail("%d does not fit: an mtu of %d leaves %d bytes of TCP in IPv4; write auto or at most that", bytes, t.MTU, fits)
	case bytes < minMSS:
		v.fail("%d is too small: it must be at least %d bytes", bytes, minMSS)
	default:
		t.MSSClamp = MSSClamp{ClampBytes, int(bytes)}
	}
}

func (d *decoder) mtu(v value, t *Tunnel) {
	bytes, ok := v.anyInteger(minMTU, int64(t.maxMTU()))
	switch {
	case !ok:
	case bytes < minMTU:
		v.fail("%d is too small: it must be at least %d bytes (at least %d for IPv6 without fragments)", bytes, minMTU, ipv6MinMTU)
	case bytes > int64(t.maxMTU()) && (!t.Endpoint.IsValid() || t.IPsec != nil && t.IPsec.encryptions()[0].Name == ""):
		// without endpoint and encryption the headers' length is not known
	case bytes > int64(t.maxMTU()):
		v.fail("%d is too large: with %d bytes of outer headers a frame holds an mtu of at most %d; jumbo frames are not supported yet",
			bytes, t.Overhead(), t.maxMTU())
	default:
		t.MTU = int(bytes)
	}
}

// tunnelPrefixes decodes prefixes. A default route is refused: as inner source
// it would make the tunnel an open relay, as destination it would lead the
// whole Internet table to one customer.
func (d *decoder) tunnelPrefixes(v value) []netip.Prefix {
	elements, _ := v.list("prefixes")
	list := make([]netip.Prefix, len(elements))
	first := map[netip.Prefix]string{}
	for i, e := range elements {
		p, ok := e.prefix()
		if !ok {
			continue
		}
		if p.Bits() == 0 {
			e.fail("%s would accept any source and attract all traffic: list the customer's prefixes; "+
				"to send an account's other traffic here write a route", p)
			continue
		}
		if part, mixed := partlyPrivate(p); mixed {
			e.fail("%s is public and private, %s lies in it: list the parts apart", p, part)
			continue
		}
		if before, twice := first[p]; twice {
			e.fail("%s is listed twice, first as %s: remove one", p, before)
			continue
		}
		first[p], list[i] = e.path, p
	}
	return list
}
