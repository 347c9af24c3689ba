package config

import (
	"slices"
	"time"
)

// IKE is how the associations of a tunnel are negotiated (IKEv2, RFC 7296).
// Its fields are named after the file's.
type IKE struct {
	// The two ends know each other by a pre-shared key, or by certificates.
	// PSK is its octets, as they go into RFC 7296 2.15, and empty with
	// certificates; Certificate and Key are then set. These three are absolute
	// paths of PEM files. They are there, and only its owner may read Key; their
	// contents are not looked at here. CA may be empty.
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

// ikeDifferences names the fields of ike that differ. With and without ike
// differ in all of it.
func (i *IPsec) ikeDifferences(j *IPsec) []string {
	switch {
	case i == nil || j == nil || i.IKE == nil && j.IKE == nil:
		return nil // type says it, or manual_sas
	case i.IKE == nil || j.IKE == nil:
		return []string{"ike"}
	}
	return i.IKE.differences(j.IKE)
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
