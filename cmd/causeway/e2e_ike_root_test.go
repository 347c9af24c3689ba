package main_test

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"causeway/control/api"
)

// An ikeView is an IKE SA as one of the ends sees it, in words that are the same for both ends.
type ikeView struct {
	spis     string   // initiator's and responder's
	pairs    []string // SPIs of the node and of the router, of each pair of ESP associations
	ready    bool     // nothing of it is being replaced or deleted
	proposal string   // of IKE, in the node's words
	child    string   // of the first pair, likewise
}

// alive are the nodes whose daemons run.
func (b *ikeBed) alive() (list []*bed) {
	for _, x := range []*bed{b.bed, b.second, b.third} {
		if x != nil && x.daemon != nil {
			list = append(list, x)
		}
	}
	return list
}

// holder is the node that has a tunnel's IKE SA: any one, if none has it.
func (b *ikeBed) holder(tunnel string) *bed {
	list := b.alive()
	for _, x := range list {
		var its []api.IKE
		if err := api.NewClient(x.socket).Show("ike", &its); err != nil {
			continue
		}
		if slices.ContainsFunc(its, func(o api.IKE) bool { return o.Tunnel == tunnel && len(o.SAs) > 0 }) {
			return x
		}
	}
	return list[0]
}

// nodeViews asks the nodes for their IKE SAs by tunnel.
func (b *ikeBed) nodeViews(t *testing.T) map[string][]ikeView {
	t.Helper()
	m := map[string][]ikeView{}
	var list []api.IKE
	for _, x := range b.alive() {
		var its []api.IKE
		if err := api.NewClient(x.socket).Show("ike", &its); err != nil {
			t.Fatal(err)
		}
		list = append(list, its...)
	}
	for _, tunnel := range list {
		for _, sa := range tunnel.SAs {
			if sa.State == "opening" || sa.State == "proving" {
				continue
			}
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

// causeway is the operator's command; of all tunnels but one without its process, and with what that would ask for.
func (b *ikeBed) causeway(command string) func(x *ikeTunnel) error {
	words := map[string][]string{api.IKERekeySelf: {"rekey", "--ike"}}[command]
	if words == nil {
		words = []string{command}
	}
	return func(x *ikeTunnel) error {
		to := b.holder(x.name)
		if x != b.tunnels[0] {
			return api.NewClient(to.socket).CommandIKE(command, x.name)
		}
		out, err := to.node.Run(slices.Concat([]string{b.bin, "ike"}, words, []string{x.name, "--socket", to.socket})...)
		if err != nil {
			return fmt.Errorf("causeway ike %s: %w\n%s", strings.Join(words, " "), err, out)
		}
		return nil
	}
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

// pings sends a packet of each family through each tunnel, which must be answered. While the node that encrypts for a protected tunnel
// changes one may be lost, and is sent again.
func (b *ikeBed) pings(step string) {
	each(step+", ping", b.working(), func(x *ikeTunnel) error {
		echo := b.echo
		if x.protected {
			echo = func(from, to netip.Addr) error {
				if b.echo(from, to) == nil {
					return nil
				}
				return b.echo(from, to)
			}
		}
		return errors.Join(echo(x.from4(), x.inside4()), echo(x.from6(), x.inside6()))
	})
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
	b.step(t, "strongSwan deletes the child, and one is made anew", change{child: true}, func(x *ikeTunnel) error {
		if err := b.swanctl("--terminate", "--child")(x); err != nil {
			return err
		}
		return b.initiates(x) // else the node makes it
	})
	b.ends(t, "the node deletes", b.causeway(api.IKETerminate), 20*time.Second)

	swans := maps.Clone(b.swans)
	if full() { // a minute, until nobody waits for an answer any more
		b.step(t, "strongSwan initiates again", change{true, true}, b.initiates)
		for place, s := range b.swans {
			s.Kill()
			delete(b.swans, place)
		}
		b.ends(t, "strongSwan is killed", nil, 2*time.Minute)
	}

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
