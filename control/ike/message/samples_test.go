package message

import (
	"encoding/json"
	"maps"
	"net/netip"
	"os"
	"slices"
	"testing"
)

// A sample is a message in our words; testdata/craft.py has the same in scapy's.
type sample struct {
	header Header // without first payload and length
	Contents
}

// load is what craft.py calls by this name.
func load(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*13 + 5)
	}
	return b
}

const (
	sampleSPIi = 0x0102030405060708
	sampleSPIr = 0x1112131415161718
)

func head(e ExchangeType, id uint32) Header {
	return Header{SPIi: sampleSPIi, SPIr: sampleSPIr, Major: 2, Exchange: e, ID: id}
}

func request(e ExchangeType, id uint32) Header {
	h := head(e, id)
	h.Initiator = true
	return h
}

func response(e ExchangeType, id uint32) Header {
	h := head(e, id)
	h.Response = true
	return h
}

func firstOf(h Header) Header {
	h.SPIr = 0
	return h
}

func ts(protocol uint8, from, to uint16, first, last string) Selector {
	return Selector{protocol, from, to, netip.MustParseAddr(first), netip.MustParseAddr(last)}
}

var (
	any4 = ts(0, 0, 65535, "0.0.0.0", "255.255.255.255")
	any6 = ts(0, 0, 65535, "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
)

var cbcModp = []Transform{{TransformEncryption, 12, 256}, {TransformIntegrity, 12, 0}, {TransformPRF, 5, 0}, {TransformKeyExchangeMethod, 14, 0}}

var sampleInit = Contents{
	SA: []Proposal{
		{1, ProtocolIKE, []byte{}, []Transform{{TransformEncryption, 20, 256}, {TransformEncryption, 28, 0}, {TransformEncryption, 20, 128},
			{TransformPRF, 6, 0}, {TransformPRF, 5, 0}, {TransformKeyExchangeMethod, 20, 0}, {TransformKeyExchangeMethod, 31, 0}}},
		{2, ProtocolIKE, []byte{}, cbcModp},
		{3, ProtocolIKE, []byte{}, []Transform{{TransformEncryption, 12, 128}, {TransformIntegrity, 12, 0}, {TransformPRF, 5, 0}, {TransformKeyExchangeMethod, 19, 0}}},
	},
	KE: &KE{31, load(32)}, Nonce: load(32),
	Notifies: []Notify{
		{0, []byte{}, NotifyNATDetectionSourceIP, load(20)}, {0, []byte{}, NotifyNATDetectionDestinationIP, load(20)},
		{0, []byte{}, NotifyFragmentationSupported, []byte{}}, {0, []byte{}, NotifySignatureHashAlgorithms, []byte{0, 2, 0, 3, 0, 4, 0, 5}},
	},
	Vendors: [][]byte{[]byte("a vendor")},
}

func withCookie(c Contents) Contents {
	c.Notifies = append([]Notify{{0, []byte{}, NotifyCookie, load(17)}}, c.Notifies...)
	return c
}

// tells is a message that is a notification alone.
func tells(h Header, t NotifyType, data ...byte) sample {
	return sample{h, Contents{Notifies: []Notify{{0, []byte{}, t, append([]byte{}, data...)}}}}
}

var samples = map[string]sample{
	"IKE_SA_INIT request":               {firstOf(request(IKESAInit, 0)), sampleInit},
	"IKE_SA_INIT request with a cookie": {firstOf(request(IKESAInit, 0)), withCookie(sampleInit)},
	"IKE_SA_INIT response": {response(IKESAInit, 0), Contents{
		SA: []Proposal{{2, ProtocolIKE, []byte{}, cbcModp}}, KE: &KE{14, load(256)}, Nonce: load(256)}},
	"INVALID_KE_PAYLOAD": tells(firstOf(response(IKESAInit, 0)), NotifyInvalidKEPayload, 0, 20),
	"INVALID_MAJOR_VERSION": tells(Header{SPIi: sampleSPIi, SPIr: sampleSPIr, Major: 2, Exchange: IKESAInit, Response: true, HigherVersion: true},
		NotifyInvalidMajorVersion),
	"IKE_AUTH request": {request(IKEAuth, 1), Contents{
		IDi: &ID{IDFQDN, []byte("edge.example.net")}, Certs: []Cert{{12, append(load(20), "http://example.net/edge"...)}, {12, append(load(20), "http://example.net/authority"...)}},
		CertReqs: []CertReq{{CertX509, load(40)}}, IDr: &ID{IDRFC822, []byte("user@example.net")}, Auth: &Auth{AuthSignature, load(80)},
		SA: []Proposal{
			{1, ProtocolESP, []byte{0xc0, 0, 0, 1}, []Transform{{TransformEncryption, 20, 256}, {TransformSequenceNumbers, 1, 0}, {TransformSequenceNumbers, 0, 0}}},
			{2, ProtocolESP, []byte{0xc0, 0, 0, 1}, []Transform{{TransformEncryption, 12, 128}, {TransformIntegrity, 12, 0}, {TransformSequenceNumbers, 0, 0}}},
		},
		TSi: []Selector{any4, any6},
		TSr: []Selector{ts(6, 80, 443, "10.1.0.0", "10.1.255.255"), ts(17, 53, 53, "10.2.0.1", "10.2.0.1"),
			ts(58, 0x8000, 0x80ff, "2001:db8::", "2001:db8::ffff"), ts(132, 65535, 0, "10.3.0.0", "10.3.0.255")},
		Notifies: []Notify{{0, []byte{}, NotifyInitialContact, []byte{}}, {0, []byte{}, NotifyESPTFCPaddingNotSupported, []byte{}}}}},
	"IKE_AUTH response": {response(IKEAuth, 1), Contents{
		IDr: &ID{IDIPv4, []byte{192, 0, 2, 1}}, Auth: &Auth{AuthSharedKey, load(32)},
		SA:  []Proposal{{1, ProtocolESP, []byte{0xc0, 0, 0, 2}, []Transform{{TransformEncryption, 20, 256}, {TransformSequenceNumbers, 0, 0}}}},
		TSi: []Selector{any4}, TSr: []Selector{any4}, Notifies: []Notify{{0, []byte{}, NotifyAdditionalTSPossible, []byte{}}}}},
	"AUTHENTICATION_FAILED": tells(response(IKEAuth, 1), NotifyAuthenticationFailed),
	"identities": {request(IKEAuth, 1), Contents{
		IDi: &ID{IDIPv6, netip.MustParseAddr("2001:db8::1").AsSlice()}, IDr: &ID{IDKeyID, load(9)}}},
	"rekey of a child": {head(CreateChildSA, 7), Contents{
		Notifies: []Notify{{ProtocolESP, []byte{0xc0, 0, 0, 3}, NotifyRekeySA, []byte{}}},
		SA: []Proposal{{1, ProtocolESP, []byte{0xc0, 0, 0, 4},
			[]Transform{{TransformEncryption, 28, 0}, {TransformKeyExchangeMethod, 31, 0}, {TransformSequenceNumbers, 0, 0}}}},
		KE: &KE{31, load(32)}, Nonce: load(16), TSi: []Selector{any4, any6}, TSr: []Selector{any4, any6}}},
	"rekey of an IKE SA": {request(CreateChildSA, 8), Contents{
		SA: []Proposal{{1, ProtocolIKE, load(8), []Transform{{TransformEncryption, 20, 256}, {TransformPRF, 6, 0}, {TransformKeyExchangeMethod, 20, 0}}}},
		KE: &KE{20, load(96)}, Nonce: load(48)}},
	"CHILD_SA_NOT_FOUND": {response(CreateChildSA, 7), Contents{
		Notifies: []Notify{{ProtocolESP, []byte{0xc0, 0, 0, 3}, NotifyChildSANotFound, []byte{}}}}},
	"an additional key exchange": {request(CreateChildSA, 9), Contents{
		SA: []Proposal{{1, ProtocolESP, []byte{0xc0, 0, 0, 5}, []Transform{{TransformEncryption, 20, 256}, {TransformKeyExchangeMethod, 20, 0},
			{TransformSequenceNumbers, 0, 0}, {TransformAdditionalKE1, 36, 0}, {TransformAdditionalKE1, 0, 0}, {TransformAdditionalKE7, 37, 0}}}},
		Nonce: load(32)}},
	"deletions": {request(Informational, 10), Contents{
		Deletes: []Delete{{ProtocolESP, []uint32{0xc0000001, 0xc0000002}}, {ProtocolAH, []uint32{0x1000}}}}},
	"deletion of the IKE SA": {Header{SPIi: sampleSPIi, SPIr: sampleSPIr, Major: 2, Exchange: Informational, ID: 11, Initiator: true, Response: true},
		Contents{Deletes: []Delete{{ProtocolIKE, nil}}}},
	"nothing": {head(Informational, 0xffffffff), Contents{}},
}

// message is the sample as we write it.
func (s sample) message() []byte {
	first, body := s.Append(nil)
	h := s.header
	h.First, h.Length = first, HeaderLen+len(body)
	return append(h.Append(nil), body...)
}

func eachSample(t *testing.T, f func(t *testing.T, name string, s sample)) {
	for _, name := range slices.Sorted(maps.Keys(samples)) {
		t.Run(name, func(t *testing.T) { f(t, name, samples[name]) })
	}
}

// A scapyRecord is testdata/scapy.json.
type scapyRecord struct {
	By       string                       `json:"by"`
	Names    map[string]map[string]string `json:"names"`
	Messages map[string]string            `json:"messages"`
}

// A swanRecord is testdata/strongswan.json.
type swanRecord struct {
	By       string        `json:"by"`
	Messages []swanMessage `json:"messages"`
}

type swanMessage struct {
	Case, From     string
	Message, Plain string // in hexadecimal digits: on the wire, and what is within its encrypted payload
	Says, Whole    string // charon's words for the message, and for the one that it is the first fragment of
}

func recorded[T any](t testing.TB, file string) (r T) {
	t.Helper()
	text, err := os.ReadFile("testdata/" + file)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// contentsOf parses a message without encryption.
func contentsOf(t testing.TB, b []byte) (Header, *Contents) {
	t.Helper()
	h, err := ParseHeader(b)
	if err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	c, err := Parse(h.First, b[HeaderLen:])
	if err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	return h, c
}
