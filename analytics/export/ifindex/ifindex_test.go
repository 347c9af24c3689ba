package ifindex

import (
	"strings"
	"testing"

	"causeway/analytics/flow"
)

func TestTable(t *testing.T) {
	a, b := &flow.Tunnel{ID: "a1", Name: "a"}, &flow.Tunnel{ID: "b1", Name: "b"}
	table, err := NewTable([]Interface{{Index: 7, Tunnel: a}, {Index: Max, Tunnel: b}})
	if err != nil {
		t.Fatal(err)
	}
	if x := table.Of(&flow.Tunnel{ID: "a1", Name: "renamed"}); x == nil || x.Index != 7 {
		t.Errorf("a tunnel made anew is found by its id: %+v", x)
	}
	var empty *Table
	if table.Of(nil) != nil || table.Of(&flow.Tunnel{ID: "c1"}) != nil || empty.Of(a) != nil || empty.All() != nil {
		t.Error("what is not in a table is found")
	}
	for want, list := range map[string][]Interface{
		"no tunnel":                  {{Index: 1}},
		"interface number 0":         {{Index: 0, Tunnel: a}},
		"interface number 16777216":  {{Index: Max + 1, Tunnel: a}},
		"is that of tunnel a":        {{Index: 1, Tunnel: a}, {Index: 1, Tunnel: b}},
		"id a1 is that of tunnel a ": {{Index: 1, Tunnel: a}, {Index: 2, Tunnel: &flow.Tunnel{ID: "a1", Name: "other"}}},
	} {
		if _, err := NewTable(list); err == nil || !strings.Contains(err.Error()+" ", want) {
			t.Errorf("%+v: error %v, want %q", list, err, want)
		}
	}
}
