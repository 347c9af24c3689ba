package config

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

// scoped is base with a customer prefix, the routes that are given, and a node in a place.
func scoped(place string, routes ...string) string {
	return "node: {name: n1" + place + "}\n" + base + "    prefixes: [203.0.113.0/24, 198.18.0.0/24]\n" +
		"  - {name: b, account: acme, endpoint: 192.0.2.1, customer_endpoint: 198.51.100.9, interface_address: 10.213.0.20/31}\n" +
		"routes:\n  - " + strings.Join(routes, "\n  - ") + "\n"
}

// Each node has the routes of its region and of its data center, and those of all.
func TestScope(t *testing.T) {
	routes := []string{
		"{prefix: 203.0.113.0/24, nexthop: a, scope: {regions: [weur, eeur]}}",
		"{prefix: 203.0.113.0/24, nexthop: b, scope: {datacenters: [lis1], regions: [enam]}, priority: 50}",
		"{prefix: 198.18.0.0/16, nexthop: b, priority: 7}",
	}
	for place, want := range map[string]string{
		", region: WEUR":                   "203.0.113.0/24 a 100; 198.18.0.0/16 b 7; 198.18.0.0/24 a 100",
		", region: weur":                   "203.0.113.0/24 a 100; 198.18.0.0/16 b 7; 198.18.0.0/24 a 100",
		", region: weur, datacenter: lis1": "203.0.113.0/24 a 100; 203.0.113.0/24 b 50; 198.18.0.0/16 b 7; 198.18.0.0/24 a 100",
		", datacenter: lis1":               "203.0.113.0/24 b 50; 198.18.0.0/16 b 7; 198.18.0.0/24 a 100",
		", region: enam":                   "203.0.113.0/24 b 50; 198.18.0.0/16 b 7; 198.18.0.0/24 a 100",
		", region: lis1":                   "198.18.0.0/16 b 7; 203.0.113.0/24 dropped; 198.18.0.0/24 a 100",
		", region: apac, datacenter: nrt1": "198.18.0.0/16 b 7; 203.0.113.0/24 dropped; 198.18.0.0/24 a 100",
		"":                                 "198.18.0.0/16 b 7; 203.0.113.0/24 dropped; 198.18.0.0/24 a 100",
	} {
		var got []string
		for _, r := range mustParse(t, scoped(place, routes...)).EffectiveRoutes() {
			to := fmt.Sprint(r.Tunnel, " ", r.Priority)
			if r.Uncovered {
				if to = "dropped"; r.Priority != math.MaxUint32 {
					to = "dropped before what is learned is tried"
				}
			}
			got = append(got, r.Prefix.String()+" "+to)
		}
		if text := strings.Join(got, "; "); text != want {
			t.Errorf("a node of %q:\ngot  %s\nwant %s", place, text, want)
		}
	}
	same := mustParse(t, scoped("", "{prefix: 203.0.113.0/24, nexthop: a, scope: {regions: [b, a], datacenters: [c]}}")).Routes[0]
	if other := mustParse(t, scoped("", "{prefix: 203.0.113.0/24, nexthop: a, scope: {datacenters: [c], regions: [a, b]}}")).Routes[0]; same != other || same.Scope.String() != "a, b, c" {
		t.Errorf("%+v, %+v", same, other)
	}
}

func TestScopeMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"scope: {}":                       "names nothing: write regions or datacenters, or leave scope out for all nodes",
		"scope: {regions: []}":            "is empty: write one name at least, or leave the field out",
		"scope: {regions: weur}":          `must be a list of names, got "weur"`,
		"scope: {regions: [weur, weur]}":  "weur stands there twice",
		"scope: {countries: [pt]}":        `unknown field "countries"`,
		"scope: [weur]":                   "must be a mapping",
		"scope: {datacenters: [\"a b\"]}": "is not a name",
	} {
		_, err := Parse("c.yaml", []byte(scoped("", "{prefix: 203.0.113.0/24, nexthop: a, "+text+"}")))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s:\ngot  %v\nwant %s", text, err, want)
		}
	}
}
