package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"causeway/scripts/hosts"
)

// A router between the node and the customer has a link of 1400 bytes. Its ICMP error about an outer packet, made by
// the kernel, lowers the tunnel's MTU, and from then on the node itself says what fits.
func TestRootPathMTUIsLearned(t *testing.T) {
	b := newBed(t, 2, 1)
	router, far := b.net.Host("router"), b.net.Host("far")
	b.net.Link(b.node, "eth2", router, "eth0", hosts.LinkOptions{})
	b.net.Link(router, "eth1", far, "eth0", hosts.LinkOptions{MTU: 1400})
	b.node.Addr("eth2", "172.16.0.1/30")
	router.Addr("eth0", "172.16.0.2/30")
	router.Addr("eth1", "172.16.1.1/30")
	far.Addr("eth0", "172.16.1.2/30")
	router.Sysctl("net.ipv4.ip_forward", "1")
	router.Route("default", "via", "172.16.0.1")
	far.Route("default", "via", "172.16.1.1")
	b.node.Route("172.16.1.0/30", "via", "172.16.0.2")
	b.ports = append(b.ports, "eth2")
	tunnel := "{name: far, account: acme, endpoint: 192.0.2.1, customer_endpoint: 172.16.1.2, interface_address: 10.213.0.20/31, key: 5, prefixes: [203.0.113.0/25]%s}"

	b.configure(fmt.Sprintf(tunnel, ""))
	d := b.run()
	capture := b.inet.Capture("eth0", "icmp")
	ping := func() { _, _ = b.inet.Run("ping", "-c1", "-W1", "-M", "do", "-s", "1392", "203.0.113.9") } // 1420 bytes: fits 1472
	for end := time.Now().Add(5 * time.Second); b.tunnel("far").PathMTU == 0 && time.Now().Before(end); {
		ping() // the first ones may wait for neighbours
	}
	const inner = 1400 - 20 - 4 - 4
	if u := b.tunnel("far"); u.PathMTU != inner || u.EffectiveMTU != inner || u.MTU != 1472 {
		t.Fatalf("learned %+v, want %d", u, inner)
	}
	if !strings.Contains(d.Log(), "path MTU lowered") {
		t.Errorf("the log does not tell")
	}
	out, _ := b.inet.Run("ping", "-c1", "-W1", "-M", "do", "-s", "1392", "203.0.113.9")
	rows := b.net.Tshark(capture.Stop(), "icmp.type == 3 && icmp.code == 4", "ip.src", "icmp.mtu", "icmp.checksum.status")
	if len(rows) == 0 || !strings.HasPrefix(rows[len(rows)-1][0], endpoint) || rows[len(rows)-1][1] != fmt.Sprint(inner) {
		t.Errorf("the sender was told %v, want mtu %d from %s; ping said:\n%s", rows, inner, endpoint, out)
	}
	_, metrics := b.get("/metrics")
	for _, want := range []string{`causeway_path_mtu_reports_total{verdict="lowered"} 1`, fmt.Sprintf(`causeway_tunnel_effective_mtu_bytes{account="acme",tunnel="far"} %d`, inner)} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}

	// `pmtu: off` believes nobody, and a reload that says so forgets what was learned.
	b.configure(fmt.Sprintf(tunnel, ", pmtu: off"))
	b.reload()
	b.inet.MustRun("ip", "route", "flush", "cache")
	ping()
	if u := b.tunnel("far"); u.PathMTU != 0 || u.EffectiveMTU != 1472 {
		t.Errorf("with pmtu: off %+v", u)
	}
}

// Errors that nobody on the path could have sent change nothing.
func TestRootSpoofedPathMTUIsNotBelieved(t *testing.T) {
	b := newBed(t, 2, 1)
	b.echo()
	b.configure(custA)
	b.run()
	b.peer("198.51.100.2", 42, "203.0.113.9").works(0)
	b.inet.Scapy(`
def error(quote, mtu=1000, dst="192.0.2.1"):
    send(IP(src="198.51.100.200", dst=dst)/ICMP(type=3, code=4, nexthopmtu=mtu)/raw(quote)[:60])
def outer(key=42, src="192.0.2.1", dst="198.51.100.2", length=1400):
    return IP(raw(IP(src=src, dst=dst, len=length)/GRE(proto=0x800, key_present=1, key=key)/("x"*100)))
error(outer(key=7))
error(outer(dst="198.51.100.77"))
error(outer(), mtu=1400)
error(outer(src="192.0.2.11"))
error(outer(src="192.0.2.11"), dst="192.0.2.11")
error(IP(src="192.0.2.1", dst="198.51.100.2", len=1400)/UDP()/("x"*100))
`)
	// A customer says it, through its tunnel, with a quote that would be believed from outside: of a packet of ours, and
	// of the host's own.
	b.cust.Scapy(`
quote = raw(IP(src="192.0.2.1", dst="198.51.100.2", len=1400)/GRE(proto=0x800, key_present=1, key=42)/("x"*100))
error = IP(src="203.0.113.9", dst="192.0.2.1")/ICMP(type=3, code=4, nexthopmtu=1000)/quote[:60]
tunnel = IP(src="198.51.100.2", dst="192.0.2.1")/GRE(proto=0x800, key_present=1, key=42)
send(tunnel/error)
own = raw(IP(src="192.0.2.1", dst="192.0.2.10", len=1400, flags="DF")/ICMP()/("x"*100))
send(tunnel/IP(src="203.0.113.9", dst="192.0.2.1")/ICMP(type=3, code=4, nexthopmtu=600)/own)
`)
	// From outside the kernel believes nothing about pings either.
	b.inet.Scapy(`
own = raw(IP(src="192.0.2.1", dst="192.0.2.10", len=1400, flags="DF")/ICMP()/("x"*100))
send(IP(src="198.51.100.200", dst="192.0.2.1")/ICMP(type=3, code=4, nexthopmtu=600)/own)
`)
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, metrics := b.get("/metrics"); strings.Contains(metrics, `causeway_path_mtu_reports_total{reason="host_foreign_error",stage="route"} 2`) {
			break
		}
	}
	if u := b.tunnel("cust-a"); u.PathMTU != 0 {
		t.Errorf("believed: %+v", u)
	}
	_, metrics := b.get("/metrics")
	for verdict, n := range map[string]int{"lowered": 0, "wrong_header": 1, "not_gre": 1, "no_tunnel": 2, "implausible": 1, "misdirected": 1, "through_tunnel": 0} {
		if want := fmt.Sprintf(`causeway_path_mtu_reports_total{verdict=%q} %d`, verdict, n); !strings.Contains(metrics, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
	if out := b.node.MustRun("ip", "route", "get", "192.0.2.10"); strings.Contains(out, "mtu") {
		t.Errorf("the host's own route: %s", out)
	}
}
