package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/goccy/go-yaml/ast"
)

// IPsec is what a tunnel of type ipsec has beside the fields of all tunnels.
type IPsec struct {
	// ReplayWindow is the number of packets by which one from the customer may
	// be late; 0 turns the check off.
	ReplayWindow int

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

// A Secret is a key. It is not printed.
type Secret []byte

// String hides the key.
func (s Secret) String() string { return fmt.Sprintf("secret of %d bytes", len(s)) }

// GoString hides the key.
func (s Secret) GoString() string { return s.String() }

// MarshalText hides the key.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

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

// encryption is that of the association; the zero value while it is not known.
func (i *IPsec) encryption() Encryption {
	for _, e := range Encryptions {
		if e.Name == i.SA.Encryption {
			return e
		}
	}
	return Encryption{Align: 1}
}

// espOuter is what stands before the ESP header.
func (t Tunnel) espOuter() int {
	n := ipv4Header
	if t.Endpoint.Is6() {
		n = ipv6Header
	}
	if t.IPsec.SA.UDPEncap {
		n += udpHeader
	}
	return n
}

// espText is the largest inner packet whose outer packet has at most so many
// bytes: header, IV, text, padding and trailer up to a multiple, check value.
func (t Tunnel) espText(outer int) int {
	e := t.IPsec.encryption()
	room := outer - t.espOuter() - espHeader - e.IV - e.ICV
	return room - room%e.Align - espTrailer
}

// espOverhead is the most that an outer packet may be larger than the inner one.
func (t Tunnel) espOverhead() int {
	e := t.IPsec.encryption()
	return t.espOuter() + espHeader + e.IV + e.Align - 1 + espTrailer + e.ICV
}

const onlyIPsec = "is for tunnels of type ipsec: write type: ipsec, or remove the field"

// commonFields are those of all tunnels.
var commonFields = []string{"name", "account", "type", "endpoint", "customer_endpoint", "interface_address", "interface_address6",
	"mtu", "pmtu", "ttl", "mss_clamp", "df", "prefixes"}

var ipsecSchema = schema{
	fields: append(slices.Clip(commonFields), "replay_window", "allow_null_cipher", "allow_weak", "selectors", "lab", "manual_sas"),
	refused: map[string]string{
		"key":               "belongs to GRE: an IPsec tunnel has none; remove the field",
		"checksum":          "belongs to GRE: ESP checks every packet; remove the field",
		"sequence":          "belongs to GRE: ESP numbers every packet; remove the field",
		"ike":               "this version has no IKE: write manual_sas, and lab: true",
		"psk":               "this version has no IKE: write manual_sas, and lab: true",
		"replay_protection": "this version has no cluster: one node's packets are always in sequence; remove the field",
	},
}

var (
	selectorSchema = schema{fields: []string{"local", "remote"}}
	manualSchema   = schema{fields: []string{"spi_in", "spi_out", "encryption", "key_in", "key_out", "esn", "udp_encap"}}
	keyFileSchema  = schema{fields: []string{"file"}}
)

// ipsec decodes what only a tunnel of type ipsec has.
func (d *decoder) ipsec(f fields, t *Tunnel) {
	t.Type, t.IPsec = IPsecESP, &IPsec{ReplayWindow: defaultWindow}
	i := t.IPsec
	if v, ok := f.get("replay_window"); ok {
		n, _ := v.integer(0, maxWindow)
		i.ReplayWindow = int(n)
	}
	for name, b := range map[string]*bool{"allow_null_cipher": &i.AllowNull, "allow_weak": &i.AllowWeak, "lab": &i.Lab} {
		if v, ok := f.get(name); ok {
			v.boolean(b)
		}
	}
	if v, ok := f.get("selectors"); ok {
		if s, ok := v.mapping(selectorSchema); ok {
			i.Local, i.Remote = s.prefixes("local"), s.prefixes("remote")
		}
	}
	v, ok := f.need("manual_sas", "one pair of associations, such as [{spi_in: 0x1001, spi_out: 0x2001, encryption: aes128gcm16, key_in: HEX, key_out: HEX}]")
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

// secret returns a key of that many bytes, in hexadecimal digits, here or in a
// file of its own. Size 0: not known.
func (v value) secret(size int) (Secret, bool) {
	text, ok := v.secretText()
	if !ok {
		return nil, false
	}
	text = strings.TrimPrefix(strings.TrimSpace(text), "0x")
	key, err := hex.DecodeString(text)
	switch {
	case err != nil:
		v.fail("is not in hexadecimal digits, two for each byte: %s", hexFault(text))
	case size > 0 && len(key) != size:
		v.fail("has %d bytes: this encryption needs %d, in the order of ip xfrm", len(key), size)
	default:
		return key, true
	}
	return nil, false
}

// hexFault says what keeps text from being a key, and shows nothing of it.
func hexFault(text string) string {
	at := strings.IndexFunc(text, func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF", r) })
	switch {
	case strings.HasPrefix(text, "/"):
		return "a path is written {file: PATH}"
	case at >= 0 && strings.ContainsRune(" \t\r\n", rune(text[at])):
		return fmt.Sprintf("behind %d digits there is a space or a new line; write one line without spaces, as xxd -p -c 64 does", at)
	case at >= 0:
		return fmt.Sprintf("behind %d digits there is something else", at)
	}
	return fmt.Sprintf("there are %d, an odd number", len(text))
}

func (v value) secretText() (string, bool) {
	if _, ok := v.node.(ast.MapNode); !ok {
		if n, ok := v.node.(*ast.IntegerNode); ok {
			return n.Token.Value, true // digits alone
		}
		s, ok := v.node.(*ast.StringNode)
		if !ok {
			v.fail("must be a key in hexadecimal digits, or {file: PATH}")
			return "", false
		}
		return s.Value, true
	}
	f, ok := v.mapping(keyFileSchema)
	if !ok {
		return "", false
	}
	p, ok := f.need("file", "the path of a file that only its owner may read")
	if !ok {
		return "", false
	}
	path, ok := p.absolutePath()
	if !ok {
		return "", false
	}
	text, err := readSecret(path)
	if err != nil {
		p.fail("%v", err)
		return "", false
	}
	return text, true
}

// secretLimit is more than any key takes.
const secretLimit = 4096

// readSecret reads a file that only its owner may read. Its errors are of one
// line, whatever the path is.
func readSecret(path string) (string, error) {
	text, err := readPrivate(path)
	var at *fs.PathError
	if errors.As(err, &at) {
		err = at.Err
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", quote(path), err)
	}
	return text, nil
}

func readPrivate(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe does not keep us waiting
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Size() > secretLimit {
		return "", errors.New("not a file with a key")
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("others may read it (%04o): chmod 600", info.Mode().Perm())
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok && s.Uid != 0 && int(s.Uid) != os.Geteuid() {
		return "", fmt.Errorf("it belongs to user %d, who may read it and write another key there: chown it to root or to the daemon's user", s.Uid)
	}
	b, err := io.ReadAll(io.LimitReader(f, secretLimit))
	return string(b), err
}

// equal reports whether two tunnels have the same keys, numbers and rules.
func (i *IPsec) sameWindow(j *IPsec) bool {
	return i == nil || j == nil || i.ReplayWindow == j.ReplayWindow
}

func (i *IPsec) sameSelectors(j *IPsec) bool {
	return i == nil || j == nil || sameSet(i.Local, j.Local) && sameSet(i.Remote, j.Remote)
}

func (i *IPsec) sameSAs(j *IPsec) bool {
	if i == nil || j == nil {
		return i == j
	}
	return i.SA.equal(&j.SA)
}

func (a *ManualSA) equal(b *ManualSA) bool {
	return a.SPIIn == b.SPIIn && a.SPIOut == b.SPIOut && a.Encryption == b.Encryption && a.ESN == b.ESN && a.UDPEncap == b.UDPEncap &&
		string(a.KeyIn) == string(b.KeyIn) && string(a.KeyOut) == string(b.KeyOut)
}
