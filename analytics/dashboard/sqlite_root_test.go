package dashboard

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"causeway/analytics/flow"
	"causeway/analytics/store"
	"causeway/analytics/store/sqlite"
)

// The pages show what a real store was given: two hours of a steady rate, of which it keeps only one by the second.
func TestRootDashboardOverSQLite(t *testing.T) {
	s, err := sqlite.Open(t.TempDir(), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err := s.Write(t.Context(), steady(time.Now().Unix())); err != nil {
		t.Fatal(err)
	}
	host := site(t, s, nil)
	b := newBrowser(t)
	b.window(1280, 900, "light")
	view := func(page string) string {
		b.open(host + "/#/" + page)
		b.shoot("sqlite-" + strings.Map(func(r rune) rune {
			if strings.ContainsRune("/?&%=", r) {
				return '-'
			}
			return r
		}, page[:min(len(page), 30)]))
		return strings.ReplaceAll(fmt.Sprint(b.eval(`document.getElementById("view").innerText`)), "\u00a0", " ")
	}
	from, to := time.Now().Add(-110*time.Minute), time.Now().Add(-100*time.Minute)
	old := "overview?range=custom&from=" + from.UTC().Format(time.RFC3339) + "&to=" + to.UTC().Format(time.RFC3339)
	for page, want := range map[string][]string{
		"overview?range=30m":  {"8.00 Mbit/s", "max 8.00 Mbit/s, p95 8.00 Mbit/s, of rates over 1 s. As in the period before", "no_route", "under way"},
		"overview?range=live": {"8.00 Mbit/s"},
		old:                   {"8.00 Mbit/s", "of rates over 1 min"}, // ten seconds are too fine for what is left of that time
		"tunnels":             {hostile, "● healthy", "192.0.2.9", "1.67 %", "12.0 ms", "8.00 Mbit/s"},
		"tunnels?range=30m&tunnel=" + url.QueryEscape(hostile): {"Health of the tunnel", "no_route"},
		"nodes": {"n1", "fra", "8.00 Mbit/s", "1.60 Mbit/s"},
		"explorer?range=30m&dim=egressTunnelName&log=1": {hostile, "100.0 %", "1000 bytes"},
		"attacks": {"SYN flood", "192.0.2.1:80"},
	} {
		shown := view(page)
		for _, w := range want {
			if !strings.Contains(shown, w) {
				t.Errorf("%s lacks %q:\n%s", page, w, shown)
			}
		}
	}
	b.clean(host)
}

// steady is two hours of 8 Mbit/s into a tunnel and 1.6 Mbit/s out of it.
func steady(now int64) *store.Batch {
	tunnel := &flow.Tunnel{ID: "00112233445566778899aabbccddeeff", Name: hostile, Account: "acme", Kind: "GRE"}
	b := &store.Batch{Place: store.Place{Node: "n1", DataCenter: "fra"}}
	for t := now - 7200; t < now+60; t++ {
		b.Traffic = append(b.Traffic,
			store.Traffic{Time: t, Account: "acme", Tunnel: tunnel, Direction: flow.Ingress, Packets: 1000, Bytes: 1e6},
			store.Traffic{Time: t, Account: "acme", Tunnel: tunnel, Direction: flow.Egress, Packets: 500, Bytes: 2e5})
		if t%7 == 0 {
			b.Drops = append(b.Drops, store.Drops{Time: t, Account: "acme", Tunnel: tunnel, Direction: flow.Egress, Reason: "no_route", Packets: 3})
			b.Samples = append(b.Samples, store.Sample{Account: "acme",
				Sample: flow.Sample{Time: time.Unix(t, 0), Every: 1000, Out: tunnel, Length: 1000, Header: make([]byte, 20)}})
		}
		if t%60 == 0 {
			b.Health = append(b.Health, store.Health{Time: t, Account: "acme", Tunnel: tunnel, Remote: "192.0.2.9", State: "healthy", Active: true,
				Probes: 60, Lost: 1, RTT: 12 * time.Millisecond})
		}
	}
	b.Attacks = []store.Attack{{ID: "x", Account: "acme", Start: now - 4000, Type: "flood", Vector: "SYN flood", Dst: "192.0.2.1", DstPort: 80,
		Protocol: 6, Packets: 1e6, Bits: 1e9}}
	return b
}
