package config

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestIPsec: what a tunnel of type ipsec becomes.
func TestIPsec(t *testing.T) {
	c, err := Parse("c.yaml", []byte(ipsec("lab: true\n    replay_window: 64\n    selectors: {local: [0.0.0.0/0], remote: [203.0.113.0/24]}\n    allow_weak: true",
		swapIn(sa, "}]", ", esn: true, udp_encap: true}]"))))
	if err != nil {
		t.Fatal(err)
	}
	got := c.Tunnels[0]
	key := func(first byte) Secret {
		k := make(Secret, 20)
		for i := range k {
			k[i] = first + byte(i)
		}
		return k
	}
	want := &IPsec{ReplayWindow: 64, Lab: true, AllowWeak: true,
		Local: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, Remote: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")},
		SA: ManualSA{SPIIn: 0x1001, SPIOut: 0x2001, Encryption: "aes128gcm16", KeyIn: key(0), KeyOut: key(16), ESN: true, UDPEncap: true}}
	if got.Type != IPsecESP || !reflect.DeepEqual(got.IPsec, want) {
		t.Errorf("%+v", got.IPsec)
	}
	if c, err = Parse("c.yaml", []byte(ipsec("lab: true", sa))); err != nil || c.Tunnels[0].IPsec.ReplayWindow != 1024 {
		t.Errorf("without a window: %+v, %v", c, err)
	}
}

// TestIPsecSizes: MTU and MSS that a path of 1500 bytes leaves, by hand: 20 or 40 for IP, 8 for UDP, 8 for ESP, the IV, the text with two
// bytes behind it up to a multiple, the check value.
func TestIPsecSizes(t *testing.T) {
	for _, c := range []struct {
		encryption string
		v6, udp    bool
		mtu        int
	}{
		{"aes128gcm16", false, false, 1446}, // 1500 - 20 - 8 - 8 - 16 = 1448 = 4 * 362, - 2
		{"aes128gcm16", false, true, 1438},
		{"aes128gcm16", true, false, 1426},
		{"aes256gcm16", false, false, 1446},
		{"chacha20poly1305", false, false, 1446},
		{"aes128-sha256", false, false, 1438}, // 1500 - 20 - 8 - 16 - 16 = 1440 = 16 * 90, - 2
		{"aes256-sha256", false, true, 1422},  // 1432 = 16 * 89.5: 1424, - 2
		{"aes256-sha256", true, true, 1406},   // 1412 = 16 * 88.25: 1408, - 2
		{"aes128-sha1", false, false, 1438},   // 1444 = 16 * 90.25: 1440, - 2
		{"null-sha256", false, false, 1454},
		{"null-sha1", true, false, 1438},
	} {
		tunnel := Tunnel{Endpoint: netip.MustParseAddr("192.0.2.1"), IPsec: &IPsec{SA: ManualSA{Encryption: c.encryption, UDPEncap: c.udp}}}
		if c.v6 {
			tunnel.Endpoint = netip.MustParseAddr("2001:db8::1")
		}
		tunnel.MTU = tunnel.defaultMTU()
		if tunnel.MTU != c.mtu || int(tunnel.MSS4()) != c.mtu-40 || int(tunnel.MSS6()) != c.mtu-60 {
			t.Errorf("%+v: mtu %d, mss %d and %d", c, tunnel.MTU, tunnel.MSS4(), tunnel.MSS6())
		}
		if longest := tunnel.MTU + tunnel.Overhead(); longest < 1500 || longest >= 1500+16 {
			t.Errorf("%+v: at the most %d bytes more", c, tunnel.Overhead())
		}
	}
}

// TestKeyFile: a key may stand in a file that only its owner may read.
func TestKeyFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	inFile := ipsec("lab: true", swapIn(sa, `"000102030405060708090a0b0c0d0e0f10111213"`, "{file: "+path+"}"))
	for _, c := range []struct {
		content string
		mode    os.FileMode
		want    string
		owner   int
	}{
		{"000102030405060708090a0b0c0d0e0f10111213", 0o600, `"` + path + `": it belongs to user 65534, who may read it and write another key there: chown it to root or to the daemon's user`, 65534},
		{"0x000102030405060708090a0b0c0d0e0f10111213\n", 0o600, "", 0},
		{"000102030405060708090A0B0C0D0E0F10111213", 0o400, "", 0},
		{"000102030405060708090a0b0c0d0e0f10111213", 0o640, `"` + path + `": others may read it (0640): chmod 600`, 0},
		{"0001", 0o600, "has 2 bytes: this encryption needs 20, in the order of ip xfrm", 0},
		{strings.Repeat("0", 5000), 0o600, `"` + path + `": not a file with a key`, 0},
	} {
		os.Remove(path)
		if err := os.WriteFile(path, []byte(c.content), c.mode); err != nil {
			t.Fatal(err)
		}
		if c.owner != 0 && os.Geteuid() == 0 {
			if err := os.Chown(path, c.owner, -1); err != nil {
				t.Fatal(err)
			}
		} else if c.owner != 0 {
			continue // without root no file is another's
		}
		parsed, err := Parse("c.yaml", []byte(inFile))
		if c.want == "" {
			if err != nil || hex.EncodeToString(parsed.Tunnels[0].IPsec.SA.KeyIn) != "000102030405060708090a0b0c0d0e0f10111213" {
				t.Errorf("%04o: %v", c.mode, err)
			}
			continue
		}
		if err == nil || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("%04o: %v, want %s", c.mode, err, c.want)
		}
	}
}

// TestSecretsAreNotPrinted by anything that prints a configuration.
func TestSecretsAreNotPrinted(t *testing.T) {
	c, err := Parse("c.yaml", []byte(ipsec("lab: true", sa)))
	if err != nil {
		t.Fatal(err)
	}
	j, err := json.Marshal(c.Tunnels)
	if err != nil {
		t.Fatal(err)
	}
	out := fmt.Sprintf("%v %+v %#v %s %x", c.Tunnels[0].IPsec, c.Tunnels[0].IPsec, c.Tunnels[0].IPsec, c.Tunnels[0].IPsec.SA.KeyIn, j)
	for _, leak := range []string{"000102", "0 1 2 3", "0x0, 0x1", hex.EncodeToString([]byte("000102"))} {
		if strings.Contains(out, leak) || bytes.Contains(j, []byte(leak)) {
			t.Errorf("%q is in %s", leak, out)
		}
	}
	if !strings.Contains(out, "secret of 20 bytes") {
		t.Errorf("no word about a secret: %s", out)
	}
}

// TestIPsecChangesAreSeen: a field that is forgotten in equal would keep an old key after a reload.
func TestIPsecChangesAreSeen(t *testing.T) {
	base := &IPsec{}
	equal := func(a, b *IPsec) bool {
		return a.sameProtection(b) && a.sameWindow(b) && a.sameSelectors(b) && a.sameSAs(b)
	}
	if !equal(base, &IPsec{}) || equal(base, nil) || !equal(nil, nil) {
		t.Error("a change to or from nothing")
	}
	change := func(v reflect.Value) {
		switch f := v.Addr().Interface().(type) {
		case *int:
			*f = 1
		case *uint32:
			*f = 1
		case *bool:
			*f = true
		case *string:
			*f = "x"
		case *Secret:
			*f = Secret{1}
		case *[]netip.Prefix:
			*f = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		default:
			t.Fatalf("no change for %T", f)
		}
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[IPsec]()) {
		if strings.HasPrefix(f.Name, "Allow") || f.Name == "Lab" || f.Name == "SA" || f.Name == "IKE" {
			continue // permissions change nothing that runs; IKE has a test of its own
		}
		other := &IPsec{}
		change(reflect.ValueOf(other).Elem().FieldByIndex(f.Index))
		if equal(base, other) {
			t.Errorf("a change of %s is not seen", f.Name)
		}
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[ManualSA]()) {
		other := &IPsec{}
		change(reflect.ValueOf(&other.SA).Elem().FieldByIndex(f.Index))
		if equal(base, other) {
			t.Errorf("a change of manual_sas.%s is not seen", f.Name)
		}
	}
}
