package main_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"causeway/control/api"
	"causeway/scripts/hosts"
)

// The bed of the end-to-end tests. Everything but the node is somebody else's: Linux kernels forward, encapsulate and
// run TCP, scapy makes what no kernel would send, and tshark says what was on the wire.
//
//	inet 192.0.2.10 --- vi  rt  n0 --- eth0 node   out of tunnels, and into them from the Internet
//	                        |   n1 --- eth1        GRE to and from the customers
//	                        |
//	                        vc --- vec0 guest vec1 --- srv  198.18.k.10
//	                                          vec2 --- srv2 the same, of other tunnels
//
// The node sends and receives customers' GRE on eth1 and all else on eth0. What it takes off a ring is not seen on its
// own interfaces, so the recordings are made at the router's.
const (
	endpoint4 = "203.0.113.1"
	endpoint6 = "2001:db8:113::1"
	inet4     = "192.0.2.10"
	inet6     = "2001:db8:2::10"

	// startLimit is generous: the machine may be building something else.
	startLimit = 60 * time.Second
)

type bed struct {
	net              *hosts.Net
	inet, rt, node   *hosts.Host
	cust             *hosts.Host // where the guest's line ends; without a guest, scapy's
	srv, srv2        *hosts.Host // behind the guest
	guest            *hosts.Guest
	dir, bin, socket string
	name, more       string // of the node, and further fields of its section
	daemon           *hosts.Process
}

type bedOptions struct {
	queues0, queues1 int  // of eth0 and eth1
	guest            bool // with a customer's router, else scapy is the customer
}

// newBed builds the topology. The daemon is started by run.
func newBed(t *testing.T, o bedOptions) *bed {
	t.Helper()
	n := hosts.New(t)
	b := &bed{net: n, inet: n.Host("inet"), rt: n.Host("rt"), node: n.Host("node"), dir: t.TempDir(), name: "edge-1"}
	b.bin = n.Build("causeway/cmd/causeway")
	b.socket = filepath.Join(b.dir, "s")

	n.Link(b.rt, "vi", b.inet, "eth0", hosts.LinkOptions{})
	forwards(b.rt)
	b.rt.Addr("vi", "192.0.2.254/24", "2001:db8:2::fe/64")
	b.inet.Addr("eth0", inet4+"/24", inet6+"/64")
	b.inet.Route("default", "via", "192.0.2.254")
	b.inet.Route("default", "via", "2001:db8:2::fe")
	b.linkNode(o.queues0, o.queues1)

	b.cust = n.Host("cust")
	n.Link(b.rt, "vc", b.cust, "up0", hosts.LinkOptions{})
	b.rt.Addr("vc", "198.51.100.254/24", "2001:db8:c::fe/64")
	if o.guest {
		b.srv = n.Host("srv")
		b.srv2 = n.Host("srv2")
		n.Link(b.cust, "dn0", b.srv, "eth0", hosts.LinkOptions{})
		n.Link(b.cust, "dn1", b.srv2, "eth0", hosts.LinkOptions{})
		b.guest = b.cust.Guest("guest", "up0", "dn0", "dn1")
		b.guest.Addr("vec0", []string{"198.51.100.2/24", "2001:db8:c::2/64"}, "198.51.100.254", "2001:db8:c::fe")
	}
	return b
}

// linkNode joins node and router by two links with these numbers of queues; 0 is one.
func (b *bed) linkNode(queues0, queues1 int) {
	b.net.Link(b.rt, "n0", b.node, "eth0", hosts.LinkOptions{Queues: queues0})
	b.net.Link(b.rt, "n1", b.node, "eth1", hosts.LinkOptions{Queues: queues1})
	b.rt.Addr("n0", "172.31.1.254/24", "2001:db8:31::fe/64")
	b.rt.Addr("n1", "172.31.2.254/24", "2001:db8:32::fe/64")
	b.rt.Route(endpoint4, "via", "172.31.2.1")
	b.rt.Route(endpoint6, "via", "2001:db8:32::1")
	b.rt.Route("198.18.0.0/16", "via", "172.31.1.1")
	b.rt.Route("2001:db8:18::/48", "via", "2001:db8:31::1")
	b.node.Addr("eth0", "172.31.1.1/24", "2001:db8:31::1/64")
	b.node.Addr("eth1", "172.31.2.1/24", "2001:db8:32::1/64")
	b.node.Route("default", "via", "172.31.1.254")
	b.node.Route("default", "via", "2001:db8:31::fe")
	b.node.Route("198.51.100.0/24", "via", "172.31.2.254")
	b.node.Route("2001:db8:c::/64", "via", "2001:db8:32::fe")
}

// forwards makes a host a router without opinions about sources.
func forwards(h *hosts.Host) {
	for _, key := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		h.Sysctl(key, "1")
	}
	for _, key := range []string{"net.ipv4.conf.all.rp_filter", "net.ipv4.conf.default.rp_filter", "net.ipv4.conf.all.send_redirects",
		"net.ipv4.conf.default.send_redirects"} {
		h.Sysctl(key, "0")
	}
}

// A tunnel is one entry of `tunnels`; extra holds further lines of it, such as "key: 42".
type tunnel struct {
	name, account        string // account: "default" if empty
	endpoint, customer   string
	interface4           string
	interface6           string // may be empty
	extra                []string
	prefixes             []string
	customer4, customer6 string // the customer's side of the interface, for the tests
}

// configuration is the file for these tunnels. The top lines stand beside the sections that every test needs.
func (b *bed) configuration(tunnels []tunnel, top ...string) string {
	var s strings.Builder
	fmt.Fprintf(&s, "node: {name: %s, state_dir: %s%s}\ninterfaces: [{name: eth0}, {name: eth1}]\ncontrol: {socket: %s}\n", b.name, b.dir, b.more, b.socket)
	fmt.Fprintf(&s, "endpoints: [%s, %q]\n", endpoint4, endpoint6)
	for _, line := range top {
		fmt.Fprintln(&s, line)
	}
	fmt.Fprintln(&s, "tunnels:")
	for _, x := range tunnels {
		account := x.account
		if account == "" {
			account = "default"
		}
		fmt.Fprintf(&s, "  - name: %s\n    account: %s\n    endpoint: %q\n    customer_endpoint: %q\n    interface_address: %s\n",
			x.name, account, x.endpoint, x.customer, x.interface4)
		if x.interface6 != "" {
			fmt.Fprintf(&s, "    interface_address6: %q\n", x.interface6)
		}
		for _, line := range x.extra {
			fmt.Fprintf(&s, "    %s\n", line)
		}
		fmt.Fprintln(&s, "    prefixes:")
		for _, p := range x.prefixes {
			fmt.Fprintf(&s, "      - %q\n", p)
		}
	}
	return s.String()
}

// run starts the daemon with a configuration and returns when it forwards. A daemon that runs is ended first.
func (b *bed) run(t *testing.T, configuration string) {
	t.Helper()
	b.end(t)
	b.write(t, configuration)
	b.start()
}

func (b *bed) file() string { return filepath.Join(b.dir, "causeway.yaml") }

func (b *bed) write(t *testing.T, configuration string) {
	t.Helper()
	if err := os.WriteFile(b.file(), []byte(configuration), 0o644); err != nil {
		t.Fatal(err)
	}
}

// start starts the daemon with the file that is there. Every frame is watched, so that one used twice, or lost, ends
// the daemon with a message.
func (b *bed) start() {
	b.daemon = b.node.Start(b.bin, "run", "-c", b.file(), "--debug-frames")
	b.daemon.WaitLog("msg=forwarding", startLimit)
}

// end stops the daemon as its operator would, which must succeed.
func (b *bed) end(t *testing.T) {
	t.Helper()
	if b.daemon == nil {
		return
	}
	b.daemon.Signal(unix.SIGTERM)
	if err := b.daemon.Wait(startLimit); err != nil {
		t.Errorf("causeway run ended with %v; it printed:\n%s", err, b.daemon.Log())
	}
	b.daemon = nil
}

// show asks the daemon by its command line.
func show[T any](t *testing.T, b *bed, what string) (v T) {
	t.Helper()
	out, err := b.node.Run(b.bin, "show", what, "-o", "json", "--socket", b.socket)
	if err == nil {
		err = json.Unmarshal([]byte(out), &v)
	}
	if err != nil {
		t.Fatalf("causeway show %s: %v\n%s", what, err, out)
	}
	return v
}

// drops returns the packets dropped by reason; reasons with none are left out.
func (b *bed) drops(t *testing.T) map[string]int {
	t.Helper()
	m := map[string]int{}
	for _, d := range show[[]api.Drop](t, b, "drops") {
		if d.Packets > 0 {
			m[d.Reason] = int(d.Packets)
		}
	}
	return m
}

// newDrops is what was dropped since before.
func (b *bed) newDrops(t *testing.T, before map[string]int) map[string]int {
	t.Helper()
	m := b.drops(t)
	for reason, n := range before {
		if m[reason] -= n; m[reason] == 0 {
			delete(m, reason)
		}
	}
	return m
}

// part runs a part of a test. If it fails, what the daemon has dropped so far is logged.
func (b *bed) part(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		defer func() {
			if t.Failed() && b.daemon != nil {
				t.Logf("dropped: %v", b.drops(t))
				out, _ := b.node.Run(b.bin, "show", "ports", "--socket", b.socket)
				t.Logf("ports:\n%s", out)
			}
		}()
		f(t)
	})
}

// balance returns the account of all frames, which must come out even once traffic rests.
func (b *bed) balance(t *testing.T) api.Frames {
	t.Helper()
	var f api.Frames
	eventually(t, "in = out in `causeway show workers`", func() bool {
		f = show[api.Workers](t, b, "workers").Total
		return f.In == f.Out
	})
	return f
}

// eventually waits for something that must become true; how long it takes is not what is tested.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !f(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("did not come true in 30 s: %s", what)
		}
	}
}

// must runs a command in a host for a subtest.
func must(t *testing.T, h *hosts.Host, command ...string) string {
	t.Helper()
	out, err := h.Run(command...)
	if err != nil {
		t.Fatalf("%s: %s: %v\n%s", h.Name, strings.Join(command, " "), err, out)
	}
	return out
}

// sh runs shell text in the guest for a subtest.
func (b *bed) sh(t *testing.T, text string) string {
	t.Helper()
	out, err := b.guest.Sh(text)
	if err != nil {
		t.Fatalf("%v: %.500s\n%s", err, text, out)
	}
	return out
}

// full reports whether the long tables are wanted (make test-full).
func full() bool { return os.Getenv("CAUSEWAY_FULL") != "" }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }
