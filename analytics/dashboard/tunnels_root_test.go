package dashboard

import (
	"fmt"
	"strings"
	"testing"
)

// detail is what is shown of the chosen tunnel.
func (b *browser) detail() string {
	return strings.ReplaceAll(fmt.Sprint(b.eval(`document.querySelector(".grid.wide").innerText`)), "\u00a0", " ")
}

// A tunnel is opened by a click or by a key, has the focus then, and gives it back when it is closed.
func oneTunnel(t *testing.T, b *browser, host string) {
	b.open(host + "/#/tunnels")
	b.click(`[data-key="tunnel-acme-london-1"]`)
	b.wait(`location.hash.includes("tunnel=acme-london-1") && document.activeElement.id === "chosen"`)
	b.loaded()
	shown := b.detail()
	for _, want := range []string{"IPsec", "192.0.2.1", "203.0.113.20", "10.0.0.4/31", "198.51.100.0/24", "1400 bytes (configured 1436; the path to the customer is narrower)",
		"IPv4 1396, IPv6 1376", "degraded for 1 min 40 s: 9 of 60 probes lost; all data centers together: healthy", "60 sent, 9 lost", "12.5 ms", "up",
		"router@acme.example", "203.0.113.20:4500 (behind NAT)", "established, responder", "AES_GCM_16_256/PRF_HMAC_SHA2_384/ECP_384", "1 h", "23 h",
		"0x80000001", "from the customer", "installed", "AES_GCM_16_256 ESN UDP", "1.20 Mpackets", "840 MB", "17 packets", "the peer did not answer", "fra-2"} {
		if !strings.Contains(shown, want) {
			t.Errorf("no %q in what is shown of the tunnel:\n%s", want, shown)
		}
	}
	for _, other := range []string{"203.0.113.10", "oslo"} {
		if strings.Contains(shown, other) {
			t.Errorf("%q of another tunnel is shown", other)
		}
	}
	b.eval(`document.getElementById("close").focus()`)
	b.key("Enter", 13, "\r")
	b.wait(`document.querySelector(".grid.wide").children.length === 0 && document.activeElement.dataset.key === "tunnel-acme-london-1"`)
	b.loaded()
	b.eval(`document.querySelector('[data-key="tunnel-acme-paris-1"]').focus()`)
	b.key("Enter", 13, "\r")
	b.wait(`document.activeElement.id === "chosen" && document.activeElement.textContent === "acme-paris-1"`)
	b.loaded()
	if shown = b.detail(); strings.Contains(shown, "IPsec associations") || !strings.Contains(shown, "IPv4 not clamped") {
		t.Errorf("of a GRE tunnel is shown:\n%s", shown)
	}
	b.open(host + "/#/tunnels?tunnel=gone")
	if shown = b.detail(); !strings.Contains(shown, "does not have this tunnel now") {
		t.Errorf("of a tunnel that there is not is shown:\n%s", shown)
	}
	row := b.eval(`[...document.querySelector('[data-key="tunnel-acme-london-1"]').closest("tr").cells].map((e) => e.innerText)`).([]any)
	if n := len(row); fmt.Sprint(row[n-5:]) != "[IPSec 1400 1396 1376 1]" {
		t.Errorf("the row of the table is %q", row)
	}
	if none := b.eval(`document.querySelector('[data-key="tunnel-beta-oslo-1"]').closest("tr").lastElementChild.innerText`); none != "none" {
		t.Errorf("of a tunnel without associations the table says %q", none)
	}
}

// The account is chosen from those that the token may see; who may see all may write a name as well.
func accountChosen(t *testing.T, b *browser, host string) {
	b.open(host + "/#/tunnels?account=*")
	b.wait(`[...document.getElementById("account").options].map((o) => o.textContent).join() === "All accounts,acme,beta,Another…"`)
	pick := func(value string) {
		b.eval(fmt.Sprintf(`(() => { const s = document.getElementById("account"); s.value = %q; s.dispatchEvent(new Event("change")); })()`, value))
	}
	pick("beta")
	b.wait(`location.hash.includes("account=beta") && document.querySelector('[data-key="tunnel-acme-paris-1"]') === null`)
	b.wait(`document.querySelector('[data-key="tunnel-beta-oslo-1"]') !== null`)
	pick("")
	b.wait(`document.activeElement.id === "account-name"`)
	b.key("Escape", 27, "")
	b.wait(`document.getElementById("account").value === "beta"`)
	pick("")
	b.wait(`document.activeElement.id === "account-name"`)
	b.eval(`document.activeElement.value = "left-us"`)
	b.key("Enter", 13, "\r")
	b.wait(`location.hash.includes("account=left-us") && document.getElementById("account").value === "left-us"`)
	b.wait(`document.querySelector("main").innerText.includes("This account has no tunnels at this node")`)
	pick("*")
	b.wait(`location.hash.includes("account=*") && document.querySelector('[data-key="tunnel-acme-paris-1"]') !== null`)
	b.loaded()
}

// An attack that goes on is shown however long ago it began, and one that has ended long ago is not.
func oldAttack(t *testing.T, b *browser, host string) {
	for _, span := range []string{"1h", "live", "30m"} {
		b.open(host + "/#/attacks?range=" + span)
		b.wait(`document.getElementById("view").innerText.includes("NTP reflection")`)
		if text := fmt.Sprint(b.eval(`document.getElementById("view").innerText`)); strings.Contains(text, "ICMP flood") || !strings.Contains(text, "2 under way") {
			t.Errorf("%s: %s", span, text)
		}
	}
	b.open(host + "/#/attacks?range=30d")
	b.wait(`document.getElementById("view").innerText.includes("ICMP flood")`)
}
