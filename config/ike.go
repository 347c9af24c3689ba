package config

import (
	"slices"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// IKE is how the associations of a tunnel are negotiated (IKEv2, RFC 7296).
// Its fields are named after the file's.
type IKE struct {
	// The two ends know each other by a pre-shared key, or by certificates.
	// PSK is its octets, as they go into RFC 7296 2.15, and empty with
	// certificates. Certificate (ours), Key (its private key) and CA (who certifies
	// the peer) are then absolute paths of PEM files. Files were there, and Key was
	// its owner's alone, when the configuration was read; their contents are not
	// looked at here, and Diff does not see them change.
	PSK                  Secret
	Certificate, Key, CA string

	AllowWeak bool // group 5 and SHA-1 may be negotiated

	// LocalID and RemoteID are identities in strongSwan's forms, never empty:
	// an address, a name, user@host, @#hex, keyid:TEXT, "CN=..., O=...".
	LocalID, RemoteID string

	// Proposals and ChildProposals are in strongSwan's words, the most wanted
	// first, and without a mistake. nil: those of control/ike/suite.
	Proposals, ChildProposals []string

	Lifetime Lifetime
	DPD      time.Duration // silence after which the peer is asked for a sign of life; 0: it never is
	Initiate bool          // begin to negotiate at the start; the tunnel has a CustomerEndpoint
}

// Lifetime is what ends an association. These are hard ends: it is renewed before.
type Lifetime struct {
	IKE, Child     time.Duration // of the IKE SA, and of each pair of ESP associations
	Packets, Bytes uint64        // of each ESP association; 0: no end by it
}

const (
	defaultIKELife   = 8 * time.Hour
	defaultChildLife = time.Hour
	defaultDPD       = 30 * time.Second
)

const noAuthentication = "psk: {file: PATH}, or certificate, key and ca"

var (
	ikeSchema = schema{
		fields: []string{"psk", "certificate", "key", "ca", "allow_weak", "local_id", "remote_id", "proposals", "child_proposals", "lifetime", "dpd", "initiate"},
		refused: map[string]string{
			"selectors":         besideIKE,
			"replay_window":     besideIKE,
			"allow_null_cipher": besideIKE,
			"esn":               "is a word of child_proposals, as in aes256gcm16-ecp384-esn: remove the field",
		},
	}
	lifetimeSchema = schema{fields: []string{"ike", "child", "packets", "bytes"}}
)

const besideIKE = "belongs to the tunnel: write it beside ike"

// ike decodes how keys are negotiated, after the tunnel's addresses and the
// other fields of IPsec.
func (d *decoder) ike(f fields, t *Tunnel) {
	k := &IKE{Lifetime: Lifetime{IKE: defaultIKELife, Child: defaultChildLife}, DPD: defaultDPD}
	t.IPsec.IKE = k
	for name, why := range map[string]string{
		"lab":        "is for keys in the file: negotiated ones are renewed; remove the field",
		"allow_weak": "belongs into ike here: move it there",
	} {
		if v, ok := f.get(name); ok {
			v.fail("%s", why)
		}
	}
	v, ok := f.get("ike")
	if !ok {
		return
	}
	if _, ok := v.node.(ast.MapNode); !ok {
		v.fail("must be a mapping: write ike: {psk: {file: PATH}}") // it may be the key, and is not shown
		return
	}
	m, ok := v.mapping(ikeSchema)
	if !ok {
		return
	}
	if v, ok := m.get("allow_weak"); ok {
		v.boolean(&k.AllowWeak)
	}
	d.ikeKeys(m, k)
	d.ikeIdentities(f, m, t)
	if v, ok := m.get("proposals"); ok {
		k.Proposals = t.IPsec.proposals(v, false)
	}
	if v, ok := m.get("child_proposals"); ok {
		k.ChildProposals = t.IPsec.proposals(v, true)
	}
	d.ikeTimes(m, k)
	if v, ok := m.get("initiate"); ok {
		v.boolean(&k.Initiate)
		if k.Initiate && !f.given["customer_endpoint"] {
			v.fail("true needs customer_endpoint: without it nobody knows where the router is; write it, or false")
		}
	}
}

// ikeKeys decodes how the two ends authenticate each other.
func (d *decoder) ikeKeys(m fields, k *IKE) {
	if v, ok := m.get("psk"); ok {
		k.PSK, _ = v.preShared()
		_, elsewhere := v.node.(ast.MapNode)
		switch {
		case elsewhere:
		case d.ofFleet:
			v.fail("stands here, and the document is shown to whoever asks for it: write {file: PATH} or {env: NAME}, of the machine where it is applied")
		case d.inline == "":
			d.inline = v.path
		}
	}
	certificates := []struct {
		name string
		path *string
	}{{"certificate", &k.Certificate}, {"key", &k.Key}, {"ca", &k.CA}}
	if m.given["psk"] {
		for _, c := range certificates {
			if v, ok := m.get(c.name); ok {
				v.fail("stands beside psk: there is one of the two ways to know each other; remove it, or psk")
			}
		}
		return
	}
	if !m.given["certificate"] && !m.given["key"] && !m.given["ca"] {
		m.fail("has no key: write %s", noAuthentication)
		return
	}
	m.need("certificate", "the path of a file with our certificate in PEM")
	m.need("key", "the path of a file with the certificate's private key, which only its owner may read")
	m.need("ca", "the path of a file with the authorities that certify the router: nothing else says which certificates are right")
	for _, c := range certificates {
		if v, ok := m.get(c.name); ok {
			*c.path = v.pemFile(c.name == "key")
		}
	}
}

// ikeIdentities decodes the identities, whose defaults are the outer addresses.
func (d *decoder) ikeIdentities(f, m fields, t *Tunnel) {
	k := t.IPsec.IKE
	if t.Endpoint.IsValid() {
		k.LocalID = t.Endpoint.String()
	}
	if t.CustomerEndpoint.IsValid() {
		k.RemoteID = t.CustomerEndpoint.String()
	}
	if v, ok := m.get("local_id"); ok {
		k.LocalID, _ = v.identity()
	}
	if !f.given["customer_endpoint"] {
		m.need("remote_id", "the identity that the router sends, such as cust.example.net: without customer_endpoint it alone says whose tunnel it is")
	}
	if v, ok := m.get("remote_id"); ok {
		k.RemoteID, _ = v.identity()
	}
}

// Bounds of times and counts, with their reasons.
var (
	lifeBounds = durationBounds{5 * time.Second, 30 * 24 * time.Hour,
		"renewing takes some seconds when datagrams are lost", "keys would never become fresh"}
	dpdBounds = durationBounds{time.Second, time.Hour,
		"a router that is busy would be taken for dead", "a dead router would be noticed by its next renewal only; write off if that is meant"}
)

const (
	minLifePackets, maxLifePackets = 100, 1 << 52
	minLifeBytes, maxLifeBytes     = 1 << 16, 1 << 60

	lifeTooSmall = "what is under way while the next keys are agreed on would be more"
	lifeTooLarge = "no link sends as much in a year, and without the field there is no end by it"
)

// ikeTimes decodes lifetime and dpd.
func (d *decoder) ikeTimes(m fields, k *IKE) {
	if v, ok := m.get("dpd"); ok {
		k.DPD = 0
		if !v.isWord("off") {
			k.DPD, _ = v.duration(dpdBounds, "off, or ")
		}
	}
	v, ok := m.get("lifetime")
	if !ok {
		return
	}
	l, ok := v.mapping(lifetimeSchema)
	if !ok {
		return
	}
	if v, ok := l.get("ike"); ok {
		k.Lifetime.IKE, _ = v.duration(lifeBounds, "")
	}
	if v, ok := l.get("child"); ok {
		k.Lifetime.Child, _ = v.duration(lifeBounds, "")
	}
	if v, ok := l.get("packets"); ok {
		k.Lifetime.Packets = v.lifeCount(minLifePackets, maxLifePackets)
	}
	if v, ok := l.get("bytes"); ok {
		k.Lifetime.Bytes = v.lifeCount(minLifeBytes, maxLifeBytes)
	}
}

func (v value) lifeCount(low, high int64) uint64 {
	n, ok := v.anyInteger(low, high)
	switch {
	case !ok:
	case n < low:
		v.fail("%d is too small: write %d at least, since %s", n, low, lifeTooSmall)
	case n > high:
		v.fail("%d is too large: write %d at most, since %s", n, high, lifeTooLarge)
	default:
		return uint64(n)
	}
	return 0
}

// ikeDifferences names the fields of ike that differ. With and without ike
// differ in all of it.
func (i *IPsec) ikeDifferences(j *IPsec) []string {
	was, is := i.ike(), j.ike()
	switch {
	case was == nil && is == nil:
		return nil
	case was == nil || is == nil:
		return []string{"ike"}
	}
	fields := was.differences(is)
	if i.AllowNull != j.AllowNull {
		fields = append(fields, "allow_null_cipher") // it may be negotiated now, or no longer
	}
	return fields
}

func (i *IPsec) ike() *IKE {
	if i == nil {
		return nil
	}
	return i.IKE
}

func (k *IKE) differences(l *IKE) (fields []string) {
	for _, f := range []struct {
		name string
		same bool
	}{
		{"psk", string(k.PSK) == string(l.PSK)},
		{"certificate", k.Certificate == l.Certificate},
		{"key", k.Key == l.Key},
		{"ca", k.CA == l.CA},
		{"allow_weak", k.AllowWeak == l.AllowWeak},
		{"local_id", k.LocalID == l.LocalID},
		{"remote_id", k.RemoteID == l.RemoteID},
		{"proposals", slices.Equal(k.Proposals, l.Proposals)},
		{"child_proposals", slices.Equal(k.ChildProposals, l.ChildProposals)},
		{"lifetime", k.Lifetime == l.Lifetime},
		{"dpd", k.DPD == l.DPD},
		{"initiate", k.Initiate == l.Initiate},
	} {
		if !f.same {
			fields = append(fields, "ike."+f.name)
		}
	}
	return fields
}
