package message

import "net/netip"

// Contents are the payloads of a message, or of what its encrypted payload held. A field is nil where there is no such payload.
// What Parse returns aliases the parsed bytes.
type Contents struct {
	SA       []Proposal // not empty if there is an SA payload
	KE       *KE
	Nonce    []byte // 16 to 256 bytes
	IDi, IDr *ID
	Certs    []Cert
	CertReqs []CertReq
	Auth     *Auth
	Notifies []Notify
	Deletes  []Delete
	TSi, TSr []Selector // empty but not nil if all of the payload's selectors are of unknown types
	Vendors  [][]byte
	HasCP    bool // there is a configuration payload; what it says is not read
	HasEAP   bool // the same of an EAP payload
}

// KE is one side of a key exchange (RFC 7296, section 3.4).
type KE struct {
	Method uint16
	Data   []byte // how long it may be is for the method to say
}

// A Cert is a certificate (RFC 7296, section 3.6).
type Cert struct {
	Encoding uint8
	Data     []byte
}

// A CertReq asks for a certificate (RFC 7296, section 3.7).
type CertReq struct {
	Encoding    uint8
	Authorities []byte // for CertX509: SHA-1 hashes of the authorities' keys, 20 bytes each
}

// Auth is a proof of who the sender is (RFC 7296, section 3.8).
type Auth struct {
	Method AuthMethod
	Data   []byte
}

// A Notify tells something (RFC 7296, section 3.10). Whether SPI and data are as its type wants them is for its reader to check.
type Notify struct {
	Protocol Protocol // of the SPI; without one it says nothing
	SPI      []byte   // up to 255 bytes
	Type     NotifyType
	Data     []byte
}

// A Delete names SAs that its sender has given up, by the SPIs of what it receives (RFC 7296, section 3.11).
type Delete struct {
	Protocol Protocol
	SPIs     []uint32 // of AH and ESP; of IKE there are none, it is the SA that the message belongs to
}

// A Selector is a range of addresses and ports of a protocol (RFC 7296, section 3.13.1), its ends included.
type Selector struct {
	Protocol         uint8      // of IP; 0: any
	FromPort, ToPort uint16     // 0 to 65535: any; 65535 to 0: OPAQUE, packets whose ports cannot be seen
	From, To         netip.Addr // of one family, From not behind To
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
