package main_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

// cleanSeconds is how long the recordings of clean traffic are. Then they begin again.
const cleanSeconds = 4

// cleanTraffic writes recordings of what customers' networks see each second, each in two parts: what comes from the Internet (.in), and
// what comes out of tunnels (.out). At a scale of 1 it is the traffic of package attack's own test of half an hour.
const cleanTraffic = `
internet = Ether(src=%q, dst=%q)
customers = Ether(src=%q, dst=%q)
endpoint, scale, seconds = %q, %v, %d

class Mix:
    def __init__(self):
        self.ins, self.outs = [], []

    def inward(self, host, layers):
        "a packet from the Internet"
        return bytes(internet/IP(src="5.1.1.1", dst=host)/layers)

    def outward(self, host, layers):
        "a packet to the Internet, in its tunnel"
        outer = IP(src={"31": "198.51.100.21", "33": "198.51.100.23"}[host.split(".")[2]], dst=endpoint)
        return bytes(customers/outer/GRE()/IP(src=host, dst="5.1.1.1")/layers)

    def crowd(self, host, connections, acks):
        tcp = lambda flags, n: TCP(sport=1, dport=443, flags=flags)/(b"x" * n)
        syn, ack, request, fin, rst = [self.inward(host, tcp(f, n)) for f, n in (("S", 0), ("A", 0), ("PA", 560), ("FA", 0), ("R", 0))]
        answer, data = [self.outward(host, TCP(sport=443, dport=1, flags=f)/(b"x" * n)) for f, n in (("SA", 0), ("A", 1360))]
        for i in range(int(connections * scale * seconds)):
            of = {"src": anyone(), "sport": anyport()}
            to = {"dst": of["src"], "dport": of["sport"]}
            again = [syn] if i %% 7 == 0 else []
            self.ins += [vary(f, **of) for f in [syn, ack, request] + again + [ack] * acks + [rst if i %% 10 == 0 else fin]]
            self.outs += [vary(f, at=38, **to) for f in [answer] + [data] * 2 * acks]

    def transfer(self, host, up, down):
        "one connection: data one way, acknowledgements the other"
        size = lambda n, m: b"x" * (1360 if n > m else 0)
        self.ins += [self.inward(host, TCP(sport=33333, dport=873, flags="A")/size(up, down))] * int(up * scale * seconds)
        self.outs += [self.outward(host, TCP(sport=873, dport=33333, flags="A")/size(down, up))] * int(down * scale * seconds)

    def resolver(self, host, questions, of=None):
        question = self.outward(host, UDP(sport=1, dport=53)/(b"x" * 45))
        answers = [self.inward(host, UDP(sport=53, dport=1)/(b"x" * n)) for n in [80, 120, 150, 200, 250, 300] * 3 + [500, 700, 1200]]
        for i in range(int(questions * scale * seconds)):
            server, port = of or anyone(), anyport()
            self.outs.append(vary(question, at=38, dst=server, sport=port))
            self.ins.append(vary(random.choice(answers), src=server, dport=port))

    def datagrams(self, host, port, packets, clients):
        request = self.inward(host, UDP(sport=1, dport=port)/(b"x" * 400))
        answer = self.outward(host, UDP(sport=port, dport=1)/(b"x" * 900))
        peers = [(anyone(), anyport()) for _ in range(clients)]
        for i in range(int(packets * scale * seconds)):
            a, p = random.choice(peers)
            self.ins.append(vary(request, src=a, sport=p))
        for i in range(int(1.5 * packets * scale * seconds)):
            a, p = random.choice(peers)
            self.outs.append(vary(answer, at=38, dst=a, dport=p))

    def noise(self):
        "what everybody receives: probes, clocks, pings, errors, fragments, other people's tunnels"
        to = lambda **more: IP(src="5.1.1.1", dst="198.18.31.1", **more)
        for rate, p, fields in (
            (2000, to()/TCP(flags="S"), "src dst sport dport"), (500, to()/TCP(sport=443, flags="RA"), "src dst dport"),
            (500, to()/TCP(sport=80, flags="SA"), "src dst dport"), (500, to()/UDP(sport=123, dport=123)/(b"x" * 48), "src dst"),
            (300, to()/UDP(sport=123, dport=80)/(b"x" * 440), "src dst"), (1000, to()/ICMP()/(b"x" * 56), "src dst"),
            (800, to(flags="MF", proto=17)/(b"x" * 1400), "src dst"), (800, to(frag=175, proto=17)/(b"x" * 180), "src dst"),
            (1500, to()/ESP(spi=1000, seq=1)/(b"x" * 1300), "src dst"),
            (700, IP(src="5.1.1.1", dst=endpoint)/GRE()/IP()/(b"x" * 1000), "src")):
            self.ins += many(internet/p, int(rate * scale * seconds), fields)

    def write(self, name):
        random.shuffle(self.ins)
        random.shuffle(self.outs)
        record(name + ".in", self.ins)
        record(name + ".out", self.outs)

base = Mix()
base.crowd("198.18.31.80", 2000, 6)
base.resolver("198.18.33.53", 15000)
base.resolver("198.18.33.54", 8000, bytes((5, 8, 8, 8)))
base.datagrams("198.18.31.44", 443, 15000, 1 << 14)
base.datagrams("198.18.33.45", 51820, 20000, 1)
base.crowd("198.18.31.90", 20, 20)
base.noise()
base.write("base")
flash = Mix()
flash.crowd("198.18.33.81", 12000, 5)
flash.write("flash")
backup = Mix()
backup.transfer("198.18.31.5", 100000, 50000)
backup.write("backup")
restore = Mix()
restore.transfer("198.18.31.5", 60000, 120000)
restore.write("restore")
`

// A clean is traffic without an attack, in both directions.
type clean struct {
	b       *bed
	dir     string // of recordings
	senders []*replayer
}

// makeClean has scapy make the recordings.
func (b *bed) makeClean(t *testing.T, scale float64) *clean {
	t.Helper()
	began := time.Now()
	c := &clean{b: b, dir: b.scapyWrites(t, fmt.Sprintf(cleanTraffic, b.rt.MAC("n0"), b.node.MAC("eth0"), b.rt.MAC("n1"), b.node.MAC("eth1"),
		endpoint4, scale, cleanSeconds))}
	t.Logf("clean traffic was made in %v", time.Since(began))
	return c
}

// plays sends one of the recordings until the test ends, as many times as fast as it was meant as factor says.
func (c *clean) plays(t *testing.T, name string, factor func(since time.Duration) float64) {
	t.Helper()
	for ending, ifname := range map[string]string{".in": "n0", ".out": "n1"} {
		r := replays(t, c.b.rt, ifname, filepath.Join(c.dir, name+ending))
		rate := float64(len(r.frames)) / cleanSeconds
		r.background(t, func(since time.Duration) float64 { return rate * factor(since) })
		c.senders = append(c.senders, r)
	}
}

// sent is how many packets were sent until now.
func (c *clean) sent() (n int64) {
	for _, r := range c.senders {
		n += r.sent.Load()
	}
	return n
}

// between is a factor of 1 from one moment of each quarter of an hour to another, and 0 otherwise.
func between(from, to time.Duration) func(time.Duration) float64 {
	return func(since time.Duration) float64 {
		if at := since % (15 * time.Minute); at >= from && at < to {
			return 1
		}
		return 0
	}
}
