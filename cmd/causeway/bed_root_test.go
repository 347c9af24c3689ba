package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"causeway/control/api"
	"causeway/scripts/hosts"
)

// bed is a node between a host of the Internet, which is also the router of the customers' underlay, and a customer:
//
//	inet  eth0 192.0.2.254 ---- eth0 192.0.2.11   node
//	                            eth1 198.51.100.1 node ---- eth0 198.51.100.2 cust   (two ports)
//	inet  eth1 198.51.100.1 -------------------------------- eth0 198.51.100.2 cust   (one port)
type bed struct {
	t                *testing.T
	net              *hosts.Net
	inet, node, cust *hosts.Host
	causeway         string // the binary
	dir              string
	ports            []string
}

const (
	endpoint = "192.0.2.1"
	service  = "192.0.2.254" // where the Internet's host echoes UDP
)

func newBed(t *testing.T, ports, queues int) *bed {
	t.Helper()
	n := hosts.New(t)
	b := &bed{t: t, net: n, inet: n.Host("inet"), node: n.Host("node"), cust: n.Host("cust"), dir: t.TempDir(), ports: []string{"eth0"}}
	b.causeway = n.Build("causeway/cmd/causeway")
	b.net.Link(b.node, "eth0", b.inet, "eth0", hosts.LinkOptions{Queues: queues})
	b.node.Addr("eth0", "192.0.2.11/24")
	b.inet.Addr("eth0", "192.0.2.254/24")
	b.inet.Sysctl("net.ipv4.ip_forward", "1")
	b.node.Route("default", "via", "192.0.2.254")
	b.inet.Route(endpoint+"/32", "via", "192.0.2.11")
	b.inet.Route("203.0.113.0/24", "via", "192.0.2.11")
	other, ifname := b.inet, "eth1"
	if ports == 2 {
		other, b.ports = b.node, append(b.ports, "eth1")
	}
	b.net.Link(other, ifname, b.cust, "eth0", hosts.LinkOptions{Queues: queues})
	other.Addr(ifname, "198.51.100.1/24")
	b.cust.Addr("eth0", "198.51.100.2/24", "198.51.100.3/24")
	b.cust.Route("default", "via", "198.51.100.1")
	return b
}

// Tunnels of the tests. The second one ends on the same host.
const (
	custA = "{name: cust-a, account: acme, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.2, interface_address: 10.213.0.10/31, key: 42, prefixes: [203.0.113.0/25]}"
	custB = "{name: cust-b, account: acme, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.3, interface_address: 10.213.0.12/31, prefixes: [203.0.113.128/25]}"
)

func (b *bed) socket() string { return filepath.Join(b.dir, "s") }
func (b *bed) file() string   { return filepath.Join(b.dir, "causeway.yaml") }

// configure writes the configuration file.
func (b *bed) configure(tunnels ...string) { b.configureWith("", tunnels...) }

func (b *bed) configureWith(more string, tunnels ...string) {
	b.t.Helper()
	var s strings.Builder
	if !strings.Contains(more, "interfaces:") {
		s.WriteString("interfaces: [{name: " + strings.Join(b.ports, "}, {name: ") + "}]\n")
	}
	fmt.Fprintf(&s, "node: {name: edge-1}\nendpoints: [%s]\nmetrics: {listen: \"127.0.0.1:9150\"}\ncontrol: {socket: %s}\n%s\n", endpoint, b.socket(), more)
	if len(tunnels) > 0 {
		s.WriteString("tunnels:\n")
	}
	for _, t := range tunnels {
		s.WriteString("  - " + t + "\n")
	}
	if err := os.WriteFile(b.file(), []byte(s.String()), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// run starts the daemon and waits until it forwards. Every frame is watched.
func (b *bed) run() *hosts.Process {
	b.t.Helper()
	p := b.node.Start(b.causeway, "run", "-c", b.file(), "--debug-frames")
	p.WaitLog("msg=forwarding", 10*time.Second)
	return p
}

// refused starts a daemon that must not start, and returns what it said.
func (b *bed) refused() string {
	b.t.Helper()
	p := b.node.Start(b.causeway, "run", "-c", b.file())
	if status := exitStatus(p.Wait(10 * time.Second)); status != exitFailed {
		b.t.Errorf("exit status %d, want %d", status, exitFailed)
	}
	return p.Log()
}

// show asks the daemon for a list.
func show[T any](b *bed, what string) (v T) {
	b.t.Helper()
	out := b.node.MustRun(b.causeway, "show", what, "-o", "json", "--socket", b.socket())
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		b.t.Fatalf("show %s: %v in\n%s", what, err, out)
	}
	return v
}

func (b *bed) tunnel(name string) api.Tunnel {
	b.t.Helper()
	for _, u := range show[[]api.Tunnel](b, "tunnels") {
		if u.Name == name {
			return u
		}
	}
	b.t.Fatalf("show tunnels has no %s", name)
	return api.Tunnel{}
}

// balanced waits until every frame is accounted for.
func (b *bed) balanced() api.Frames {
	b.t.Helper()
	var f api.Frames
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if f = show[api.Workers](b, "workers").Total; f.In == f.Out {
			return f
		}
	}
	b.t.Errorf("frames in %d, out %d: %+v", f.In, f.Out, f)
	return f
}

// echo answers UDP on the Internet's host until the test ends.
func (b *bed) echo() {
	b.t.Helper()
	var c net.PacketConn
	b.inet.Do(func() {
		var err error
		if c, err = net.ListenPacket("udp4", service+":7"); err != nil {
			b.t.Fatal(err)
		}
	})
	b.t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(buf[:n], from)
		}
	}()
}

// A peer is the customer's end of a tunnel: a raw GRE socket, with headers written and read by gopacket.
type peer struct {
	t        *testing.T
	fd       int
	endpoint unix.SockaddrInet4
	key      *uint32
	inside   netip.Addr // its address behind the tunnel

	mu       sync.Mutex
	answered map[uint32]bool
	done     chan struct{}
}

func (b *bed) peer(local string, key uint32, inside string) *peer {
	b.t.Helper()
	p := &peer{t: b.t, inside: netip.MustParseAddr(inside), answered: map[uint32]bool{}, done: make(chan struct{})}
	p.endpoint.Addr = netip.MustParseAddr(endpoint).As4()
	if key != 0 {
		p.key = &key
	}
	b.cust.Do(func() {
		var err error
		if p.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_GRE); err != nil {
			b.t.Fatal(err)
		}
		if err = unix.Bind(p.fd, &unix.SockaddrInet4{Addr: netip.MustParseAddr(local).As4()}); err != nil {
			b.t.Fatal(err)
		}
	})
	tv := unix.NsecToTimeval(int64(50 * time.Millisecond))
	_ = unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	_ = unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
	stopped := make(chan struct{})
	go func() { defer close(stopped); p.receive() }()
	b.t.Cleanup(func() {
		close(p.done)
		<-stopped
		unix.Close(p.fd)
	})
	return p
}

// receive notes which sequence numbers have come back.
func (p *peer) receive() {
	buf := make([]byte, 4096)
	for {
		select {
		case <-p.done:
			return
		default:
		}
		n, _, err := unix.Recvfrom(p.fd, buf, 0)
		if err != nil {
			continue
		}
		packet := gopacket.NewPacket(buf[:n], layers.LayerTypeIPv4, gopacket.Default)
		gre, ok := packet.Layer(layers.LayerTypeGRE).(*layers.GRE)
		udp, isUDP := packet.Layer(layers.LayerTypeUDP).(*layers.UDP)
		if !ok || !isUDP || (p.key != nil) != gre.KeyPresent || p.key != nil && gre.Key != *p.key {
			continue
		}
		if number, err := strconv.Atoi(string(udp.Payload)); err == nil {
			p.mu.Lock()
			p.answered[uint32(number)] = true
			p.mu.Unlock()
		}
	}
}

// send sends request number n through the tunnel to the echo service.
func (p *peer) send(n uint32) {
	p.t.Helper()
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: p.inside.AsSlice(), DstIP: net.ParseIP(service).To4()}
	udp := &layers.UDP{SrcPort: 5000, DstPort: 7}
	_ = udp.SetNetworkLayerForChecksum(ip)
	gre := &layers.GRE{Protocol: layers.EthernetTypeIPv4}
	if p.key != nil {
		gre.KeyPresent, gre.Key = true, *p.key
	}
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, gre, ip, udp, gopacket.Payload(fmt.Append(nil, n))); err != nil {
		p.t.Error(err)
		return
	}
	if err := unix.Sendto(p.fd, buf.Bytes(), 0, &p.endpoint); err != nil {
		p.t.Errorf("sending through the tunnel: %v", err)
	}
}

func (p *peer) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.answered)
}

// exchange sends n requests, one each interval, and returns how many were not answered within the patience after the last.
func (p *peer) exchange(first, n uint32, interval, patience time.Duration) (lost int) {
	before := p.count()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for i := range n {
		p.send(first + i)
		<-tick.C
	}
	for end := time.Now().Add(patience); p.count()-before < int(n) && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	return int(n) - (p.count() - before)
}

// works fails the test unless the tunnel carries packets both ways. The first ones may wait for neighbours.
func (p *peer) works(first uint32) {
	p.t.Helper()
	for i := range uint32(20) {
		if p.exchange(first+i, 1, time.Millisecond, 100*time.Millisecond) == 0 {
			return
		}
	}
	p.t.Errorf("nothing comes back through the tunnel of %v", p.inside)
}
