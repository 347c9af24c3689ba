package main_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"causeway/control/api"
)

// A kind is many packets of the known mix that are equal for analytics, and what it must say of them.
type kind struct {
	account   string
	in, out   string // tunnels
	direction string
	length    int // bytes of the packet inside; without a tunnel, of the packet
	protocol  string
	port      int // destination
	reason    string
	count     int
}

// knownMix writes recordings of traffic in all directions, of two accounts, good and bad, from the Internet and from customers.
const knownMix = `
internet, customers, endpoint, far = Ether(src=%q, dst=%q), Ether(src=%q, dst=%q), %q, %q
udp = lambda src, dst, port, n: IP(src=src, dst=dst)/UDP(sport=4000, dport=port)/(b"x" * n)
gre = lambda customer, inner: customers/IP(src=customer, dst=endpoint)/GRE()/inner

def mixed(name, *kinds):
    frames = [vary(bytes(p), at, sport=anyport()) for p, at, n in kinds for _ in range(n)]
    random.shuffle(frames)
    record(name, frames)

mixed("internet", (internet/udp(far, "198.18.31.10", 5353, 100), 14, 3000),
    (internet/IP(src=far, dst="198.18.31.20")/TCP(dport=443, flags="A")/(b"y" * 1000), 14, 1600),
    (internet/IP(src=far, dst="198.18.31.30")/TCP(dport=443, flags="A")/(b"y" * 1000), 14, 400),
    (internet/IP(src=far, dst="198.18.33.10")/ICMP()/(b"z" * 36), 14, 700))
mixed("customers", (gre("198.51.100.21", udp("198.18.31.10", far, 9, 472)), 38, 2500),
    (gre("198.51.100.21", udp("198.18.31.10", "198.18.32.10", 7, 72)), 38, 900),  # lateral
    (gre("198.51.100.21", udp("198.18.33.10", far, 9, 172)), 38, 400),  # with a source of blue's
    (gre("198.51.100.29", udp("198.18.31.10", far, 9, 10)), 38, 300))  # of no tunnel
`

// mixKinds is how many kinds of packets are in it.
const mixKinds = 7

// A mix is recordings whose totals are known.
type mix struct {
	b                   *bed
	internet, customers *replayer
	truth               []kind
}

// makeMix has scapy record the mix, and tshark count it.
func (b *bed) makeMix(t *testing.T) *mix {
	t.Helper()
	dir := b.scapyWrites(t, fmt.Sprintf(knownMix, b.inet.MAC("eth0"), b.rt.MAC("vi"), b.cust.MAC("up0"), b.rt.MAC("vc"),
		endpoint4, inet4))
	internet, customers := filepath.Join(dir, "internet"), filepath.Join(dir, "customers")
	m := &mix{b: b, internet: replays(t, b.inet, "eth0", internet), customers: replays(t, b.cust, "up0", customers)}
	counts := map[kind]int{}
	for _, file := range []string{internet, customers} {
		for _, row := range b.net.Tshark(file, "", "ip.src", "ip.dst", "ip.len", "ip.proto", "udp.dstport", "tcp.dstport") {
			counts[kindOf(t, row)]++
		}
	}
	for k, n := range counts {
		k.count = n
		m.truth = append(m.truth, k)
	}
	if len(m.truth) != mixKinds {
		t.Fatalf("tshark sees %d kinds of packets, want %d: %+v", len(m.truth), mixKinds, m.truth)
	}
	return m
}

// kindOf is what a packet of the mix is, by what tshark reads in it: of a packet in a packet, fields have two values.
func kindOf(t *testing.T, row []string) (k kind) {
	t.Helper()
	var fields [4][]string
	for i := range fields {
		fields[i] = strings.Split(row[i], ",")
	}
	src, dst, length, protocol := fields[0], fields[1], fields[2], fields[3]
	last := len(src) - 1 // the packet inside
	within := func(address string) *tunnel {
		for _, x := range analyticsTunnels() {
			if netip.MustParsePrefix(x.prefixes[0]).Contains(addr(address)) {
				return &x
			}
		}
		return nil
	}
	to, port := within(dst[last]), row[4]+row[5]
	if last == 0 {
		k.account, k.out, k.direction = to.account, to.name, "ingress"
	} else if i := slices.IndexFunc(analyticsTunnels(), func(x tunnel) bool { return x.customer == src[0] }); i < 0 {
		k.direction, k.reason, last, port = "none", "tunnel_unknown", 0, ""
	} else {
		from := analyticsTunnels()[i]
		k.account, k.in, k.direction = from.account, from.name, "egress"
		if source := within(src[last]); source == nil || source.name != from.name {
			k.reason = "inner_source"
		} else if to != nil && to.account == from.account {
			k.out, k.direction = to.name, "lateral"
		}
	}
	k.protocol = map[string]string{"1": "ICMP", "6": "TCP", "17": "UDP", "47": "GRE"}[protocol[last]]
	var err error
	if k.length, err = strconv.Atoi(length[last]); err == nil && port != "" {
		k.port, err = strconv.Atoi(port)
	}
	if err != nil {
		t.Fatalf("tshark reads %q", row)
	}
	return k
}

// analyticsTunnels are two of red and one of blue.
func analyticsTunnels() (list []tunnel) {
	for i, name := range []string{"red-1", "red-2", "blue-1"} {
		list = append(list, tunnel{name: name, account: strings.Split(name, "-")[0], endpoint: endpoint4, customer: fmt.Sprintf("198.51.100.%d", 21+i),
			interface4: fmt.Sprintf("10.255.0.%d/31", 2*i), prefixes: []string{fmt.Sprintf("198.18.%d.0/24", 31+i)}})
	}
	return list
}

// TestRootAnalytics replays a mix that scapy has made and tshark has counted, and asks by the API with curl: what is counted must be exact, what is estimated
// within its stated interval, and an account sees its own alone.
func TestRootAnalytics(t *testing.T) {
	b := newCraftedBed(t)
	b.discard(t)
	tokens := b.tokens(t)
	configuration := func(sampling int) string {
		return b.configuration(analyticsTunnels(), fmt.Sprintf("analytics: {listen: \"127.0.0.1:9151\", tokens: {file: %s}, sampling: %d}", tokens, sampling))
	}
	b.run(t, configuration(50))
	b.warmAnalytics(t)
	known := b.makeMix(t)
	for _, sampling := range []int{1, 100, 1000} {
		b.part(t, fmt.Sprintf("one of %d", sampling), func(t *testing.T) {
			b.write(t, configuration(sampling))
			b.node.MustRun(b.bin, "reload", "--socket", b.socket)
			began := time.Now().Truncate(time.Second).Add(3 * time.Second) // what warmed up is written, and not asked for
			time.Sleep(time.Until(began))
			sent := known.replay(t)
			b.sayWhatWasCounted(t, began, sent)
			b.sayWhatWasSampled(t, began, sent, sampling)
			if sampling == 1 {
				b.publishedQueries(t, began)
				b.refusedQueries(t)
				b.documentedQuery(t)
			}
			b.balance(t)
		})
	}
	b.end(t)
}

// tokens is a file of tokens, one of each account and one of all.
func (b *bed) tokens(t *testing.T) string {
	t.Helper()
	file, text := filepath.Join(b.dir, "tokens"), ""
	for _, account := range []string{"red", "blue", "*"} {
		hash := sha256.Sum256([]byte(tokenOf(account)))
		text += hex.EncodeToString(hash[:]) + " " + account + "\n"
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// discard takes UDP to port 9 of the Internet's host, which would else answer by ICMP.
func (b *bed) discard(t *testing.T) {
	t.Helper()
	var c net.PacketConn
	b.inet.Do(func() {
		var err error
		if c, err = net.ListenPacket("udp4", inet4+":9"); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { c.Close() })
}

// tokenOf is an account's token.
func tokenOf(account string) string {
	return "a-token-of-a-test-for-account-" + account + "-0123456789"
}

// warmAnalytics has all next hops resolved.
func (b *bed) warmAnalytics(t *testing.T) {
	t.Helper()
	far, at := b.inet.Capture("eth0", "udp port 9"), b.cust.Capture("up0", "proto 47")
	b.inet.Scapy(`
for i in range(10):
    send(IP(dst="198.18.31.10")/UDP(dport=9)); send(IP(dst="198.18.32.10")/UDP(dport=9)); send(IP(dst="198.18.33.10")/UDP(dport=9)); time.sleep(.02)`)
	b.customer(fmt.Sprintf(`
for i in range(10):
    send(IP(src="198.51.100.21", dst=%q)/GRE()/IP(src="198.18.31.10", dst=%q)/UDP(dport=9)); time.sleep(.02)`, endpoint4, inet4))
	if in, out := at.Stop(), far.Stop(); len(b.net.Tshark(in, "ip.dst == 198.51.100.23", "frame.number")) == 0 || len(b.net.Tshark(out, "ip.src == 198.18.31.10", "frame.number")) == 0 {
		t.Fatal("nothing of ten packets came through")
	}
}

// replay sends the mix, at a pace that a machine which is busy with something else bears too, and returns it once the node has taken all
// of it.
func (m *mix) replay(t *testing.T) []kind {
	t.Helper()
	before := show[api.Workers](t, m.b, "workers").Total.Received
	n := 0
	for _, r := range []*replayer{m.internet, m.customers} {
		if err := r.once(5000); err != nil {
			t.Fatal(err)
		}
		n += len(r.frames)
	}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if got := show[api.Workers](t, m.b, "workers").Total.Received - before; got >= uint64(n) {
			return m.truth
		}
	}
	t.Fatalf("the node has not got the %d packets that were sent", n)
	return nil
}

// ask is a query by curl. The answer's data, or its first error. Where may be another place than usual, with options of curl's before it.
func (b *bed) ask(t *testing.T, account, query string, variables map[string]any, where ...string) (data map[string]any, fault string) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"query": query, "variables": variables})
	if err != nil {
		t.Fatal(err)
	}
	if len(where) == 0 {
		where = []string{"http://127.0.0.1:9151/client/v4/graphql"}
	}
	out := b.node.MustRun(append([]string{"curl", "-sS", "--max-time", "20", "-H", "Authorization: Bearer " + tokenOf(account), "-H", "Content-Type: application/json",
		"--data-binary", string(body)}, where...)...)
	var answer struct {
		Data   map[string]any
		Errors []struct{ Message string }
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatalf("curl printed %q: %v", out, err)
	}
	if len(answer.Errors) > 0 {
		return answer.Data, answer.Errors[0].Message
	}
	return answer.Data, ""
}

// groups asks for the groups of a dataset since a moment.
func (b *bed) groups(t *testing.T, account, field, filter, selection string, since time.Time) []map[string]any {
	t.Helper()
	query := fmt.Sprintf(`query($tag: string!, $since: Time!) { viewer { accounts(filter: {accountTag: $tag}) {
		%s(limit: 1000, filter: {datetime_geq: $since%s}) { %s } } } }`, field, filter, selection)
	data, fault := b.ask(t, account, query, map[string]any{"tag": account, "since": since.UTC().Format(time.RFC3339)})
	if fault != "" {
		t.Fatalf("%s: %s", query, fault)
	}
	var out []map[string]any
	for _, g := range dig(data, "viewer", "accounts", 0, field).([]any) {
		out = append(out, g.(map[string]any))
	}
	return out
}

// dig goes down by names and places; nil: there is nothing.
func dig(v any, path ...any) any {
	for _, step := range path {
		switch step := step.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[step]
		case int:
			l, _ := v.([]any)
			if step >= len(l) {
				return nil
			}
			v = l[step]
		}
	}
	return v
}

func number(v any) int {
	f, _ := v.(float64)
	return int(f)
}

// sayWhatWasCounted compares exact sums by tunnel and direction, and drops by reason, for each account and the operator.
func (b *bed) sayWhatWasCounted(t *testing.T, began time.Time, sent []kind) {
	t.Helper()
	b.sayWhatWasCountedWithin(t, began, sent, 10*time.Second)
}

// sayWhatWasCountedWithin waits so long at the most until all of it is there.
func (b *bed) sayWhatWasCountedWithin(t *testing.T, began time.Time, sent []kind, limit time.Duration) {
	t.Helper()
	last := time.Now().Add(limit)
	for _, account := range []string{"red", "blue", "*"} {
		want := map[string]int{}
		for _, k := range sent {
			if account != "*" && k.account != account {
				continue
			}
			tunnel := k.out
			if tunnel == "" {
				tunnel = k.in
			}
			if k.reason != "" {
				want[strings.Join([]string{"drop", tunnel, k.direction, k.reason}, " ")] += k.count
			}
			if tunnel != "" && k.reason == "" {
				want[strings.Join([]string{"packets", tunnel, k.direction}, " ")] += k.count
				want[strings.Join([]string{"bits", tunnel, k.direction}, " ")] += 8 * k.count * k.length
			}
			if tunnel != "" && k.reason != "" {
				want[strings.Join([]string{"dropped", tunnel, k.direction}, " ")] += k.count
			}
		}
		var got map[string]int
		for ; ; time.Sleep(500 * time.Millisecond) {
			got = b.counted(t, account, began)
			if fmt.Sprint(got) == fmt.Sprint(want) {
				break
			}
			if time.Now().After(last) {
				t.Errorf("account %s: counted\n%v\nwant\n%v", account, got, want)
				return
			}
		}
	}
}

func (b *bed) counted(t *testing.T, account string, since time.Time) map[string]int {
	t.Helper()
	got := map[string]int{}
	for _, g := range b.groups(t, account, "magicTransitTunnelTrafficAdaptiveGroups", "", "sum { bits packets droppedPackets } max { packetRate } dimensions { tunnelName direction }", since) {
		way := fmt.Sprintf("%v %v", dig(g, "dimensions", "tunnelName"), dig(g, "dimensions", "direction"))
		for name, key := range map[string]string{"packets": "packets", "bits": "bits", "dropped": "droppedPackets"} {
			if n := number(dig(g, "sum", key)); n > 0 {
				got[name+" "+way] = n
			}
		}
		if most, sum := number(dig(g, "max", "packetRate")), number(dig(g, "sum", "packets")); most > sum || sum > 0 && most == 0 {
			t.Errorf("%s: %d packets, and at most %d in a second", way, sum, most)
		}
	}
	for _, g := range b.groups(t, account, "magicTransitTunnelDropsAdaptiveGroups", "", "sum { packets } dimensions { tunnelName direction dropReason }", since) {
		got[fmt.Sprintf("drop %v %v %v", dig(g, "dimensions", "tunnelName"), dig(g, "dimensions", "direction"), dig(g, "dimensions", "dropReason"))] = number(dig(g, "sum", "packets"))
	}
	return got
}

// sayWhatWasSampled compares estimates of each kind with the truth: exact where everything is sampled, else within the interval that
// the answer states, at a level at which a test that is run each day fails once in a lifetime.
func (b *bed) sayWhatWasSampled(t *testing.T, began time.Time, sent []kind, sampling int) {
	t.Helper()
	groups := b.groups(t, "*", "magicTransitNetworkAnalyticsAdaptiveGroups", "", `sum { packets bits } avg { sampleInterval }
		confidence(level: 0.999) { sum { packets { estimate lower upper isValid sampleSize } bits { lower upper } } }
		dimensions { direction ingressTunnelName egressTunnelName ipProtocolName destinationPort outcome dropReason ipTotalLength }`, began)
	for _, k := range sent {
		is := func(g map[string]any) bool {
			d := dig(g, "dimensions").(map[string]any)
			outcome := "pass"
			if k.reason != "" {
				outcome = "drop"
			}
			return d["direction"] == k.direction && d["ingressTunnelName"] == k.in && d["egressTunnelName"] == k.out && d["ipProtocolName"] == k.protocol &&
				number(d["destinationPort"]) == k.port && d["outcome"] == outcome && d["dropReason"] == k.reason && number(d["ipTotalLength"]) == k.length
		}
		i := slices.IndexFunc(groups, is)
		if i < 0 {
			if sampling < k.count/20 { // that none is sampled happens once in e^20
				t.Errorf("%+v: no sample, in %v", k, groups)
			}
			continue
		}
		c := dig(groups[i], "confidence", "sum", "packets")
		low, high := number(dig(c, "lower")), number(dig(c, "upper"))
		switch got := number(dig(groups[i], "sum", "packets")); {
		case sampling == 1 && (got != k.count || low != k.count || high != k.count || number(dig(groups[i], "sum", "bits")) != 8*k.count*k.length):
			t.Errorf("%+v: %d packets, of which all are sampled, in [%d, %d]", k, got, low, high)
		case dig(c, "isValid") == true && (k.count < low || k.count > high):
			t.Errorf("%+v: estimated %d, between %d and %d", k, got, low, high)
		}
		if every := number(dig(groups[i], "avg", "sampleInterval")); every != sampling {
			t.Errorf("%+v: one of %d is sampled, want %d", k, every, sampling)
		}
	}
}

// publishedQueries runs the queries of Cloudflare's tutorials as they stand there, but for spaces.
func (b *bed) publishedQueries(t *testing.T, began time.Time) {
	t.Helper()
	variables := map[string]any{"accountTag": "red", "start": began.Add(-time.Hour).UTC().Format(time.RFC3339), "end": began.Add(time.Hour).UTC().Format(time.RFC3339),
		"datetimeStart": began.Add(-time.Hour).UTC().Format(time.RFC3339), "datetimeEnd": began.Add(time.Hour).UTC().Format(time.RFC3339)}
	for window, dimension := range map[string]string{"FiveMinutes": "datetimeFiveMinutes", "Hour": "datetimeHour"} {
		data, fault := b.ask(t, "red", fmt.Sprintf(`query Bandwidth($accountTag: string!, $start: Time!, $end: Time!) { viewer { accounts(filter: { accountTag: $accountTag }) {
			magicTransitTunnelTrafficAdaptiveGroups(limit: 100 filter: { datetime_geq: $start, datetime_lt: $end, direction: "ingress" }) {
			avg { bitRate%s } dimensions { tunnelName %s } } } } }`, window, dimension), variables)
		g := dig(data, "viewer", "accounts", 0, "magicTransitTunnelTrafficAdaptiveGroups", 0)
		if fault != "" || dig(g, "dimensions", "tunnelName") != "red-1" || number(dig(g, "avg", "bitRate"+window)) == 0 || len(fmt.Sprint(dig(g, "dimensions", dimension))) != len("2021-05-12T22:00:00Z") {
			t.Errorf("bandwidth by %s: %v %s", window, data, fault)
		}
	}
	data, fault := b.ask(t, "red", `query GetTunnelHealthCheckResults($accountTag: string, $datetimeStart: Time, $datetimeEnd: Time) { viewer { accounts(filter: {accountTag: $accountTag}) {
		magicTransitTunnelHealthChecksAdaptiveGroups(limit: 100, filter: { datetime_geq: $datetimeStart, datetime_lt: $datetimeEnd }) {
		avg { tunnelState } dimensions { tunnelName edgeColoName } } } } }`, variables)
	if list, ok := dig(data, "viewer", "accounts", 0, "magicTransitTunnelHealthChecksAdaptiveGroups").([]any); fault != "" || !ok || len(list) > 0 {
		t.Errorf("health, without checks: %v %s", data, fault)
	}
}

// documentedQuery asks what docs/analytics.md asks.
func (b *bed) documentedQuery(t *testing.T) {
	t.Helper()
	page, err := os.ReadFile("../../docs/analytics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, begins := strings.Cut(string(page), "--data-binary @- <<'END'\n")
	text, _, ends := strings.Cut(text, "\nEND\n")
	var body struct {
		Query     string
		Variables map[string]any
	}
	if err := json.Unmarshal([]byte(text), &body); err != nil || !begins || !ends {
		t.Fatalf("the page has no query: %v", err)
	}
	body.Variables["tag"] = "red"
	data, fault := b.ask(t, "red", body.Query, body.Variables)
	if g := dig(data, "viewer", "accounts", 0, "magicTransitTunnelTrafficAdaptiveGroups", 0); fault != "" || dig(g, "dimensions", "tunnelName") != "red-1" ||
		dig(g, "dimensions", "direction") != "ingress" || number(dig(g, "resolution")) != 1 || number(dig(g, "sum", "bits")) == 0 {
		t.Errorf("%v %s", data, fault)
	}
}

// refusedQueries must not be answered.
func (b *bed) refusedQueries(t *testing.T) {
	t.Helper()
	const rows = `query($tag: string!) { viewer { accounts(filter: {accountTag: $tag}) { magicTransitTunnelTrafficAdaptiveGroups(limit: %d, filter: {datetime_geq: "2026-01-01T00:00:00Z"}) { sum { bits } } } } }`
	for what, x := range map[string]struct{ account, tag, query string }{
		"another account's":        {"red", "blue", fmt.Sprintf(rows, 10)},
		"everybody's":              {"red", "*", fmt.Sprintf(rows, 10)},
		"an account that none has": {"red", "green", fmt.Sprintf(rows, 10)},
		"no token":                 {"nobody", "red", fmt.Sprintf(rows, 10)},
		"too many rows":            {"red", "red", fmt.Sprintf(rows, 10001)},
		"no query":                 {"red", "red", "query {"},
	} {
		if data, fault := b.ask(t, x.account, x.query, map[string]any{"tag": x.tag}); fault == "" || dig(data, "viewer", "accounts", 0) != nil {
			t.Errorf("%s rows: %v, %q", what, data, fault)
		} else {
			t.Logf("%s: %s", what, fault)
		}
	}
}
