package config

import (
	"math/rand/v2"
	"testing"
)

// slowEdits is the definition of the Levenshtein distance, with neighbours that are swapped.
func slowEdits(a, b string) int {
	switch {
	case a == "":
		return len(b)
	case b == "":
		return len(a)
	case a[0] == b[0]:
		return slowEdits(a[1:], b[1:])
	}
	n := 1 + min(slowEdits(a[1:], b), slowEdits(a, b[1:]), slowEdits(a[1:], b[1:]))
	if len(a) > 1 && len(b) > 1 && a[0] == b[1] && a[1] == b[0] {
		n = min(n, 1+slowEdits(a[2:], b[2:]))
	}
	return n
}

func TestEdits(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	word := func() string {
		b := make([]byte, random.IntN(6))
		for i := range b {
			b[i] = 'a' + byte(random.IntN(3))
		}
		return string(b)
	}
	for range 2000 {
		a, b := word(), word()
		if got, want := edits(a, b), slowEdits(a, b); got != want {
			t.Fatalf("%q, %q: got %d, want %d", a, b, got, want)
		}
	}
}

func TestSuggest(t *testing.T) {
	known := []string{"mtu", "pmtu", "ttl", "endpoint", "customer_endpoint"}
	for word, want := range map[string]string{
		"mtuu":              `did you mean "mtu"?`,
		"MTU":               `did you mean "mtu"?`,
		"endpiont":          `did you mean "endpoint"?`,
		"customer-endpoint": `did you mean "customer_endpoint"?`,
		"custom_endpoints":  `did you mean "customer_endpoint"?`,
		"tmu":               `did you mean "mtu"?`,                                        // two letters swapped
		"mss":               "allowed are mtu, pmtu, ttl, endpoint and customer_endpoint", // two edits of three
		"xx":                "allowed are mtu, pmtu, ttl, endpoint and customer_endpoint",
	} {
		if got := suggest(word, known); got != want {
			t.Errorf("%s: got %s, want %s", word, got, want)
		}
	}
	if got := suggest("x", make([]string, 21)); got != "none of the 21 that there are is like it" {
		t.Errorf("many words: got %s", got)
	}
}
