package main_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Where a customer's router is.
const (
	inGuest = "guest" // strongSwan with a Linux kernel's ESP
	inUser  = "user"  // strongSwan with kernel-libipsec: ESP in UDP alone, and no ESN
)

// An ikeTunnel is a tunnel whose other end is a connection of strongSwan.
type ikeTunnel struct {
	number   int
	name     string
	place    string // inGuest or inUser
	v6       bool   // outer
	nat      bool   // the router is behind a NAT
	anywhere bool   // the node is not told where the router is
	vti      bool   // route-based: a VTI device, and selectors that take anything
	initiate bool   // the node begins by itself

	proposals, child   string   // in strongSwan's words, at both ends
	theirs, theirChild string   // strongSwan's, where they differ
	localID, remoteID  string   // the node's and the router's; empty: the addresses
	credential         string   // kind of certificates; empty: a PSK
	weak, null         bool     // what the tunnel permits
	connection         string   // further lines of strongSwan's connection
	childTiming        string   // and of its child
	lifetime           string   // of the node's SAs, where it is not the usual one
	want, wantChild    string   // words of what must have been agreed on, where that is not the whole proposal
	protected          bool     // replay_protection
	probed             bool     // health_check and bfd
	device             bool     // kernel_interface
	health             string   // health_check, if it is not probed
	window             int      // the node's, in packets; 0: the usual one
	udp                bool     // ESP in UDP although there is no NAT
	errs               []string // what went wrong
	told               int      // of them, how many are in the log
	ikeSPIs, childSPIs string   // as the two ends last agreed
}

// A variant is what one tunnel has differently from others.
type variant struct {
	name string
	set  func(x *ikeTunnel)
}

// ikeTable is the tunnels of the test: at both places each suite once, and each way to be known and to be reached once. One
// tunnel has one of each kind, so that there are not too many.
func ikeTable() []*ikeTunnel {
	var list []*ikeTunnel
	for _, place := range []string{inGuest, inUser} {
		suites := suiteVariants(place)
		ways := slices.Concat(identityVariants(), certificateVariants(), pathVariants(place))
		for i := range max(len(suites), len(ways)) {
			s, w := suites[i%len(suites)], ways[i%len(ways)]
			x := &ikeTunnel{number: len(list) + 101, name: fmt.Sprintf("%s-%s-%s", place, s.name, w.name), place: place, v6: i%4 == 3}
			s.set(x)
			w.set(x)
			list = append(list, x)
		}
	}
	return list
}

// suiteVariants are each algorithm and each group.
func suiteVariants(place string) []variant {
	var list []variant
	add := func(name, proposals, child string, more ...func(x *ikeTunnel)) {
		list = append(list, variant{name, func(x *ikeTunnel) {
			x.proposals, x.child = proposals, child
			for _, f := range more {
				f(x)
			}
		}})
	}
	weak := func(x *ikeTunnel) { x.weak = true }
	null := func(x *ikeTunnel) { x.null = true }
	add("gcm128-ecp384", "aes128gcm16-prfsha384-ecp384", "aes128gcm16-ecp384")
	add("gcm128-ecp256", "aes128gcm16-prfsha256-ecp256", "aes256gcm16-ecp256")
	add("gcm256-ecp384", "aes256gcm16-prfsha384-ecp384", "aes256gcm16-ecp384")
	add("gcm256-ecp521", "aes256gcm16-prfsha512-ecp521", "aes128gcm16-ecp521")
	add("gcm128-x25519", "aes128gcm16-prfsha256-x25519", "chacha20poly1305-x25519")
	add("chacha-x25519", "chacha20poly1305-prfsha256-x25519", "aes128gcm16-x25519")
	add("chacha-modp3072", "chacha20poly1305-prfsha512-modp3072", "chacha20poly1305-modp3072")
	add("cbc128-sha256", "aes128-sha256-modp2048", "aes128-sha256-modp2048")
	add("cbc128-sha384", "aes128-sha384-ecp256", "aes128-sha256")
	add("cbc128-sha512", "aes128-sha512-modp3072", "aes256-sha256-modp3072")
	add("cbc256-sha256", "aes256-sha256-modp4096", "aes256-sha256-modp4096")
	add("cbc256-sha384", "aes256-sha384-ecp384", "aes256gcm16")
	add("cbc256-sha512", "aes256-sha512-ecp521", "aes256-sha256-ecp521")
	add("prf-apart", "aes256-sha256-prfsha512-ecp256", "aes128gcm16-modp2048")
	add("sha1-modp1536", "aes128-sha1-modp1536", "aes128-sha1-modp1536", weak)
	add("sha1-modp2048", "aes256-sha1-modp2048", "aes256-sha1", weak)
	add("null-sha256", "aes128gcm16-prfsha256-ecp256", "null-sha256-ecp256", null)
	add("null-sha1", "aes128gcm16-prfsha256-ecp256", "null-sha1-ecp256", null, weak)
	// What the two ends take when nobody says anything.
	add("defaults", "", "", func(x *ikeTunnel) { x.theirs, x.theirChild = "default", "default" })
	// The router's first group is not permitted: INVALID_KE_PAYLOAD, for the IKE SA and for new keys.
	add("other-group", "aes256gcm16-prfsha384-ecp384", "aes128gcm16-ecp384", func(x *ikeTunnel) {
		x.theirs, x.theirChild = "aes256gcm16-prfsha384-x25519-ecp384", "aes128gcm16-x25519-ecp384"
	})
	// Of several proposals the one that both have is not the first of either.
	add("second-choice", "chacha20poly1305-prfsha256-ecp256,aes128gcm16-prfsha256-x25519", "chacha20poly1305-ecp256,aes256gcm16-x25519", func(x *ikeTunnel) {
		x.theirs, x.theirChild = "aes256-sha512-modp4096,aes128gcm16-prfsha256-x25519", "aes256-sha256-modp4096,aes256gcm16-x25519"
		x.want, x.wantChild = "aes128gcm16-prfsha256-x25519", "aes256gcm16-x25519"
	})
	if place == inGuest {
		add("esn-gcm", "aes256gcm16-prfsha384-ecp384", "aes256gcm16-ecp384-esn")
		add("esn-cbc", "aes256-sha256-ecp256", "aes256-sha256-ecp256-esn")
		add("esn-chacha", "aes256gcm16-prfsha384-ecp384", "chacha20poly1305-esn")
	}
	return list
}

// identityVariants are each type of identity, with a PSK.
func identityVariants() []variant {
	list := []variant{{"id-address", func(*ikeTunnel) {}}}
	for _, id := range []struct{ name, local, remote string }{
		{"id-fqdn", "edge.example.net", "cust-1.example.net"},
		{"id-rfc822", "edge@example.net", "router@cust-2.example.net"},
		{"id-keyid", "keyid:edge", "keyid:customer three"},
		{"id-keyid-hex", "@#00ff10", "@#c0ffee04"},
		{"id-dn", "C=CH, O=Edge, CN=edge.example.net", "C=CH, O=Customer five, CN=router"},
		{"id-ipv4", "10.9.9.1", "10.9.9.2"},
		{"id-ipv6", "2001:db8:9::1", "2001:db8:9::2"},
	} {
		list = append(list, variant{id.name, func(x *ikeTunnel) { x.localID, x.remoteID = id.local, id.remote }})
	}
	return list
}

// pathVariants are what differs on the way.
func pathVariants(place string) []variant {
	nat := func(x *ikeTunnel) {
		x.nat, x.anywhere, x.v6, x.remoteID = true, true, false, x.name+".example.net"
	}
	list := []variant{
		{"anywhere", func(x *ikeTunnel) { x.anywhere, x.remoteID = true, place+".roaming.example.net" }},
		{"nat-1", nat},
		{"nat-2", nat},
		// strongSwan's default: ports 4500 from IKE_AUTH on, and addresses that it may change to.
		{"mobike", func(x *ikeTunnel) { x.connection = "mobike = yes" }},
		{"fragments", func(x *ikeTunnel) {
			x.connection, x.credential, x.localID, x.remoteID = "fragmentation = force", "rsa", "node.example.net", "fragments.example.net"
		}},
	}
	if place == inUser {
		return list // the rest needs a kernel
	}
	return append(list,
		variant{"nat-v6", func(x *ikeTunnel) { nat(x); x.v6 = true }},
		variant{"encap", func(x *ikeTunnel) { x.connection, x.udp, x.v6 = "encap = yes", true, false }},
		variant{"encap-v6", func(x *ikeTunnel) { x.connection, x.udp, x.v6 = "encap = yes", true, true }},
		variant{"vti", func(x *ikeTunnel) { x.vti, x.v6 = true, false }},
		variant{"initiate", func(x *ikeTunnel) { x.initiate = true }})
}

// outer is the router's own address; behind a NAT the node sees another.
func (x *ikeTunnel) outer() string {
	four, six := "198.51.100", "2001:db8:c:"
	switch {
	case x.nat && x.place == inGuest:
		four, six = "10.64.0", "fd64:"
	case x.nat:
		four, six = "10.65.0", "fd65:"
	case x.place == inUser:
		four, six = "198.51.101", "2001:db8:d:"
	}
	if x.v6 {
		return fmt.Sprintf("%s:%d", six, x.number)
	}
	return fmt.Sprintf("%s.%d", four, x.number)
}

func (x *ikeTunnel) endpoint() string {
	if x.v6 {
		return endpoint6
	}
	return endpoint4
}

// The router is pinged inside from an address for this tunnel alone, because kernel-libipsec makes a route to what is
// behind the node, and cannot have two to the same.
func (x *ikeTunnel) inside4() netip.Addr { return addr(fmt.Sprintf("198.18.%d.1", x.number)) }
func (x *ikeTunnel) inside6() netip.Addr { return addr(fmt.Sprintf("2001:db8:18:%d::1", x.number)) }
func (x *ikeTunnel) from4() netip.Addr   { return addr(fmt.Sprintf("192.0.2.%d", x.number)) }
func (x *ikeTunnel) from6() netip.Addr   { return addr(fmt.Sprintf("2001:db8:2::%d", x.number)) }

// ids are the identities of the node and of the router.
func (x *ikeTunnel) ids() (local, remote string) {
	local, remote = x.localID, x.remoteID
	if local == "" {
		local = x.endpoint()
	}
	if remote == "" {
		remote = x.outer()
	}
	return local, remote
}

func (x *ikeTunnel) psk() string { return fmt.Sprintf("the key of tunnel %d, %s", x.number, x.name) }

// inUDP reports whether its ESP is in UDP.
func (x *ikeTunnel) inUDP() bool { return x.place == inUser || x.nat || x.udp }

// configuration is the tunnel in the node's file. Keys and certificates are in dir.
func (x *ikeTunnel) configuration(dir string) string {
	var s strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&s, "    "+format+"\n", args...) }
	fmt.Fprintf(&s, "  - name: %s\n", x.name)
	line("type: ipsec")
	line("endpoint: %q", x.endpoint())
	if !x.anywhere {
		line("customer_endpoint: %q", x.outer())
	}
	line("interface_address: 10.213.%d.0/31", x.number)
	line("interface_address6: %q", fmt.Sprintf("fd00:213:%d::a/127", x.number))
	line("prefixes: [198.18.%d.0/24, %q]", x.number, fmt.Sprintf("2001:db8:18:%d::/64", x.number))
	line("allow_null_cipher: %v", x.null)
	line("replay_protection: %v", x.protected)
	if x.window > 0 {
		line("replay_window: %d", x.window)
	}
	if x.health != "" {
		line("health_check: %s", x.health)
	}
	if x.device {
		line("kernel_interface: true")
	}
	if x.probed {
		line("health_check: {type: request, target: %s, interval: 200ms, recovery: {clean: 10, hold: 1s}}", x.inside4())
		line("bfd: {multihop: true, interval: 200ms, multiplier: 5, hold: 1s}")
	}
	line("ike:")
	if x.credential == "" {
		line("  psk: {file: %s/%s.psk}", dir, x.name)
	} else {
		line("  certificate: %s/x509/node-%s.pem", dir, x.credential)
		line("  key: %s/private/node-%s.pem", dir, x.credential)
		line("  ca: %s/x509ca/ca.pem", dir)
	}
	if x.localID != "" {
		line("  local_id: %q", x.localID)
	}
	if x.remoteID != "" {
		line("  remote_id: %q", x.remoteID)
	}
	if x.proposals != "" {
		line("  proposals: [%s]", strings.ReplaceAll(x.proposals, ",", ", "))
	}
	if x.child != "" {
		line("  child_proposals: [%s]", strings.ReplaceAll(x.child, ",", ", "))
	}
	line("  allow_weak: %v", x.weak)
	line("  initiate: %v", x.initiate)
	line("  dpd: 5s")
	if x.lifetime != "" {
		line("  lifetime: %s", x.lifetime)
	}
	return s.String()
}

// swanctl is the tunnel as strongSwan has it: a connection and, if it has one, its secret. Connection and child have the
// tunnel's name.
func (x *ikeTunnel) swanctl() (connection, secret string) {
	auth, cert := "psk", ""
	if x.credential != "" {
		auth, cert = "pubkey", fmt.Sprintf("certs = cust-%s.pem", x.credential)
	}
	local, remote := x.ids()
	proposals, child := x.proposals, x.child
	if x.theirs != "" {
		proposals, child = x.theirs, x.theirChild
	}
	inside, outside := fmt.Sprintf("198.18.%d.0/24, 2001:db8:18:%d::/64", x.number, x.number), "0.0.0.0/0, ::/0"
	if x.probed {
		inside += fmt.Sprintf(", 10.213.%d.1/32", x.number) // where the router speaks BFD
	}
	marks := ""
	switch {
	case x.vti:
		inside, marks = outside, fmt.Sprintf("mark_in = %d\nmark_out = %d", x.number, x.number)
	case x.place == inUser:
		outside = fmt.Sprintf("%s/32, %s/128", x.from4(), x.from6())
	}
	marks += "\n" + x.childTiming
	more := x.connection
	if !strings.Contains(more, "mobike") {
		more += "\nmobike = no"
	}
	connection = fmt.Sprintf(`
%[1]s {
  version = 2
  local_addrs = %[2]s
  remote_addrs = %[3]s
  proposals = %[4]s
  %[5]s
  local {
    auth = %[6]s
    id = "%[7]s"
    %[8]s
  }
  remote {
    auth = %[6]s
    id = "%[9]s"
  }
  children {
    %[1]s {
      local_ts = %[10]s
      remote_ts = %[11]s
      esp_proposals = %[12]s
      %[13]s
    }
  }
}`, x.name, x.outer(), x.endpoint(), proposals, more, auth, remote, cert, local, inside, outside, child, marks)
	if x.credential == "" {
		secret = fmt.Sprintf("\nike-%s {\n  id-1 = \"%s\"\n  id-2 = \"%s\"\n  secret = \"%s\"\n}", x.name, local, remote, x.psk())
	}
	return connection, secret
}

// swanctlConf is swanctl.conf of the tunnels of a place.
func swanctlConf(tunnels []*ikeTunnel, place string) string {
	var connections, secrets strings.Builder
	for _, x := range tunnels {
		if x.place == place {
			c, s := x.swanctl()
			connections.WriteString(c)
			secrets.WriteString(s)
		}
	}
	return "connections {" + connections.String() + "\n}\nsecrets {" + secrets.String() + "\n}\n"
}
