package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"causeway/control/api"
	"causeway/control/tun"
)

// The whole path, with hand-over where the ports differ: from the customer to the Internet and back, the kernel's
// answers for the endpoint on both ways, and every frame accounted for.
func TestRootTunnelCarriesPackets(t *testing.T) {
	for _, c := range []struct{ ports, queues int }{{1, 1}, {2, 1}, {2, 2}} {
		t.Run(fmt.Sprintf("%d_ports_%d_queues", c.ports, c.queues), func(t *testing.T) {
			b := newBed(t, c.ports, c.queues)
			b.echo()
			b.configure(custA, custB)
			d := b.run()
			a := b.peer("198.51.100.2", 42, "203.0.113.9")
			a.works(0)
			if lost := a.exchange(100, 500, time.Millisecond, time.Second); lost > 0 {
				t.Errorf("%d of 500 packets lost", lost)
			}
			b.peer("198.51.100.3", 0, "203.0.113.200").works(0)
			b.inet.MustRun("ping", "-c1", "-W2", endpoint)
			pingThroughTunnel(b)
			f := b.balanced()
			if f.Delivered == 0 || f.Punted == 0 || f.Originated == 0 {
				t.Errorf("nothing delivered or punted: %+v", f)
			}
			if u := b.tunnel("cust-a"); u.RXPackets < 500 || u.TXPackets < 500 || u.RXBytes == 0 || u.RouteState != "ok" {
				t.Errorf("tunnel %+v", u)
			}
			if err := d.Stop(); err != nil { // --debug-frames: a frame that is not given back is an error
				t.Errorf("ended with %v", err)
			}
		})
	}
}

// pingThroughTunnel pings from behind cust-a with scapy's packets: our interface address inside, which the pipeline
// answers, and the endpoint, which the kernel answers.
func pingThroughTunnel(b *bed) {
	b.t.Helper()
	out := b.cust.Scapy(`
def ping(src, dst):
    return IP(src="198.51.100.2", dst="192.0.2.1")/GRE(proto=0x800, key_present=1, key=42)/IP(src=src, dst=dst)/ICMP(id=7, seq=9)/(b"x"*100)
s = AsyncSniffer(iface="eth0", lfilter=lambda x: GRE in x and x[GRE].key == 42 and ICMP in x and x[ICMP].type == 0)
s.start(); time.sleep(0.3); send([ping("10.213.0.11", "10.213.0.10"), ping("203.0.113.9", "192.0.2.1")]); time.sleep(0.4)
for x in s.stop(): print("answer", x[IP:2].src, x[IP:2].dst, len(x[Raw].load))
`)
	for _, want := range []string{"answer 10.213.0.10 10.213.0.11 100", "answer 192.0.2.1 203.0.113.9 100"} {
		if !strings.Contains(out, want) {
			b.t.Errorf("ping from behind the tunnel: %q, want %q", out, want)
		}
	}
}

// Killed without a chance to clean up, the daemon leaves an interface that works as if it had never run, and a restart
// needs no cleaning.
func TestRootKillLeavesNothing(t *testing.T) {
	b := newBed(t, 2, 1)
	b.echo()
	b.configure(custA)
	p := b.peer("198.51.100.2", 42, "203.0.113.9")
	for round := range uint32(3) {
		d := b.run()
		p.works(1000 * round)
		d.Kill()
		b.free()
		b.inet.MustRun("ping", "-c1", "-W2", "192.0.2.11")
		if out, err := b.inet.Run("ping", "-c1", "-W1", endpoint); err == nil {
			t.Errorf("a dead node answers for the endpoint:\n%s", out)
		}
	}
	if _, err := os.Stat(b.socket()); err != nil {
		t.Errorf("the test expects a stale socket: %v", err)
	}
}

// free fails the test if the node's interfaces are not as if the daemon had never run.
func (b *bed) free() {
	b.t.Helper()
	out := b.node.MustRun("ip", "-d", "link")
	for _, trace := range []string{"xdp", tun.DefaultName + ":"} {
		if strings.Contains(out, trace) {
			b.t.Errorf("%s is left:\n%s", trace, out)
		}
	}
}

func TestRootStopsWhenTold(t *testing.T) {
	b := newBed(t, 2, 1)
	b.echo()
	b.configure(custA)
	p := b.peer("198.51.100.2", 42, "203.0.113.9")
	for i, sig := range []os.Signal{unix.SIGTERM, unix.SIGINT} {
		d := b.run()
		p.works(uint32(10000 * i))
		traffic := make(chan struct{}) // it stops under traffic
		go func() {
			defer close(traffic)
			p.exchange(uint32(10000*i+1000), 500, time.Millisecond, 0)
		}()
		time.Sleep(100 * time.Millisecond)
		begin := time.Now()
		d.Signal(sig)
		if err := d.Wait(5 * time.Second); err != nil {
			t.Errorf("%v: ended with %v", sig, err)
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("%v: took %v", sig, took)
		}
		if !strings.Contains(d.Log(), "left=0") {
			t.Errorf("%v: frames were left on the rings:\n%s", sig, d.Log())
		}
		b.free()
		if _, err := os.Stat(b.socket()); !os.IsNotExist(err) {
			t.Errorf("%v: the control socket is left: %v", sig, err)
		}
		<-traffic
	}
}

func TestRootSecondDaemonIsRefused(t *testing.T) {
	b := newBed(t, 2, 1)
	b.echo()
	b.configure(custA)
	b.run()
	if out := b.refused(); !strings.Contains(out, "another daemon answers there") {
		t.Errorf("same socket: %s", out)
	}
	text, _ := os.ReadFile(b.file())
	other := strings.Replace(string(text), b.socket(), b.socket()+"2", 1)
	if err := os.WriteFile(b.file(), []byte(strings.Replace(other, "127.0.0.1:9150", "127.0.0.1:9151", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := b.refused(); !strings.Contains(out, "another XDP program is attached") {
		t.Errorf("other socket, same interfaces: %s", out)
	}
	b.peer("198.51.100.2", 42, "203.0.113.9").works(0)
}

// What the daemon refuses to start with, and what it says then.
func TestRootRefusals(t *testing.T) {
	b := newBed(t, 2, 2)
	for _, c := range []struct {
		name, more string
		want       []string
	}{
		{"an interface that is not there", "interfaces: [{name: eth7}]", []string{"interfaces[0]", "eth7"}},
		{"a queue without a worker", "interfaces: [{name: eth0, queues: [0]}]", []string{"queue 1 would be without a worker", "ethtool -L eth0"}},
		{"a queue that is not there", "interfaces: [{name: eth0, queues: [0, 5]}]", []string{"queue 5", "ethtool -L eth0 combined 6"}},
		{"a core that is not there", "workers: {cpus: [0, 63]}", []string{"workers.cpus: core 63"}},
		{"zero-copy that the driver lacks", "interfaces: [{name: eth0, mode: zero-copy}]", []string{"zero-copy", "veth"}},
		{"an address in use", "", []string{"metrics.listen", "in use"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "an address in use" {
				b.node.Do(func() {
					l, err := net.Listen("tcp", "127.0.0.1:9150")
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { l.Close() })
				})
			}
			b.configureWith(c.more, custA)
			out := b.refused()
			for _, want := range c.want {
				if !strings.Contains(out, want) {
					t.Errorf("it does not say %q:\n%s", want, out)
				}
			}
			b.free()
		})
	}
	b.node.MustRun("ip", "link", "set", "eth1", "mtu", "3000")
	b.configure(custA)
	if out := b.refused(); !strings.Contains(out, "mtu 3000") || !strings.Contains(out, "ip link set eth1 mtu 1500") {
		t.Errorf("a large mtu: %s", out)
	}
	b.free()
}

func TestRootShowsWhatItKnows(t *testing.T) {
	b := newBed(t, 2, 1)
	b.echo()
	b.configure(custA, custB)
	b.run()
	b.peer("198.51.100.2", 42, "203.0.113.9").works(0)
	b.peer("198.51.100.2", 43, "203.0.113.9").send(1) // a key that is not the tunnel's
	b.balanced()

	drops := show[[]api.Drop](b, "drops")
	i := slices.IndexFunc(drops, func(d api.Drop) bool { return d.Reason == "gre_key" })
	if i < 0 || drops[i].Packets != 1 || drops[i].RFC != "RFC 2890 2.1" || drops[i].Stage != "decap" {
		t.Errorf("drops: %+v", drops)
	}
	for _, c := range []struct {
		what string
		want []string
	}{
		{"tunnels", []string{"NAME", "cust-a", "acme", "192.0.2.1", "198.51.100.2", "1472", "1432/1412", "via 198.51.100.2 dev eth1"}},
		{"routes", []string{"PREFIX", "203.0.113.0/25", "tunnel cust-a", "(internet)", "via 192.0.2.254 dev eth0"}},
		{"neighbours", []string{"198.51.100.2", "eth1", strings.ToLower(b.cust.MAC("eth0"))}},
		{"workers", []string{"eth0/0 eth1/0", "frames in:", "frames out:"}},
		{"drops", []string{"the GRE key is not the tunnel's", "RFC 2890 2.1"}},
		{"ports", []string{"eth0", "veth", "copy", "not faster than copy: zero-copy: not supported"}},
		{"status", []string{"node edge-1, ready"}},
	} {
		out := b.node.MustRun(b.causeway, "show", c.what, "--socket", b.socket())
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("show %s has no %q:\n%s", c.what, want, out)
			}
		}
	}
}

func TestRootMetricsArePublished(t *testing.T) {
	b := newBed(t, 2, 1)
	b.echo()
	b.configure(custA)
	b.run()
	p := b.peer("198.51.100.2", 42, "203.0.113.9")
	p.works(0)
	p.exchange(100, 50, time.Millisecond, time.Second)
	if code, body := b.get("/readyz"); code != http.StatusOK {
		t.Errorf("/readyz: %d %s", code, body)
	}
	_, body := b.get("/metrics")
	for _, want := range []string{
		`causeway_port_info{driver="veth",mode="copy",port="eth0"} 1`,
		`causeway_tunnel_receive_packets_total{account="acme",tunnel="cust-a"} 5`, // 50 and some
		`causeway_port_steered_packets_total{class="gre",port="eth1",to="worker"} 5`,
		`causeway_ready 1`,
		`causeway_routes{source="kernel_ipv4"}`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
}

// get asks the daemon's metrics server from inside the node.
func (b *bed) get(path string) (code int, body string) {
	b.t.Helper()
	out := b.node.MustRun("curl", "-s", "-w", "\n%{http_code}", "http://127.0.0.1:9150"+path)
	i := strings.LastIndex(out, "\n")
	_, _ = fmt.Sscan(out[i+1:], &code)
	return code, out[:i]
}
