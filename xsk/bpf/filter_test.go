package bpf

import (
	"net/netip"
	"strings"
	"testing"
)

// Bad arguments are refused before the kernel is asked, so no privilege is needed.
func TestSetEndpointsRefuses(t *testing.T) {
	for _, c := range []struct {
		addr netip.Addr
		want string
	}{
		{netip.Addr{}, "empty address"},
		{netip.MustParseAddr("fe80::1%eth0"), "zone"},
		{netip.MustParseAddr("fe80::1"), "endpoint fe80::1: reserved"},
		{netip.MustParseAddr("ff02::1"), "reserved"},
		{netip.MustParseAddr("::1"), "reserved"},
		{netip.MustParseAddr("::"), "reserved"},
		{netip.MustParseAddr("127.0.0.1"), "reserved"},
		{netip.MustParseAddr("0.0.0.0"), "reserved"},
		{netip.MustParseAddr("169.254.0.1"), "reserved"},
		{netip.MustParseAddr("224.0.0.1"), "reserved"},
		{netip.MustParseAddr("255.255.255.255"), "reserved"},
		{netip.MustParseAddr("::ffff:127.0.0.1"), "endpoint 127.0.0.1: reserved"},
	} {
		err := new(Filter).SetEndpoints([]netip.Addr{netip.MustParseAddr("192.0.2.1"), c.addr})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("SetEndpoints(%v): %v, want %q", c.addr, err, c.want)
		}
	}
}

func TestSetPrefixesRefuses(t *testing.T) {
	for _, c := range []struct {
		prefix netip.Prefix
		want   string
	}{
		{netip.Prefix{}, "invalid prefix"},
		{netip.MustParsePrefix("0.0.0.0/0"), "allowed are lengths from 1"},
		{netip.MustParsePrefix("::/0"), "allowed are lengths from 1"},
		{netip.PrefixFrom(netip.MustParseAddr("::ffff:10.0.0.0"), 104), "write an IPv4 prefix as IPv4"},
		{netip.MustParsePrefix("239.1.0.0/16"), "customer prefix 239.1.0.0/16: reserved"},
		{netip.MustParsePrefix("169.254.0.0/16"), "reserved"},
		{netip.MustParsePrefix("127.0.0.1/32"), "reserved"},
		{netip.MustParsePrefix("fe80::/64"), "reserved"},
		{netip.MustParsePrefix("ff00::/8"), "reserved"},
	} {
		err := new(Filter).SetPrefixes([]netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), c.prefix})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("SetPrefixes(%v): %v, want %q", c.prefix, err, c.want)
		}
	}
}

func TestClassNames(t *testing.T) {
	seen := make(map[string]bool)
	for c := range Class(classes) {
		if name := c.String(); name == "" || seen[name] {
			t.Errorf("class %d: name %q is empty or taken", uint8(c), name)
		} else {
			seen[name] = true
		}
	}
	if got := Class(classes).String(); got != "class(13)" {
		t.Errorf("unknown class: %q", got)
	}
	for c, want := range map[Class]bool{GRE: true, Prefix: true, IKE: false, NoSocket: false} {
		if c.ToWorker() != want {
			t.Errorf("%v.ToWorker() = %v", c, !want)
		}
	}
}
