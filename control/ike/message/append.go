package message

import "encoding/binary"

// Append writes the payloads behind b, in the order in which RFC 7296 shows them (sections 1.2, 1.3 and 2.6), and returns the
// type of the first: NoNextPayload if there are none. Configuration and EAP payloads are not written. The caller keeps to the
// bounds of the format: each payload below 64 KiB, at most 255 proposals, transforms of one, and selectors, SPIs of at most 255
// bytes.
func (c *Contents) Append(b []byte) (first PayloadType, out []byte) {
	w := writer{b: b}
	w.notifies(c.Notifies, true)
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
	if c.TSi != nil {
		w.payload(PayloadTSi, appendTS(nil, c.TSi))
	}
	if c.TSr != nil {
		w.payload(PayloadTSr, appendTS(nil, c.TSr))
	}
	w.notifies(c.Notifies, false)
	for _, d := range c.Deletes {
		w.payload(PayloadDelete, appendDelete(nil, d))
	}
	for _, v := range c.Vendors {
		w.payload(PayloadVendor, v)
	}
	return w.first, w.b
}

// A writer chains payloads: the header of each has the type of the next.
type writer struct {
	b     []byte
	first PayloadType
	last  int // where the last payload begins, if first says that there is one
}

// payload writes a payload whose body is the parts one after the other.
func (w *writer) payload(t PayloadType, parts ...[]byte) {
	if w.first == NoNextPayload {
		w.first = t
	} else {
		w.b[w.last] = byte(t)
	}
	w.last = len(w.b)
	w.b = append(w.b, byte(NoNextPayload), 0, 0, 0)
	for _, p := range parts {
		w.b = append(w.b, p...)
	}
	binary.BigEndian.PutUint16(w.b[w.last+2:], uint16(len(w.b)-w.last))
}

func (w *writer) id(t PayloadType, id *ID) {
	if id != nil {
		w.payload(t, []byte{byte(id.Type), 0, 0, 0}, id.Data)
	}
}

// notifies writes those of the notifications that lead the message, or the others. COOKIE and REKEY_SA come before all other
// payloads (RFC 7296, sections 2.6 and 1.3.3).
func (w *writer) notifies(list []Notify, leading bool) {
	for _, n := range list {
		if leading == (n.Type == NotifyCookie || n.Type == NotifyRekeySA) {
			w.payload(PayloadNotify, []byte{byte(n.Protocol), byte(len(n.SPI)), byte(n.Type >> 8), byte(n.Type)}, n.SPI, n.Data)
		}
	}
}

func appendDelete(b []byte, d Delete) []byte {
	size := byte(4)
	if d.Protocol == ProtocolIKE {
		size = 0
	}
	b = append(b, byte(d.Protocol), size)
	b = binary.BigEndian.AppendUint16(b, uint16(len(d.SPIs)))
	for _, spi := range d.SPIs {
		b = binary.BigEndian.AppendUint32(b, spi)
	}
	return b
}
