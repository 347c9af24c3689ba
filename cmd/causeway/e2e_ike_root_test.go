package main_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"causeway/control/api"
	"causeway/scripts/hosts"
)

// The bed of IKE: beside the guest of the other tests, whose kernel does ESP, a host in which strongSwan does it itself.
// Each has a second line, to which the rest of the world comes through a NAT.
//
//	rt  vc --- vec0 guest vec1 --+
//	    vn --- up   nat ---------+   masquerade
//	    vl --- eth0 user  eth1 --+
type ikeBed struct {
	*bed
	nat, user *hosts.Host
	keys      string // directory of PSKs and certificates
	tunnels   []*ikeTunnel
	swans     map[string]*hosts.Swan // by place
	client    *api.Client            // asks the node without a process for each of many questions
}

func newIKEBed(t *testing.T, tunnels []*ikeTunnel) *ikeBed {
	t.Helper()
	b := &ikeBed{bed: newBed(t, bedOptions{}), tunnels: tunnels, keys: t.TempDir(), swans: map[string]*hosts.Swan{}}
	b.client = api.NewClient(b.socket)
	makeCertificates(t, b.keys)
	for _, x := range tunnels {
		if err := os.WriteFile(filepath.Join(b.keys, x.name+".psk"), []byte(x.psk()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.linkCustomers()
	b.guest = b.cust.Guest("guest", "up0", "up1")
	// The guest's kernel would load them one after the other when the first tunnel is up, while that and the others wait.
	b.sh(t, "modprobe -a esp4 esp6 ip_vti xfrm_user gcm cbc ecb chacha20poly1305 authenc authencesn echainiv seqiv hmac sha256_generic sha1_generic crypto_null; true")
	b.addresses(t)
	return b
}

// linkCustomers joins router, NAT and user.
func (b *ikeBed) linkCustomers() {
	b.nat, b.user = b.net.Host("nat"), b.net.Host("user")
	b.net.Link(b.rt, "vl", b.user, "eth0", hosts.LinkOptions{})
	b.net.Link(b.rt, "vn", b.nat, "up", hosts.LinkOptions{})
	b.net.Link(b.nat, "g", b.cust, "up1", hosts.LinkOptions{})
	b.net.Link(b.nat, "u", b.user, "eth1", hosts.LinkOptions{})
	forwards(b.nat)
	b.rt.Addr("vl", "198.51.101.254/24", "2001:db8:d::fe/64")
	b.rt.Addr("vn", "198.51.102.254/24", "2001:db8:e::fe/64")
	b.nat.Addr("up", "198.51.102.1/24", "2001:db8:e::1/64")
	b.nat.Addr("g", "10.64.0.254/24", "fd64::fe/64")
	b.nat.Addr("u", "10.65.0.254/24", "fd65::fe/64")
	b.nat.Route("default", "via", "198.51.102.254")
	b.nat.Route("default", "via", "2001:db8:e::fe")
	b.nat.MustRun("nft", `table inet nat {
		chain post { type nat hook postrouting priority srcnat; oifname "up" masquerade fully-random
		}
	}`)
	for _, prefix := range []string{"198.51.101.0/24", "198.51.102.0/24"} {
		b.node.Route(prefix, "via", "172.31.2.254")
	}
	for _, prefix := range []string{"2001:db8:d::/64", "2001:db8:e::/64"} {
		b.node.Route(prefix, "via", "2001:db8:32::fe")
	}
}

// addresses gives both places what their tunnels need, and the Internet's host an address for each tunnel.
func (b *ikeBed) addresses(t *testing.T) {
	t.Helper()
	texts := map[string]*strings.Builder{inGuest: {}, inUser: {}, "inet": {}}
	add := func(place, address, dev string) {
		fmt.Fprintf(texts[place], "addr add %s dev %s%s\n", address, dev, map[bool]string{true: " nodad"}[strings.Contains(address, ":")])
	}
	devices := map[string][2]string{inGuest: {"vec0", "vec1"}, inUser: {"eth0", "eth1"}}
	for place, list := range map[string][4]string{inGuest: {"198.51.100.2/24", "2001:db8:c::2/64", "10.64.0.2/24", "fd64::2/64"},
		inUser: {"198.51.101.2/24", "2001:db8:d::2/64", "10.65.0.2/24", "fd65::2/64"}} {
		for i, address := range list {
			add(place, address, devices[place][i/2])
		}
	}
	for _, x := range b.tunnels {
		dev, bits := devices[x.place][0], "/24"
		if x.nat {
			dev = devices[x.place][1]
		}
		if x.v6 {
			bits = "/64"
		}
		add(x.place, x.outer()+bits, dev)
		add(x.place, x.inside4().String()+"/32", "lo")
		add(x.place, x.inside6().String()+"/128", "lo")
		add("inet", x.from4().String()+"/24", "eth0")
		add("inet", x.from6().String()+"/64", "eth0")
		if x.vti {
			fmt.Fprintf(texts[x.place], "link add vti%d type vti local %s remote %s key %[1]d\nlink set vti%[1]d up\n", x.number, x.outer(), x.endpoint())
			for family, from := range map[string]string{"": x.inside4().String(), "-6 ": x.inside6().String()} {
				fmt.Fprintf(texts[x.place], "%sroute add default dev vti%d table %[2]d\n%[1]srule add from %[3]s lookup %[2]d\n", family, x.number, from)
			}
		}
	}
	for place, gateways := range map[string][4]string{inGuest: {"198.51.100.254", "2001:db8:c::fe", "10.64.0", "fd64:"}, inUser: {"198.51.101.254", "2001:db8:d::fe", "10.65.0", "fd65:"}} {
		dev := devices[place]
		fmt.Fprintf(texts[place], "route add default via %s dev %s\n-6 route add default via %s dev %s\n", gateways[0], dev[0], gateways[1], dev[0])
		// What has an address behind the NAT leaves by it.
		fmt.Fprintf(texts[place], "route add default via %s.254 dev %s table 99\nrule add from %[1]s.0/24 lookup 99\n", gateways[2], dev[1])
		fmt.Fprintf(texts[place], "-6 route add default via %s:fe dev %s table 99\n-6 rule add from %[1]s:/64 lookup 99\n", gateways[3], dev[1])
	}
	batch := func(text string) string {
		return "while read -r line; do ip $line || exit; done <<'END'\n" + text + "END\n"
	}
	must(t, b.user, "bash", "-c", batch(texts[inUser].String()))
	must(t, b.inet, "bash", "-c", batch(texts["inet"].String()))
	// One process for the many, because each costs a tenth of a second in the guest; -batch takes one family.
	var four, six strings.Builder
	for line := range strings.Lines(texts[inGuest].String()) {
		if rest, ok := strings.CutPrefix(line, "-6 "); ok {
			six.WriteString(rest)
		} else {
			four.WriteString(line)
		}
	}
	b.sh(t, fmt.Sprintf("ip -batch - <<'END' || exit\n%sEND\nip -6 -batch - <<'END' || exit\n%sEND\nfor i in /proc/sys/net/ipv4/conf/vti*/disable_policy; do [ ! -e $i ] || echo 1 >$i; done",
		four.String(), six.String()))
}

// startSwans starts strongSwan at both places.
func (b *ikeBed) startSwans(t *testing.T) {
	t.Helper()
	certificates := files(t, b.keys)
	const settings = "delete_rekeyed_delay = 1\n" // seconds for which it keeps what was replaced
	// The guest's signs with RSA-PSS, the other with PKCS #1.
	b.swans[inGuest] = b.guest.Swan("swan", hosts.SwanOptions{Conf: swanctlConf(b.tunnels, inGuest), Files: certificates,
		Settings: settings + "rsa_pss = yes\ninstall_routes = no"}, b.rt, "198.51.100.2")
	b.swans[inUser] = b.user.Swan("swan", hosts.SwanOptions{Conf: swanctlConf(b.tunnels, inUser), Files: certificates, Settings: settings})
}

// ikeConfiguration is the node's file.
func (b *ikeBed) ikeConfiguration() string {
	s := b.configuration(nil)
	for _, x := range b.tunnels {
		s += x.configuration(b.keys)
	}
	return s
}

// An ikeView is an IKE SA as one of the ends sees it, in words that are the same for both ends.
type ikeView struct {
	spis     string   // initiator's and responder's
	pairs    []string // SPIs of the node and of the router, of each pair of ESP associations
	ready    bool     // nothing of it is being replaced or deleted
	proposal string   // of IKE, in the node's words
	child    string   // of the first pair, likewise
}

// nodeViews asks the node for its IKE SAs by tunnel.
func (b *ikeBed) nodeViews(t *testing.T) map[string][]ikeView {
	t.Helper()
	m := map[string][]ikeView{}
	var list []api.IKE
	if err := b.client.Show("ike", &list); err != nil {
		t.Fatal(err)
	}
	for _, tunnel := range list {
		for _, sa := range tunnel.SAs {
			v := ikeView{spis: sa.SPIInitiator + "/" + sa.SPIResponder, ready: sa.State == "established", proposal: sa.Suite}
			for _, c := range sa.Children {
				v.pairs = append(v.pairs, fmt.Sprintf("%08x/%08x", c.SPIIn, c.SPIOut))
				v.ready = v.ready && (c.State == "installed" || c.State == "new")
				v.child = c.Suite
			}
			slices.Sort(v.pairs)
			m[tunnel.Tunnel] = append(m[tunnel.Tunnel], v)
		}
	}
	return m
}

// swanViews asks both strongSwans.
func (b *ikeBed) swanViews() map[string][]ikeView {
	m := map[string][]ikeView{}
	for _, s := range b.swans {
		for _, sa := range s.SAs() {
			v := ikeView{spis: sa.Fields["initiator-spi"] + "/" + sa.Fields["responder-spi"], ready: sa.Fields["state"] == "ESTABLISHED"}
			for _, c := range sa.Children {
				v.pairs = append(v.pairs, fmt.Sprintf("%8s/%8s", c.Fields["spi-out"], c.Fields["spi-in"]))
				v.ready = v.ready && c.Fields["state"] == "INSTALLED"
			}
			slices.Sort(v.pairs)
			m[sa.Name] = append(m[sa.Name], v)
		}
	}
	return m
}

// working are the tunnels that have not failed yet: one that has is left out of what follows.
func (b *ikeBed) working() []*ikeTunnel {
	return slices.DeleteFunc(slices.Clone(b.tunnels), func(x *ikeTunnel) bool { return len(x.errs) > 0 })
}

func (x *ikeTunnel) fail(step, format string, args ...any) {
	x.errs = append(x.errs, step+": "+fmt.Sprintf(format, args...))
}

// tell logs how a step went, and what failed in it.
func (b *ikeBed) tell(t *testing.T, step string, began time.Time) {
	t.Helper()
	t.Logf("%s: %v, %d of %d tunnels work", step, time.Since(began).Round(100*time.Millisecond), len(b.working()), len(b.tunnels))
	for _, x := range b.tunnels {
		if n := len(x.errs); n > x.told {
			t.Logf("%s: %s", x.name, strings.Join(x.errs[x.told:], "\n"))
			x.told = n
		}
	}
}

// each does something to tunnels, several at a time.
func each(step string, tunnels []*ikeTunnel, f func(x *ikeTunnel) error) {
	var wg sync.WaitGroup
	slots := make(chan bool, 8)
	for _, x := range tunnels {
		wg.Go(func() {
			slots <- true
			defer func() { <-slots }()
			if err := f(x); err != nil {
				x.fail(step, "%v", err)
			}
		})
	}
	wg.Wait()
}

// Steps of each tunnel's life, each asked for at one of the ends.
func (b *ikeBed) swanctl(words ...string) func(x *ikeTunnel) error {
	return func(x *ikeTunnel) error {
		out, err := b.swans[x.place].Ctl(append(slices.Clone(words), x.name)...)
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	}
}

func (b *ikeBed) causeway(command string) func(x *ikeTunnel) error {
	return func(x *ikeTunnel) error { return b.client.CommandIKE(command, x.name) }
}

// What a step changes of a tunnel's SAs.
type change struct{ ike, child bool }

// agreed waits until both ends of each tunnel have the same IKE SA and pair, and no other. Those that the step changes must be
// new, and those that it does not change the old ones.
func (b *ikeBed) agreed(t *testing.T, step string, c change) {
	t.Helper()
	waiting := b.working()
	why := map[*ikeTunnel]string{}
	for end := time.Now().Add(20 * time.Second); len(waiting) > 0 && time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		node, swan := b.nodeViews(t), b.swanViews()
		waiting = slices.DeleteFunc(waiting, func(x *ikeTunnel) bool {
			why[x] = x.compare(node[x.name], swan[x.name], c)
			return why[x] == ""
		})
	}
	for _, x := range waiting {
		x.fail(step, "%s", why[x])
	}
}

// compare notes the SAs that both ends have, or returns why they are not as they should be.
func (x *ikeTunnel) compare(node, swan []ikeView, c change) string {
	seen := fmt.Sprintf("node %+v, strongSwan %+v", node, swan)
	if len(node) != 1 || len(swan) != 1 || !node[0].ready || !swan[0].ready || len(node[0].pairs) != 1 || len(swan[0].pairs) != 1 {
		return "not one IKE SA with one pair at each end: " + seen
	}
	n, s := node[0], swan[0]
	if n.spis != s.spis || n.pairs[0] != s.pairs[0] {
		return "the ends differ: " + seen
	}
	if (n.spis != x.ikeSPIs) != c.ike || (n.pairs[0] != x.childSPIs) != c.child {
		return fmt.Sprintf("before: IKE SA %s, pair %s; changes wanted: %+v; now %s", x.ikeSPIs, x.childSPIs, c, seen)
	}
	// The first pair has its keys from the IKE SA's exchange, and thus no group of its own.
	missing := missingWords(cmp.Or(x.want, x.proposals), n.proposal)
	if !c.ike {
		missing += missingWords(cmp.Or(x.wantChild, x.child), n.child)
	}
	if missing != "" {
		return fmt.Sprintf("%snot in what was agreed on: %s; %s", missing, n.proposal, n.child)
	}
	x.ikeSPIs, x.childSPIs = n.spis, n.pairs[0]
	return ""
}

// missingWords are the words of a proposal that are not in a suite.
func missingWords(proposal, suite string) (missing string) {
	have := strings.Split(suite, "-")
	for _, w := range strings.Split(proposal, "-") {
		if !slices.Contains(have, w) && w != "" {
			missing += w + " "
		}
	}
	return missing
}

// ends does something at one end of each tunnel after which neither end must have its SAs any more. Where the node begins by
// itself, there may be others by then.
func (b *ikeBed) ends(t *testing.T, step string, f func(x *ikeTunnel) error, limit time.Duration) {
	t.Helper()
	began := time.Now()
	if f != nil {
		each(step, b.working(), f)
	}
	waiting, seen := b.working(), map[*ikeTunnel]string{}
	for end := time.Now().Add(limit); len(waiting) > 0 && time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		node, swan := b.nodeViews(t), b.swanViews()
		waiting = slices.DeleteFunc(waiting, func(x *ikeTunnel) bool {
			seen[x] = fmt.Sprintf("node %+v, strongSwan %+v", node[x.name], swan[x.name])
			return !slices.ContainsFunc(append(node[x.name], swan[x.name]...), func(v ikeView) bool { return !x.initiate || v.spis == x.ikeSPIs })
		})
	}
	for _, x := range waiting {
		x.fail(step, "still there: %s", seen[x])
	}
	b.tell(t, step, began)
}

// pings sends a packet of each family through each tunnel, which must be answered.
func (b *ikeBed) pings(step string) {
	each(step+", ping", b.working(), func(x *ikeTunnel) error {
		return errors.Join(b.echo(x.from4(), x.inside4()), b.echo(x.from6(), x.inside6()))
	})
}

// echo is a ping from the Internet's host. It costs no process.
func (b *ikeBed) echo(from, to netip.Addr) error {
	network, protocol := "ip4:icmp", 1
	var request, answer icmp.Type = ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply
	if to.Is6() {
		network, protocol, request, answer = "ip6:ipv6-icmp", 58, ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	var conn *icmp.PacketConn
	var err error
	b.inet.Do(func() { conn, err = icmp.ListenPacket(network, from.String()) })
	if err != nil {
		return err
	}
	defer conn.Close()
	sent := &icmp.Echo{ID: rand.IntN(1 << 16), Seq: 1, Data: numbered(200)}
	text, err := (&icmp.Message{Type: request, Body: sent}).Marshal(nil)
	if err == nil {
		_, err = conn.WriteTo(text, &net.IPAddr{IP: to.AsSlice()})
	}
	if err != nil {
		return err
	}
	const patience = 10 * time.Second
	conn.SetReadDeadline(time.Now().Add(patience))
	for buf := make([]byte, 2048); ; {
		n, peer, err := conn.ReadFrom(buf)
		if err != nil {
			return fmt.Errorf("%v -> %v: no answer in %v", from, to, patience)
		}
		m, err := icmp.ParseMessage(protocol, buf[:n])
		if err != nil || m.Type != answer || peer.String() != to.String() {
			continue
		}
		if got, ok := m.Body.(*icmp.Echo); ok && got.ID == sent.ID && bytes.Equal(got.Data, sent.Data) {
			return nil
		}
	}
}

// step does something at one end of each tunnel, after which both ends must agree and packets pass.
func (b *ikeBed) step(t *testing.T, name string, c change, f func(x *ikeTunnel) error) {
	t.Helper()
	began := time.Now()
	each(name, b.working(), f)
	b.agreed(t, name, c)
	b.pings(name)
	b.tell(t, name, began)
}

// rekeys replaces what each tunnel has, from each side.
func (b *ikeBed) rekeys(t *testing.T, when string) {
	t.Helper()
	b.step(t, when+"strongSwan rekeys the child", change{child: true}, b.swanctl("--rekey", "--child"))
	b.step(t, when+"the node rekeys the child", change{child: true}, b.causeway(api.IKERekey))
	b.step(t, when+"strongSwan rekeys the IKE SA", change{ike: true}, b.swanctl("--rekey", "--ike"))
	b.step(t, when+"the node rekeys the IKE SA", change{ike: true}, b.causeway(api.IKERekeySelf))
}

// initiates has strongSwan begin, where the node does not begin by itself.
func (b *ikeBed) initiates(x *ikeTunnel) error {
	if x.initiate {
		return nil
	}
	return b.swanctl("--initiate", "--child")(x)
}

// wire looks at how packets of each tunnel leave and come: as ESP of their own, or in UDP.
func (b *ikeBed) wire(t *testing.T) {
	t.Helper()
	wire := b.rt.Capture("n1", "ip proto 50 or ip6 proto 50 or udp port 4500")
	b.pings("on the wire")
	seen := map[string]map[bool]int{} // packets by the router's address, and whether they are in UDP
	for _, row := range b.net.Tshark(wire.Stop(), "esp", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "udp.srcport") {
		for _, address := range row[:4] {
			if seen[address] == nil {
				seen[address] = map[bool]int{}
			}
			seen[address][row[4] != ""]++
		}
	}
	for _, x := range b.working() {
		address, packets := x.outer(), 4 // there and back in two families
		if x.nat {
			address = map[bool]string{false: "198.51.102.1", true: "2001:db8:e::1"}[x.v6]
		}
		if got := seen[address]; got[x.inUDP()] < packets || got[!x.inUDP()] != 0 {
			x.fail("on the wire", "%d packets of %s are in UDP and %d are not, want %d and in UDP: %v", got[true], address, got[false], packets, x.inUDP())
		}
	}
}

// TestRootIKE negotiates with strongSwan: the tunnels of ikeTable, side by side.
func TestRootIKE(t *testing.T) {
	tunnels := ikeTable()
	if testing.Short() { // the others in make test-full
		tunnels = slices.DeleteFunc(tunnels, func(x *ikeTunnel) bool { return x.number%3 != 0 })
	}
	if only := os.Getenv("CAUSEWAY_IKE"); only != "" { // for whoever looks for a fault
		tunnels = slices.DeleteFunc(tunnels, func(x *ikeTunnel) bool { return !strings.Contains(x.name, only) })
	}
	began := time.Now()
	b := newIKEBed(t, tunnels)
	b.run(t, b.ikeConfiguration())
	b.startSwans(t)
	t.Logf("the bed is made: %v", time.Since(began).Round(100*time.Millisecond))

	b.step(t, "strongSwan initiates", change{true, true}, b.initiates)
	b.wire(t)
	b.rekeys(t, "")
	b.ends(t, "strongSwan deletes", b.swanctl("--terminate", "--ike"), 20*time.Second)

	b.step(t, "the node initiates", change{true, true}, func(x *ikeTunnel) error {
		if x.anywhere || x.initiate {
			return b.initiates(x)
		}
		return b.causeway(api.IKEInitiate)(x)
	})
	b.rekeys(t, "after the node initiated, ")
	b.ends(t, "the node deletes", b.causeway(api.IKETerminate), 20*time.Second)

	b.step(t, "strongSwan initiates again", change{true, true}, b.initiates)
	swans := maps.Clone(b.swans)
	for place, s := range b.swans {
		s.Kill()
		delete(b.swans, place)
	}
	b.ends(t, "strongSwan is killed", nil, 2*time.Minute)

	for _, x := range b.tunnels {
		t.Run(x.name, func(t *testing.T) {
			for _, e := range x.errs {
				t.Error(e)
			}
			if t.Failed() {
				t.Logf("of the node's log:\n%s", linesWith(b.daemon.Log(), "tunnel="+x.name))
				t.Logf("of charon's log:\n%s", linesWith(swans[x.place].Log(), x.name, x.outer()))
			}
		})
	}
	b.end(t)
}

// linesWith are the lines of a text that have one of the words.
func linesWith(text string, words ...string) string {
	var list strings.Builder
	for line := range strings.Lines(text) {
		if slices.ContainsFunc(words, func(w string) bool { return strings.Contains(line, w) }) {
			list.WriteString(line)
		}
	}
	return list.String()
}
