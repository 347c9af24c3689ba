package main

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"causeway/control/api"
	"causeway/xsk"
)

const replayConfig = `node: {name: edge-1}
interfaces: [{name: eth0}, {name: eth1}]
endpoints: [192.0.2.1, "2001:db8::1"]
tunnels:
  - {name: acme-1, account: acme, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.2, interface_address: 10.213.0.10/31,
     prefixes: [203.0.113.0/24, "2001:db8:7::/48"]}
  - {name: acme-6, account: acme, endpoint: "2001:db8::1", customer_endpoint: "2001:db8:ffff::2",
     interface_address: 10.213.0.12/31, prefixes: [198.18.7.0/24]}
routes:
  - {prefix: 198.51.100.0/24, nexthop: 198.51.100.254, interface: eth1}
  - {prefix: "2001:db8:ffff::/48", nexthop: "fe80::1", interface: eth1}
`

var (
	inetHost  = netip.MustParseAddr("192.0.2.10")
	endpoint4 = netip.MustParseAddr("192.0.2.1")
	customer4 = netip.MustParseAddr("198.51.100.2")
	behind4   = netip.MustParseAddr("203.0.113.9")
	inet6     = netip.MustParseAddr("2001:db8:2::10")
	endpoint6 = netip.MustParseAddr("2001:db8::1")
	customer6 = netip.MustParseAddr("2001:db8:ffff::2")
	behind6   = netip.MustParseAddr("2001:db8:7::9")
	other4    = netip.MustParseAddr("198.18.7.9")
	ours4     = netip.MustParseAddr("10.213.0.10")
	theirs4   = netip.MustParseAddr("10.213.0.11")
)

// craft makes a frame to some link address, of IP headers and what follows. Each header is told what it carries, and the
// Ethernet header too.
func craft(t testing.TB, l ...gopacket.SerializableLayer) []byte {
	t.Helper()
	typ := func(l gopacket.SerializableLayer) layers.EthernetType {
		if _, v6 := l.(*layers.IPv6); v6 {
			return layers.EthernetTypeIPv6
		}
		return layers.EthernetTypeIPv4
	}
	for i, x := range l {
		if g, ok := x.(*layers.GRE); ok && i+1 < len(l) {
			g.Protocol = typ(l[i+1])
		}
	}
	eth := &layers.Ethernet{SrcMAC: []byte{2, 0, 0, 0, 0, 7}, DstMAC: []byte{0xaa, 1, 2, 3, 4, 5}, EthernetType: typ(l[0])}
	buf := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, options, append([]gopacket.SerializableLayer{eth}, l...)...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func ipOf(src, dst netip.Addr, proto layers.IPProtocol) gopacket.SerializableLayer {
	if src.Is6() {
		return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	}
	return &layers.IPv4{Version: 4, TTL: 64, Id: 7, Protocol: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
}

// udpOf is the headers and payload of a UDP packet.
func udpOf(t testing.TB, src, dst netip.Addr, n int) []gopacket.SerializableLayer {
	t.Helper()
	ip, udp := ipOf(src, dst, layers.IPProtocolUDP), &layers.UDP{SrcPort: 4000, DstPort: 40000}
	if err := udp.SetNetworkLayerForChecksum(ip.(gopacket.NetworkLayer)); err != nil {
		t.Fatal(err)
	}
	return []gopacket.SerializableLayer{ip, udp, gopacket.Payload(make([]byte, n))}
}

// greOf puts outer headers in front.
func greOf(src, dst netip.Addr, inner ...gopacket.SerializableLayer) []gopacket.SerializableLayer {
	return append([]gopacket.SerializableLayer{ipOf(src, dst, layers.IPProtocolGRE), &layers.GRE{}}, inner...)
}

func echoOf(src, dst netip.Addr) []gopacket.SerializableLayer {
	ping := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: 9}
	return []gopacket.SerializableLayer{ipOf(src, dst, layers.IPProtocolICMPv4), ping, gopacket.Payload(make([]byte, 20))}
}

// fragmentsOf cuts a GRE packet into two, the first with n bytes of data.
func fragmentsOf(t testing.TB, n int, id uint16, inner ...gopacket.SerializableLayer) [2][]byte {
	t.Helper()
	const headers = 14 + 20
	data := craft(t, greOf(customer4, endpoint4, inner...)...)[headers:]
	piece := func(from, to int) []byte {
		ip := ipOf(customer4, endpoint4, layers.IPProtocolGRE).(*layers.IPv4)
		ip.Id, ip.FragOffset = id, uint16(from/8)
		if to < len(data) {
			ip.Flags = layers.IPv4MoreFragments
		}
		return craft(t, ip, gopacket.Payload(data[from:to]))
	}
	return [2][]byte{piece(0, n), piece(n, len(data))}
}

var replayEpoch = time.Unix(1_700_000_000, 0).UTC()

// capture writes frames to a pcap file, one a second or at the given times; none is longer than snap.
func capture(t testing.TB, dir string, snap int, frames [][]byte, at ...time.Duration) string {
	t.Helper()
	var b bytes.Buffer
	w := pcapgo.NewWriter(&b)
	if err := w.WriteFileHeader(uint32(snap), layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	for i, f := range frames {
		when := time.Duration(i) * time.Second
		if at != nil {
			when = at[i]
		}
		data := f[:min(len(f), snap)]
		info := gopacket.CaptureInfo{Timestamp: replayEpoch.Add(when), CaptureLength: len(data), Length: len(f)}
		if err := w.WritePacket(info, data); err != nil {
			t.Fatal(err)
		}
	}
	return writeFile(t, filepath.Join(dir, "in.pcap"), b.Bytes())
}

func writeFile(t testing.TB, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// mixed is a frame for each outcome.
func mixed(t testing.TB) [][]byte {
	pieces := fragmentsOf(t, 40, 8, udpOf(t, behind4, inetHost, 100)...)
	dontFragment := udpOf(t, inetHost, behind4, 1450)
	dontFragment[0].(*layers.IPv4).Flags = layers.IPv4DontFragment
	return [][]byte{
		craft(t, udpOf(t, inetHost, behind4, 100)...),
		craft(t, greOf(customer4, endpoint4, udpOf(t, behind4, inetHost, 100)...)...),
		craft(t, greOf(customer4, endpoint4, udpOf(t, behind4, other4, 100)...)...),
		craft(t, greOf(customer4, endpoint4, udpOf(t, other4, inetHost, 100)...)...),
		craft(t, greOf(other4, endpoint4, udpOf(t, behind4, inetHost, 100)...)...),
		craft(t, udpOf(t, inet6, behind6, 100)...),
		craft(t, greOf(customer4, endpoint4, echoOf(theirs4, ours4)...)...),
		craft(t, echoOf(inetHost, endpoint4)...),
		craft(t, dontFragment...),
		craft(t, udpOf(t, inetHost, behind4, 1450)...),
		pieces[0],
		pieces[1],
		pieces[1],
		craft(t, greOf(customer6, endpoint6, udpOf(t, other4, inetHost, 100)...)...),
		make([]byte, xsk.MaxPacket+1),
	}
}

const mixedText = `CONFIG, IN: as if it came in by eth0. There is no kernel here: what no route of the file covers, and the
outer packets of tunnels, go to a made-up next hop on eth0; of the host's addresses only the endpoints are known.

 FRAME   BYTES  OUTCOME    WHAT
     1     142  forwarded  into acme-1; by eth1 #1 (166 bytes)
     2     166  forwarded  from acme-1; by eth0 #2 (142 bytes)
     3     166  forwarded  from acme-1; into acme-6; by eth1 #3 (186 bytes)
     4     166  dropped    from acme-1; inner_source: the inner source is not in the tunnel's prefixes (inner, RFC 2827)
     5     166  dropped    tunnel_unknown: no tunnel has this endpoint and customer endpoint (decap)
     6     162  forwarded  into acme-1; by eth1 #4 (186 bytes)
     7      86  delivered  from acme-1; into acme-1; answered; by eth1 #5 (86 bytes)
     8      62  punted     goes to the host
     9    1492  dropped    into acme-1; too_big: the packet is larger than the tunnel's or link's MTU and may not be fragmented (size, RFC 1191 4, RFC 8201 3); answered; by eth0 #6 (590 bytes)
    10    1492  forwarded  into acme-1; by eth1 #7 (1514 bytes); by eth1 #8 (60 bytes)
    11      74  held       waits for the other fragments of its datagram
    12     126  forwarded  completes a datagram of 2 fragments; from acme-1; by eth0 #9 (142 bytes)
    13     126  held       waits for the other fragments of its datagram
    14     186  forwarded  from acme-6; by eth0 #10 (142 bytes)
    15    1745  too_large  not fed: longer than a frame of the workers

PACKETS  STAGE  REASON          MEANING                                                                         RFC
1        decap  tunnel_unknown  no tunnel has this endpoint and customer endpoint                               -
1        inner  inner_source    the inner source is not in the tunnel's prefixes                                RFC 2827
1        size   too_big         the packet is larger than the tunnel's or link's MTU and may not be fragmented  RFC 1191 4, RFC 8201 3

frames in:  17 = received 14 + originated 2 + fragments 1
frames out: 17 = forwarded 10 + delivered 1 + punted 1 + dropped 3 + joined 1 + held 1
not fed:    1 = cut by the capture 0 + too large 1
`

// replayed runs the command in this process.
func replayed(t testing.TB, o replayOptions) (string, error) {
	t.Helper()
	if o.output == "" {
		o.output = "text"
	}
	var out bytes.Buffer
	err := replay(&out, o)
	return out.String(), err
}

func TestReplay(t *testing.T) {
	dir := t.TempDir()
	config := writeFile(t, filepath.Join(dir, "causeway.yaml"), []byte(replayConfig))
	in := capture(t, dir, 4000, mixed(t))
	got, err := replayed(t, replayOptions{config: config, in: in})
	if err != nil {
		t.Fatal(err)
	}
	got = strings.NewReplacer(config, "CONFIG", in, "IN").Replace(got)
	if got != mixedText {
		t.Errorf("replay says\n%s\nwant\n%s", got, mixedText)
	}
}

// replayObject is what scripts read.
type replayObject struct {
	replayHead
	Frames []replayFrame `json:"frames"`
	replaySummary
}

func replayedJSON(t testing.TB, o replayOptions) (r replayObject, err error) {
	t.Helper()
	o.output = "json"
	text, err := replayed(t, o)
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return r, err
}

func TestReplayJSON(t *testing.T) {
	dir := t.TempDir()
	o := replayOptions{config: writeFile(t, filepath.Join(dir, "causeway.yaml"), []byte(replayConfig)), port: "eth1", fallback: "eth1"}
	o.in = capture(t, dir, 4000, mixed(t))
	r, err := replayedJSON(t, o)
	if err != nil {
		t.Fatal(err)
	}
	if r.replayHead != (replayHead{o.config, o.in, "eth1", "eth1"}) || len(r.Frames) != 15 || r.TooLarge != 1 || r.Cut != 0 || r.Error != "" {
		t.Errorf("%+v, %d frames, %+v", r.replayHead, len(r.Frames), r.replaySummary)
	}
	if want := (api.Frames{Received: 14, Originated: 2, Fragments: 1, Forwarded: 10, Delivered: 1, Punted: 1, Dropped: 3, Joined: 1, Held: 1, In: 17, Out: 17}); r.Total != want {
		t.Errorf("total %+v", r.Total)
	}
	f := r.Frames[8]
	if f.Frame != 9 || f.Time != "2023-11-14T22:13:28Z" || f.Length != 1492 || f.Captured != 1492 || f.Outcome != replayDropped || f.IntoTunnel != "acme-1" ||
		f.Originated != 1 || !slices.Equal(f.Sent, []replaySent{{6, "eth1", 590}}) {
		t.Errorf("frame 9: %+v", f)
	}
	drop := api.Drop{Reason: "too_big", Stage: "size", Packets: 1, RFC: "RFC 1191 4, RFC 8201 3",
		Sentence: "the packet is larger than the tunnel's or link's MTU and may not be fragmented"}
	if !slices.Equal(f.Drops, []api.Drop{drop}) || !slices.Contains(r.Drops, drop) {
		t.Errorf("drops: %+v, of all %+v", f.Drops, r.Drops)
	}
}

// A capture that is damaged is replayed up to there, and so is the file of what left.
func TestReplayOfHalfACapture(t *testing.T) {
	dir := t.TempDir()
	o := replayOptions{config: writeFile(t, filepath.Join(dir, "causeway.yaml"), []byte(replayConfig)), out: filepath.Join(dir, "out.pcapng")}
	frames := mixed(t)[:3]
	o.in = capture(t, dir, 100, frames)
	whole, err := os.ReadFile(o.in)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, o.in, whole[:len(whole)-1])
	r, err := replayedJSON(t, o)
	const says = "in.pcap: frame 3: the file ends in the middle of it"
	if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(r.Error, says) || len(r.Frames) != 2 {
		t.Errorf("%d frames, %q: %v", len(r.Frames), r.Error, err)
	}
	for _, f := range r.Frames {
		if f.Outcome != replayCut || f.Captured != 100 || f.Length < 142 {
			t.Errorf("%+v", f)
		}
	}
	if r.Cut != 2 || r.Total != (api.Frames{}) {
		t.Errorf("%+v", r.replaySummary)
	}
	if text, err := replayed(t, o); err == nil || !strings.Contains(text, "     1     142  cut        not fed: the capture has 100 bytes of it\n") ||
		!strings.Contains(text, "nothing was dropped") || !strings.Contains(text, "not fed:    2 = cut by the capture 2 + too large 0\n") {
		t.Errorf("%v\n%s", err, text)
	}
	if _, err := os.Stat(o.out); err != nil {
		t.Error(err)
	}
}

// The capture's clock is the node's: fragments are given up after 15 s of it, and the burst of ICMP errors is over after
// 200 at one moment, however fast the replay is.
func TestReplayTime(t *testing.T) {
	dir := t.TempDir()
	o := replayOptions{config: writeFile(t, filepath.Join(dir, "causeway.yaml"), []byte(replayConfig))}
	var frames [][]byte
	var at []time.Duration
	add := func(f []byte, when time.Duration) { frames, at = append(frames, f), append(at, when) }
	for i := range 20 { // more than are given up in one turn
		add(fragmentsOf(t, 40, uint16(i), udpOf(t, behind4, inetHost, 100)...)[0], 0)
	}
	late := fragmentsOf(t, 40, 0, udpOf(t, behind4, inetHost, 100)...)[1]
	add(late, 14*time.Second) // in time for the first of them
	add(late, 15*time.Second)
	ip := ipOf(inetHost, other4, layers.IPProtocolNoNextHeader).(*layers.IPv4)
	ip.TTL = 1
	expired := craft(t, ip)
	for range 201 {
		add(expired, 20*time.Second)
	}
	add(expired, 25*time.Second)
	add(expired, 3*time.Second) // a clock that was set back
	add(expired, 300*time.Hour)
	o.in = capture(t, dir, 4000, frames, at...)
	r, err := replayedJSON(t, o)
	if err != nil {
		t.Fatal(err)
	}
	if f := r.Frames[20]; f.Outcome != replayForwarded || f.Fragments != 2 || f.FromTunnel != "acme-1" {
		t.Errorf("in time: %+v", f)
	}
	if f := r.Frames[21]; f.Outcome != replayHeld || len(f.Drops) != 1 || f.Drops[0].Reason != "fragment_timeout" || f.Drops[0].Packets != 19 {
		t.Errorf("too late: %+v", f)
	}
	answered := 0
	for _, f := range r.Frames[22:] {
		if f.Outcome != replayDropped || f.Drops[len(f.Drops)-1].Reason != "ttl_exceeded" {
			t.Errorf("%+v", f)
		}
		answered += f.Originated
	}
	if answered != 203 || r.Frames[22+200].Originated != 0 {
		t.Errorf("%d of 204 were answered", answered)
	}
}

func TestReplayExitStatus(t *testing.T) {
	dir := t.TempDir()
	config := writeFile(t, filepath.Join(dir, "causeway.yaml"), []byte(replayConfig))
	bad := writeFile(t, filepath.Join(dir, "bad.yaml"), []byte("interfaces: [{name: eth0, quues: all}]\n"))
	in := capture(t, dir, 4000, mixed(t))
	raw := writeFile(t, filepath.Join(dir, "raw.pcap"), slices.Concat([]byte{0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0}, make([]byte, 12), []byte{20, 1, 0, 0}))
	for _, c := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"-c", config, in}, 0, "frames in:  17 = "},
		{[]string{"--help"}, 0, "There is no kernel here, and what it would know is made up"},
		{[]string{"-c", bad, in}, 1, `unknown field "quues"`},
		{[]string{"-c", config, filepath.Join(dir, "none.pcap")}, 1, "none.pcap: cannot be read: no such file or directory"},
		{[]string{"-c", config, config}, 1, "causeway.yaml: begins with 6e 6f 64 65: neither a pcap nor a pcapng file"},
		{[]string{"-c", config, raw}, 1, "raw.pcap: link type 276: only Ethernet (1) is possible"},
		{[]string{"-c", config, "-w", filepath.Join(dir, "no", "out"), in}, 1, "out: cannot be written: no such file or directory"},
		{[]string{"-c", config, "-w", "/dev/full", in}, 1, "/dev/full: cannot be written: no space left on device"},
		{[]string{"-c", config}, 2, "one capture file, got 0"},
		{[]string{"-c", config, in, in}, 2, "one capture file, got 2"},
		{[]string{"-c", config, "-o", "xml", in}, 2, `output "xml": text and json are possible`},
		{[]string{"-c", config, "-i", "eth7", in}, 2, `interface "eth7": the configuration has eth0, eth1`},
		{[]string{"-c", config, "--default", "eth7", in}, 2, `default "eth7": the configuration has eth0, eth1`},
		{[]string{"-c", config, "-w", in, in}, 2, "that file is read here and would be lost"},
		{[]string{"-c", config, "-w", config, in}, 2, "that file is read here and would be lost"},
	} {
		out, err := exec.Command(binary, append([]string{"replay"}, c.args...)...).CombinedOutput()
		if status := exitStatus(err); status != c.status || !strings.Contains(string(out), c.says) {
			t.Errorf("causeway replay %s: status %d, want %d and %q\n%s", strings.Join(c.args, " "), status, c.status, c.says, out)
		}
	}
}

// tshark decodes OUT: a row for each frame, with all values of a field.
func tshark(t testing.TB, file string, fields ...string) (rows [][]string) {
	t.Helper()
	if _, err := exec.LookPath("tshark"); err != nil {
		t.Fatal("needs tshark: run scripts/deps.sh, or: apt-get install -y --no-install-recommends tshark")
	}
	args := []string{"-r", file, "-n", "-T", "fields", "-E", "separator=|", "-o", "ip.defragment:FALSE",
		"-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	out, err := exec.Command("tshark", args...).Output()
	if err != nil {
		t.Fatalf("tshark %s: %v", strings.Join(args, " "), err)
	}
	for line := range strings.Lines(string(out)) {
		rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "|"))
	}
	return rows
}

// What leaves is judged by Wireshark: by which port and when, outer and inner addresses, checksums, nothing malformed.
func TestReplayJudgedByTshark(t *testing.T) {
	dir := t.TempDir()
	o := replayOptions{config: writeFile(t, filepath.Join(dir, "causeway.yaml"), []byte(replayConfig)), out: filepath.Join(dir, "out.pcapng")}
	o.in = capture(t, dir, 4000, mixed(t))
	if text, err := replayed(t, o); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	got := tshark(t, o.out, "frame.interface_name", "frame.time_epoch", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "frame.len")
	want := [][]string{
		{"eth1", "1700000000.000000000", "192.0.2.1,192.0.2.10", "198.51.100.2,203.0.113.9", "", "", "166"},
		{"eth0", "1700000001.000000000", "203.0.113.9", "192.0.2.10", "", "", "142"},
		{"eth1", "1700000002.000000000", "203.0.113.9", "198.18.7.9", "2001:db8::1", "2001:db8:ffff::2", "186"},
		{"eth1", "1700000005.000000000", "192.0.2.1", "198.51.100.2", "2001:db8:2::10", "2001:db8:7::9", "186"},
		{"eth1", "1700000006.000000000", "192.0.2.1,10.213.0.10", "198.51.100.2,10.213.0.11", "", "", "86"},
		{"eth0", "1700000008.000000000", "192.0.2.1,192.0.2.10", "192.0.2.10,203.0.113.9", "", "", "590"}, // with the packet that it is about
		{"eth1", "1700000009.000000000", "192.0.2.1,192.0.2.10", "198.51.100.2,203.0.113.9", "", "", "1514"},
		{"eth1", "1700000009.000000000", "192.0.2.1,192.0.2.10", "198.51.100.2,203.0.113.9", "", "", "60"},
		{"eth0", "1700000011.000000000", "203.0.113.9", "192.0.2.10", "", "", "142"},
		{"eth0", "1700000013.000000000", "198.18.7.9", "192.0.2.10", "", "", "142"},
	}
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("tshark sees\n%q\nwant\n%q", got, want)
	}
	for i, row := range tshark(t, o.out, "_ws.malformed", "ip.checksum.status", "udp.checksum.status", "icmp.checksum.status") {
		const bad = "0"
		if row[0] != "" || slices.ContainsFunc(row[1:], func(s string) bool { return slices.Contains(strings.Split(s, ","), bad) }) {
			t.Errorf("frame %d: malformed or with a wrong checksum: %q", i+1, row)
		}
	}
}

// TestReplayFieldsAreExplained: the JSON contract in the documentation has every field.
func TestReplayFieldsAreExplained(t *testing.T) {
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("replay_report.go")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## JSON\n")
	_, section, _ = strings.Cut(section, "| `replay`: object |")
	fields := regexp.MustCompile(`json:"(\w+)`).FindAllStringSubmatch(string(source), -1)
	if len(fields) < 20 {
		t.Errorf("%d fields", len(fields))
	}
	for _, m := range fields {
		if !strings.Contains(section, "`"+m[1]+"`") {
			t.Errorf("%s is not explained", m[1])
		}
	}
}
