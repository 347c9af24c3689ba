package message

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// swanNotifies are charon's words for notifications.
var swanNotifies = map[NotifyType]string{
	NotifyInvalidKEPayload: "INVAL_KE", NotifyAuthenticationFailed: "AUTH_FAILED", NotifyTSUnacceptable: "TS_UNACCEPT", NotifyInitialContact: "INIT_CONTACT",
	NotifyNATDetectionSourceIP: "NATD_S_IP", NotifyNATDetectionDestinationIP: "NATD_D_IP", NotifyCookie: "COOKIE", NotifyRekeySA: "REKEY_SA",
	NotifyFragmentationSupported: "FRAG_SUP", NotifySignatureHashAlgorithms: "HASH_ALG",
	16404: "MULT_AUTH", 16406: "REDIR_SUP", 16417: "EAP_ONLY", 16418: "CHDLESS_SUP", 16420: "MSG_ID_SYN_SUP",
}

var swanPayloads = map[PayloadType]string{PayloadSA: "SA", PayloadKE: "KE", PayloadIDi: "IDi", PayloadIDr: "IDr", PayloadCert: "CERT", PayloadCertReq: "CERTREQ",
	PayloadAuth: "AUTH", PayloadNonce: "No", PayloadDelete: "D", PayloadTSi: "TSi", PayloadTSr: "TSr"}

// swanWords lists contents as charon does, but in the order of Append.
func swanWords(t *testing.T, c *Contents) []string {
	t.Helper()
	notifies := slices.Clone(c.Notifies)
	first, b := c.Append(nil)
	var words []string
	for next := first; next != NoNextPayload; {
		word, ok := swanPayloads[next]
		if next == PayloadNotify {
			kind := NotifyType(uint16(b[6])<<8 | uint16(b[7]))
			at := slices.IndexFunc(notifies, func(n Notify) bool { return n.Type == kind })
			notifies = slices.Delete(notifies, at, at+1)
			word, ok = swanNotifies[kind]
			word = "N(" + word + ")"
		}
		if !ok {
			t.Errorf("charon would have no word for payload %v", next)
		}
		words = append(words, word)
		next, b = PayloadType(b[0]), b[int(b[2])<<8|int(b[3]):]
	}
	return words
}

// swanLine takes "IKE_AUTH request 1 [ IDi N(INIT_CONTACT) ]" apart.
var swanLine = regexp.MustCompile(`^(\w+) (request|response) (\d+) \[ ?(.*) \]$`)

// TestStrongSwan reads what two strongSwan daemons have said to each other, and compares with their logs.
func TestStrongSwan(t *testing.T) {
	record := recorded[swanRecord](t, "strongswan.json")
	var fragments []byte
	var first PayloadType
	var whole string
	seen := map[string]int{}
	for i, m := range record.Messages {
		name := fmt.Sprintf("%d %s %s: %s", i, m.Case, m.From, m.Says)
		b := unhex(m.Message)
		says := swanLine.FindStringSubmatch(m.Says)
		h, err := ParseHeader(b)
		if err != nil || says == nil {
			t.Fatalf("%s: %v", name, err)
		}
		if kind := map[bool]string{false: "request", true: "response"}[h.Response]; h.Exchange.String() != says[1] || kind != says[2] || fmt.Sprint(h.ID) != says[3] || h.Major != 2 {
			t.Errorf("%s: header %+v", name, h)
		}
		seen[h.Exchange.String()]++
		if again := h.Append(nil); !bytes.Equal(again, b[:HeaderLen]) {
			t.Errorf("%s: header again %x, want %x", name, again, b[:HeaderLen])
		}
		text, begin := b[HeaderLen:], h.First
		if h.Exchange != IKESAInit {
			s, err := ParseSealed(h, b)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if again := AppendSealedHeader(nil, h, s, len(b)-s.At); !bytes.Equal(again, b[:s.At]) {
				t.Errorf("%s: frame again %x, want %x", name, again, b[:s.At])
			}
			text, begin = unhex(m.Plain), s.First
			if s.Fragments > 0 {
				if want := fmt.Sprintf("EF(%d/%d)", s.Fragment, s.Fragments); says[4] != want {
					t.Errorf("%s: fragment %s", name, want)
				}
				if s.Fragment == 1 {
					fragments, first, whole = nil, s.First, m.Whole
				}
				if fragments = append(fragments, text...); s.Fragment < s.Fragments {
					continue
				}
				text, begin, says = fragments, first, swanLine.FindStringSubmatch(whole)
				seen["fragments"]++
			}
		}
		c, err := Parse(begin, text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, want := swanWords(t, c), strings.Fields(says[4])
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: payloads %q, want %q", name, got, want)
		}
		if again, out := c.Append(nil); len(out) != len(text) { // their order is not ours
			t.Errorf("%s: %d bytes from payload %v, want %d", name, len(out), again, len(text))
		}
	}
	for what, least := range map[string]int{"IKE_SA_INIT": 11, "IKE_AUTH": 9, "CREATE_CHILD_SA": 6, "INFORMATIONAL": 12, "fragments": 2} {
		if seen[what] < least {
			t.Errorf("the recording has %d of %s, want %d", seen[what], what, least)
		}
	}
}

// swanSaid returns the contents of the message of a case that charon announces so.
func swanSaid(t *testing.T, in, from, says string) *Contents {
	t.Helper()
	for _, m := range recorded[swanRecord](t, "strongswan.json").Messages {
		if m.Case != in || m.From != from || !strings.HasPrefix(m.Says, says) {
			continue
		}
		b := unhex(m.Message)
		if m.Plain == "" {
			_, c := contentsOf(t, b)
			return c
		}
		c, err := Parse(PayloadType(b[HeaderLen]), unhex(m.Plain))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	t.Fatalf("no message %q of %s in case %s", says, from, in)
	return nil
}

// TestStrongSwanValues compares values with strongswan.py's configuration.
func TestStrongSwanValues(t *testing.T) {
	aead := []Transform{{TransformEncryption, 20, 256}, {TransformPRF, 6, 0}, {TransformKeyExchangeMethod, 20, 0}}
	c := swanSaid(t, "psk", "a", "IKE_SA_INIT request 0")
	if len(c.SA) != 1 || !slices.Equal(c.SA[0].Transforms, aead) || len(c.SA[0].SPI) != 0 || c.SA[0].Protocol != ProtocolIKE {
		t.Errorf("aes256gcm16-prfsha384-ecp384 is %+v", c.SA)
	}
	if c.KE.Method != 20 || len(c.KE.Data) != 96 || len(c.Nonce) != 32 || len(c.Notify(NotifyNATDetectionSourceIP).Data) != 20 {
		t.Errorf("key exchange %+v, nonce %x", c.KE, c.Nonce)
	}
	c = swanSaid(t, "psk", "a", "IKE_AUTH request 1")
	if c.IDi.String() != "a.example.net" || c.IDi.Type != IDFQDN || c.IDr.String() != "b.example.net" || c.Auth.Method != AuthSharedKey || len(c.Auth.Data) != 48 {
		t.Errorf("identities %v, %v, proof %v of %d bytes", c.IDi, c.IDr, c.Auth.Method, len(c.Auth.Data))
	}
	if want := []Selector{any4, any6}; !slices.Equal(c.TSi, want) || !slices.Equal(c.TSr, want) {
		t.Errorf("selectors %v, %v, want %v", c.TSi, c.TSr, want)
	}
	if p := c.SA[0]; p.Protocol != ProtocolESP || len(p.SPI) != 4 || !slices.Equal(p.Transforms, []Transform{{TransformEncryption, 20, 128}, {TransformSequenceNumbers, 0, 0}}) {
		t.Errorf("aes128gcm16-ecp256 without key exchange is %+v", p)
	}
	if c = swanSaid(t, "psk", "a", "CREATE_CHILD_SA request 2"); len(c.SA[0].SPI) != 8 || !slices.Equal(c.SA[0].Transforms, aead) {
		t.Errorf("a rekey of the IKE SA has %+v", c.SA)
	}
	if c = swanSaid(t, "psk", "b", "CREATE_CHILD_SA request 0"); c.Notifies[0].Type != NotifyRekeySA || c.Notifies[0].Protocol != ProtocolESP || len(c.Notifies[0].SPI) != 4 {
		t.Errorf("a rekey of a child has %+v", c.Notifies)
	}
	if c = swanSaid(t, "psk", "a", "INFORMATIONAL request 3"); len(c.Deletes) != 1 || c.Deletes[0].Protocol != ProtocolIKE || c.Deletes[0].SPIs != nil {
		t.Errorf("a deletion of the IKE SA is %+v", c.Deletes)
	}
	if c = swanSaid(t, "psk", "b", "INFORMATIONAL request 0"); len(c.Deletes) != 1 || c.Deletes[0].Protocol != ProtocolESP || len(c.Deletes[0].SPIs) != 1 {
		t.Errorf("a deletion of a child is %+v", c.Deletes)
	}
	if c = swanSaid(t, "cert", "a", "IKE_SA_INIT request 0"); len(c.SA) != 2 || c.SA[1].Number != 2 || c.KE.Method != 31 {
		t.Errorf("two proposals are %+v", c.SA)
	}
	if c = swanSaid(t, "cert", "b", "IKE_SA_INIT response 0 [ N("); !bytes.Equal(c.Notify(NotifyInvalidKEPayload).Data, []byte{0, 14}) {
		t.Errorf("INVALID_KE_PAYLOAD is %+v", c.Notifies)
	}
	asked := swanSaid(t, "cookie", "b", "IKE_SA_INIT response 0 [ N(COOKIE").Notify(NotifyCookie).Data
	if c = swanSaid(t, "cookie", "a", "IKE_SA_INIT request 0 [ N(COOKIE"); c.Notifies[0].Type != NotifyCookie || !bytes.Equal(c.Notifies[0].Data, asked) {
		t.Errorf("the cookie %x comes back as %+v", asked, c.Notifies[0])
	}
}

// TestStrongSwanCertificates reads the message that strongSwan has cut into fragments.
func TestStrongSwanCertificates(t *testing.T) {
	var text []byte
	var first PayloadType
	for _, m := range recorded[swanRecord](t, "strongswan.json").Messages {
		if m.Case == "cert" && m.From == "a" && strings.HasPrefix(m.Says, "IKE_AUTH request 1 [ EF(") {
			if text == nil {
				first = PayloadType(unhex(m.Message)[HeaderLen])
			}
			text = append(text, unhex(m.Plain)...)
		}
	}
	c, err := Parse(first, text)
	if err != nil {
		t.Fatal(err)
	}
	if c.IDi.Type != IDDN || c.IDi.String() != "C=CH, O=Example, CN=a.example.net" || c.IDr.String() != "C=CH, O=Example, CN=b.example.net" {
		t.Errorf("identities %v, %v", c.IDi, c.IDr)
	}
	if len(c.Certs) != 1 || c.Certs[0].Encoding != CertX509 || c.Certs[0].Data[0] != 0x30 {
		t.Errorf("certificates %+v", c.Certs)
	}
	if len(c.CertReqs) != 1 || c.CertReqs[0].Encoding != CertX509 || len(c.CertReqs[0].Authorities) != 20 || c.Auth.Method != AuthSignature {
		t.Errorf("requests %+v, proof %v", c.CertReqs, c.Auth.Method)
	}
	want := []Selector{ts(6, 80, 443, "10.1.0.0", "10.1.255.255"), ts(0, 0, 65535, "10.2.0.0", "10.2.0.255")}
	if !slices.Equal(c.TSi, want) {
		t.Errorf("selectors of the initiator %v, want %v", c.TSi, want)
	}
	if want = []Selector{ts(6, 0, 65535, "10.3.0.0", "10.3.255.255"), ts(0, 0, 65535, "10.4.0.0", "10.4.0.255")}; !slices.Equal(c.TSr, want) {
		t.Errorf("selectors of the responder %v, want %v", c.TSr, want)
	}
}
