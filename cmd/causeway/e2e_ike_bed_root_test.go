package main_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"causeway/control/api"
	"causeway/scripts/hosts"
)

// The bed of IKE: beside the guest of the other tests, whose kernel does ESP, a host in which strongSwan does it itself.
// Each has a second line, to which the rest of the world comes through a NAT.
//
//	rt  vc --- vec0 guest vec1 --+
//	    vn --- up   nat ---------+   masquerade
//	    vl --- eth0 user  eth1 --+
type ikeBed struct {
	*bed
	nat, user *hosts.Host
	keys      string // directory of PSKs and certificates
	tunnels   []*ikeTunnel
	swans     map[string]*hosts.Swan // by place
	swansMade int                    // times that they were started anew
	client    *api.Client            // asks the node without a process for each of many questions
	second    *bed                   // another node with the same tunnels, or nil
	third     *bed                   // one more, to which no packets of customers come, or nil
}

func newIKEBed(t *testing.T, tunnels []*ikeTunnel) *ikeBed {
	t.Helper()
	b := &ikeBed{bed: newBed(t, bedOptions{}), tunnels: tunnels, keys: t.TempDir(), swans: map[string]*hosts.Swan{}}
	b.client = api.NewClient(b.socket)
	makeCertificates(t, b.keys)
	for _, x := range tunnels {
		if err := os.WriteFile(filepath.Join(b.keys, x.name+".psk"), []byte(x.psk()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.linkCustomers()
	b.guest = b.cust.Guest("guest", "up0", "up1")
	// The guest's kernel would ask for modules, and for faster ones that there are not, fifty times while the first tunnels come
	// up: with all that it needs at hand, it need not ask.
	b.sh(t, `modprobe -a esp4 esp6 ip_vti xfrm_user gcm ctr ghash_generic cbc ecb chacha20poly1305 chacha_generic poly1305_generic \
	  authenc authencesn echainiv seqiv hmac sha256_generic sha512_generic sha1_generic crypto_null drbg ansi_cprng 2>/dev/null
	echo >/proc/sys/kernel/modprobe`)
	b.addresses(t)
	return b
}

// linkCustomers joins router, NAT and user.
func (b *ikeBed) linkCustomers() {
	b.nat, b.user = b.net.Host("nat"), b.net.Host("user")
	b.net.Link(b.rt, "vl", b.user, "eth0", hosts.LinkOptions{})
	b.net.Link(b.rt, "vn", b.nat, "up", hosts.LinkOptions{})
	b.net.Link(b.nat, "g", b.cust, "up1", hosts.LinkOptions{})
	b.net.Link(b.nat, "u", b.user, "eth1", hosts.LinkOptions{})
	forwards(b.nat)
	b.rt.Addr("vl", "198.51.101.254/24", "2001:db8:d::fe/64")
	b.rt.Addr("vn", "198.51.102.254/24", "2001:db8:e::fe/64")
	b.nat.Addr("up", "198.51.102.1/24", "2001:db8:e::1/64")
	b.nat.Addr("g", "10.64.0.254/24", "fd64::fe/64")
	b.nat.Addr("u", "10.65.0.254/24", "fd65::fe/64")
	b.nat.Route("default", "via", "198.51.102.254")
	b.nat.Route("default", "via", "2001:db8:e::fe")
	b.nat.MustRun("nft", `table inet nat {
		chain post { type nat hook postrouting priority srcnat; oifname "up" masquerade fully-random
		}
	}`)
	for _, prefix := range []string{"198.51.101.0/24", "198.51.102.0/24"} {
		b.node.Route(prefix, "via", "172.31.2.254")
	}
	for _, prefix := range []string{"2001:db8:d::/64", "2001:db8:e::/64"} {
		b.node.Route(prefix, "via", "2001:db8:32::fe")
	}
}

// addresses gives both places what their tunnels need, and the Internet's host an address for each tunnel.
func (b *ikeBed) addresses(t *testing.T) {
	t.Helper()
	texts := map[string]*strings.Builder{inGuest: {}, inUser: {}, "inet": {}}
	add := func(place, address, dev string) {
		fmt.Fprintf(texts[place], "addr add %s dev %s%s\n", address, dev, map[bool]string{true: " nodad"}[strings.Contains(address, ":")])
	}
	devices := map[string][2]string{inGuest: {"vec0", "vec1"}, inUser: {"eth0", "eth1"}}
	for place, list := range map[string][4]string{inGuest: {"198.51.100.2/24", "2001:db8:c::2/64", "10.64.0.2/24", "fd64::2/64"},
		inUser: {"198.51.101.2/24", "2001:db8:d::2/64", "10.65.0.2/24", "fd65::2/64"}} {
		for i, address := range list {
			add(place, address, devices[place][i/2])
		}
	}
	for _, x := range b.tunnels {
		dev, bits := devices[x.place][0], "/24"
		if x.nat {
			dev = devices[x.place][1]
		}
		if x.v6 {
			bits = "/64"
		}
		add(x.place, x.outer()+bits, dev)
		add(x.place, x.inside4().String()+"/32", "lo")
		add(x.place, x.inside6().String()+"/128", "lo")
		if x.probed {
			add(x.place, fmt.Sprintf("10.213.%d.1/32", x.number), "lo")
		}
		add("inet", x.from4().String()+"/24", "eth0")
		add("inet", x.from6().String()+"/64", "eth0")
		if x.vti {
			fmt.Fprintf(texts[x.place], "link add vti%d type vti local %s remote %s key %[1]d\nlink set vti%[1]d up\n", x.number, x.outer(), x.endpoint())
			for family, from := range map[string]string{"": x.inside4().String(), "-6 ": x.inside6().String()} {
				fmt.Fprintf(texts[x.place], "%sroute add default dev vti%d table %[2]d\n%[1]srule add from %[3]s lookup %[2]d\n", family, x.number, from)
			}
		}
	}
	for place, gateways := range map[string][4]string{inGuest: {"198.51.100.254", "2001:db8:c::fe", "10.64.0", "fd64:"}, inUser: {"198.51.101.254", "2001:db8:d::fe", "10.65.0", "fd65:"}} {
		dev := devices[place]
		fmt.Fprintf(texts[place], "route add default via %s dev %s\n-6 route add default via %s dev %s\n", gateways[0], dev[0], gateways[1], dev[0])
		// What has an address behind the NAT leaves by it.
		fmt.Fprintf(texts[place], "route add default via %s.254 dev %s table 99\nrule add from %[1]s.0/24 lookup 99\n", gateways[2], dev[1])
		fmt.Fprintf(texts[place], "-6 route add default via %s:fe dev %s table 99\n-6 rule add from %[1]s:/64 lookup 99\n", gateways[3], dev[1])
	}
	batch := func(text string) string {
		return "while read -r line; do ip $line || exit; done <<'END'\n" + text + "END\n"
	}
	must(t, b.user, "bash", "-c", batch(texts[inUser].String()))
	must(t, b.inet, "bash", "-c", batch(texts["inet"].String()))
	// One process for the many, because each costs a tenth of a second in the guest; -batch takes one family.
	var four, six strings.Builder
	for line := range strings.Lines(texts[inGuest].String()) {
		if rest, ok := strings.CutPrefix(line, "-6 "); ok {
			six.WriteString(rest)
		} else {
			four.WriteString(line)
		}
	}
	b.sh(t, fmt.Sprintf("ip -batch - <<'END' || exit\n%sEND\nip -6 -batch - <<'END' || exit\n%sEND\nfor i in /proc/sys/net/ipv4/conf/vti*/disable_policy; do [ ! -e $i ] || echo 1 >$i; done",
		four.String(), six.String()))
}

// startSwans starts strongSwan at both places.
func (b *ikeBed) startSwans(t *testing.T) {
	t.Helper()
	certificates := files(t, b.keys)
	const settings = "delete_rekeyed_delay = 1\n" // seconds for which it keeps what was replaced
	// The guest's signs with RSA-PSS, the other with PKCS #1.
	b.swans[inGuest] = b.guest.Swan("swan", hosts.SwanOptions{Conf: swanctlConf(b.tunnels, inGuest), Files: certificates,
		Settings: settings + "rsa_pss = yes\ninstall_routes = no"}, b.rt, "198.51.100.2")
	b.swans[inUser] = b.user.Swan("swan", hosts.SwanOptions{Conf: swanctlConf(b.tunnels, inUser), Files: certificates, Settings: settings})
}

// ikeConfiguration is the node's file.
func (b *ikeBed) ikeConfiguration(top ...string) string {
	s := b.configuration(nil, top...)
	for _, x := range b.tunnels {
		s += x.configuration(b.keys)
	}
	return s
}

// echo is a ping from the Internet's host. It costs no process.
func (b *ikeBed) echo(from, to netip.Addr) error {
	network, protocol := "ip4:icmp", 1
	var request, answer icmp.Type = ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply
	if to.Is6() {
		network, protocol, request, answer = "ip6:ipv6-icmp", 58, ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	var conn *icmp.PacketConn
	var err error
	b.inet.Do(func() { conn, err = icmp.ListenPacket(network, from.String()) })
	if err != nil {
		return err
	}
	defer conn.Close()
	sent := &icmp.Echo{ID: rand.IntN(1 << 16), Seq: 1, Data: numbered(200)}
	text, err := (&icmp.Message{Type: request, Body: sent}).Marshal(nil)
	if err == nil {
		_, err = conn.WriteTo(text, &net.IPAddr{IP: to.AsSlice()})
	}
	if err != nil {
		return err
	}
	const patience = 10 * time.Second
	conn.SetReadDeadline(time.Now().Add(patience))
	for buf := make([]byte, 2048); ; {
		n, peer, err := conn.ReadFrom(buf)
		if err != nil {
			return fmt.Errorf("%v -> %v: no answer in %v", from, to, patience)
		}
		m, err := icmp.ParseMessage(protocol, buf[:n])
		if err != nil || m.Type != answer || peer.String() != to.String() {
			continue
		}
		if got, ok := m.Body.(*icmp.Echo); ok && got.ID == sent.ID && bytes.Equal(got.Data, sent.Data) {
			return nil
		}
	}
}
