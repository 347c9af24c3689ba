package config

import (
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Cluster joins this node to others that answer on the same endpoints.
type Cluster struct {
	Servers []string // URLs of those that serve: this node is a leaf of one of them
	TLS     ClusterTLS
	Hub     netip.AddrPort // where this node serves others; the zero AddrPort: it does not. With Servers it is a relay, without a store
	Share   Share          // other hubs that have the store too
	NATS    *NATS          // Servers are a NATS deployment; nil: they are nodes
	Roster  string         // path of the file of the nodes that are admitted
	Away    WhileAway      // what becomes of new negotiations while the store is not reached
}

// WhileAway says what a node does with new negotiations while the cluster's store is not reached.
type WhileAway uint8

// What it may do.
const (
	AwayRefuse     WhileAway = iota // refuse them: no other node would have what they make
	AwayDatacenter                  // answer them: the nodes of its data center are told what they make, all others later
)

var awayNames = []string{AwayRefuse: "refuse", AwayDatacenter: "datacenter"}

func (a WhileAway) String() string { return awayNames[a] }

// Share is how a hub has the store in common with others: each has a replica, and a majority of them is the store.
type Share struct {
	Listen netip.AddrPort // where the others find this one; the zero AddrPort: this hub has the store alone
	Hubs   []string       // URLs of the others: an even number, so that there are an odd number of replicas
}

// NATS is what a deployment of NATS is like that is not made of nodes.
type NATS struct {
	Domain      string // of its JetStream
	Replicas    int    // of each bucket
	Credentials string // path of a file with NATS credentials; "": the certificate is enough
}

// ClusterTLS is paths of PEM files. Both ends of each connection show a
// certificate.
type ClusterTLS struct {
	Certificate, Key, CA string
}

var (
	clusterSchema = schema{fields: []string{"servers", "tls", "hub", "nats", "roster", "while_away"}}
	tlsSchema     = schema{fields: []string{"certificate", "key", "ca"}}
	hubSchema     = schema{fields: []string{"listen", "share"}}
	shareSchema   = schema{fields: []string{"listen", "hubs"}}
	natsSchema    = schema{fields: []string{"domain", "replicas", "credentials"}}
)

func (d *decoder) cluster(v value) *Cluster {
	f, ok := v.mapping(clusterSchema)
	if !ok {
		return nil
	}
	c := new(Cluster)
	if !f.given["servers"] && !f.given["hub"] {
		f.fail(`names nobody: write servers: ["tls://hub1.example.net:4222"], or hub: {listen: "0.0.0.0:4222"} where this node is to serve others`)
	}
	if v, ok := f.get("servers"); ok {
		c.Servers = d.servers(v)
	}
	if v, ok := f.get("hub"); ok {
		d.hub(v, f, c)
	}
	if v, ok := f.get("nats"); ok {
		d.nats(v, f, c)
	}
	if v, ok := f.need("tls", "{certificate: FILE, key: FILE, ca: FILE}: nodes know each other's connections by them"); ok {
		d.clusterTLS(v, &c.TLS)
	}
	if v, ok := f.need("roster", "the path of a file with a line for each node that is admitted: its name, and what `causeway cluster identity` prints there"); ok {
		c.Roster = v.rosterFile()
	}
	if v, ok := f.get("while_away"); ok {
		i, _ := v.word(awayNames...)
		c.Away = WhileAway(i)
	}
	return c
}

// hub decodes how this node serves others. cluster is the section around it.
func (d *decoder) hub(v value, cluster fields, c *Cluster) {
	f, ok := v.mapping(hubSchema)
	if !ok {
		return
	}
	if v, ok := f.need("listen", `the address and port where others find this node, such as "0.0.0.0:4222"`); ok {
		c.Hub, _ = v.listen()
	}
	v, ok = f.get("share")
	if !ok {
		return
	}
	if cluster.given["servers"] {
		v.fail("stands in a node that has servers: such a hub is a relay, and has no store to share; remove one of the two")
	}
	if f, ok = v.mapping(shareSchema); !ok {
		return
	}
	if v, ok := f.need("listen", `the address and port where the other hubs find this one, such as "0.0.0.0:4223"`); ok {
		c.Share.Listen, _ = v.listen()
		if c.Share.Listen.IsValid() && c.Share.Listen == c.Hub {
			v.fail("%s is where nodes find this hub: write another port", quote(c.Hub.String()))
		}
	}
	if v, ok := f.need("hubs", `the other hubs, such as ["tls://hub2.example.net:4223", "tls://hub3.example.net:4223"]`); ok {
		c.Share.Hubs = d.servers(v)
		if n := len(c.Share.Hubs); n > 0 && n != 2 && n != 4 {
			v.fail("names %d: with this one there are %d replicas, and 3 or 5 are possible, so that a majority lives when one dies; name 2 or 4", n, n+1)
		}
	}
}

// nats decodes what a NATS deployment is like.
func (d *decoder) nats(v value, cluster fields, c *Cluster) {
	if !cluster.given["servers"] {
		v.fail("stands in a node without servers: it says what the servers of a NATS deployment are like; write servers, or remove it")
	}
	f, ok := v.mapping(natsSchema)
	if !ok {
		return
	}
	n := &NATS{Replicas: 3}
	c.NATS = n
	if v, ok := f.need("domain", "the domain of its JetStream (jetstream { domain: ... } there)"); ok {
		n.Domain, _ = v.name()
	}
	if v, ok := f.get("replicas"); ok {
		if i, ok := v.integer(1, 5); ok {
			n.Replicas = int(i)
		}
	}
	if v, ok := f.get("credentials"); ok {
		n.Credentials = v.pemFile(true)
	}
}

func (d *decoder) clusterTLS(v value, t *ClusterTLS) {
	f, ok := v.mapping(tlsSchema)
	if !ok {
		return
	}
	for _, x := range []struct {
		name, hint string
		path       *string
	}{
		{"certificate", "the path of a file with this node's certificate in PEM", &t.Certificate},
		{"key", "the path of a file with the certificate's private key, which only its owner may read", &t.Key},
		{"ca", "the path of a file with the authorities that certify the nodes", &t.CA},
	} {
		if v, ok := f.need(x.name, x.hint); ok {
			*x.path = v.pemFile(x.name == "key")
		}
	}
}

// rosterFile returns the path of a file that is there. What is in it is found out at run.
func (v value) rosterFile() string {
	path, ok := v.absolutePath()
	if !ok {
		return ""
	}
	info, err := os.Stat(path)
	switch {
	case err != nil: // pemFile says why
	case !info.Mode().IsRegular() || info.Size() > pemLimit:
		v.fail("%s: not a file with a line for each node", quote(path))
		return ""
	case info.Mode().Perm()&0o022 != 0: // who writes a line there is given all keys
		v.fail("%s: others may change who is admitted (%04o): chmod 644", quote(path), info.Mode().Perm())
		return ""
	}
	return v.pemFile(false)
}

// servers are URLs such as tls://hub1.example.net:4222.
func (d *decoder) servers(v value) []string {
	elements, ok := v.list("URLs")
	if ok && len(elements) == 0 {
		v.fail(`is empty: list at least one, such as "tls://hub1.example.net:4222", or remove it`)
	}
	var list []string
	first := map[string]string{}
	for _, e := range elements {
		s, ok := e.textLike("a URL such as tls://hub1.example.net:4222")
		if !ok {
			continue
		}
		if strings.Contains(s, "@") { // what stands before it may be a password, and is not shown
			e.fail("has a user before the host, and nodes know each other by certificates: write tls://, a host and a port alone")
			continue
		}
		server, ok := comparableServer(s)
		if !ok {
			e.fail("%s is not the URL of a server: write tls://, a host and a port, and nothing else, as in tls://hub1.example.net:4222 or tls://[2001:db8::1]:4222", quote(s))
			continue
		}
		if before, twice := first[server]; twice {
			e.fail("%s is listed twice, first as %s: remove one", quote(s), before)
			continue
		}
		first[server] = e.path
		list = append(list, s)
	}
	return list
}

// comparableServer returns host and port of a URL in a form that is the same for
// all ways to write them. It is not ok if the URL has anything else.
func comparableServer(s string) (server string, ok bool) {
	u, err := url.Parse(s)
	if err != nil {
		return "", false
	}
	host := u.Hostname()
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	// url.Parse takes several hosts for one, and IPv6 without brackets: written anew these differ
	if err != nil || port == 0 || "tls://"+net.JoinHostPort(host, u.Port()) != s {
		return "", false
	}
	if a, err := netip.ParseAddr(host); err == nil {
		host = a.Unmap().String()
	} else if _, err := domainIdentity(host); err != nil || addressLike.MatchString(host) {
		return "", false
	}
	return net.JoinHostPort(strings.ToLower(host), strconv.FormatUint(port, 10)), true
}

// same reports whether the node's part in the cluster is the same. Servers have no order.
func (c *Cluster) same(d *Cluster) bool {
	if c == nil || d == nil {
		return c == d
	}
	nats := c.NATS == d.NATS || c.NATS != nil && d.NATS != nil && *c.NATS == *d.NATS
	return sameSet(c.Servers, d.Servers) && c.TLS == d.TLS && c.Hub == d.Hub && c.Roster == d.Roster &&
		c.Share.Listen == d.Share.Listen && sameSet(c.Share.Hubs, d.Share.Hubs) && c.Away == d.Away && nats
}

// checkCluster refuses what one node can do and several cannot (DESIGN
// section 4).
func (k *checker) checkCluster() {
	if k.c.Cluster == nil {
		return
	}
	if !k.given("node.address") {
		k.fail("node.address", "is missing: in a cluster each node has a unicast address of its own beside the endpoints")
	}
	if k.c.Cluster.Away == AwayDatacenter && k.c.Node.Datacenter == "" && !k.given("node.datacenter") {
		k.fail("cluster.while_away", "datacenter needs node.datacenter: the nodes of it are told what is negotiated while the store is away; write both, or refuse")
	}
	if n := k.c.Node.Name; strings.HasPrefix(n, ".") || strings.HasSuffix(n, ".") || strings.Contains(n, "..") {
		k.fail("node.name", "%s is not possible in a cluster: dots stand between other characters alone", quote(n))
	}
	for i, t := range k.c.Tunnels {
		switch manual := tunnelPath(i, "manual_sas"); {
		case t.Sequence:
			k.fail(tunnelPath(i, "sequence"), "true is not possible in a cluster: the numbers of several nodes are not one sequence; remove it")
		case t.IPsec.ike() != nil && !t.IPsec.ReplayProtection:
			k.noESN(tunnelPath(i, "ike.child_proposals"), t.IPsec.IKE.ChildProposals)
		case k.given(manual): // other tunnels than of IPsec cannot have them
			k.fail(manual, "are not possible in a cluster: several nodes would use one key without knowing of each other; write ike")
		}
	}
}

// given reports whether the file has a value at path, be it a mistake: nothing
// more is said of that one.
func (k *checker) given(path string) bool {
	_, ok := k.where[path]
	return ok
}

func (k *checker) noESN(path string, proposals []string) {
	for _, p := range proposals {
		if slices.Contains(strings.Split(p, "-"), "esn") {
			k.fail(path, "%s has esn, which in a cluster needs replay_protection: true, so that one node numbers the packets: a router cannot follow 64 bits of several counters; write that, or noesn", quote(p))
		}
	}
}
