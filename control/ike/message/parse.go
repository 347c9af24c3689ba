package message

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A SyntaxError is a message that RFC 7296 does not permit: INVALID_SYNTAX (section 3.10.1).
type SyntaxError struct {
	Payload PayloadType // where it is
	Why     string      // what the payload does or has
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("payload %v %s", e.Payload, e.Why) }

// A CriticalError is an unknown payload that must not be skipped: UNSUPPORTED_CRITICAL_PAYLOAD (RFC 7296, section 2.5).
type CriticalError struct{ Type PayloadType }

func (e *CriticalError) Error() string {
	return fmt.Sprintf("payload type %d is not known and has the critical bit", uint8(e.Type))
}

// Bounds of what one message may have. They are ours, and far above what real peers send.
const (
	maxPayloads   = 128
	maxProposals  = 32
	maxTransforms = 128 // of a proposal
	maxSPIs       = 1024
)

// Bounds of a nonce in bytes (RFC 7296, section 3.9).
const (
	minNonce = 16
	maxNonce = 256
)

const (
	payloadHeader = 4 // bytes
	criticalBit   = 0x80
	hashLen       = 20 // of SHA-1, in bytes
)

var errCutOff = errors.New("is cut off")

// Parse reads all payloads of a message or of what was encrypted, b, the first of which is of type first. Payloads of unknown types
// are skipped. The error is a *SyntaxError or a *CriticalError.
func Parse(first PayloadType, b []byte) (*Contents, error) {
	c := new(Contents)
	n := 0
	for next := first; next != NoNextPayload; n++ {
		// Generic payload header (RFC 7296, section 3.2): next payload, critical bit, length of this one with its header.
		if len(b) < payloadHeader {
			return nil, &SyntaxError{next, errCutOff.Error()}
		}
		size := int(binary.BigEndian.Uint16(b[2:]))
		switch {
		case n == maxPayloads:
			return nil, &SyntaxError{next, fmt.Sprintf("is behind %d others: no more are read", maxPayloads)}
		case size < payloadHeader || size > len(b):
			return nil, &SyntaxError{next, fmt.Sprintf("has a length of %d, in %d bytes", size, len(b))}
		}
		if err := c.parse(next, b[1]&criticalBit != 0, b[payloadHeader:size:size]); err != nil {
			return nil, err
		}
		next, b = PayloadType(b[0]), b[size:]
	}
	if len(b) > 0 {
		return nil, &SyntaxError{NoNextPayload, fmt.Sprintf("is followed by %d bytes", len(b))}
	}
	return c, nil
}

// parse reads one payload. The critical bit is ignored in those that we know (RFC 7296, section 2.5).
func (c *Contents) parse(t PayloadType, critical bool, b []byte) error {
	if c.has(t) {
		return &SyntaxError{t, "comes twice"}
	}
	var err error
	switch t {
	case PayloadSA:
		c.SA, err = parseSA(b)
	case PayloadKE:
		c.KE, err = parseKE(b)
	case PayloadIDi:
		c.IDi, err = parseID(b)
	case PayloadIDr:
		c.IDr, err = parseID(b)
	case PayloadCert:
		err = c.parseCert(b)
	case PayloadCertReq:
		err = c.parseCertReq(b)
	case PayloadAuth:
		c.Auth, err = parseAuth(b)
	case PayloadNonce:
		c.Nonce, err = parseNonce(b)
	case PayloadNotify:
		err = c.parseNotify(b)
	case PayloadDelete:
		err = c.parseDelete(b)
	case PayloadVendor:
		c.Vendors = append(c.Vendors, b)
	case PayloadTSi:
		c.TSi, err = parseTS(b)
	case PayloadTSr:
		c.TSr, err = parseTS(b)
	case PayloadCP:
		c.HasCP = true
	case PayloadEAP:
		c.HasEAP = true
	case PayloadSK, PayloadSKF: // what ParseSealed reads
		err = errors.New("is beside or within other payloads")
	default:
		if critical {
			return &CriticalError{t}
		}
	}
	if err != nil {
		return &SyntaxError{t, err.Error()}
	}
	return nil
}

// has reports whether there is already a payload of a type of which no exchange has two.
func (c *Contents) has(t PayloadType) bool {
	switch t {
	case PayloadSA:
		return c.SA != nil
	case PayloadKE:
		return c.KE != nil
	case PayloadIDi:
		return c.IDi != nil
	case PayloadIDr:
		return c.IDr != nil
	case PayloadAuth:
		return c.Auth != nil
	case PayloadNonce:
		return c.Nonce != nil
	case PayloadTSi:
		return c.TSi != nil
	case PayloadTSr:
		return c.TSr != nil
	case PayloadCP:
		return c.HasCP
	case PayloadEAP:
		return c.HasEAP
	}
	return false
}

func parseKE(b []byte) (*KE, error) {
	if len(b) < 4 {
		return nil, errCutOff
	}
	return &KE{Method: binary.BigEndian.Uint16(b), Data: b[4:]}, nil
}

func (c *Contents) parseCert(b []byte) error {
	if len(b) < 1 {
		return errCutOff
	}
	c.Certs = append(c.Certs, Cert{Encoding: b[0], Data: b[1:]})
	return nil
}

func (c *Contents) parseCertReq(b []byte) error {
	if len(b) < 1 {
		return errCutOff
	}
	r := CertReq{Encoding: b[0], Authorities: b[1:]}
	if r.Encoding == CertX509 && len(r.Authorities)%hashLen != 0 {
		return fmt.Errorf("has %d bytes of hashes, which have %d each", len(r.Authorities), hashLen)
	}
	c.CertReqs = append(c.CertReqs, r)
	return nil
}

func parseAuth(b []byte) (*Auth, error) {
	if len(b) < 4 {
		return nil, errCutOff
	}
	return &Auth{Method: AuthMethod(b[0]), Data: b[4:]}, nil
}

func parseNonce(b []byte) ([]byte, error) {
	if len(b) < minNonce || len(b) > maxNonce {
		return nil, fmt.Errorf("has %d bytes: %d to %d are permitted", len(b), minNonce, maxNonce)
	}
	return b, nil
}

// parseNotify reads a notification: protocol, size of the SPI, type, SPI, data (RFC 7296, section 3.10).
func (c *Contents) parseNotify(b []byte) error {
	if len(b) < 4 || len(b) < 4+int(b[1]) {
		return errCutOff
	}
	data := 4 + int(b[1])
	c.Notifies = append(c.Notifies,
		Notify{Protocol: Protocol(b[0]), SPI: b[4:data:data], Type: NotifyType(binary.BigEndian.Uint16(b[2:])), Data: b[data:]})
	return nil
}

// parseDelete reads a deletion: protocol, size of each SPI, number of SPIs, SPIs (RFC 7296, section 3.11).
func (c *Contents) parseDelete(b []byte) error {
	if len(b) < 4 {
		return errCutOff
	}
	d := Delete{Protocol: Protocol(b[0])}
	size, count, spis := int(b[1]), int(binary.BigEndian.Uint16(b[2:])), b[4:]
	want := 4
	if d.Protocol == ProtocolIKE {
		want = 0
	}
	if size != want || size*count != len(spis) || size == 0 && count != 0 || count > maxSPIs {
		return fmt.Errorf("has %d SPIs of %d bytes for %v, in %d bytes", count, size, d.Protocol, len(spis))
	}
	for ; len(spis) > 0; spis = spis[4:] {
		d.SPIs = append(d.SPIs, binary.BigEndian.Uint32(spis))
	}
	c.Deletes = append(c.Deletes, d)
	return nil
}
