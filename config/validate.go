package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// checker looks for mistakes that take more than one value to see. It goes on
// after mistakes in single values: what those left empty is passed over.
type checker struct {
	*decoder
	c        *Config
	tunnels  map[string]int  // index by name, the first of each
	accounts []string        // in the order of the file
	known    map[string]bool // the same as a set
}

// check notes what does not fit together in c, and fills in what one value
// says about another: accounts, and next hops that are far ends of tunnels.
func (d *decoder) check(c *Config) {
	k := &checker{decoder: d, c: c, tunnels: make(map[string]int, len(c.Tunnels)), known: map[string]bool{}}
	k.nodeAddress()
	k.interfaceNames()
	k.accountNames()
	for i := range c.Tunnels {
		k.tunnelName(i)
		k.tunnelAccount(i)
		k.tunnelEnds(i)
	}
	k.sameTunnels()
	k.sameSPIs()
	k.sameKeys()
	k.sameIdentities()
	k.sameSubnets()
	k.sameDevices()
	k.checkRoutes()
	k.checkPrefixes()
	k.checkCluster()
	k.checkAnalytics()
}

// at returns the position of a path, or of what contains it when the file does
// not have the field itself.
func (d *decoder) at(path string) position {
	for {
		if p, ok := d.where[path]; ok {
			return p
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return d.where[""]
		}
		path = path[:i]
	}
}

// fail notes a mistake in the value at path.
func (k *checker) fail(path, format string, args ...any) {
	k.failAt(k.at(path), path, format, args...)
}

// there names another place of the file.
func (k *checker) there(path string) string {
	return fmt.Sprintf("%s on %s", path, k.at(path))
}

func tunnelPath(i int, field string) string { return fmt.Sprintf("tunnels[%d].%s", i, field) }

func (k *checker) nodeAddress() {
	for i, e := range k.c.Endpoints {
		if e.IsValid() && e == k.c.Node.Address {
			k.fail("node.address", "%s is an endpoint (%s): every node answers on those; give this node an address of its own",
				e, k.there(fmt.Sprintf("endpoints[%d]", i)))
		}
	}
}

func (k *checker) interfaceNames() {
	first := map[string]string{}
	for i, f := range k.c.Interfaces {
		k.unique(first, f.Name, fmt.Sprintf("interfaces[%d].name", i), "an interface is listed")
	}
}

// unique notes a name that has been seen before.
func (k *checker) unique(first map[string]string, name, path, what string) {
	if name == "" {
		return
	}
	if before, twice := first[name]; twice {
		k.fail(path, "%s is taken by %s: %s once", quote(name), k.there(before), what)
		return
	}
	first[name] = path
}

func (k *checker) tunnelName(i int) {
	name := k.c.Tunnels[i].Name
	if name == "" {
		return
	}
	if before, twice := k.tunnels[name]; twice {
		k.fail(tunnelPath(i, "name"), "%s is taken by %s: names of tunnels are unique", quote(name), k.there(tunnelPath(before, "name")))
		return
	}
	k.tunnels[name] = i
}

// accountNames checks the accounts section; without one, accounts are those
// that the tunnels name.
func (k *checker) accountNames() {
	if len(k.c.Accounts) == 0 {
		for _, t := range k.c.Tunnels {
			if k.addAccount(t.Account) {
				k.c.Accounts = append(k.c.Accounts, Account{Name: t.Account})
			}
		}
		return
	}
	first := map[string]string{}
	peers := map[[2]string]bool{}
	for i, a := range k.c.Accounts {
		k.unique(first, a.Name, fmt.Sprintf("accounts[%d].name", i), "an account is listed")
		k.addAccount(a.Name)
		for _, p := range a.Peers {
			peers[[2]string{a.Name, p}] = true
		}
	}
	for i, a := range k.c.Accounts {
		k.accountPeers(i, a, peers)
	}
}

// addAccount reports whether the name is one, and new.
func (k *checker) addAccount(name string) bool {
	if name == "" || k.known[name] {
		return false
	}
	k.known[name] = true
	k.accounts = append(k.accounts, name)
	return true
}

// accountPeers demands that both accounts of a pair name the other: neither
// can open its network to the other by a mistake in one line.
func (k *checker) accountPeers(i int, a Account, peers map[[2]string]bool) {
	first := map[string]string{}
	for j, p := range a.Peers {
		path := fmt.Sprintf("accounts[%d].peers[%d]", i, j)
		switch {
		case p == "" || a.Name == "":
		case p == a.Name:
			k.fail(path, "%s is the account itself, whose tunnels reach each other anyway: remove it", quote(p))
		case !k.known[p]:
			k.fail(path, "there is no account %s: %s", quote(p), suggest(p, k.accounts))
		case !peers[[2]string{p, a.Name}]:
			k.fail(path, "%s does not name %s among its peers: peering needs both; add it there, or remove it here", quote(p), quote(a.Name))
		default:
			k.unique(first, p, path, "a peer is listed")
		}
	}
}

func (k *checker) tunnelAccount(i int) {
	if name := k.c.Tunnels[i].Account; name != "" && !k.known[name] {
		k.fail(tunnelPath(i, "account"), "%s is not listed under accounts: %s", quote(name), suggest(name, k.accounts))
	}
}

// tunnelEnds checks the outer addresses.
func (k *checker) tunnelEnds(i int) {
	t := k.c.Tunnels[i]
	// an endpoint with a mistake may be the one that is meant
	mistaken := slices.Contains(k.c.Endpoints, netip.Addr{})
	if t.Endpoint.IsValid() && !mistaken && !slices.Contains(k.c.Endpoints, t.Endpoint) {
		k.fail(tunnelPath(i, "endpoint"), "%s is not one of the endpoints%s: add it there, or use one of them", t.Endpoint, listed(k.c.Endpoints))
	}
	path, customer := tunnelPath(i, "customer_endpoint"), t.CustomerEndpoint
	switch {
	case !customer.IsValid():
	case t.Endpoint.IsValid() && t.Endpoint.Is4() != customer.Is4():
		k.fail(path, "%s is %s, but endpoint %s is %s: the two ends of a tunnel are of one family",
			customer, family(customer), t.Endpoint, family(t.Endpoint))
	case slices.Contains(k.c.Endpoints, customer):
		k.fail(path, "%s is an endpoint of our own: write the address of the customer's router", customer)
	case customer == k.c.Node.Address:
		k.fail(path, "%s is this node's own address: write the address of the customer's router", customer)
	}
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// listed shows a short list in parentheses, and nothing of a long or empty one.
func listed(addrs []netip.Addr) string {
	if len(addrs) == 0 || len(addrs) > 8 {
		return ""
	}
	words := make([]string, len(addrs))
	for i, a := range addrs {
		words[i] = a.String()
	}
	return " (" + strings.Join(words, ", ") + ")"
}

// sameTunnels finds tunnels whose packets could not be told apart.
func (k *checker) sameTunnels() {
	type outer struct {
		endpoint, customer netip.Addr
		hasKey             bool
		key                uint32
	}
	first := make(map[outer]int, len(k.c.Tunnels))
	for i, t := range k.c.Tunnels {
		if !t.Endpoint.IsValid() || !t.CustomerEndpoint.IsValid() || t.IPsec != nil {
			continue
		}
		o := outer{t.Endpoint, t.CustomerEndpoint, t.HasKey, t.Key}
		before, twice := first[o]
		if !twice {
			first[o] = i
			continue
		}
		key := "no key"
		if t.HasKey {
			key = fmt.Sprintf("key %d", t.Key)
		}
		k.fail(tunnelPath(i, "customer_endpoint"),
			"%s with endpoint %s and %s is the same as tunnel %s (%s): give one of them another key or endpoint",
			t.CustomerEndpoint, t.Endpoint, key, quote(k.c.Tunnels[before].Name), k.there(fmt.Sprintf("tunnels[%d]", before)))
	}
}

// sameSPIs finds associations that their receiver could not tell apart.
func (k *checker) sameSPIs() {
	first := map[uint32]int{}
	type outbound struct {
		customer netip.Addr
		spi      uint32
	}
	firstOut := map[outbound]int{}
	for i, t := range k.c.Tunnels {
		if t.IPsec == nil || t.IPsec.SA.SPIIn == 0 {
			continue
		}
		spi := t.IPsec.SA.SPIIn
		if before, twice := first[spi]; twice {
			k.fail(tunnelPath(i, "manual_sas[0].spi_in"), "%#x is taken by %s: packets to this node are told apart by it", spi,
				k.there(tunnelPath(before, "manual_sas[0].spi_in")))
			continue
		}
		first[spi] = i
		out := outbound{t.CustomerEndpoint, t.IPsec.SA.SPIOut}
		if before, twice := firstOut[out]; twice && out.spi != 0 {
			k.fail(tunnelPath(i, "manual_sas[0].spi_out"), "%#x is taken by %s, of the same customer_endpoint: it tells our packets apart by it", out.spi,
				k.there(tunnelPath(before, "manual_sas[0].spi_out")))
			continue
		}
		firstOut[out] = i
	}
}

// sameKeys finds keys of counter modes that two associations have: each end counts its IVs for itself, and one that comes
// twice under a key lays open what is in both packets (RFC 4106, section 2). With other algorithms two may have a key, but not
// the SPI toward the customer too: then they are one association, with one row of sequence numbers.
func (k *checker) sameKeys() {
	first := map[string]string{} // path by key
	rows := map[string]string{}  // by SPI and key
	for i, t := range k.c.Tunnels {
		if t.IPsec != nil && len(t.IPsec.SA.KeyOut) > 0 {
			row, path := fmt.Sprint(t.IPsec.SA.SPIOut, " ", string(t.IPsec.SA.KeyOut)), tunnelPath(i, "manual_sas[0].key_out")
			if before, twice := rows[row]; twice && !t.IPsec.encryption().Counter {
				k.fail(path, "and spi_out are those of %s too: both would count the same sequence numbers; make a new key", k.there(before))
			}
			rows[row] = path
		}
		if t.IPsec == nil || !t.IPsec.encryption().Counter || string(t.IPsec.SA.KeyIn) == string(t.IPsec.SA.KeyOut) {
			continue // the last is found where the pair is read
		}
		for _, key := range []struct {
			name string
			key  Secret
		}{{"key_in", t.IPsec.SA.KeyIn}, {"key_out", t.IPsec.SA.KeyOut}} {
			path := tunnelPath(i, "manual_sas[0]."+key.name)
			if before, twice := first[string(key.key)]; twice && len(key.key) > 0 {
				k.fail(path, "is the key of %s too: two packets could have one IV; make a new key", k.there(before))
			} else {
				first[string(key.key)] = path
			}
		}
	}
}

// sameSubnets finds interface addresses of one account in the same subnet.
func (k *checker) sameSubnets() {
	first := make(map[accountPrefix]string, len(k.c.Tunnels))
	for i, t := range k.c.Tunnels {
		k.subnet(first, t, t.InterfaceAddress, tunnelPath(i, "interface_address"))
		k.subnet(first, t, t.InterfaceAddress6, tunnelPath(i, "interface_address6"))
	}
}

// subnet notes in first the subnet of p, a /30 as its two /31, and fails where
// another tunnel has it.
func (k *checker) subnet(first map[accountPrefix]string, t Tunnel, p netip.Prefix, path string) {
	if !p.IsValid() {
		return
	}
	for _, h := range halves(p) {
		if before, twice := first[accountPrefix{t.Account, h}]; twice {
			k.fail(path, "%s shares its subnet with %s: each tunnel of an account (%s) needs one of its own",
				p, k.there(before), quote(t.Account))
			return
		}
	}
	for _, h := range halves(p) {
		first[accountPrefix{t.Account, h}] = path
	}
}

// halves are the subnet of p, a /30 as its two /31.
func halves(p netip.Prefix) []netip.Prefix {
	if p.Bits() != 30 {
		return []netip.Prefix{p.Masked()}
	}
	low := p.Masked().Addr()
	return []netip.Prefix{netip.PrefixFrom(low, 31), netip.PrefixFrom(low.Next().Next(), 31)}
}
