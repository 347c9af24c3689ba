package config

import (
	"cmp"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// FuzzParse: no input makes Parse panic, mistakes have their places, and what
// is accepted holds what the package promises.
func FuzzParse(f *testing.F) {
	f.Add(string(example))
	f.Add(string(contract))
	f.Add(sharing)
	for _, m := range slices.Concat(mistakes, ikeMistakes, clusterMistakes) {
		f.Add(clusterFilesAnywhere.Replace(m.text))
	}
	for _, section := range []string{leaf, hub} {
		f.Add(clusterFilesAnywhere.Replace(clustered(base, section)))
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("f.yaml", []byte(text))
		if err != nil {
			checkErrors(t, err)
			return
		}
		checkPromises(t, c)
		again := &decoder{file: "f.yaml", where: c.where}
		again.check(c)
		if len(again.errs) > 0 {
			t.Errorf("accepted at first, refused again: %v", again.errs)
		}
	})
}

func checkErrors(t *testing.T, err error) {
	var es Errors
	if !errors.As(err, &es) || len(es) == 0 {
		t.Fatalf("an error without places: %v", err)
	}
	byPlace := func(a, b Error) int { return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column)) }
	if !slices.IsSortedFunc(es, byPlace) {
		t.Errorf("not in the order of the file:\n%v", es)
	}
	for _, e := range es {
		if e.Line < 1 || e.Column < 1 || e.Message == "" || strings.ContainsAny(e.Error(), "\n\r") {
			t.Errorf("a bad error: %#v", e)
		}
	}
}

func checkPromises(t *testing.T, c *Config) {
	if c.Node.Name == "" || len(c.Interfaces) == 0 || !strings.HasPrefix(c.Control.Socket, "/") {
		t.Errorf("incomplete: %+v", c)
	}
	names := map[string]bool{}
	for _, tn := range c.Tunnels {
		if names[tn.Name] || !validName(tn.Name) {
			t.Errorf("name %q", tn.Name)
		}
		names[tn.Name] = true
		if tn.MTU < 576 || 14+4+tn.Overhead()+tn.MTU > 1744 {
			t.Errorf("%s: mtu %d", tn.Name, tn.MTU)
		}
		if int(tn.MSS4()) > tn.MTU-40 || int(tn.MSS6()) > tn.MTU-60 {
			t.Errorf("%s: mss %d and %d", tn.Name, tn.MSS4(), tn.MSS6())
		}
		anywhere := !tn.CustomerEndpoint.IsValid() && tn.IPsec.ike() != nil
		if !anywhere && tn.Endpoint.Is4() != tn.CustomerEndpoint.Is4() || tn.TTL == 0 || !slices.Contains(c.Endpoints, tn.Endpoint) {
			t.Errorf("%+v", tn)
		}
		if !tn.InterfaceAddress.Masked().Contains(tn.Peer4()) || tn.Peer4() == tn.InterfaceAddress.Addr() {
			t.Errorf("%s: %s and %s", tn.Name, tn.InterfaceAddress, tn.Peer4())
		}
		if !slices.ContainsFunc(c.Accounts, func(a Account) bool { return a.Name == tn.Account }) {
			t.Errorf("%s: no account %q", tn.Name, tn.Account)
		}
	}
	for _, tn := range c.Tunnels {
		if k := tn.IPsec.ike(); k != nil {
			checkIKE(t, tn, k)
		}
	}
	for _, r := range c.EffectiveRoutes() {
		if (r.Tunnel != "") == r.NextHop.IsValid() || r.Weight < 1 || r.Weight > 256 || r.Prefix != r.Prefix.Masked() || !r.Prefix.IsValid() {
			t.Errorf("route %+v", r)
		}
		if r.Tunnel != "" && (!names[r.Tunnel] || r.Account == "") {
			t.Errorf("route %+v", r)
		}
	}
	if c.Cluster != nil {
		checkClusterSection(t, c)
	}
	if d := Diff(c, c); !d.Empty() {
		t.Errorf("differs from itself: %+v", d)
	}
	for _, w := range c.Warnings() {
		if w.Line < 1 || w.Message == "" {
			t.Errorf("a bad warning: %#v", w)
		}
	}
}

func checkClusterSection(t *testing.T, c *Config) {
	k := c.Cluster
	if len(k.Servers) == 0 && !k.Hub.IsValid() || k.Hub.IsValid() && k.Hub.Port() == 0 || !c.Node.Address.IsValid() {
		t.Errorf("%+v of node %+v", k, c.Node)
	}
	for _, path := range []string{k.TLS.Certificate, k.TLS.Key, k.TLS.CA, k.Roster} {
		if !strings.HasPrefix(path, "/") {
			t.Errorf("%+v", k)
		}
	}
	for _, s := range k.Servers {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "tls" || u.Hostname() == "" || u.Port() == "" || u.Port() == "0" || u.String() != "tls://"+u.Host || u.User != nil {
			t.Errorf("server %q", s)
		}
	}
	for _, tn := range c.Tunnels {
		if tn.Sequence || tn.IPsec != nil && tn.IPsec.IKE == nil || tn.IPsec != nil && !tn.IPsec.ReplayProtection && strings.Contains("-"+strings.Join(tn.IPsec.IKE.ChildProposals, "-")+"-", "-esn-") {
			t.Errorf("in a cluster: %+v", tn)
		}
	}
}

func checkIKE(t *testing.T, tn Tunnel, k *IKE) {
	if (len(k.PSK) > 0) == (k.Certificate != "") || (k.Certificate != "") != (k.Key != "" && k.CA != "") {
		t.Errorf("%s: authenticated by %+v", tn.Name, k)
	}
	for _, id := range []string{k.LocalID, k.RemoteID} {
		if c, err := comparableIdentity(id); err != nil || c == "" {
			t.Errorf("%s: identity %q: %v", tn.Name, id, err)
		}
	}
	if k.Initiate && !tn.CustomerEndpoint.IsValid() || k.Lifetime.IKE <= 0 || k.Lifetime.Child <= 0 || k.DPD < 0 || tn.IPsec.SA.Encryption != "" {
		t.Errorf("%s: %+v", tn.Name, k)
	}
	for _, outer := range []int{1280, 1400, 1500} {
		for _, e := range tn.IPsec.encryptions() {
			one := tn
			one.IPsec = &IPsec{SA: ManualSA{Encryption: e.Name, UDPEncap: true}}
			if tn.Fits(outer) > one.Fits(outer) || tn.Overhead() < one.Overhead() {
				t.Errorf("%s: %d bytes fit %d, with %s %d", tn.Name, tn.Fits(outer), outer, e.Name, one.Fits(outer))
			}
		}
	}
}
