package dashboard

import (
	"crypto/sha256"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"causeway/analytics/dataset"
	"causeway/analytics/graph"
	"causeway/analytics/store"
)

// site is the dashboard with the API over a store. Without tokens it is open.
func site(t *testing.T, f store.Querier, tokens *graph.Tokens) string {
	t.Helper()
	var now func() []graph.Tunnel
	if x, ok := f.(*fakeStore); ok && !x.empty {
		now = tunnelsNow
	}
	api, err := graph.New(graph.Options{Store: f, Tokens: tokens, Open: tokens == nil,
		NotOlderThan: map[dataset.Table]time.Duration{dataset.SampleTable: 20 * 24 * time.Hour}, Tunnels: now,
		Accounts: func() []string { return []string{"acme", "beta"} }})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(graph.Path, api)
	mux.Handle(graph.StreamPath, api)
	mux.Handle("/", Handler())
	s := httptest.NewServer(mux)
	t.Cleanup(func() {
		api.Close()
		s.CloseClientConnections()
		s.Close()
	})
	return s.URL
}

// Chromium opens every page and does what a viewer does. CAUSEWAY_SCREENSHOTS=DIR keeps pictures.
func TestRootDashboard(t *testing.T) {
	b := newBrowser(t)
	b.call("Emulation.setTimezoneOverride", map[string]any{"timezoneId": "Europe/Berlin"})
	host := site(t, newFake(), nil)
	for _, step := range []struct {
		name string
		do   func(t *testing.T, b *browser, host string)
	}{
		{"pages", pagesLoad}, {"hostile names stay text", hostileNames}, {"filter", filterByClick}, {"time", timeRange}, {"live", liveUpdates},
		{"tunnel", oneTunnel}, {"account", accountChosen}, {"old attack", oldAttack},
		{"export", exports}, {"sort", sorting}, {"dark", darkSwitch}, {"keyboard", keyboard}, {"charts have tables", chartTables}, {"link",
			linkReproduces},
	} {
		t.Run(step.name, func(t *testing.T) {
			b.t = t
			b.window(1280, 900, "light")
			step.do(t, b, host)
			b.clean(host)
		})
	}
	t.Run("sign in", func(t *testing.T) { b.t = t; signIn(t, b) })
	t.Run("empty", func(t *testing.T) { b.t = t; emptyStates(t, b) })
	t.Run("one of the nodes is away", func(t *testing.T) { b.t = t; oneAway(t, b) })
	t.Run("away", func(t *testing.T) { b.t = t; nodeAway(t, b) })
	b.t = t
}

var pages = map[string]string{
	"overview": "#/overview", "tunnels": "#/tunnels?tunnel=acme-london-1", "explorer": "#/explorer?log=1&f=ipProtocolName:is:TCP",
	"attacks": "#/attacks?range=7d", "nodes": "#/nodes?range=24h",
}

// Every page has what it should, light and dark, wide and narrow.
func pagesLoad(t *testing.T, b *browser, host string) {
	wanted := map[string]string{
		"overview": "inner_ttl_expired", "tunnels": "down", "explorer": "198.51.100.", "attacks": "UDP reflection", "nodes": "sin-1",
	}
	for _, name := range []string{"overview", "tunnels", "explorer", "attacks", "nodes"} {
		for _, look := range []struct {
			name   string
			width  int
			scheme string
		}{{"light", 1280, "light"}, {"dark", 1280, "dark"}, {"narrow", 360, "light"}} {
			b.window(look.width, 800, look.scheme)
			b.open(host + "/" + pages[name])
			b.wait(fmt.Sprintf(`document.body.innerText.includes(%q)`, wanted[name]))
			b.wait(`document.querySelectorAll("canvas").length > 0`)
			if wide := b.eval(`document.documentElement.scrollWidth`).(float64); int(wide) > look.width {
				t.Errorf("%s at %d px is %v wide: %v", name, look.width, wide,
					b.eval(fmt.Sprintf(`[...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > %d &&
						!e.closest(".scroll")).map((e) => e.outerHTML.slice(0, 90))`, look.width)))
			}
			ground := fmt.Sprint(b.eval(`getComputedStyle(document.body).backgroundColor`))
			if want := map[string]string{"light": "rgb(245, 246, 248)", "dark": "rgb(18, 22, 28)"}[look.scheme]; ground != want {
				t.Errorf("%s, %s: the ground is %s, want %s", name, look.scheme, ground, want)
			}
			if unit := b.eval(`document.getElementById("view").innerText.match(/[kMG]bit\/s/) !== null`); name != "attacks" && unit != true {
				t.Errorf("%s: no rate in bit/s with a prefix", name)
			}
			b.shoot(name + "-" + look.name)
		}
	}
	if text := fmt.Sprint(b.eval(`document.getElementById("span").textContent`)); !strings.Contains(text, "UTC)") {
		t.Errorf("the time %q lacks UTC", text)
	}
	if text := fmt.Sprint(b.eval(`document.getElementById("zone").textContent`)); !strings.Contains(text, "Europe/Berlin") {
		t.Errorf("the zone is %q", text)
	}
}

func hostileNames(t *testing.T, b *browser, host string) {
	for _, page := range []string{"#/tunnels?tunnel=" + url.QueryEscape(hostile), "#/explorer?dim=sourceAsnName",
		"#/explorer?log=1&f=egressTunnelName:is:" + url.QueryEscape(hostile)} {
		b.open(host + "/" + page)
		b.wait(fmt.Sprintf(`document.getElementById("view").innerText.includes(%q)`, hostile))
		if n := b.eval(`document.querySelectorAll("main img").length`); n != 0.0 {
			t.Errorf("%s: %v images in the page", page, n)
		}
		if title := fmt.Sprint(b.eval(`document.title`)); strings.Contains(title, "owned") {
			t.Errorf("%s: the name has run", page)
		}
	}
}

func filterByClick(t *testing.T, b *browser, host string) {
	b.open(host + "/#/explorer?dim=destinationPort&top=5")
	b.wait(`document.querySelectorAll(".value-of").length >= 4`)
	b.click(`.value-of`)
	b.wait(`location.hash.includes("f=destinationPort%3Ais%3A443")`)
	b.wait(`document.querySelectorAll(".value-of").length === 1 && document.querySelector(".value-of").textContent === "443"`)
	if share := fmt.Sprint(b.eval(`document.querySelector(".value-of").closest("tr").cells[1].innerText`)); !strings.Contains(share, "100.0") {
		t.Errorf("the only value left has a share of %s", share)
	}
	b.eval(`(() => { const s = document.getElementById("dim"); s.value = "ipProtocolName"; s.dispatchEvent(new Event("change")); })()`)
	b.wait(`document.querySelectorAll(".value-of").length > 1 && location.hash.includes("dim=ipProtocolName")`)
	b.click(`.chips .remove`)
	b.wait(`document.querySelectorAll(".chips li").length === 0 && !location.hash.includes("f=")`)
	b.eval(`history.back()`)
	b.wait(`document.querySelectorAll(".chips li").length === 1`)
	b.eval(`document.querySelector("main details summary").click()`)
	b.click(`#f-value`)
	b.eval(`(() => { document.getElementById("f-dim").value = "ipDestinationAddress"; document.getElementById("f-op").value = "like";
		document.getElementById("f-value").value = "192.0.2.%"; })()`)
	b.key("Enter", 13, "\r")
	b.wait(`document.querySelectorAll(".chips li").length >= 2 && document.querySelectorAll(".value-of").length > 0`)
	b.loaded()
}

func timeRange(t *testing.T, b *browser, host string) {
	b.open(host + "/#/overview")
	before := b.eval(`document.getElementById("span").textContent`)
	b.eval(`(() => { const s = document.getElementById("range"); s.value = "24h"; s.dispatchEvent(new Event("change")); })()`)
	b.wait(fmt.Sprintf(`location.hash.includes("range=24h") && document.getElementById("span").textContent !== %q`, before))
	b.eval(`(() => { const s = document.getElementById("range"); s.value = "custom"; s.dispatchEvent(new Event("change")); })()`)
	b.wait(`location.hash.includes("range=custom") && document.getElementById("from") !== null`)
	b.eval(`(() => { document.getElementById("from").value = "2026-01-31T13:00:00";
		document.getElementById("to").value = "2026-01-31T14:00:00"; document.querySelector("#toolbar form button").click(); })()`)
	b.wait(`location.hash.includes("from=2026-01-31T12%3A00%3A00.000Z")`) // Berlin is an hour before UTC in winter
	b.wait(`document.getElementById("span").textContent.startsWith("2026-01-31 13:00:00 (2026-01-31 12:00:00 UTC)")`)
	b.open(host + "/#/overview?range=30m")
	b.loaded()
	r := b.eval(`(() => { const e = document.querySelector(".u-over"); e.scrollIntoView({block: "center"});
		const r = e.getBoundingClientRect(); return [r.x, r.y, r.width, r.height]; })()`).([]any)
	x, y, w := r[0].(float64), r[1].(float64)+r[3].(float64)/2, r[2].(float64)
	b.mouse("mouseMoved", x+w/4, y)
	b.mouse("mousePressed", x+w/4, y)
	b.mouse("mouseMoved", x+w/2, y)
	b.mouse("mouseReleased", x+w/2, y)
	b.wait(`location.hash.includes("range=custom")`)
	b.loaded()
}

func liveUpdates(t *testing.T, b *browser, host string) {
	b.open(host + "/#/explorer")
	b.click(`#live`)
	b.wait(`location.hash.includes("range=live") && document.getElementById("live-at").textContent.startsWith("Live: updated at")`)
	first := b.eval(`document.getElementById("live-at").textContent`)
	b.wait(fmt.Sprintf(`document.getElementById("live-at").textContent !== %q`, first))
	b.click(`#live`)
	b.wait(`location.hash.includes("range=30m") && document.getElementById("live-at").textContent === ""`)
	b.open(host + "/#/overview?range=live")
	b.wait(`document.getElementById("live-at").textContent.startsWith("Live: updated at")`)
	b.open(host + "/#/overview")
}

// exported clicks a button and returns the file that comes.
func exported(t *testing.T, b *browser, dir, label string) string {
	t.Helper()
	b.click(fmt.Sprintf(`[aria-label=%q]`, label))
	for range 100 {
		names, _ := filepath.Glob(filepath.Join(dir, "causeway-*"))
		if len(names) == 1 && !strings.HasSuffix(names[0], ".crdownload") {
			content, err := os.ReadFile(names[0])
			if err == nil && len(content) > 0 {
				os.Remove(names[0])
				return string(content)
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%s: no file", label)
	return ""
}

func exports(t *testing.T, b *browser, host string) {
	dir := t.TempDir()
	b.call("Browser.setDownloadBehavior", map[string]any{"behavior": "allow", "downloadPath": dir})
	b.open(host + "/#/explorer?dim=sourceAsnName")
	shown := b.eval(`[...document.querySelectorAll(".value-of")].map((e) => e.textContent)`).([]any)
	rows, err := csv.NewReader(strings.NewReader(exported(t, b, dir, "Export Top values as CSV"))).ReadAll()
	if err != nil || len(rows) != len(shown)+1 {
		t.Fatalf("%d rows, %v; the page shows %v", len(rows), err, shown)
	}
	if want := []string{"Source AS name", "Share", "Mean rate, bit/s", "Total, bit", "± at 95 %, share", "Samples"}; !slices.Equal(rows[0], want) {
		t.Errorf("the head is %q", rows[0])
	}
	for i, row := range rows[1:] {
		want := fmt.Sprint(shown[i])
		if strings.HasPrefix(want, "=") {
			want = "'" + want // a spreadsheet would run it
		}
		if row[0] != want {
			t.Errorf("row %d is of %q, want %q", i, row[0], want)
		}
	}
	var file struct {
		Title, Address string
		Rows           []map[string]any
	}
	if err := json.Unmarshal([]byte(exported(t, b, dir, "Export Top values as JSON")), &file); err != nil {
		t.Fatal(err)
	}
	if file.Title != "Top values" || file.Address != b.eval("location.href") || len(file.Rows) != len(shown) ||
		file.Rows[0]["Source AS name"] != shown[0] {
		t.Errorf("the JSON is %+v", file)
	}
	lines, err := csv.NewReader(strings.NewReader(exported(t, b, dir, "Export Estimated traffic over time as CSV"))).ReadAll()
	if err != nil || len(lines) < 50 || lines[0][0] != "Start, UTC" || !strings.HasSuffix(lines[1][0], "Z") {
		t.Errorf("the chart's file has %d lines, %v", len(lines), err)
	}
}

func sorting(t *testing.T, b *browser, host string) {
	b.open(host + "/#/tunnels")
	names := func() []any {
		return b.eval(`[...document.getElementById("p-all-tunnels").closest("section").querySelectorAll("tbody th")].map((e) => e.innerText)`).([]any)
	}
	b.click(`[data-key="sort-0"]`)
	b.wait(`location.hash.includes("t-tunnels=0.asc") && document.querySelector("th[aria-sort=ascending]") !== null`)
	up := names()
	b.click(`[data-key="sort-0"]`)
	b.wait(`location.hash.includes("t-tunnels=0.desc")`)
	down := names()
	slices.Reverse(down)
	if len(up) != len(fakeTunnels) || !slices.Equal(up, down) {
		t.Errorf("up %q, down reversed %q", up, down)
	}
	b.click(`#find`)
	b.eval(`(() => { const f = document.getElementById("find"); f.value = "OSLO"; f.dispatchEvent(new Event("input")); })()`)
	b.wait(`location.hash.includes("find=OSLO")`)
	if n := names(); len(n) != 2 {
		t.Errorf("found %q", n)
	}
}

func darkSwitch(t *testing.T, b *browser, host string) {
	b.open(host + "/#/overview")
	ground := func() string { return fmt.Sprint(b.eval(`getComputedStyle(document.body).backgroundColor`)) }
	light := ground()
	b.click(`#theme`)
	b.wait(`document.documentElement.dataset.theme === "dark" && document.getElementById("theme").textContent === "Light colours"`)
	dark := ground()
	b.call("Page.reload", nil)
	b.loaded()
	if light == dark || ground() != dark {
		t.Errorf("light %s, dark %s, after loading again %s", light, dark, ground())
	}
	b.click(`#theme`)
	b.wait(`document.documentElement.dataset.theme === undefined`)
}

// The key Tab reaches the controls in the order that they are seen in, and each shows that it has the focus.
func keyboard(t *testing.T, b *browser, host string) {
	b.call("Page.navigate", map[string]any{"url": "about:blank"}) // a new document begins with its first control
	b.open(host + "/#/explorer")
	var order []string
	for range 26 {
		b.key("Tab", 9, "")
		order = append(order, fmt.Sprint(b.eval(`(() => { const e = document.activeElement; return e.id || e.dataset.key ||
			e.textContent.trim(); })()`)))
		if shown := b.eval(`document.activeElement === document.body || getComputedStyle(document.activeElement).outlineStyle === "solid"`); shown != true {
			t.Errorf("%s does not show that it has the focus", order[len(order)-1])
		}
	}
	at := -1
	for _, want := range []string{"skip", "Overview", "Nodes", "account", "theme", "range", "metric-packets", "live", "refresh", "dim",
		"top", "Add a filter", "Export Estimated traffic over time as CSV"} {
		i := slices.IndexFunc(order, func(s string) bool {
			return s == want || want == "Export Estimated traffic over time as CSV" && s == "CSV"
		})
		if i <= at {
			t.Errorf("%s is reached at %d, after %d: %q", want, i, at, order)
		}
		at = i
	}
	b.eval(`document.querySelector("[data-key=metric-packets]").focus()`)
	b.key("Enter", 13, "\r")
	b.wait(`location.hash.includes("metric=packets") && document.activeElement.dataset.key === "metric-packets"`)
	b.wait(`document.getElementById("view").innerText.includes("packets/s")`)
	b.eval(`document.getElementById("skip").focus()`)
	b.key("Enter", 13, "\r")
	b.wait(`document.activeElement.id === "main"`)
	for _, landmark := range []string{"header", "nav[aria-label]", "main h1", "footer [aria-live=polite]", "[role=alert]"} {
		if b.eval(fmt.Sprintf(`document.querySelector(%q) !== null`, landmark)) != true {
			t.Errorf("no %s", landmark)
		}
	}
	bare := b.eval(`[...document.querySelectorAll("input,select")].filter((e) => e.labels.length === 0).map((e) => e.outerHTML)`).([]any)
	if len(bare) > 0 {
		t.Errorf("without a label: %v", bare)
	}
}

func chartTables(t *testing.T, b *browser, host string) {
	for _, name := range []string{"overview", "tunnels", "explorer", "attacks", "nodes"} {
		b.open(host + "/" + pages[name])
		b.wait(`document.querySelectorAll("figure").length > 0`)
		b.eval(`document.querySelectorAll("figure details").forEach((d) => { d.open = true; })`)
		b.wait(`[...document.querySelectorAll("figure")].every((f) => f.querySelectorAll("table tbody tr").length > 10 &&
			f.querySelector("th time[datetime]") !== null)`)
	}
}

// A link shows in another tab what it showed in the first.
func linkReproduces(t *testing.T, b *browser, host string) {
	const link = "/#/explorer?account=acme&range=custom&from=%s&to=%s&metric=packets&dim=ipProtocolName&top=5" +
		"&f=direction:is:ingress&f=destinationPort:not:53&t-top=0.asc"
	end := time.Now().Add(-time.Hour).UTC().Truncate(time.Minute)
	address := host + fmt.Sprintf(link, end.Add(-20*time.Minute).Format(time.RFC3339), end.Format(time.RFC3339))
	var seen []any
	for range 2 {
		b.call("Page.navigate", map[string]any{"url": "about:blank"})
		b.open(address)
		b.wait(`document.querySelectorAll(".value-of").length > 1`)
		seen = append(seen, b.eval(`["account", "span",
			"view"].map((id) => document.getElementById(id)).map((e) => e.value ?? e.innerText).join()`))
	}
	if seen[0] != seen[1] || !strings.Contains(fmt.Sprint(seen[0]), "Destination port is not 53") {
		t.Errorf("first %v\nthen %v", seen[0], seen[1])
	}
}

func signIn(t *testing.T, b *browser) {
	const token = "0123456789abcdef0123456789abcdef"
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, fmt.Appendf(nil, "%x beta,gamma\n", sha256.Sum256([]byte(token))), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens, err := graph.LoadTokens(file)
	if err != nil {
		t.Fatal(err)
	}
	host := site(t, newFake(), tokens)
	b.call("Page.navigate", map[string]any{"url": host + "/#/tunnels"})
	b.wait(`document.activeElement?.id === "token"`)
	b.shoot("sign-in")
	enter := func(secret string) {
		b.eval(fmt.Sprintf(`(() => { document.getElementById("token").value = %q; document.querySelector(".sign-in button").click(); })()`, secret))
	}
	enter("not the token, but as long as one")
	b.wait(`document.getElementById("problem").textContent.includes("not valid")`)
	enter(token)
	b.loaded()
	b.wait(`location.hash.includes("account=beta")`) // the first that the token may see
	b.call("Page.navigate", map[string]any{"url": host + "/#/tunnels?account=acme"})
	b.wait(`document.getElementById("problem").textContent.includes("may not see that account")`)
	b.shoot("account")
	if names := fmt.Sprint(b.eval(`[...document.getElementById("sign-account").options].map((o) => o.value).join()`)); names != "beta,gamma" {
		t.Errorf("the accounts to choose from are %s", names)
	}
	b.eval(`document.querySelector(".sign-in button").click()`)
	b.loaded()
	b.wait(`document.getElementById("view").innerText.includes("beta-oslo-1")`)
	text := fmt.Sprint(b.eval(`document.body.innerText`))
	if strings.Contains(text, "acme-") {
		t.Error("the rows of another account are shown")
	}
	if kept := fmt.Sprint(b.eval(`JSON.stringify(localStorage) + location.href + document.cookie`)); strings.Contains(kept, token) {
		t.Errorf("the token is kept in %s", kept)
	}
	b.click(`#sign-out`)
	b.wait(`document.activeElement?.id === "token"`)
	if kept := fmt.Sprint(b.eval(`JSON.stringify(sessionStorage)`)); strings.Contains(kept, token) {
		t.Errorf("after signing out: %s", kept)
	}
	b.clean(host, "status of 401")
}

// oneAway: what a node has counted that does not answer is missing, and the page says so.
func oneAway(t *testing.T, b *browser) {
	fake := newFake()
	fake.missing = []store.Missing{{Node: "sin-1", Why: "nothing was heard of it for 12s"}}
	host := site(t, fake, nil)
	b.open(host + "/#/overview?account=acme&range=1h")
	b.loaded()
	b.wait(`document.querySelector("#span").textContent.includes("What sin-1 has counted is missing: nothing was heard of it for 12s.")`)
	b.shoot("missing")
	b.clean(host)
}

func emptyStates(t *testing.T, b *browser) {
	host := site(t, &fakeStore{now: time.Now, empty: true}, nil)
	for page, want := range map[string]string{
		"overview": "No tunnel of this account carried packets", "tunnels": "or was probed in this time",
		"explorer?f=destinationPort:is:9": "Remove one, or choose a longer time",
		"attacks":                         "No attack was detected", "nodes": "No node counted packets", "explorer?range=30d": "is kept for 20 d only",
	} {
		b.open(host + "/#/" + page)
		b.wait(fmt.Sprintf(`document.querySelector("main").innerText.replace(/\u00a0/g, " ").includes(%q)`, want))
	}
	b.shoot("empty")
	b.clean(host)
}

// A node that goes away is told, and when it is back the page goes on by itself.
func nodeAway(t *testing.T, b *browser) {
	host := site(t, newFake(), nil)
	b.open(host + "/#/overview")
	b.call("Network.emulateNetworkConditions", map[string]any{"offline": true, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1})
	b.click(`#refresh`)
	b.wait(`document.getElementById("problem").textContent.includes("cannot be reached")`)
	b.shoot("away")
	b.call("Network.emulateNetworkConditions", map[string]any{"offline": false, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1})
	b.wait(`document.getElementById("problem").textContent === "" && document.getElementById("status").textContent.startsWith("Loaded")`)
	b.clean(host, "ERR_INTERNET_DISCONNECTED")
}
