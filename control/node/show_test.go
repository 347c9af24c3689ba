package node

import "testing"

// TestTooNarrow: show tunnels says when a tunnel's packets do not fit the device that they leave by.
func TestTooNarrow(t *testing.T) {
	esp := ipsecConfig(t, 1, 1).Tunnels[0]
	for _, c := range []struct {
		inner, mtu int
		want       string
	}{
		{1446, 1500, ""},
		{1447, 1500, " (its mtu is 1500: packets of more than 1446 are fragmented outside)"},
		{1446, 1400, " (its mtu is 1400: packets of more than 1346 are fragmented outside)"},
		{9000, 0, ""},
	} {
		if got := tooNarrow(esp, c.inner, c.mtu); got != c.want {
			t.Errorf("%d in %d: %q, want %q", c.inner, c.mtu, got, c.want)
		}
	}
}
