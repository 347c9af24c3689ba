package main_test

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"causeway/scripts/hosts"
)

// TestRootCapture captures beside a running daemon; tshark reads what was written.
func TestRootCapture(t *testing.T) {
	b := newCraftedBed(t)
	b.run(t, b.configuration(captureTunnels()))
	b.warmCapture(t)
	b.part(t, "every verdict", b.testCaptureVerdicts)
	b.part(t, "limits", b.testCaptureLimits)
	again := b.cust.Start("/usr/bin/python3", "-c", fmt.Sprintf(`
from scapy.all import *
conf.verb = 0
s = conf.L2socket(iface="up0")
packets = []
def send(p): packets.append(bytes(Ether(src=%q, dst=%q) / p))
%s
print("sending", flush=True)
while True:
    for p in packets: s.outs.send(p)
    time.sleep(.05)`, b.cust.MAC("up0"), b.rt.MAC("vc"), mixed))
	again.WaitLog("sending", startLimit)
	b.part(t, "filters", b.testCaptureFilters)
	b.part(t, "one at a time", b.testCaptureAlone)
	b.part(t, "files", b.testCaptureFiles)
	b.part(t, "trace", b.testTrace)
	again.Stop()
	b.balance(t)
	b.end(t)
}

// captureTunnels are two of one account, and one with a key of another account.
func captureTunnels() []tunnel {
	var out []tunnel
	for k, account := range []string{"acme", "acme", "zeta"} {
		x := newTunnel(k+1, fmt.Sprintf("cust-%c", 'a'+k), endpoint4, nil).tunnel
		x.account = account
		if account == "zeta" {
			x.extra = append(x.extra, "key: 42")
		}
		out = append(out, x)
	}
	return out
}

// warmCapture has next hops resolved.
func (b *bed) warmCapture(t *testing.T) {
	t.Helper()
	at, far := b.cust.Capture("up0", "proto 47"), b.inet.Capture("eth0", "udp port 9")
	b.inet.Scapy("for i in range(10): send(IP(dst='198.18.1.10')/UDP(dport=9)); time.sleep(.02)")
	b.customer(fmt.Sprintf("for i in range(10): send(IP(src='198.51.100.11', dst=%q)/GRE()/IP(src='198.18.1.10', dst=%q)/UDP(dport=9)); time.sleep(.02)", endpoint4, inet4))
	in, out := at.Stop(), far.Stop()
	if len(b.net.Tshark(in, "", "frame.number")) == 0 || len(b.net.Tshark(out, "", "frame.number")) == 0 {
		t.Fatal("nothing of ten packets came through")
	}
}

// startCapturing starts `causeway capture` or trace, and returns when it has begun.
func (b *bed) startCapturing(args ...string) *hosts.Process {
	p := b.node.Start(append(append([]string{b.bin}, args...), "--socket", b.socket)...)
	p.WaitLog("at most ", startLimit)
	return p
}

// mixed is what a customer sends: each packet has a port of its own.
var mixed = fmt.Sprintf(`
e, far = %q, %q
a = lambda p: IP(src="198.51.100.11", dst=e)/GRE()/p
send(a(IP(src="198.18.1.10", dst=far)/UDP(sport=7001, dport=7001)/("out of cust-a")))
send(a(IP(src="198.18.1.10", dst="198.18.2.10")/UDP(sport=7002, dport=7002)))
send(a(IP(src="198.18.9.9", dst=far)/UDP(sport=7003, dport=7003)))
send(IP(src="198.51.100.77", dst=e)/GRE()/IP(src="198.18.1.10", dst=far)/UDP(sport=7004, dport=7004))
send(IP(src="198.51.100.13", dst=e)/GRE(key_present=1, key=42)/IP(src="198.18.3.10", dst=far)/TCP(sport=7005, dport=443, flags="S", options=[("MSS", 1460)]))
for f in fragment(IP(src="198.51.100.11", dst=e, id=77)/GRE()/IP(src="198.18.1.10", dst=far)/UDP(sport=7006, dport=7006)/("x"*1000), fragsize=600): send(f)
`, endpoint4, inet4)

// comments are those of a capture's packets, by interface and then UDP or TCP source port of the innermost packet.
func (b *bed) comments(file string) map[string]string {
	out := map[string]string{}
	for _, f := range b.net.Tshark(file, "", "frame.interface_name", "udp.srcport", "tcp.srcport", "frame.comment", "ip.frag_offset") {
		out[f[0]+" "+f[1]+f[2]] = f[3]
	}
	return out
}

func (b *bed) testCaptureVerdicts(t *testing.T) {
	file := filepath.Join(b.dir, "all.pcapng")
	p := b.startCapturing("capture", "gre or host 198.51.100.11", "-w", file, "--packets", "8", "--seconds", "20")
	b.customer(mixed)
	b.customer(fmt.Sprintf(`send(IP(src="198.51.100.11", dst=%q)/GRE()/IP(src="198.18.1.10", dst="10.213.1.0")/ICMP())`, endpoint4))
	if err := p.Wait(startLimit); err != nil {
		t.Fatalf("%v: %s", err, p.Log())
	}
	if log := p.Log(); !strings.Contains(log, "8 packets: these were as many as were wanted; of ") {
		t.Errorf("it says at its end: %s", log)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	got := b.comments(file)
	for at, want := range map[string]string{
		"7001": "came by eth1, came out of tunnel cust-a (account acme), forwarded by eth0",
		"7002": "came by eth1, came out of tunnel cust-a (account acme), into tunnel cust-b (account acme), forwarded by eth1",
		"7003": "came by eth1, came out of tunnel cust-a (account acme), dropped: inner_source (the inner source is not in the tunnel's prefixes; RFC 2827)",
		"7005": "came by eth1, came out of tunnel cust-c (account zeta), forwarded by eth0",
	} {
		outer, inner := got["eth1 "+at], got["decapsulated "+at]
		if outer == "" || outer != inner || !strings.HasSuffix(outer, want) || !strings.HasPrefix(outer, "packet ") {
			t.Errorf("port %s: outside %q, inside %q, want ...%q", at, outer, inner, want)
		}
	}
	if c := got["eth1 7004"]; !strings.Contains(c, "dropped: tunnel_unknown") || got["decapsulated 7004"] != "" {
		t.Errorf("of an unknown customer: %q, inside %q", c, got["decapsulated 7004"])
	}
	if c := got["decapsulated 7006"]; !strings.Contains(c, "forwarded by eth0") {
		t.Errorf("of fragments: %q; all %v", c, got)
	}
	// As it came: the payload and the MSS that was clamped afterwards; the two packets are told to be one.
	if f := b.net.Tshark(file, `frame.interface_name == "decapsulated" and tcp`, "tcp.options.mss_val", "ip.ttl", "frame.packet_id", "ip.checksum.status"); len(f) != 1 || f[0][0] != "1460" || f[0][1] != "64" || f[0][2] == "" {
		t.Errorf("the SYN as it came: %v", f)
	}
	if f := b.net.Tshark(file, "", "frame.encap_type", "frame.interface_name"); len(f) < 12 {
		t.Errorf("%d packets: %v", len(f), f)
	}
	for _, f := range b.net.Tshark(file, "_ws.malformed", "frame.number") {
		t.Errorf("malformed: %v", f)
	}
}

func (b *bed) testCaptureFilters(t *testing.T) {
	for filter, want := range map[string]string{
		"tunnel cust-b":                     "7002",
		"dropped and src tunnel cust-a":     "7003",
		"reason tunnel_unknown":             "7004",
		"account zeta and tcp dst port 443": "7005",
		"dst net 198.18.2.0/24":             "7002",
	} {
		file := filepath.Join(b.dir, "filter.pcapng")
		p := b.startCapturing("capture", filter, "-w", file, "--packets", "1", "--seconds", "20", "--snaplen", "70")
		if err := p.Wait(startLimit); err != nil {
			t.Fatalf("%s: %v: %s", filter, err, p.Log())
		}
		got := b.net.Tshark(file, "frame.number == 1", "udp.srcport", "tcp.srcport", "frame.cap_len")
		length := map[string]string{"7005": "70"}[want] // of 86
		if len(got) != 1 || got[0][0]+got[0][1] != want || got[0][2] != cmp.Or(length, "66") {
			t.Errorf("%s: %v, want %s", filter, got, want)
		}
	}
	for _, x := range []struct{ filter, want string }{
		{"tunnel nobody", `word 2, "nobody"`}, {"tcp and", "it ends too early"}, {"host example.com", "names are not looked up"},
	} {
		out, err := b.node.Run(b.bin, "capture", x.filter, "-w", filepath.Join(b.dir, "none"), "--socket", b.socket)
		if err == nil || !strings.Contains(out, x.want) {
			t.Errorf("%s: %v: %s", x.filter, err, out)
		}
	}
	if _, err := os.Stat(filepath.Join(b.dir, "none")); !os.IsNotExist(err) {
		t.Errorf("a capture that was refused has made a file: %v", err)
	}
}

func (b *bed) testCaptureLimits(t *testing.T) {
	file := filepath.Join(b.dir, "limit.pcapng")
	began := time.Now()
	p := b.startCapturing("capture", "udp port 7001", "-w", file, "--seconds", "2", "--snaplen", "10000")
	b.customer(mixed)
	if err := p.Wait(startLimit); err != nil || time.Since(began) < 2*time.Second || !strings.Contains(p.Log(), "1 packet: after 2 s; of ") {
		t.Errorf("%v after %v: %s", err, time.Since(began), p.Log())
	}
	if n := len(b.net.Tshark(file, "", "frame.number")); n != 2 {
		t.Errorf("%d packets, want one outside and one inside", n)
	}
	// More at once than a capture takes: what is not looked at is told, and forwarded.
	before := b.balance(t).Forwarded
	p = b.startCapturing("capture", "udp port 7100", "-w", file, "--seconds", "5", "--packets", "10000")
	b.customer(fmt.Sprintf(`
p = bytes(Ether(src=%q, dst=%q)/IP(src="198.51.100.11", dst=%q)/GRE()/IP(src="198.18.1.10", dst=%q)/UDP(sport=7100, dport=9))
for i in range(20000): s.outs.send(p)
`, b.cust.MAC("up0"), b.rt.MAC("vc"), endpoint4, inet4))
	if err := p.Wait(startLimit); err != nil {
		t.Fatalf("%v: %s", err, p.Log())
	}
	packets := len(b.net.Tshark(file, `frame.interface_name == "eth1"`, "frame.number"))
	after := b.balance(t).Forwarded
	if packets < 1000 || packets > 10000 || after-before < 15000 || !strings.Contains(p.Log(), " were looked at") {
		t.Errorf("%d packets captured, %d forwarded: %s", packets, after-before, p.Log())
	}
	t.Logf("%s", p.Log())
}

func (b *bed) testCaptureAlone(t *testing.T) {
	p := b.startCapturing("capture", "udp port 1", "-w", filepath.Join(b.dir, "first.pcapng"), "--seconds", "60")
	out, err := b.node.Run(b.bin, "trace", "--socket", b.socket)
	if err == nil || !strings.Contains(out, "another capture runs, of process ") || !strings.Contains(out, "one at a time is possible: wait for it, or end") {
		t.Errorf("a second one: %v: %s", err, out)
	}
	p.Signal(unix.SIGKILL) // its end is seen by the daemon
	eventually(t, "a capture after one whose client was killed", func() bool {
		_, err := b.node.Run(b.bin, "trace", "--seconds", "1", "udp port 1", "--socket", b.socket)
		return err == nil
	})
	p = b.startCapturing("capture", "udp port 7001", "-w", filepath.Join(b.dir, "first.pcapng"), "--seconds", "60")
	eventually(t, "the packet in the file while the capture runs", func() bool {
		info, err := os.Stat(filepath.Join(b.dir, "first.pcapng"))
		return err == nil && info.Size() > 400
	})
	p.Signal(unix.SIGINT)
	if err := p.Wait(startLimit); err != nil || !strings.Contains(p.Log(), ": it was interrupted; of ") {
		t.Errorf("interrupted: %v: %s", err, p.Log())
	}
}

func (b *bed) testCaptureFiles(t *testing.T) {
	out, err := b.node.Run(b.bin, "capture", "-w", filepath.Join(b.dir, "no", "such", "x"), "--seconds", "5", "--socket", b.socket)
	if err == nil || !strings.Contains(out, "cannot be written: no such file or directory") {
		t.Errorf("a file that can not be: %v: %s", err, out)
	}
	p := b.node.Start(b.bin, "capture", "udp port 7001", "-w", "/dev/full", "--seconds", "20", "--socket", b.socket)
	if err := p.Wait(startLimit); err == nil || !strings.Contains(p.Log(), "/dev/full: cannot be written: no space left on device") {
		t.Errorf("a full disk: %v: %s", err, p.Log())
	}
	for _, x := range []struct{ args, want string }{{"capture", "wants a file"}, {"capture -w x --packets 10001", "1 to 10000"}, {"trace --seconds 301", "1 to 300"}, {"trace -o xml", "text and json"}} {
		if out, err := b.node.Run(append(append([]string{b.bin}, strings.Fields(x.args)...), "--socket", b.socket)...); err == nil || !strings.Contains(out, x.want) {
			t.Errorf("%s: %v: %s", x.args, err, out)
		}
	}
	p = b.startCapturing("capture", "udp port 7001", "-w", "-", "--packets", "1", "--seconds", "20")
	if err := p.Wait(startLimit); err != nil || !strings.Contains(p.Log(), "came out of tunnel cust-a") {
		t.Errorf("to standard output: %v", err)
	}
}

func (b *bed) testTrace(t *testing.T) {
	for filter, want := range map[string][]string{
		"udp port 7001": {"forwarded", "parse       came by eth1: gre 198.51.100.11 > " + endpoint4, "decap       out of tunnel cust-a (account acme): GRE; inside udp 198.18.1.10:7001 > 192.0.2.10:7001, 41 bytes",
			"inner       its headers", "route       the Internet's table: via 172.31.1.254 dev eth0", "size        41 bytes; 1500 may go there", "transmit    by eth0, to "},
		"udp port 7002": {"route       the table of account acme: into tunnel cust-b (account acme)", "encap       into tunnel cust-b (account acme): GRE, 52 bytes", "transmit    by eth1"},
		"udp port 7003": {"dropped", "inner       dropped: inner_source (the inner source is not in the tunnel's prefixes; RFC 2827)"},
		"tcp port 443":  {"GRE, key 42", "clamp       a SYN: its MSS is lowered to "},
		"ip proto 47 and host 198.51.100.11 and greater 400 and udp port 7006": {"reassembly  the last of 2 fragments"},
	} {
		p := b.startCapturing("trace", filter, "--packets", "1", "--seconds", "20")
		if err := p.Wait(startLimit); err != nil {
			t.Fatalf("%s: %v: %s", filter, err, p.Log())
		}
		at := 0
		for _, w := range want {
			i := strings.Index(p.Log()[at:], w)
			if i < 0 {
				t.Errorf("%s: %q is not there, or before others:\n%s", filter, w, p.Log())
				break
			}
			at += i
		}
		if filter == "udp port 7003" && (strings.Contains(p.Log(), "route  ") || strings.Contains(p.Log(), "transmit  ")) {
			t.Errorf("stages that it did not come to:\n%s", p.Log())
		}
		if filter == "udp port 7001" {
			t.Logf("\n%s", p.Log())
		}
	}
	p := b.startCapturing("trace", "udp port 7003", "-o", "json", "--packets", "1", "--seconds", "20")
	if err := p.Wait(startLimit); err != nil || !strings.Contains(p.Log(), `"reason":"inner_source"`) || strings.Contains(p.Log(), `"frame"`) {
		t.Errorf("json: %v: %s", err, p.Log())
	}
}
