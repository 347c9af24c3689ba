package config

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestBFD(t *testing.T) {
	usual := BFD{Local: netip.MustParseAddr("10.213.0.10"), Remote: netip.MustParseAddr("10.213.0.11"), Interval: 100 * time.Millisecond, Multiplier: 3, Hold: 30 * time.Second}
	for text, change := range map[string]func(*BFD){
		"{}": func(*BFD) {},
		"{interval: 50ms, multiplier: 5, hold: 1m}": func(b *BFD) { b.Interval, b.Multiplier, b.Hold = 50*time.Millisecond, 5, time.Minute },
		"{multihop: true, family: ipv4}":            func(b *BFD) { b.Multihop = true },
	} {
		want := usual
		change(&want)
		if got := mustParse(t, field("bfd: "+text)).Tunnels[0].BFD; got == nil || *got != want {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
	if got := mustParse(t, field("interface_address6: fd00:213::a/127\n    bfd: {family: ipv6}")).Tunnels[0].BFD; got.Local != netip.MustParseAddr("fd00:213::a") || got.Remote != netip.MustParseAddr("fd00:213::b") {
		t.Errorf("ipv6: %+v", got)
	}
	if got := mustParse(t, base).Tunnels[0].BFD; got != nil {
		t.Errorf("none: %+v", got)
	}
	for text, want := range map[string]string{
		"bfd: {interval: 5ms}":     "5ms is too short: write 20ms at least, since a machine with something else to do for a moment would look dead",
		"bfd: {multiplier: 0}":     "must be a whole number from 1 to 50, got 0",
		"bfd: {family: ipv6}":      "ipv6 needs interface_address6 of the tunnel: write it, or ipv4",
		"bfd: {min_rx: 5ms}":       `unknown field "min_rx": allowed are interval, multiplier, family, multihop and hold`,
		"bfd: on":                  "must be a mapping with interval, multiplier, family, multihop or hold",
		"bfd: {hold: 2h}":          "2h is too long: write 1h at most, since nobody waits for so long",
		"bfd: {multihop: maybe}":   "must be true or false",
		"bfd: {family: appletalk}": `must be ipv4 or ipv6, got "appletalk"`,
	} {
		_, err := Parse("c.yaml", []byte(field(text)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\ngot  %v\nwant %s", text, err, want)
		}
	}
}
