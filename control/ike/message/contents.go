package message

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
)

// Contents are the payloads of a message, or of what its encrypted payload held.
type Contents struct {
	SA            []Proposal
	KE            *KE
	Nonce         []byte
	IDi, IDr      *ID
	Certs         []Cert
	CertReqs      []CertReq
	Auth          *Auth
	Notifies      []Notify
	Deletes       []Delete
	TSi, TSr      []Selector
	Vendors       [][]byte
	HasCP, HasEAP bool
}

// KE is one side of a key exchange.
type KE struct {
	Method uint16
	Data   []byte
}

// A Cert is a certificate.
type Cert struct {
	Encoding uint8
	Data     []byte
}

// A CertReq names authorities by SHA-1 hashes of their keys, one after the other.
type CertReq struct {
	Encoding    uint8
	Authorities []byte
}

// Auth is a proof.
type Auth struct {
	Method AuthMethod
	Data   []byte
}

// A Notify tells something.
type Notify struct {
	Protocol Protocol
	SPI      []byte
	Type     NotifyType
	Data     []byte
}

// A Delete names associations that its sender has given up, by the SPIs of what it receives.
type Delete struct {
	Protocol Protocol
	SPIs     []uint32 // of AH and ESP
}

// A Selector is a range of addresses and ports of a protocol; 0 is any.
type Selector struct {
	Protocol         uint8
	FromPort, ToPort uint16
	From, To         netip.Addr
}

// Notify returns the first notification of a type, or nil.
func (c *Contents) Notify(t NotifyType) *Notify {
	for i := range c.Notifies {
		if c.Notifies[i].Type == t {
			return &c.Notifies[i]
		}
	}
	return nil
}

// A SyntaxError is a message that RFC 7296 does not permit.
type SyntaxError struct {
	Payload PayloadType
	Why     string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("payload %v: %s", e.Payload, e.Why) }

// A CriticalError is an unknown payload that must not be skipped (RFC 7296, section 2.5).
type CriticalError struct{ Type PayloadType }

func (e *CriticalError) Error() string {
	return fmt.Sprintf("payload of unknown type %d has the critical bit", uint8(e.Type))
}

// Bounds of what one message may have.
const (
	payloadHeader = 4
	maxPayloads   = 128
	maxProposals  = 32
	maxTransforms = 64
	maxSelectors  = 255
	maxSPIs       = 1024

	minNonce, maxNonce = 16, 256
)

// Parse reads the payloads in b, the first of which is of type first. Unknown ones are skipped.
func Parse(first PayloadType, b []byte) (*Contents, error) {
	c := new(Contents)
	n := 0
	for next := first; next != NoNextPayload; n++ {
		if n == maxPayloads {
			return nil, &SyntaxError{next, fmt.Sprintf("is behind %d others", maxPayloads)}
		}
		if len(b) < payloadHeader {
			return nil, &SyntaxError{next, "is cut off"}
		}
		size := int(binary.BigEndian.Uint16(b[2:]))
		if size < payloadHeader || size > len(b) {
			return nil, &SyntaxError{next, fmt.Sprintf("has %d bytes, of which %d are there", size, len(b))}
		}
		if err := c.parse(next, b[1]&0x80 != 0, b[payloadHeader:size]); err != nil {
			return nil, err
		}
		next, b = PayloadType(b[0]), b[size:]
	}
	if len(b) > 0 {
		return nil, &SyntaxError{NoNextPayload, fmt.Sprintf("%d bytes are left over", len(b))}
	}
	return c, nil
}

func (c *Contents) parse(t PayloadType, critical bool, b []byte) error {
	var why string
	once := func(seen bool) bool {
		if seen {
			why = "comes twice"
		}
		return !seen
	}
	switch t {
	case PayloadSA:
		if once(c.SA != nil) {
			c.SA, why = parseSA(b)
		}
	case PayloadKE:
		if once(c.KE != nil) {
			c.KE, why = parseKE(b)
		}
	case PayloadNonce:
		if once(c.Nonce != nil) {
			if c.Nonce = b; len(b) < minNonce || len(b) > maxNonce {
				why = fmt.Sprintf("has %d bytes: %d to %d are permitted", len(b), minNonce, maxNonce)
			}
		}
	case PayloadIDi:
		if once(c.IDi != nil) {
			c.IDi, why = parseID(b)
		}
	case PayloadIDr:
		if once(c.IDr != nil) {
			c.IDr, why = parseID(b)
		}
	case PayloadCert:
		why = need(b, 1, func() { c.Certs = append(c.Certs, Cert{b[0], b[1:]}) })
	case PayloadCertReq:
		why = need(b, 1, func() { c.CertReqs = append(c.CertReqs, CertReq{b[0], b[1:]}) })
	case PayloadAuth:
		if once(c.Auth != nil) {
			why = need(b, 4, func() { c.Auth = &Auth{AuthMethod(b[0]), b[4:]} })
		}
	case PayloadNotify:
		why = c.parseNotify(b)
	case PayloadDelete:
		why = c.parseDelete(b)
	case PayloadVendor:
		c.Vendors = append(c.Vendors, b)
	case PayloadTSi:
		if once(c.TSi != nil) {
			c.TSi, why = parseTS(b)
		}
	case PayloadTSr:
		if once(c.TSr != nil) {
			c.TSr, why = parseTS(b)
		}
	case PayloadCP:
		c.HasCP = true
	case PayloadEAP:
		c.HasEAP = true
	case PayloadSK, PayloadSKF:
		why = "is not the only payload of its message, or is in another one"
	default:
		if critical {
			return &CriticalError{t}
		}
	}
	if why != "" {
		return &SyntaxError{t, why}
	}
	return nil
}

// need calls f if there are n bytes, or says that there are not.
func need(b []byte, n int, f func()) string {
	if len(b) < n {
		return fmt.Sprintf("has %d bytes: at least %d are needed", len(b), n)
	}
	f()
	return ""
}

func parseKE(b []byte) (k *KE, why string) {
	why = need(b, 4, func() { k = &KE{binary.BigEndian.Uint16(b), b[4:]} })
	return k, why
}

func parseID(b []byte) (id *ID, why string) {
	why = need(b, 4, func() { id = &ID{IDType(b[0]), b[4:]} })
	return id, why
}

func (c *Contents) parseNotify(b []byte) string {
	if len(b) < 4 || len(b) < 4+int(b[1]) {
		return "is cut off"
	}
	size := int(b[1])
	c.Notifies = append(c.Notifies, Notify{Protocol(b[0]), b[4 : 4+size], NotifyType(binary.BigEndian.Uint16(b[2:])), b[4+size:]})
	return ""
}

func (c *Contents) parseDelete(b []byte) string {
	if len(b) < 4 {
		return "is cut off"
	}
	d := Delete{Protocol: Protocol(b[0])}
	size, count := int(b[1]), int(binary.BigEndian.Uint16(b[2:]))
	b = b[4:]
	switch {
	case d.Protocol == ProtocolIKE && size == 0 && count == 0 && len(b) == 0: // the SA that the message is of
	case size == 4 && count <= maxSPIs && len(b) == 4*count && d.Protocol != ProtocolIKE:
		for ; len(b) > 0; b = b[4:] {
			d.SPIs = append(d.SPIs, binary.BigEndian.Uint32(b))
		}
	default:
		return fmt.Sprintf("has %d SPIs of %v with %d bytes each, in %d bytes", count, d.Protocol, size, len(b))
	}
	c.Deletes = append(c.Deletes, d)
	return ""
}

// Types of traffic selectors (RFC 7296, section 3.13.1).
const (
	tsIPv4Range = 7
	tsIPv6Range = 8
)

// parseTS reads traffic selectors. Those of types that we do not know are left out.
func parseTS(b []byte) ([]Selector, string) {
	if len(b) < 4 {
		return nil, "is cut off"
	}
	count := int(b[0])
	b = b[4:]
	list := make([]Selector, 0, min(count, maxSelectors))
	for range count {
		if len(b) < 4 {
			return nil, "is cut off"
		}
		size := int(binary.BigEndian.Uint16(b[2:]))
		if size < 4 || size > len(b) {
			return nil, fmt.Sprintf("has a selector of %d bytes, of which %d are there", size, len(b))
		}
		bytes := map[byte]int{tsIPv4Range: 4, tsIPv6Range: 16}[b[0]]
		if bytes > 0 {
			if size != 8+2*bytes {
				return nil, fmt.Sprintf("has a selector of %d bytes", size)
			}
			s := Selector{Protocol: b[1], FromPort: binary.BigEndian.Uint16(b[4:]), ToPort: binary.BigEndian.Uint16(b[6:])}
			s.From, _ = netip.AddrFromSlice(b[8 : 8+bytes])
			s.To, _ = netip.AddrFromSlice(b[8+bytes : size])
			list = append(list, s)
		}
		b = b[size:]
	}
	if len(b) > 0 {
		return nil, fmt.Sprintf("has %d bytes behind its %d selectors", len(b), count)
	}
	return list, ""
}

// Append writes the payloads behind b, in the order that RFC 7296 shows, and returns the type of the first.
func (c *Contents) Append(b []byte) (first PayloadType, out []byte) {
	w := &writer{b: b, last: -1}
	early := func(n Notify) bool { return n.Type == NotifyCookie || n.Type == NotifyRekeySA }
	for _, n := range c.Notifies {
		if early(n) {
			w.notify(n)
		}
	}
	w.id(PayloadIDi, c.IDi)
	for _, x := range c.Certs {
		w.payload(PayloadCert, []byte{x.Encoding}, x.Data)
	}
	for _, x := range c.CertReqs {
		w.payload(PayloadCertReq, []byte{x.Encoding}, x.Authorities)
	}
	w.id(PayloadIDr, c.IDr)
	if c.Auth != nil {
		w.payload(PayloadAuth, []byte{byte(c.Auth.Method), 0, 0, 0}, c.Auth.Data)
	}
	if c.SA != nil {
		w.payload(PayloadSA, appendSA(nil, c.SA))
	}
	if c.KE != nil {
		w.payload(PayloadKE, []byte{byte(c.KE.Method >> 8), byte(c.KE.Method), 0, 0}, c.KE.Data)
	}
	if c.Nonce != nil {
		w.payload(PayloadNonce, c.Nonce)
	}
	w.ts(PayloadTSi, c.TSi)
	w.ts(PayloadTSr, c.TSr)
	for _, n := range c.Notifies {
		if !early(n) {
			w.notify(n)
		}
	}
	for _, d := range c.Deletes {
		w.delete(d)
	}
	for _, v := range c.Vendors {
		w.payload(PayloadVendor, v)
	}
	return w.first, w.b
}

// A writer chains payloads: each says what the next one is.
type writer struct {
	b     []byte
	last  int // where the last payload begins; -1: there is none
	first PayloadType
}

func (w *writer) payload(t PayloadType, parts ...[]byte) {
	if w.last < 0 {
		w.first = t
	} else {
		w.b[w.last] = byte(t)
	}
	w.last = len(w.b)
	body := slices.Concat(parts...)
	w.b = append(w.b, 0, 0)
	w.b = binary.BigEndian.AppendUint16(w.b, uint16(payloadHeader+len(body)))
	w.b = append(w.b, body...)
}

func (w *writer) id(t PayloadType, id *ID) {
	if id != nil {
		w.payload(t, []byte{byte(id.Type), 0, 0, 0}, id.Data)
	}
}

func (w *writer) notify(n Notify) {
	head := binary.BigEndian.AppendUint16([]byte{byte(n.Protocol), byte(len(n.SPI))}, uint16(n.Type))
	w.payload(PayloadNotify, head, n.SPI, n.Data)
}

func (w *writer) delete(d Delete) {
	size := byte(4)
	if d.Protocol == ProtocolIKE {
		size = 0
	}
	body := binary.BigEndian.AppendUint16([]byte{byte(d.Protocol), size}, uint16(len(d.SPIs)))
	for _, spi := range d.SPIs {
		body = binary.BigEndian.AppendUint32(body, spi)
	}
	w.payload(PayloadDelete, body)
}

func (w *writer) ts(t PayloadType, list []Selector) {
	if list == nil {
		return
	}
	body := []byte{byte(len(list)), 0, 0, 0}
	for _, s := range list {
		kind, size := byte(tsIPv4Range), 16
		if s.From.Is6() {
			kind, size = tsIPv6Range, 40
		}
		body = append(body, kind, s.Protocol)
		body = binary.BigEndian.AppendUint16(body, uint16(size))
		body = binary.BigEndian.AppendUint16(body, s.FromPort)
		body = binary.BigEndian.AppendUint16(body, s.ToPort)
		body = append(append(body, s.From.AsSlice()...), s.To.AsSlice()...)
	}
	w.payload(t, body)
}
