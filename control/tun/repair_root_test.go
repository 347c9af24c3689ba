package tun

import (
	"slices"
	"testing"

	"causeway/scripts/hosts"
)

func TestRootRepair(t *testing.T) {
	h := hosts.New(t).Host("node")
	d := open(t, h)
	if err := d.SetAddresses(addrs("203.0.113.1", "2001:db8::1")); err != nil {
		t.Fatal(err)
	}
	if err := d.SetRoutes(prefixes("198.18.5.0/24", "2001:db8:5::/48")); err != nil {
		t.Fatal(err)
	}
	state := func() []string {
		a := words(h.MustRun("ip", "-o", "addr", "show", "dev", DefaultName), "inet")
		a = append(a, words(h.MustRun("ip", "-o", "addr", "show", "dev", DefaultName), "inet6")...)
		return append(a, h.MustRun("ip", "route", "show", "dev", DefaultName), h.MustRun("ip", "-6", "route", "show", "dev", DefaultName))
	}
	before := state()
	if repaired, err := d.Repair(); repaired || err != nil {
		t.Errorf("a sound device: repaired %v, %v", repaired, err)
	}
	for _, damage := range [][]string{
		{"ip", "link", "set", "dev", DefaultName, "down"},
		{"sh", "-c", "ip link set dev " + DefaultName + " down; ip link set dev " + DefaultName + " up"},
		{"ip", "addr", "del", "203.0.113.1/32", "dev", DefaultName},
	} {
		h.MustRun(damage...)
		if repaired, err := d.Repair(); !repaired || err != nil {
			t.Errorf("after %v: repaired %v, %v", damage, repaired, err)
		}
		if after := state(); !slices.Equal(after, before) {
			t.Errorf("after %v\ngot  %q\nwant %q", damage, after, before)
		}
	}
	h.MustRun("ip", "link", "del", "dev", DefaultName)
	if _, err := d.Repair(); err == nil {
		t.Error("the device is gone, and nobody says so")
	}
}
