package cluster

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"causeway/control/ike/sa"
	"causeway/crypto/esp"
)

// recordVersion is the version of record that this release writes. Later ones add fields; one that changes what a field means has
// another number, and is not read by this release.
const recordVersion = 1

// A record is what stands under an SPI: reserved for a node, a child SA, or that there was one. It holds keys, and is never stored
// unsealed.
type record struct {
	Version    int    `json:"v"`
	Generation uint64 `json:"g"` // of the record: the highest counts
	Kind       kind   `json:"kind"`
	Node       string `json:"node"` // who wrote it
	Writer     uint32 `json:"w"`    // which start of it
	Store      uint64 `json:"store"`

	// Of a child SA.
	Tunnel    string         `json:"tunnel,omitempty"`
	SPIOut    uint32         `json:"out,omitempty"`
	Suite     string         `json:"suite,omitempty"`
	ESN       bool           `json:"esn,omitempty"`
	KeyIn     []byte         `json:"key_in,omitempty"`
	KeyOut    []byte         `json:"key_out,omitempty"`
	Local     []netip.Prefix `json:"local,omitempty"`
	Remote    []netip.Prefix `json:"remote,omitempty"`
	Endpoint  netip.Addr     `json:"endpoint,omitzero"`
	Peer      netip.AddrPort `json:"peer,omitzero"`
	UDP       bool           `json:"udp,omitempty"`
	NAT       bool           `json:"nat,omitempty"`
	Life      esp.Life       `json:"life,omitzero"`
	Used      int64          `json:"used,omitempty"` // since when packets leave by it: of those with its selectors the latest counts
	ExpiresAt time.Time      `json:"expires,omitzero"`
}

// A kind is what a record is of.
type kind string

const (
	reserved kind = "reserved"
	child    kind = "child"
	gone     kind = "gone" // a tombstone: nothing older is believed
)

// recordOf is a child as it is shared.
func recordOf(c *sa.Child) record {
	return record{Version: recordVersion, Kind: child, Tunnel: c.Tunnel, SPIOut: c.SPIOut, Suite: c.Suite.String(), ESN: c.ESN, KeyIn: c.KeyIn, KeyOut: c.KeyOut,
		Local: c.Local, Remote: c.Remote, Endpoint: c.Endpoint, Peer: c.Peer, UDP: c.UDP, NAT: c.NAT, Life: c.Life, ExpiresAt: c.Expires}
}

// child is what a record says, for the dataplane.
func (r *record) child(spi uint32) (*sa.Child, error) {
	suite, err := esp.ParseSuite(r.Suite)
	if err != nil {
		return nil, err
	}
	if len(r.KeyIn) != suite.KeySize() || len(r.KeyOut) != suite.KeySize() {
		return nil, fmt.Errorf("keys of %d and %d bytes for %s", len(r.KeyIn), len(r.KeyOut), suite)
	}
	return &sa.Child{Tunnel: r.Tunnel, SPIIn: spi, SPIOut: r.SPIOut, Suite: suite, ESN: r.ESN, KeyIn: r.KeyIn, KeyOut: r.KeyOut, Local: r.Local, Remote: r.Remote,
		Endpoint: r.Endpoint, Peer: r.Peer, UDP: r.UDP, NAT: r.NAT, Life: r.Life, Expires: r.ExpiresAt}, nil
}

// Format hides the keys.
func (r record) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "%s of tunnel %s, generation %d, by %s", r.Kind, r.Tunnel, r.Generation, r.Node)
}

// wipe forgets the keys.
func (r *record) wipe() {
	clear(r.KeyIn)
	clear(r.KeyOut)
}

func (r *record) marshal() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // numbers, strings, addresses and bytes
	}
	return b
}

// parseRecord reads what marshal wrote.
func parseRecord(b []byte) (*record, error) {
	r := new(record)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("record of a child SA: %w", err)
	}
	if r.Version != recordVersion {
		return nil, fmt.Errorf("record of a child SA: version %d, this release reads %d", r.Version, recordVersion)
	}
	if r.Kind != reserved && r.Kind != child && r.Kind != gone {
		return nil, fmt.Errorf("record of a child SA: unknown kind %q", r.Kind)
	}
	return r, nil
}

// spiKey is the key of an SPI's record.
func spiKey(spi uint32) string { return fmt.Sprintf("%08x", spi) }

func parseSPIKey(key string) (spi uint32, err error) {
	if n, err := fmt.Sscanf(key, "%08x", &spi); n != 1 || err != nil || spiKey(spi) != key {
		return 0, fmt.Errorf("%q is no SPI", key)
	}
	return spi, nil
}
