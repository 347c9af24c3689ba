package main_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"causeway/analytics/geo/geotest"
	"causeway/control/api"
	"causeway/scripts/hosts"
)

// TestRootAnalyticsOptions has each field of the section do what it says, over TLS.
func TestRootAnalyticsOptions(t *testing.T) {
	b := newCraftedBed(t)
	b.discard(t)
	certificate, key := b.certificate(t)
	sflow, ipfix := b.collector(t), b.collector(t)
	asn := geotest.Write(t, "GeoLite2-ASN", map[string]geotest.Record{"192.0.2.0/24": {"autonomous_system_number": uint32(64500), "autonomous_system_organization": "Example"}})
	country := geotest.Write(t, "GeoLite2-Country", map[string]geotest.Record{"198.18.0.0/15": {"country": geotest.Record{"iso_code": "NL"}}})
	b.run(t, b.configuration(analyticsTunnels(), fmt.Sprintf(`analytics:
  listen: "0.0.0.0:9151"
  tls: {certificate: %s, key: %s}
  tokens: {file: %s}
  sampling: 1
  retention: {1s: 2h, 1m: 3h, 1h: 5d, samples: 90m}
  export: {sflow: [%q], ipfix: [%q]}
  place: {city: Amsterdam, country: NL, geohash: u173z}
  geo: {asn: %s, country: %s}
  truncate: {ipv4: 24}`, certificate, key, b.tokens(t), sflow.LocalAddr(), ipfix.LocalAddr(), asn, country)))
	b.warmAnalytics(t)
	where := []string{"--cacert", certificate, "https://127.0.0.1:9151/client/v4/graphql"}
	const query = `query($tag: string!) { viewer { accounts(filter: {accountTag: $tag}) {
		settings { magicTransitNetworkAnalyticsAdaptiveGroups { notOlderThan } magicTransitTunnelTrafficAdaptiveGroups { notOlderThan } }
		magicTransitNetworkAnalyticsAdaptiveGroups(limit: 10, filter: {datetime_geq: "-1m", direction: "ingress", egressTunnelName: "red-1"}) {
		dimensions { ipSourceAddress ipDestinationAddress sourceAsn sourceAsnName destinationCountry coloCity coloCountry coloGeohash } } } } }`
	want := map[string]any{"ipSourceAddress": "192.0.2.0", "ipDestinationAddress": "198.18.31.0", "sourceAsn": 64500.0, "sourceAsnName": "Example",
		"destinationCountry": "NL", "coloCity": "Amsterdam", "coloCountry": "NL", "coloGeohash": "u173z"}
	var account any
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Second) {
		data, fault := b.ask(t, "red", query, map[string]any{"tag": "red"}, where...)
		if fault != "" {
			t.Fatal(fault)
		}
		if account = dig(data, "viewer", "accounts", 0); dig(account, "magicTransitNetworkAnalyticsAdaptiveGroups", 0) != nil {
			break
		}
	}
	if got := dig(account, "magicTransitNetworkAnalyticsAdaptiveGroups", 0, "dimensions"); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("a sample: %v, want %v", got, want)
	}
	for name, want := range map[string]int{"magicTransitNetworkAnalyticsAdaptiveGroups": 5400, "magicTransitTunnelTrafficAdaptiveGroups": 5 * 86400} {
		if got := number(dig(account, "settings", name, "notOlderThan")); got != want {
			t.Errorf("%s are kept for %d s, want %d", name, got, want)
		}
	}
	for name, x := range map[string]struct {
		at      net.PacketConn
		version []byte
	}{"sFlow": {sflow, []byte{0, 0, 0, 5}}, "IPFIX": {ipfix, []byte{0, 10}}} {
		buf := make([]byte, 2000)
		_ = x.at.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, _, err := x.at.ReadFrom(buf); err != nil || n < 16 || string(buf[:len(x.version)]) != string(x.version) {
			t.Errorf("%s: %x, %v", name, buf[:n], err)
		}
	}
	b.tunnelsNow(t, where)
	b.certificate(t) // another, in the place of the first: curl trusts what is there now
	b.node.MustRun(b.bin, "reload", "--socket", b.socket)
	b.tunnelsNow(t, where)
	b.end(t)
}

// tunnelsNow asks for the tunnels and accounts of red, and compares them with what `causeway show tunnels` says.
func (b *bed) tunnelsNow(t *testing.T, where []string) {
	t.Helper()
	data, fault := b.ask(t, "red", `query($tag: string!) { viewer { causewayAccounts accounts(filter: {accountTag: $tag}) {
		causewayTunnels { tunnelName account mtu mssIPv4 mssIPv6 customerEndpoint espSas { spi } } } } }`, map[string]any{"tag": "red"}, where...)
	if fault != "" {
		t.Fatal(fault)
	}
	var shown []api.Tunnel
	if err := json.Unmarshal([]byte(b.node.MustRun(b.bin, "show", "tunnels", "-o", "json", "--socket", b.socket)), &shown); err != nil {
		t.Fatal(err)
	}
	var want []any
	for _, x := range shown {
		if x.Account == "red" {
			want = append(want, map[string]any{"tunnelName": x.Name, "account": "red", "mtu": float64(x.MTU), "mssIPv4": float64(x.MSS4), "mssIPv6": float64(x.MSS6),
				"customerEndpoint": x.CustomerEndpoint, "espSas": []any{}})
		}
	}
	got := dig(data, "viewer", "accounts", 0, "causewayTunnels")
	if len(want) != 2 || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("tunnels %v, want %v", got, want)
	}
	if accounts := dig(data, "viewer", "causewayAccounts"); fmt.Sprint(accounts) != "[red]" {
		t.Errorf("accounts %v", accounts)
	}
}

// collector is a socket of UDP on the node.
func (b *bed) collector(t *testing.T) (c net.PacketConn) {
	t.Helper()
	b.node.Do(func() {
		var err error
		if c, err = net.ListenPacket("udp4", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { c.Close() })
	return c
}

// certificate makes one of the node's loopback address, and its key.
func (b *bed) certificate(t *testing.T) (certificate, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "edge-1"}, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true,
		BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, about, about, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key = filepath.Join(b.dir, "a.pem"), filepath.Join(b.dir, "a.key")
	for path, block := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate, key
}

// TestRootAnalyticsClickHouse has a server keep the rows, which is killed while traffic goes on: nothing is lost, and nothing counts twice.
func TestRootAnalyticsClickHouse(t *testing.T) {
	b := newCraftedBed(t)
	b.discard(t)
	server := b.clickHouse(t)
	b.run(t, b.configuration(analyticsTunnels(), fmt.Sprintf("analytics: {listen: \"127.0.0.1:9151\", tokens: {file: %s}, clickhouse: \"http://default@127.0.0.1:8123/causeway\"}", b.tokens(t))))
	b.warmAnalytics(t)
	known := b.makeMix(t)
	began := time.Now().Truncate(time.Second).Add(3 * time.Second)
	time.Sleep(time.Until(began))
	sent := known.replay(t)
	time.Sleep(5 * time.Second)
	server.Signal(unix.SIGKILL)
	_ = server.Wait(5 * time.Second) // it was killed
	sent = append(sent, known.replay(t)...)
	time.Sleep(5 * time.Second)
	b.startClickHouse(t)
	b.sayWhatWasCountedWithin(t, began, sent, time.Minute)
	b.end(t)
}

// clickHouse starts a server on the node, with files in memory: it waits for the disk with each table.
func (b *bed) clickHouse(t *testing.T) *hosts.Process {
	t.Helper()
	dir := filepath.Join(b.dir, "clickhouse")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("causeway", dir, "tmpfs", 0, "size=1g"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	for name, text := range map[string]string{
		"config.xml": `<yandex><logger><level>warning</level><log>` + dir + `/log</log><errorlog>` + dir + `/err.log</errorlog></logger>
<http_port>8123</http_port><listen_host>127.0.0.1</listen_host><path>` + dir + `/data/</path><tmp_path>` + dir + `/tmp/</tmp_path>
<user_files_path>` + dir + `/files/</user_files_path><users_config>` + dir + `/users.xml</users_config>
<default_profile>default</default_profile><default_database>default</default_database><mark_cache_size>67108864</mark_cache_size></yandex>`,
		"users.xml": `<yandex><profiles><default></default></profiles><quotas><default></default></quotas><users><default><password></password>
<networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></default></users></yandex>`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return b.startClickHouse(t)
}

func (b *bed) startClickHouse(t *testing.T) *hosts.Process {
	t.Helper()
	p := b.node.Start("clickhouse-server", "--config-file="+filepath.Join(b.dir, "clickhouse", "config.xml"))
	for end := time.Now().Add(startLimit); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if _, err := b.node.Run("curl", "-sS", "--max-time", "1", "http://127.0.0.1:8123/ping"); err == nil {
			return p
		}
	}
	t.Fatal("clickhouse-server does not answer")
	return nil
}
