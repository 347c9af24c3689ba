package main_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"causeway/control/api"
	"causeway/control/notify"
)

// A kind is many equal packets of the known mix, and what analytics must say of them.
type kind struct {
	what      string
	from      string // the host that sends: inet or cust
	packet    string // scapy's
	count     int
	account   string
	in, out   string // tunnels
	direction string
	length    int // bytes of the inner packet
	protocol  string
	port      int // destination
	reason    string
}

// mix is traffic in all directions, of two accounts, good and bad. Lengths are those of IP headers and what they carry.
func mix() []kind {
	gre := func(customer, inner string) string {
		return fmt.Sprintf("IP(src=%q, dst=%q)/GRE()/%s", customer, endpoint4, inner)
	}
	udp := func(src, dst string, port, payload int) string {
		return fmt.Sprintf("IP(src=%q, dst=%q)/UDP(sport=4000, dport=%d)/(b'x'*%d)", src, dst, port, payload)
	}
	return []kind{
		{"to red by UDP", "inet", udp(inet4, "198.18.31.10", 5353, 100), 3000, "red", "", "red-1", "ingress", 128, "UDP", 5353, ""},
		{"to red by TCP", "inet", fmt.Sprintf("IP(src=%q, dst='198.18.31.10')/TCP(dport=443, flags='A')/(b'y'*1000)", inet4), 2000, "red", "", "red-1", "ingress", 1040, "TCP", 443, ""},
		{"to blue by ICMP", "inet", fmt.Sprintf("IP(src=%q, dst='198.18.33.10')/ICMP()/(b'z'*36)", inet4), 700, "blue", "", "blue-1", "ingress", 64, "ICMP", 0, ""},
		{"from red", "cust", gre("198.51.100.21", udp("198.18.31.10", inet4, 9, 472)), 2500, "red", "red-1", "", "egress", 500, "UDP", 9, ""},
		{"red to red", "cust", gre("198.51.100.21", udp("198.18.31.10", "198.18.32.10", 7, 72)), 900, "red", "red-1", "red-2", "lateral", 100, "UDP", 7, ""},
		{"from red, with a source of blue's", "cust", gre("198.51.100.21", udp("198.18.33.10", inet4, 9, 172)), 400, "red", "red-1", "", "egress", 200, "UDP", 9, "inner_source"},
		{"of no tunnel", "cust", gre("198.51.100.29", udp("198.18.31.10", inet4, 9, 10)), 300, "", "", "", "none", 62, "GRE", 0, "tunnel_unknown"},
	}
}

// analyticsTunnels are two of red and one of blue.
func analyticsTunnels() (list []tunnel) {
	for i, name := range []string{"red-1", "red-2", "blue-1"} {
		list = append(list, tunnel{name: name, account: strings.Split(name, "-")[0], endpoint: endpoint4, customer: fmt.Sprintf("198.51.100.%d", 21+i),
			interface4: fmt.Sprintf("10.255.0.%d/31", 2*i), prefixes: []string{fmt.Sprintf("198.18.%d.0/24", 31+i)}})
	}
	return list
}

// TestRootAnalytics sends a mix whose totals are known, and asks by the API with curl: what is counted must be exact, what is estimated
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
	for _, sampling := range []int{1, 100, 1000} {
		b.part(t, fmt.Sprintf("one of %d", sampling), func(t *testing.T) {
			b.write(t, configuration(sampling))
			b.node.MustRun(b.bin, "reload", "--socket", b.socket)
			began := time.Now().Truncate(time.Second).Add(3 * time.Second) // what warmed up is written, and not asked for
			time.Sleep(time.Until(began))
			sent := b.sendMix(t)
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

// sendMix sends the mix, at a pace that the links bear, and returns it once the node has taken all of it.
func (b *bed) sendMix(t *testing.T) []kind {
	t.Helper()
	before := show[api.Workers](t, b, "workers").Total.Received
	all, n := mix(), 0
	for _, host := range []string{"inet", "cust"} {
		script := "import socket\n"
		for _, k := range all {
			if k.from == host {
				script += fmt.Sprintf("mix.append((bytes(Ether(src=src, dst=dst)/%s), %d))\n", k.packet, k.count)
				n += k.count
			}
		}
		script += `
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind((interface, 0))
turn = 0
while any(c > 0 for _, c in mix):
    for i, (p, c) in enumerate(mix):
        for _ in range(min(c, 20)):
            raw.send(p)
        mix[i] = (p, max(0, c - 20))
        time.sleep(.002)
`
		if host == "inet" {
			b.inet.Scapy(fmt.Sprintf("mix, interface, src, dst = [], %q, %q, %q\n", "eth0", b.inet.MAC("eth0"), b.rt.MAC("vi")) + script)
		} else {
			b.cust.Scapy(fmt.Sprintf("mix, interface, src, dst = [], %q, %q, %q\n", "up0", b.cust.MAC("up0"), b.rt.MAC("vc")) + script)
		}
	}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if got := show[api.Workers](t, b, "workers").Total.Received - before; got >= uint64(n) {
			return all
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
				t.Errorf("%s: no sample of %d packets, in %v", k.what, k.count, groups)
			}
			continue
		}
		c := dig(groups[i], "confidence", "sum", "packets")
		low, high := number(dig(c, "lower")), number(dig(c, "upper"))
		switch got := number(dig(groups[i], "sum", "packets")); {
		case sampling == 1 && (got != k.count || low != k.count || high != k.count || number(dig(groups[i], "sum", "bits")) != 8*k.count*k.length):
			t.Errorf("%s: %d packets, of which all are sampled, in [%d, %d]; want %d", k.what, got, low, high, k.count)
		case dig(c, "isValid") == true && (k.count < low || k.count > high):
			t.Errorf("%s: %d packets, estimated %d, between %d and %d", k.what, k.count, got, low, high)
		}
		if every := number(dig(groups[i], "avg", "sampleInterval")); every != sampling {
			t.Errorf("%s: one of %d is sampled, want %d", k.what, every, sampling)
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

// TestRootAttack floods a customer with SYNs beside clean traffic: an attack is found, told and ended, and nothing else is.
func TestRootAttack(t *testing.T) {
	b := newCraftedBed(t)
	b.discard(t)
	told := make(chan notify.AttackNotice, 10)
	var hook *httptest.Server
	b.node.Do(func() { // its address is one of the node's
		hook = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			var x notify.AttackNotice
			if err := json.NewDecoder(r.Body).Decode(&x); err != nil {
				t.Error(err)
			}
			told <- x
		}))
	})
	defer hook.Close()
	b.run(t, b.configuration(analyticsTunnels(), "notify: {webhook: "+hook.URL+"}",
		"metrics: {listen: \"127.0.0.1:9150\"}",
		"analytics: {listen: \"127.0.0.1:9151\", sampling: 10, attacks: {syn_flood: 1000}}"))
	b.warmAnalytics(t)
	began := time.Now()
	b.inet.Scapy(fmt.Sprintf(`
import socket, random
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("eth0", 0))
eth = Ether(src=%q, dst=%q)
clean = bytes(eth/IP(src=%q, dst="198.18.33.10")/UDP(sport=4000, dport=5000)/(b"x"*500))
syn = [bytes(eth/IP(src="192.0.2.%%d" %% random.randint(20, 250), dst="198.18.31.10")/TCP(sport=random.randint(1024, 65535), dport=443, flags="S", seq=i)) for i in range(2000)]
end = time.time() + 8
while time.time() < end:
    for i in range(50):
        raw.send(random.choice(syn))
    for i in range(10):
        raw.send(clean)
    time.sleep(.01)
`, b.inet.MAC("eth0"), b.rt.MAC("vi"), inet4))
	ended := time.Now()
	take := func(state string, limit time.Duration) (x notify.AttackNotice) {
		select {
		case x = <-told:
		case <-time.After(limit):
			t.Fatalf("nothing is told that has %s; counted: %v", state, b.counted(t, "*", began))
		}
		if x.State != state || x.Vector != "SYN flood" || x.Kind != "flood" || x.Account != "red" || x.Destination != "198.18.31.10" || x.Node != "edge-1" || x.Packets == 0 {
			t.Errorf("told: %+v", x)
		}
		return x
	}
	if x := take("started", time.Second); x.Time.Sub(began) > 10*time.Second || len(x.Sources) == 0 || x.Rate < 1000 {
		t.Errorf("told after %v: %+v", x.Time.Sub(began), x)
	}
	if x := take("ended", 35*time.Second); x.Time.Sub(ended) > 30*time.Second {
		t.Errorf("it ended %v after the last packet", x.Time.Sub(ended))
	}
	var rows []any
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Second) {
		data, fault := b.ask(t, "*", `query($tag: string!, $since: Time!) { viewer { accounts(filter: {accountTag: $tag}) { dosdAttackAnalyticsGroups(limit: 10, filter: {startDatetime_geq: $since}) {
			attackId attackVector destinationIp destinationPort ipProtocolName commonTcpFlagsNames packets startDatetime endDatetime } } } }`,
			map[string]any{"tag": "red", "since": began.Add(-time.Minute).UTC().Format(time.RFC3339)})
		if fault != "" {
			t.Fatal(fault)
		}
		if rows, _ = dig(data, "viewer", "accounts", 0, "dosdAttackAnalyticsGroups").([]any); len(rows) > 0 && dig(rows[0], "endDatetime") != nil {
			break
		}
	}
	if len(rows) != 1 || dig(rows[0], "attackVector") != "SYN flood" || dig(rows[0], "destinationIp") != "198.18.31.10" || number(dig(rows[0], "destinationPort")) != 443 ||
		dig(rows[0], "endDatetime") == nil || dig(rows[0], "commonTcpFlagsNames") != "SYN" || number(dig(rows[0], "packets")) < 10_000 {
		t.Errorf("rows of attacks: %v", rows)
	}
	if m := b.node.MustRun("curl", "-sS", "http://127.0.0.1:9150/metrics"); !strings.Contains(m, `causeway_analytics_attacks_total{vector="SYN flood"} 1`) || !strings.Contains(m, "causeway_analytics_attacks_active 0") {
		t.Error("metrics do not tell of it")
	}
	b.end(t)
}
