package config

import (
	"fmt"
	"strings"
	"testing"
)

// TestSizes is the table of what a path of 1500 bytes leaves (RFC 2784, 2890).
func TestSizes(t *testing.T) {
	const v4, v6 = "192.0.2.1", "2001:db8::1"
	for _, row := range []struct {
		endpoint        string
		key, seq, check bool
		overhead, mtu   int
		mss4, mss6      uint16
		largest         int
	}{
		{v4, false, false, false, 24, 1476, 1436, 1416, 1702},
		{v4, true, false, false, 28, 1472, 1432, 1412, 1698},
		{v4, false, false, true, 28, 1472, 1432, 1412, 1698},
		{v4, true, true, false, 32, 1468, 1428, 1408, 1694},
		{v4, true, true, true, 36, 1464, 1424, 1404, 1690},
		{v6, false, false, false, 44, 1456, 1416, 1396, 1682},
		{v6, true, false, false, 48, 1452, 1412, 1392, 1678},
		{v6, true, true, true, 56, 1444, 1404, 1384, 1670},
	} {
		text := func(more string) string {
			customer := row.endpoint + "9"
			s := fmt.Sprintf("interfaces: [{name: eth0}]\nendpoints: [%q]\ntunnels:\n  - name: a\n    endpoint: %s\n    customer_endpoint: %s\n"+
				"    interface_address: 10.0.0.0/31\n    sequence: %v\n    checksum: %v\n", row.endpoint, row.endpoint, customer, row.seq, row.check)
			if row.key {
				s += "    key: 1\n"
			}
			return s + more
		}
		tn := mustParse(t, text("")).Tunnels[0]
		if tn.Overhead() != row.overhead || tn.MTU != row.mtu || tn.MSS4() != row.mss4 || tn.MSS6() != row.mss6 {
			t.Errorf("%+v: got overhead %d, mtu %d, mss %d and %d", row, tn.Overhead(), tn.MTU, tn.MSS4(), tn.MSS6())
		}
		mustParse(t, text(fmt.Sprintf("    mtu: %d\n", row.largest)))
		if frame := 14 + 4 + row.overhead + row.largest; frame != 1744 {
			t.Errorf("%+v: the largest frame has %d bytes", row, frame)
		}
		_, err := Parse("c.yaml", []byte(text(fmt.Sprintf("    mtu: %d\n", row.largest+1))))
		if want := fmt.Sprintf("at most %d;", row.largest); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %s", row, err, want)
		}
	}
}

func TestClamp(t *testing.T) {
	for _, row := range []struct {
		fields     string
		mss4, mss6 uint16
	}{
		{"mss_clamp: auto", 1436, 1416},
		{"mss_clamp: off", 0, 0},
		{"mss_clamp: 1360", 1360, 1360},
		{"mss_clamp: 1430", 1430, 1416}, // does not fit IPv6
		{"mss_clamp: 1436", 1436, 1416},
		{"mss_clamp: 88", 88, 88},
		{"mtu: 576", 536, 516},
		{"mtu: 1702\n    mss_clamp: 1660", 1660, 1642},
	} {
		tn := mustParse(t, field(row.fields)).Tunnels[0]
		if tn.MSS4() != row.mss4 || tn.MSS6() != row.mss6 {
			t.Errorf("%s: got %d and %d, want %d and %d", row.fields, tn.MSS4(), tn.MSS6(), row.mss4, row.mss6)
		}
	}
}

func TestPeerAddresses(t *testing.T) {
	for ours, peer := range map[string]string{
		"10.213.0.10/31": "10.213.0.11",
		"10.213.0.11/31": "10.213.0.10",
		"10.213.0.9/30":  "10.213.0.10",
		"10.213.0.10/30": "10.213.0.9",
	} {
		tn := mustParse(t, swap("10.213.0.10/31", ours)).Tunnels[0]
		if got := tn.Peer4().String(); got != peer {
			t.Errorf("%s: got %s, want %s", ours, got, peer)
		}
		if tn.Peer6().IsValid() {
			t.Errorf("an IPv6 peer without interface_address6: %s", tn.Peer6())
		}
	}
	for ours, peer := range map[string]string{"fd00::a/127": "fd00::b", "fd00::b/127": "fd00::a"} {
		if got := mustParse(t, field("interface_address6: "+ours)).Tunnels[0].Peer6().String(); got != peer {
			t.Errorf("%s: got %s, want %s", ours, got, peer)
		}
	}
}
