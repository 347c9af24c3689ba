package message

import "fmt"

// An ExchangeType says what a message belongs to.
type ExchangeType uint8

// The exchanges of RFC 7296, RFC 9242 and RFC 9370.
const (
	IKESAInit       ExchangeType = 34
	IKEAuth         ExchangeType = 35
	CreateChildSA   ExchangeType = 36
	Informational   ExchangeType = 37
	IKEIntermediate ExchangeType = 43
	IKEFollowupKE   ExchangeType = 44
)

// String is the RFC's name.
func (e ExchangeType) String() string {
	switch e {
	case IKESAInit:
		return "IKE_SA_INIT"
	case IKEAuth:
		return "IKE_AUTH"
	case CreateChildSA:
		return "CREATE_CHILD_SA"
	case Informational:
		return "INFORMATIONAL"
	case IKEIntermediate:
		return "IKE_INTERMEDIATE"
	case IKEFollowupKE:
		return "IKE_FOLLOWUP_KE"
	}
	return fmt.Sprintf("exchange %d", uint8(e))
}

// A PayloadType says what a payload is (RFC 7296, section 3.2).
type PayloadType uint8

// The payloads of RFC 7296 and RFC 7383.
const (
	NoNextPayload  PayloadType = 0
	PayloadSA      PayloadType = 33
	PayloadKE      PayloadType = 34
	PayloadIDi     PayloadType = 35
	PayloadIDr     PayloadType = 36
	PayloadCert    PayloadType = 37
	PayloadCertReq PayloadType = 38
	PayloadAuth    PayloadType = 39
	PayloadNonce   PayloadType = 40
	PayloadNotify  PayloadType = 41
	PayloadDelete  PayloadType = 42
	PayloadVendor  PayloadType = 43
	PayloadTSi     PayloadType = 44
	PayloadTSr     PayloadType = 45
	PayloadSK      PayloadType = 46
	PayloadCP      PayloadType = 47
	PayloadEAP     PayloadType = 48
	PayloadSKF     PayloadType = 53
)

var payloadNames = map[PayloadType]string{NoNextPayload: "none", PayloadSA: "SA", PayloadKE: "KE", PayloadIDi: "IDi", PayloadIDr: "IDr",
	PayloadCert: "CERT", PayloadCertReq: "CERTREQ", PayloadAuth: "AUTH", PayloadNonce: "Nonce", PayloadNotify: "N", PayloadDelete: "D",
	PayloadVendor: "V", PayloadTSi: "TSi", PayloadTSr: "TSr", PayloadSK: "SK", PayloadCP: "CP", PayloadEAP: "EAP", PayloadSKF: "SKF"}

// String is the RFC's notation.
func (p PayloadType) String() string {
	if name, ok := payloadNames[p]; ok {
		return name
	}
	return fmt.Sprintf("type %d", uint8(p))
}

// A Protocol is what an SPI belongs to (RFC 7296, section 3.3.1).
type Protocol uint8

// The protocols of RFC 7296. ProtocolNone is that of notifications without an SPI.
const (
	ProtocolNone Protocol = 0
	ProtocolIKE  Protocol = 1
	ProtocolAH   Protocol = 2
	ProtocolESP  Protocol = 3
)

// String is the protocol's name.
func (p Protocol) String() string {
	if p <= ProtocolESP {
		return [...]string{"none", "IKE", "AH", "ESP"}[p]
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// A TransformType is what a transform is for (RFC 7296, section 3.3.2).
type TransformType uint8

// The transforms of RFC 7296 and RFC 9370.
const (
	TransformEncryption        TransformType = 1
	TransformPRF               TransformType = 2
	TransformIntegrity         TransformType = 3
	TransformKeyExchangeMethod TransformType = 4
	TransformSequenceNumbers   TransformType = 5
	TransformAdditionalKE1     TransformType = 6
	TransformAdditionalKE2     TransformType = 7
	TransformAdditionalKE3     TransformType = 8
	TransformAdditionalKE4     TransformType = 9
	TransformAdditionalKE5     TransformType = 10
	TransformAdditionalKE6     TransformType = 11
	TransformAdditionalKE7     TransformType = 12
)

// String is what people call it.
func (t TransformType) String() string {
	switch {
	case t >= TransformEncryption && t <= TransformSequenceNumbers:
		return [...]string{"encryption", "prf", "integrity", "key exchange", "sequence numbers"}[t-TransformEncryption]
	case t >= TransformAdditionalKE1 && t <= TransformAdditionalKE7:
		return fmt.Sprintf("additional key exchange %d", t-TransformAdditionalKE1+1)
	}
	return fmt.Sprintf("transform type %d", uint8(t))
}

// An AuthMethod says how a peer proves who it is (RFC 7296, section 3.8).
type AuthMethod uint8

// The methods of RFC 7296, RFC 4754 and RFC 7427.
const (
	AuthRSA       AuthMethod = 1
	AuthSharedKey AuthMethod = 2
	AuthECDSA256  AuthMethod = 9
	AuthECDSA384  AuthMethod = 10
	AuthECDSA521  AuthMethod = 11
	AuthSignature AuthMethod = 14
)

// String is the name of the method in IANA's registry.
func (m AuthMethod) String() string {
	switch m {
	case AuthRSA:
		return "RSA Digital Signature"
	case AuthSharedKey:
		return "Shared Key Message Integrity Code"
	case AuthECDSA256:
		return "ECDSA with SHA-256 on the P-256 curve"
	case AuthECDSA384:
		return "ECDSA with SHA-384 on the P-384 curve"
	case AuthECDSA521:
		return "ECDSA with SHA-512 on the P-521 curve"
	case AuthSignature:
		return "Digital Signature"
	}
	return fmt.Sprintf("authentication method %d", uint8(m))
}

// CertX509 is the encoding of a certificate in DER, and of certificate requests by hashes of keys (RFC 7296, section 3.6).
const CertX509 = 4
