package export

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"causeway/analytics/export/ifindex"
	"causeway/analytics/export/ipfix"
	"causeway/analytics/flow"
	"causeway/scripts/hosts"
)

// Ports of the collectors.
const (
	fastnetmonSFlow = "127.0.0.1:6343"
	fastnetmonIPFIX = "127.0.0.1:2055"
	sfacctd         = "127.0.0.1:6344"
	nfacctd         = "127.0.0.1:2056"
	nobody          = "127.0.0.1:6345"
)

// A bed is a host with collectors that others have written.
type bed struct {
	t    *testing.T
	host *hosts.Host
	dir  string
}

func newBed(t *testing.T) (*hosts.Net, *bed) {
	t.Helper()
	for _, program := range []string{"nfacctd", "sfacctd", "fastnetmon"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("needs %s: run scripts/deps.sh", program)
		}
	}
	n := hosts.New(t)
	return n, &bed{t: t, host: n.Host("collector"), dir: t.TempDir()}
}

func (b *bed) path(name string) string { return filepath.Join(b.dir, name) }

func (b *bed) write(name, text string) string {
	b.t.Helper()
	if err := os.WriteFile(b.path(name), []byte(text), 0o700); err != nil {
		b.t.Fatal(err)
	}
	return b.path(name)
}

func (b *bed) read(name string) string {
	text, _ := os.ReadFile(b.path(name))
	return string(text)
}

// pmacct starts nfacctd or sfacctd, which write what they have counted to a file each second.
func (b *bed) pmacct(program, address, ready string) {
	b.t.Helper()
	_, port, _ := strings.Cut(address, ":")
	p := b.host.Start(program, "-f", b.write(program+".conf", strings.ReplaceAll(fmt.Sprintf(`daemonize: false
PROGRAM_port: %s
PROGRAM_ip: 127.0.0.1
PROGRAM_renormalize: true
plugins: print
aggregate: src_host, dst_host, src_port, dst_port, proto, in_iface, out_iface, tcpflags
print_output: json
print_output_file: %s
print_output_file_append: true
print_refresh_time: 1
print_history: 1m
`, port, b.path(program+".json")), "PROGRAM", program)))
	b.t.Cleanup(p.Kill) // asked to end, it takes seconds
	p.WaitLog(ready, 10*time.Second)
}

// fastnetmon starts FastNetMon, which calls a script when an address gets 20,000 packets a second.
func (b *bed) fastnetmon() {
	b.t.Helper()
	b.write("networks", "203.0.113.0/24\n2001:db8:5::/48\n")
	b.write("whitelist", "")
	notify := b.write("notify.sh", "#!/bin/sh\necho \"$@\" >>"+b.path("notified")+"\n")
	conf := b.write("fastnetmon.conf", strings.ReplaceAll(`disable_usage_report = on
enable_ban = on
enable_ban_ipv6 = on
process_incoming_traffic = on
process_outgoing_traffic = on
ban_time = 1900
ban_for_pps = on
threshold_pps = 20000
networks_list_path = DIR/networks
white_list_path = DIR/whitelist
monitor_local_ip_addresses = off
netflow = on
netflow_port = 2055
netflow_host = 127.0.0.1
sflow = on
sflow_port = 6343
sflow_host = 127.0.0.1
average_calculation_time = 5
speed_calculation_delay = 1
enable_api = off
prometheus = on
pid_path = DIR/pid
cli_stats_file_path = DIR/stats
cli_stats_ipv6_file_path = DIR/stats6
notify_script_path = `, "DIR", b.dir)+notify+"\n")
	p := b.host.Start("fastnetmon", "--configuration_file", conf, "--disable_pid_logic", "--log_file", b.path("fastnetmon.log"))
	b.t.Cleanup(p.Kill)
	until(b.t, "FastNetMon listens", func() bool {
		text := b.read("fastnetmon.log")
		return strings.Contains(text, "sflow: plugin will listen") && strings.Contains(text, "netflow plugin will listen")
	})
}

// metric is one of FastNetMon's counters.
func (b *bed) metric(name string) uint64 {
	b.t.Helper()
	out, _ := b.host.Run("curl", "-s", "http://127.0.0.1:9209/metrics")
	m := regexp.MustCompile(`(?m)^fastnetmon_` + name + ` (\d+)$`).FindStringSubmatch(out)
	if m == nil {
		b.t.Fatalf("FastNetMon has no metric %s", name)
	}
	n, _ := strconv.ParseUint(m[1], 10, 64)
	return n
}

// exporter makes one in the host, and runs it.
func (b *bed) exporter(o Options) (e *Exporter, stop func()) {
	b.t.Helper()
	b.host.Do(func() {
		var err error
		if e, err = New(o); err != nil {
			b.t.Fatal(err)
		}
	})
	e.SetInterfaces(interfaces(b.t))
	return e, start(b.t, e)
}

// A count is what a collector makes of a flow.
type count struct{ Packets, Bytes, Flags uint64 }

// counted adds up what nfacctd or sfacctd have written, by flow.
func (b *bed) counted(program string) map[string]count {
	b.t.Helper()
	sums := map[string]count{}
	for line := range strings.Lines(b.read(program + ".json")) {
		var r struct {
			Src     string `json:"ip_src"`
			Dst     string `json:"ip_dst"`
			SrcPort uint16 `json:"port_src"`
			DstPort uint16 `json:"port_dst"`
			Proto   string `json:"ip_proto"`
			In      int    `json:"iface_in"`
			Out     int    `json:"iface_out"`
			Flags   string `json:"tcp_flags"`
			Packets uint64
			Bytes   uint64
		}
		if json.Unmarshal([]byte(line), &r) != nil {
			continue // it is being written
		}
		flags, _ := strconv.ParseUint(r.Flags, 10, 64)
		key := fmt.Sprintf("%s %s:%d > %s:%d %d>%d", r.Proto, r.Src, r.SrcPort, r.Dst, r.DstPort, r.In, r.Out)
		c := sums[key]
		sums[key] = count{c.Packets + r.Packets, c.Bytes + r.Bytes, c.Flags | flags}
	}
	return sums
}

// mix exports a mix of flows in both directions and both families and returns what there is to count. The first samples stand for
// one packet each, the others for 100.
func mix(t *testing.T, e *Exporter, samples int) map[string]count {
	rng := rand.New(rand.NewPCG(7, 8))
	want := map[string]count{}
	for i := range samples {
		every := uint32(1)
		if i >= samples/2 {
			every = 100
		}
		customer, other := "203.0.113.%d", "198.18.0.%d"
		if rng.IntN(3) == 0 {
			customer, other = "2001:db8:5::%d", "2001:db8:77::%d"
		}
		src, dst := fmt.Sprintf(other, 1+rng.IntN(3)), fmt.Sprintf(customer, 1+rng.IntN(3))
		srcPort, dstPort := uint16(1024+rng.IntN(5)), uint16(9999)
		in, out := []*flow.Tunnel{nil, tunnelB}[rng.IntN(2)], tunnelA
		inIndex, outIndex := 0, 101
		if in != nil {
			inIndex = 102
		}
		if rng.IntN(2) == 0 {
			src, dst, srcPort, dstPort, in, out, inIndex, outIndex = dst, src, dstPort, srcPort, out, in, outIndex, inIndex
		}
		proto, flags, bits := "udp", "", uint64(0)
		if rng.IntN(2) == 0 {
			proto, flags, bits = "tcp", "SA", 0x12
		}
		b := packet(t, src, dst, srcPort, dstPort, flags, 60+rng.IntN(60))
		add(e, sample(b, every, in, out))
		key := fmt.Sprintf("%s %s:%d > %s:%d %d>%d", proto, src, srcPort, dst, dstPort, inIndex, outIndex)
		c := want[key]
		want[key] = count{c.Packets + uint64(every), c.Bytes + uint64(every)*uint64(len(b)), c.Flags | bits}
		if i%50 == 49 {
			time.Sleep(20 * time.Millisecond) // for collectors' socket buffers
		}
	}
	return want
}

// nfacctd, sfacctd and FastNetMon count what was exported to the last packet, and tshark finds nothing wrong.
func TestRootCollectors(t *testing.T) {
	n, b := newBed(t)
	b.pmacct("nfacctd", nfacctd, "waiting for NetFlow/IPFIX data")
	b.pmacct("sfacctd", sfacctd, "waiting for sFlow data")
	b.fastnetmon()
	wire := b.host.Capture("lo", "udp")

	e, stop := b.exporter(Options{SFlow: []string{sfacctd}, IPFIX: []string{nfacctd, fastnetmonIPFIX},
		Agent: netip.MustParseAddr("192.0.2.11"), Flows: ipfix.Options{Active: time.Second, Idle: time.Second}})
	want := mix(t, e, 4000)
	stop()
	stats := e.Stats()
	plain := b.plain()
	pcap := wire.Stop()

	for _, program := range []string{"nfacctd", "sfacctd"} {
		got := map[string]count{}
		for end := time.Now().Add(8 * time.Second); time.Now().Before(end) && !maps.Equal(got, want); time.Sleep(100 * time.Millisecond) {
			got = b.counted(program)
		}
		for k, w := range want {
			if got[k] != w {
				t.Errorf("%s counts %+v of %s, want %+v", program, got[k], k, w)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s counts %d flows, want %d", program, len(got), len(want))
		}
	}
	if flows := b.metric("ipfix_total_flows"); flows != stats.FlowRecords {
		t.Errorf("FastNetMon has read %d flows, want %d", flows, stats.FlowRecords)
	}
	if unknown := b.metric("ipfix_packets_with_unknown_templates"); unknown != 0 {
		t.Errorf("FastNetMon did not know the templates of %d sets", unknown)
	}
	b.judge(n, pcap, stats, plain)

	b.flood()
}

// plain exports samples by sFlow without what is told of tunnels' outer headers, to where nobody listens: tshark 4.0 does not know those
// records and takes their content for the next ones.
func (b *bed) plain() Stats {
	b.t.Helper()
	counters := func() []Counters { return []Counters{{Tunnel: tunnelA}, {Tunnel: tunnelB}} }
	e, stop := b.exporter(Options{SFlow: []string{nobody}, Agent: netip.MustParseAddr("2001:db8::11"), Counters: counters})
	table, err := ifindex.NewTable([]ifindex.Interface{{Index: 101, Tunnel: tunnelA}, {Index: 102, Tunnel: tunnelB}})
	if err != nil {
		b.t.Fatal(err)
	}
	e.SetInterfaces(table)
	mix(b.t, e, 500)
	until(b.t, "counters are told", func() bool { return e.Stats().CounterSamples == 2 })
	stop()
	return e.Stats()
}

// judge has tshark read all messages of IPFIX, and the plain datagrams of sFlow.
func (b *bed) judge(n *hosts.Net, pcap string, stats, plain Stats) {
	b.t.Helper()
	options := []string{"-d", "udp.port==6345,sflow", "-d", "udp.port==2056,cflow", "-d", "udp.port==2055,cflow",
		"-o", "udp.check_checksum:FALSE"} // the loopback interface leaves them out
	const wrong = "(sflow or cflow) and (_ws.malformed or _ws.expert.severity >= 4194304)" // a note, or worse
	if bad := n.TsharkWith(options, pcap, wrong, "frame.number", "_ws.expert.message"); len(bad) != 0 {
		b.t.Errorf("tshark finds %d datagrams wrong, first: %v", len(bad), bad[0])
	}
	samples := 0
	for _, row := range n.TsharkWith(options, pcap, "sflow", "sflow_245.numsamples") {
		k, _ := strconv.Atoi(row[0])
		samples += k
	}
	if want := int(plain.FlowSamples + plain.CounterSamples); samples != want || want != 502 {
		b.t.Errorf("tshark reads %d samples of sFlow, want %d", samples, want)
	}
	if lost := n.TsharkWith(options, pcap, "cflow.unexpected_sequence_number", "frame.number"); len(lost) != 0 {
		b.t.Errorf("tshark misses messages before %v", lost)
	}
	if messages := n.TsharkWith(options, pcap, "cflow and udp.dstport == 2056", "cflow.version"); len(messages) != int(stats.Messages) {
		b.t.Errorf("tshark reads %d messages of IPFIX, want %d", len(messages), stats.Messages)
	}
}

// flood is 100,000 packets a second for one address, sampled 1 in 1000: FastNetMon calls its script for that one alone.
func (b *bed) flood() {
	b.t.Helper()
	before := b.metric("total_simple_packets_processed")
	e, stop := b.exporter(Options{SFlow: []string{fastnetmonSFlow}, Agent: netip.MustParseAddr("192.0.2.11"), Ethernet: true})
	notified := func() bool { return b.read("notified") != "" }
	for i := 0; i < 1500 && !notified(); i++ {
		attack := packet(b.t, fmt.Sprintf("198.18.%d.%d", i%200, i%7), "203.0.113.77", uint16(i), 80, "S", 60)
		add(e, sample(attack, 1000, nil, tunnelA))
		add(e, sample(packet(b.t, "2001:db8:77::1", "2001:db8:5::9", 1000, 53, "", 100), 10, nil, tunnelA))
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	if text := b.read("notified"); !strings.HasPrefix(text, "203.0.113.77 incoming ") || strings.Count(text, "\n") != 1 {
		b.t.Errorf("FastNetMon has notified: %q", text)
	}
	want := before + e.Stats().FlowSamples
	got := before
	for end := time.Now().Add(3 * time.Second); got != want && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		got = b.metric("total_simple_packets_processed")
	}
	if got != want {
		b.t.Errorf("FastNetMon has read %d samples, want %d", got-before, want-before)
	}
}
