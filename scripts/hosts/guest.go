package hosts

import (
	"fmt"
	"os/exec"
	"strings"
)

// Guest is a real Linux kernel of its own (Debian's user-mode-linux) behind interfaces of a host:
// a customer's router. It forwards IPv4 and IPv6. It has one processor without AES instructions,
// and every program of the machine; only /tmp can be written, and is its own.
type Guest struct {
	net  *Net
	id   string
	Name string
}

// Guest boots a guest, in about two seconds. Each of the interfaces, ends of links without an
// address, is bridged to the guest, where they are vec0, vec1... with the same MTU.
func (h *Host) Guest(name string, ifaces ...string) *Guest {
	h.net.t.Helper()
	need(h.net.t, "linux.uml", "user-mode-linux")
	g := &Guest{net: h.net, id: h.net.prefix + name, Name: name}
	out, err := g.customer("up", h.Netns, strings.Join(ifaces, ","))
	if err != nil {
		h.net.t.Fatalf("guest %s does not start: %v\n%s", name, err, out)
	}
	return g
}

// customer runs a verb of customer.sh on the guest.
func (g *Guest) customer(verb string, args ...string) (string, error) {
	cmd := exec.Command(script(g.net.t, "scripts/peers/customer.sh"), append([]string{verb, g.id}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Sh runs shell text in the guest as root and returns what it printed, standard output and errors
// together. The error is nil if the status was 0. One call costs a quarter of a second, so several
// commands belong in one text; it is given up after 60 seconds.
func (g *Guest) Sh(text string) (string, error) {
	out, err := g.customer("sh", text)
	if err != nil {
		return out, fmt.Errorf("guest %s: %w", g.Name, err)
	}
	return out, nil
}

// MustSh is Sh for text that has to succeed.
func (g *Guest) MustSh(text string) string {
	g.net.t.Helper()
	out, err := g.Sh(text)
	if err != nil {
		g.net.t.Fatalf("%v: %s\n%s", err, text, out)
	}
	return out
}

// Addr gives an interface addresses, each with its prefix length, and sets the default routes of
// the gateways' families. The gateways may be left out.
func (g *Guest) Addr(ifname string, prefixes []string, gateways ...string) {
	g.net.t.Helper()
	g.must("addr", ifname, strings.Join(prefixes, ","), strings.Join(gateways, ","))
}

// GRE makes a GRE device with addresses of its own inside. IPv6 outer addresses make an ip6gre
// device, which by default puts a destination option before GRE. Words are those of ip link:
// "key", "42", "seq", "csum", "encaplimit", "none".
func (g *Guest) GRE(device, local, remote string, inside []string, words ...string) {
	g.net.t.Helper()
	g.must("gre", append([]string{device, local, remote, strings.Join(inside, ",")}, words...)...)
}

func (g *Guest) must(verb string, args ...string) {
	g.net.t.Helper()
	if out, err := g.customer(verb, args...); err != nil {
		g.net.t.Fatalf("guest %s: %s %s: %v\n%s", g.Name, verb, strings.Join(args, " "), err, out)
	}
}

// Stop ends the guest at once. The end of the test does it too.
func (g *Guest) Stop() {
	g.net.t.Helper()
	g.must("down")
}
