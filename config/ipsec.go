package config

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// IPsec is what a tunnel of type ipsec has beside the fields of all tunnels.
type IPsec struct {
	// ReplayWindow is the number of packets by which one from the customer may
	// be late; 0 turns the check off.
	ReplayWindow int

	// ReplayProtection: packets toward the customer are one sequence, also in a
	// cluster, so the customer's replay window may be on.
	ReplayProtection bool

	AllowNull bool // packets need not be encrypted
	AllowWeak bool // SHA-1 may be used
	Lab       bool // static keys for counter modes may be used

	// Local and Remote are selectors: what is behind us and behind the
	// customer. Empty means anything.
	Local, Remote []netip.Prefix

	// Exactly one of the two: IKE negotiates the associations, or it is nil and
	// SA has them from the file. With IKE, SA is the zero value.
	IKE *IKE
	SA  ManualSA
}

// A ManualSA is a pair of security associations with keys from the file.
type ManualSA struct {
	SPIIn, SPIOut uint32 // of packets from and to the customer
	Encryption    string // in strongSwan's words
	KeyIn, KeyOut Secret
	ESN           bool // extended sequence numbers
	UDPEncap      bool // ESP in UDP, RFC 3948
}

// An Encryption is what the sizes of a tunnel depend on, in bytes. Package esp
// has the same figures, and control/node compares the two.
type Encryption struct {
	Name           string
	Key            int // with salt or the key of the HMAC, as in ip xfrm
	IV, ICV, Align int
	Counter        bool // a repeated IV would give the key away
	Null           bool
	Weak           bool
}

// Encryptions are all that there are.
var Encryptions = []Encryption{
	{Name: "aes128gcm16", Key: 20, IV: 8, ICV: 16, Align: 4, Counter: true},
	{Name: "aes256gcm16", Key: 36, IV: 8, ICV: 16, Align: 4, Counter: true},
	{Name: "chacha20poly1305", Key: 36, IV: 8, ICV: 16, Align: 4, Counter: true},
	{Name: "aes128-sha256", Key: 48, IV: 16, ICV: 16, Align: 16},
	{Name: "aes256-sha256", Key: 64, IV: 16, ICV: 16, Align: 16},
	{Name: "aes128-sha1", Key: 36, IV: 16, ICV: 12, Align: 16, Weak: true},
	{Name: "aes256-sha1", Key: 52, IV: 16, ICV: 12, Align: 16, Weak: true},
	{Name: "null-sha256", Key: 32, ICV: 16, Align: 4, Null: true},
	{Name: "null-sha1", Key: 20, ICV: 12, Align: 4, Null: true, Weak: true},
}

// Header lengths of ESP, in bytes.
const (
	espHeader  = 8 // RFC 4303 2
	espTrailer = 2 // pad length and next header
	udpHeader  = 8

	// largestHeaders stand before a packet that comes out of a tunnel at most:
	// ESP with the IV of a block cipher, in UDP, over IPv6.
	largestHeaders = ipv6Header + udpHeader + espHeader + 16
)

const (
	defaultWindow = 1024
	maxWindow     = 1 << 16
	firstSPI      = 256 // RFC 4303 2.1: those below are reserved
)

// encryption is that of the association in the file; the zero value while it is not known.
func (i *IPsec) encryption() Encryption {
	for _, e := range Encryptions {
		if e.Name == i.SA.Encryption {
			return e
		}
	}
	return Encryption{Align: 1}
}

// encryptions are those that packets of the tunnel may have: with IKE any that
// may be negotiated. There is one at least; the zero value while none is known.
func (i *IPsec) encryptions() []Encryption {
	if i.IKE == nil {
		return []Encryption{i.encryption()}
	}
	if list := i.childEncryptions(); len(list) > 0 {
		return list
	}
	return []Encryption{{Align: 1}}
}

// espOuter is what stands before the ESP header. With IKE there may be UDP,
// since a NAT may be found on the way.
func (t Tunnel) espOuter() int {
	n := ipv4Header
	if t.Endpoint.Is6() {
		n = ipv6Header
	}
	if t.IPsec.SA.UDPEncap || t.IPsec.IKE != nil {
		n += udpHeader
	}
	return n
}

// espText is the largest inner packet whose outer packet has at most so many
// bytes, whatever its encryption: header, IV, text, padding and trailer up to a
// multiple, check value.
func (t Tunnel) espText(outer int) int {
	least := outer
	for _, e := range t.IPsec.encryptions() {
		room := outer - t.espOuter() - espHeader - e.IV - e.ICV
		least = min(least, room-room%e.Align-espTrailer)
	}
	return least
}

// espOverhead is the most that an outer packet may be larger than the inner one.
func (t Tunnel) espOverhead() int {
	most := 0
	for _, e := range t.IPsec.encryptions() {
		most = max(most, t.espOuter()+espHeader+e.IV+e.espBehind())
	}
	return most
}

// espBehind is the most that stands behind an inner packet: padding, trailer,
// check value.
func (e Encryption) espBehind() int { return e.Align - 1 + espTrailer + e.ICV }

const onlyIPsec = "is for tunnels of type ipsec: write type: ipsec, or remove the field"

// commonFields are those of all tunnels.
var commonFields = []string{"name", "account", "type", "endpoint", "customer_endpoint", "interface_address", "interface_address6",
	"mtu", "pmtu", "ttl", "mss_clamp", "df", "health_check", "bfd", "kernel_interface", "sampling", "prefixes"}

var ipsecSchema = schema{
	fields: append(slices.Clip(commonFields), "replay_protection", "replay_window", "allow_null_cipher", "allow_weak", "selectors", "lab", "ike", "manual_sas"),
	refused: map[string]string{
		"key":      "belongs to GRE: an IPsec tunnel has none; remove the field",
		"checksum": "belongs to GRE: ESP checks every packet; remove the field",
		"sequence": "belongs to GRE: ESP numbers every packet; remove the field",
		"psk":      "belongs into ike: write ike: {psk: {file: PATH}}",
	},
}

var (
	selectorSchema = schema{fields: []string{"local", "remote"}}
	manualSchema   = schema{fields: []string{"spi_in", "spi_out", "encryption", "key_in", "key_out", "esn", "udp_encap"}}
)

// ipsec decodes what only a tunnel of type ipsec has.
func (d *decoder) ipsec(f fields, t *Tunnel) {
	t.Type, t.IPsec = IPsecESP, &IPsec{ReplayWindow: defaultWindow}
	i := t.IPsec
	if v, ok := f.get("replay_window"); ok {
		n, _ := v.integer(0, maxWindow)
		i.ReplayWindow = int(n)
	}
	for name, b := range map[string]*bool{"replay_protection": &i.ReplayProtection, "allow_null_cipher": &i.AllowNull, "allow_weak": &i.AllowWeak, "lab": &i.Lab} {
		if v, ok := f.get(name); ok {
			v.boolean(b)
		}
	}
	if v, ok := f.get("selectors"); ok {
		if s, ok := v.mapping(selectorSchema); ok {
			i.Local, i.Remote = s.prefixes("local"), s.prefixes("remote")
		}
	}
	switch {
	case f.given["ike"] && f.given["manual_sas"]:
		f.fail("has ike and manual_sas: keys are negotiated, or they stand in the file; remove one of the two")
	case f.given["ike"]:
		d.ike(f, t)
	default:
		d.manualSAs(f, i)
	}
}

func (d *decoder) manualSAs(f fields, i *IPsec) {
	if !f.given["manual_sas"] {
		f.fail("has no keys: write ike: {psk: {file: PATH}}, or for a lab manual_sas with one pair of associations, such as " +
			"[{spi_in: 0x1001, spi_out: 0x2001, encryption: aes128gcm16, key_in: HEX, key_out: HEX}]")
	}
	v, ok := f.get("manual_sas")
	if !ok {
		return
	}
	elements, ok := v.list("associations")
	if ok && len(elements) != 1 {
		v.fail("has %d elements: write one pair of associations", len(elements))
		return
	}
	for _, e := range elements {
		if m, ok := e.mapping(manualSchema); ok {
			d.manualSA(m, i)
		}
	}
}

// prefixes is a list of prefixes, any of which may be a default route.
func (f fields) prefixes(name string) []netip.Prefix {
	v, ok := f.get(name)
	if !ok {
		return nil
	}
	elements, ok := v.list("prefixes")
	if ok && len(elements) == 0 {
		v.fail("is empty: remove the field if anything is meant")
	}
	var list []netip.Prefix
	for _, e := range elements {
		if p, ok := e.prefix(); ok {
			list = append(list, p)
		}
	}
	return list
}

func (d *decoder) manualSA(f fields, i *IPsec) {
	sa := &i.SA
	for name, spi := range map[string]*uint32{"spi_in": &sa.SPIIn, "spi_out": &sa.SPIOut} {
		if v, ok := f.need(name, "a number from 256 on that both ends know the association by"); ok {
			n, _ := v.integer(firstSPI, 1<<32-1)
			*spi = uint32(n)
		}
	}
	for name, b := range map[string]*bool{"esn": &sa.ESN, "udp_encap": &sa.UDPEncap} {
		if v, ok := f.get(name); ok {
			v.boolean(b)
		}
	}
	if v, ok := f.need("encryption", "one of "+strings.Join(encryptionNames(), ", ")); ok {
		if n, ok := v.word(encryptionNames()...); ok {
			sa.Encryption = Encryptions[n].Name
			d.permitted(v, i, Encryptions[n])
		}
	}
	size := i.encryption().Key
	for name, key := range map[string]*Secret{"key_in": &sa.KeyIn, "key_out": &sa.KeyOut} {
		if v, ok := f.need(name, "a key in hexadecimal digits, or {file: PATH}"); ok {
			*key, _ = v.secret(size)
			if _, file := v.node.(ast.MapNode); !file && d.inline == "" {
				d.inline = f.path
			}
		}
	}
	if sa.ESN && i.ReplayWindow == 0 {
		f.fail("esn: true needs a replay_window: the upper half of a number, which is not sent, is found with it (RFC 4303 A2); write one from 1 on, or remove esn")
	}
	if len(sa.KeyIn) > 0 && string(sa.KeyIn) == string(sa.KeyOut) && i.encryption().Counter {
		f.fail("key_in and key_out are the same: with one key for both directions two packets could have one IV; use two keys")
	}
}

func encryptionNames() []string {
	var names []string
	for _, e := range Encryptions {
		names = append(names, e.Name)
	}
	return names
}

// permitted demands the words without which an encryption is not meant.
func (d *decoder) permitted(v value, i *IPsec, e Encryption) {
	if e.Null && !i.AllowNull {
		v.fail("%s leaves packets readable: write allow_null_cipher: true in the tunnel if that is meant", quote(e.Name))
	}
	if e.Weak && !i.AllowWeak {
		v.fail("%s uses SHA-1, for old routers alone: write allow_weak: true in the tunnel if that is meant", quote(e.Name))
	}
	if e.Counter && !i.Lab {
		v.fail("%s with a static key is for labs and tests (RFC 4106 2): write lab: true in the tunnel if that is meant", quote(e.Name))
	}
}

// equal reports whether two tunnels have the same keys, numbers and rules.
func (i *IPsec) sameWindow(j *IPsec) bool {
	return i == nil || j == nil || i.ReplayWindow == j.ReplayWindow
}

func (i *IPsec) sameProtection(j *IPsec) bool {
	return i == nil || j == nil || i.ReplayProtection == j.ReplayProtection
}

func (i *IPsec) sameSelectors(j *IPsec) bool {
	return i == nil || j == nil || sameSet(i.Local, j.Local) && sameSet(i.Remote, j.Remote)
}

func (i *IPsec) sameSAs(j *IPsec) bool {
	a, b := i.manual(), j.manual()
	if a == nil || b == nil {
		return a == b
	}
	return a.equal(b)
}

// manual is the pair of associations in the file, if there is one.
func (i *IPsec) manual() *ManualSA {
	if i == nil || i.IKE != nil {
		return nil
	}
	return &i.SA
}

func (a *ManualSA) equal(b *ManualSA) bool {
	return a.SPIIn == b.SPIIn && a.SPIOut == b.SPIOut && a.Encryption == b.Encryption && a.ESN == b.ESN && a.UDPEncap == b.UDPEncap &&
		string(a.KeyIn) == string(b.KeyIn) && string(a.KeyOut) == string(b.KeyOut)
}
