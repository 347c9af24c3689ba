package config

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// sameIdentities finds tunnels of which a router, having said who it is, could
// mean either.
func (k *checker) sameIdentities() {
	type peer struct {
		endpoint netip.Addr
		identity string
	}
	type router struct {
		peer
		customer netip.Addr // the zero Addr: anywhere
	}
	first := map[peer]int{}   // whatever their customer_endpoints are
	exact := map[router]int{} // the first with that one
	for i, t := range k.c.Tunnels {
		remote := t.IPsec.ike().remote()
		if remote == "" || !t.Endpoint.IsValid() {
			continue
		}
		if _, given := k.where[tunnelPath(i, "customer_endpoint")]; given && !t.CustomerEndpoint.IsValid() {
			continue // a mistake, and not a tunnel without one
		}
		p := peer{t.Endpoint, remote}
		before, twice := first[p]
		if t.CustomerEndpoint.IsValid() && twice {
			if before, twice = exact[router{p, t.CustomerEndpoint}]; !twice {
				before, twice = exact[router{p, netip.Addr{}}]
			}
		}
		if !twice {
			exact[router{p, t.CustomerEndpoint}] = i
			if _, other := first[p]; !other {
				first[p] = i
			}
			continue
		}
		k.sameIdentity(before, i)
	}
}

// remote is the peer's identity in a form to compare.
func (k *IKE) remote() string {
	if k == nil {
		return ""
	}
	s, err := comparableIdentity(k.RemoteID)
	if err != nil {
		return ""
	}
	return s
}

func (k *checker) sameIdentity(before, i int) {
	a, b := k.c.Tunnels[before], k.c.Tunnels[i]
	where := k.there(tunnelPath(before, "ike.remote_id"))
	if a.CustomerEndpoint == b.CustomerEndpoint && a.CustomerEndpoint.IsValid() {
		k.fail(tunnelPath(i, "ike.remote_id"), "%s is the other end of tunnel %s too (%s), with the same endpoint and customer_endpoint: give one of them another remote_id",
			quote(b.IPsec.IKE.RemoteID), quote(a.Name), where)
		return
	}
	k.fail(tunnelPath(i, "ike.remote_id"), "%s is the other end of tunnel %s too (%s), with the same endpoint: where one of them has no customer_endpoint, the identity alone tells them apart; "+
		"give one of them another remote_id", quote(b.IPsec.IKE.RemoteID), quote(a.Name), where)
}

const (
	shortPSK  = 16 // bytes; fewer can be tried out (RFC 7296 2.15 and 5)
	longLife  = 24 * time.Hour
	shortLife = time.Minute
)

// warnIKE names what of ike works, but perhaps not as its author expects.
func (d *decoder) warnIKE(i int, t Tunnel) {
	k := t.IPsec.IKE
	if k == nil {
		return
	}
	path := func(field string) string { return tunnelPath(i, "ike."+field) }
	if len(k.PSK) > 0 {
		d.warnPSK(path("psk"), string(k.PSK))
	}
	for _, l := range []struct {
		field string
		life  time.Duration
	}{{"lifetime.ike", k.Lifetime.IKE}, {"lifetime.child", k.Lifetime.Child}} {
		switch {
		case l.life > longLife:
			d.warn(path(l.field), "%v is longer than a day: who finds out a key can read that much; 8h and 1h are usual", l.life)
		case l.life < shortLife:
			d.warn(path(l.field), "%v is shorter than a minute, as for a test: both ends are always renewing", l.life)
		}
	}
	if k.DPD == 0 {
		d.warn(path("dpd"), "is off: a router that began anew or is gone is noticed by the next renewal only, and until then its packets are lost")
	}
	for _, id := range []struct{ field, text string }{{"local_id", k.LocalID}, {"remote_id", k.RemoteID}} {
		if slices.Contains(nameAttributes, id.text) {
			d.warn(path(id.field), "%s is a name of one word; the subject of a certificate is written with a text, as in %s=edge", quote(id.text), id.text)
		}
	}
	if local, err := comparableIdentity(k.LocalID); err == nil && local == k.remote() {
		d.warn(path("remote_id"), "%s is the identity of this end too: most routers take no peer that has their own name", quote(k.RemoteID))
	}
}

// warnPSK looks at a pre-shared key, and shows nothing of it.
func (d *decoder) warnPSK(path, key string) {
	_, file := d.where[path+".file"]
	_, env := d.where[path+".env"]
	if !file && !env {
		d.warn(path, "the key stands here, and goes wherever this file goes: write {file: PATH}, which only its owner may read, or {env: NAME}")
	}
	if len(key) < shortPSK {
		d.warn(path, "has %d bytes: who poses as the router for one handshake can find out a short key by trying (RFC 7296 2.15); write %d random ones at least", len(key), shortPSK)
	}
	if strings.TrimSpace(key) != key {
		d.warn(path, "begins or ends with a space, which is part of the key")
	}
	if strings.HasPrefix(key, "0s") {
		d.warn(path, "begins with 0s, which is part of the key here, and in strongSwan the mark of base64: write 0x and hexadecimal digits")
	}
}

// warnSharedPSKs names accounts that could pass for each other.
func (d *decoder) warnSharedPSKs(c *Config) {
	first := map[string]int{}
	for i, t := range c.Tunnels {
		k := t.IPsec.ike()
		if k == nil || len(k.PSK) == 0 {
			continue
		}
		before, twice := first[string(k.PSK)]
		switch {
		case !twice:
			first[string(k.PSK)] = i
		case c.Tunnels[before].Account != t.Account:
			d.warn(tunnelPath(i, "ike.psk"), "is the key of tunnel %s of account %s too: each of the two customers can pass for the other; make a key for each tunnel",
				quote(c.Tunnels[before].Name), quote(c.Tunnels[before].Account))
		}
	}
}
