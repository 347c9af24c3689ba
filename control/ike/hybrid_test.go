package ike

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/sha512"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
)

// A byHand is an initiator with one suite (aes256gcm16-prfsha384-x25519-ke1_mlkem768) that is written from the RFCs and the draft with
// nothing of this package: every byte and every key of the hybrid exchanges has it as a judge, because strongSwan 5.9.8 has none.
type byHand struct {
	b          *bed
	answers    [][]byte
	spiI, spiR [8]byte
	ni, nr     []byte
	d          []byte // SK_d, and so on
	ei, er     []byte
	pi, pr     []byte
	id         uint32
	iv         uint64
	intI, intR []byte // IntAuth_i1 and IntAuth_r1 (RFC 9242, section 3.3.2)
}

func prf384(key []byte, text ...[]byte) []byte {
	h := hmac.New(sha512.New384, key)
	for _, t := range text {
		h.Write(t)
	}
	return h.Sum(nil)
}

// prfPlus is prf+ of RFC 7296, section 2.13.
func prfPlus(n int, key []byte, seed ...[]byte) (out []byte) {
	var last []byte
	for i := byte(1); len(out) < n; i++ {
		last = prf384(key, append(append([][]byte{last}, seed...), []byte{i})...)
		out = append(out, last...)
	}
	return out[:n]
}

// keys splits what RFC 7296, section 2.14 derives of SKEYSEED: without SK_a, because GCM checks integrity itself.
func (h *byHand) keys(seed []byte) {
	k := prfPlus(48+36+36+48+48, seed, h.ni, h.nr, h.spiI[:], h.spiR[:])
	h.d, h.ei, h.er, h.pi, h.pr = k[:48], k[48:84], k[84:120], k[120:168], k[168:]
}

// payload is one with its generic header.
func payload(next byte, body ...[]byte) []byte {
	text := bytes.Join(body, nil)
	return append(binary.BigEndian.AppendUint16([]byte{next, 0}, uint16(4+len(text))), text...)
}

// kePayload is Figure 10 of RFC 7296 with a number of draft-ietf-ipsecme-ikev2-mlkem, section 2: 36 for ML-KEM-768.
func kePayload(next byte, method uint16, data []byte) []byte {
	return payload(next, binary.BigEndian.AppendUint16(nil, method), []byte{0, 0}, data)
}

func (h *byHand) header(next, exchange, flags byte, length int) []byte {
	b := append(append(append([]byte{}, h.spiI[:]...), h.spiR[:]...), next, 0x20, exchange, flags)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, h.id), uint32(length))
}

// ask sends a request and returns the response.
func (h *byHand) ask(request []byte) []byte {
	h.b.t.Helper()
	h.answers = nil
	h.b.right.Receive(rightPort, leftPort, request)
	synctest.Wait()
	if len(h.answers) != 1 {
		h.b.t.Fatalf("%d answers\n%s", len(h.answers), h.b.log)
	}
	return h.answers[0]
}

func (h *byHand) gcm(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key[:32])
	if err != nil {
		h.b.t.Fatal(err)
	}
	a, err := cipher.NewGCM(block)
	if err != nil {
		h.b.t.Fatal(err)
	}
	return a
}

// sealed asks with an Encrypted payload (RFC 5282) and returns the payloads in that of the response. bound is what IntAuth is made of.
func (h *byHand) sealed(exchange, first byte, inner []byte) (next byte, payloads, boundI, boundR []byte) {
	t := h.b.t
	t.Helper()
	h.id++
	h.iv++
	iv := binary.BigEndian.AppendUint64(nil, h.iv)
	size := 4 + 8 + len(inner) + 1 + 16
	request := append(h.header(46, exchange, 0x08, 28+size), first, 0, byte(size>>8), byte(size))
	sealed := h.gcm(h.ei).Seal(nil, append(bytes.Clone(h.ei[32:]), iv...), append(bytes.Clone(inner), 0), request)
	boundI = append(append(h.header(46, exchange, 0x08, 28+4+len(inner)), payload(first, make([]byte, len(inner)))[:4]...), inner...)
	got := h.ask(append(append(request, iv...), sealed...))

	if want := h.header(46, exchange, 0x20, len(got)); !bytes.Equal(got[:28], want) {
		t.Fatalf("header %x, want %x", got[:28], want)
	}
	if int(binary.BigEndian.Uint16(got[30:])) != len(got)-28 || got[29] != 0 {
		t.Fatalf("Encrypted payload %x of a message of %d bytes", got[28:32], len(got))
	}
	text, err := h.gcm(h.er).Open(nil, append(bytes.Clone(h.er[32:]), got[32:40]...), got[40:], got[:32])
	if err != nil {
		t.Fatal(err)
	}
	payloads = text[:len(text)-1-int(text[len(text)-1])]
	boundR = append(append(h.header(46, exchange, 0x20, 28+4+len(payloads)), payload(got[28], make([]byte, len(payloads)))[:4]...), payloads...)
	return got[28], payloads, boundI, boundR
}

// walk returns the bodies of payloads, by type.
func (h *byHand) walk(next byte, b []byte) map[byte][][]byte {
	h.b.t.Helper()
	out := map[byte][][]byte{}
	for next != 0 {
		n := int(binary.BigEndian.Uint16(b[2:]))
		out[next] = append(out[next], b[4:n])
		next, b = b[0], b[n:]
	}
	if len(b) > 0 {
		h.b.t.Fatalf("%d bytes behind the last payload", len(b))
	}
	return out
}

// notify is the data of a notification.
func notify(payloads map[byte][][]byte, kind uint16) []byte {
	for _, n := range payloads[41] {
		if binary.BigEndian.Uint16(n[2:]) == kind {
			return n[4+int(n[1]):]
		}
	}
	return nil
}

// Transforms (RFC 7296, section 3.3.2) with 3 for "more" in front, but for the last.
var (
	encrGCM256 = []byte{3, 0, 0, 12, 1, 0, 0, 20, 0x80, 14, 1, 0}
	prfSHA384  = []byte{3, 0, 0, 8, 2, 0, 0, 6}
	keX25519   = []byte{3, 0, 0, 8, 4, 0, 0, 31}
	addKEMLKEM = []byte{0, 0, 0, 8, 6, 0, 0, 36}
	moreAddKE  = []byte{3, 0, 0, 8, 6, 0, 0, 36}
	noESN      = []byte{0, 0, 0, 8, 5, 0, 0, 0}
)

func saPayload(next, protocol byte, spi []byte, transforms ...[]byte) []byte {
	text := bytes.Join(transforms, nil)
	size := 8 + len(spi) + len(text)
	return payload(next, []byte{0, 0, byte(size >> 8), byte(size), 1, protocol, byte(len(spi)), byte(len(transforms))}, spi, text)
}

// anyTS is a traffic selector payload with all of IPv4 (RFC 7296, section 3.13).
func anyTS(next byte) []byte {
	return payload(next, []byte{1, 0, 0, 0, 7, 0, 0, 16, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
}

// TestHybridByHand has our responder negotiate with what is written by hand: IKE_SA_INIT, IKE_INTERMEDIATE with ML-KEM-768 (RFC 9242,
// RFC 9370, draft-ietf-ipsecme-ikev2-mlkem), IKE_AUTH that proves all of it, and a pair that is replaced with IKE_FOLLOWUP_KE.
func TestHybridByHand(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		responder := tunnelOf(b.t, false, "aes256gcm16-prfsha384-x25519-ke1_mlkem768", "aes256gcm16-x25519-ke1_mlkem768-noesn")
		b.right.SetTunnels([]*Tunnel{responder})
		h := &byHand{b: b, ni: newNonce(), spiI: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}}
		b.wire.set(func(w *wire) {
			w.tap = func(from, _ netip.AddrPort, d []byte) []byte {
				if from == rightPort {
					h.answers = append(h.answers, d)
				}
				return nil
			}
		})
		request, response := h.init()
		h.intermediate()
		h.auth(responder, request, response)
		h.rekey()
	})
}

// init does IKE_SA_INIT, and returns both messages.
func (h *byHand) init() (request, response []byte) {
	t := h.b.t
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	body := slices.Concat(saPayload(34, 1, nil, encrGCM256, prfSHA384, keX25519, addKEMLKEM), kePayload(40, 31, private.PublicKey().Bytes()),
		payload(41, h.ni), payload(0, []byte{0, 0, 0x40, 0x36})) // INTERMEDIATE_EXCHANGE_SUPPORTED is 16438
	request = append(h.header(33, 34, 0x08, 28+len(body)), body...)
	response = h.ask(request)
	copy(h.spiR[:], response[8:])
	if want := h.header(33, 34, 0x20, len(response)); !bytes.Equal(response[:28], want) {
		t.Fatalf("header %x, want %x", response[:28], want)
	}
	got := h.walk(response[16], response[28:])
	if want := saPayload(0, 1, nil, encrGCM256, prfSHA384, keX25519, addKEMLKEM); !bytes.Equal(got[33][0], want[4:]) {
		t.Fatalf("SA %x, want %x", got[33][0], want[4:])
	}
	if notify(got, 16438) == nil || len(got[34]) != 1 || !bytes.Equal(got[34][0][:4], []byte{0, 31, 0, 0}) {
		t.Fatalf("response %x", response)
	}
	secret := h.x25519(private, got[34][0][4:])
	h.nr = got[40][0]
	h.keys(prf384(slices.Concat(h.ni, h.nr), secret))
	return request, response
}

func (h *byHand) x25519(private *ecdh.PrivateKey, peer []byte) []byte {
	public, err := ecdh.X25519().NewPublicKey(peer)
	if err != nil {
		h.b.t.Fatal(err)
	}
	secret, err := private.ECDH(public)
	if err != nil {
		h.b.t.Fatal(err)
	}
	return secret
}

// mlkem768 makes an encapsulation key, sends it by ask in a KE payload, and returns the secret of the ciphertext in ke, which ask returns.
func (h *byHand) mlkem768(ask func(public []byte) (ke []byte)) []byte {
	key, err := mlkem.GenerateKey768()
	if err != nil {
		h.b.t.Fatal(err)
	}
	ke := ask(key.EncapsulationKey().Bytes())
	if len(ke) != 4+1088 || !bytes.Equal(ke[:4], []byte{0, 36, 0, 0}) {
		h.b.t.Fatalf("KE payload of %d bytes, which begins with %x", len(ke), ke[:4])
	}
	secret, err := key.Decapsulate(ke[4:])
	if err != nil {
		h.b.t.Fatal(err)
	}
	return secret
}

// intermediate does IKE_INTERMEDIATE: SKEYSEED(1) = prf(SK_d(0), SK(1) | Ni | Nr) (RFC 9370, section 2.2.2).
func (h *byHand) intermediate() {
	secret := h.mlkem768(func(public []byte) []byte {
		next, inner, boundI, boundR := h.sealed(43, 34, kePayload(0, 36, public))
		h.intI, h.intR = prf384(h.pi, boundI), prf384(h.pr, boundR)
		return h.walk(next, inner)[34][0]
	})
	h.keys(prf384(h.d, secret, h.ni, h.nr))
}

// auth does IKE_AUTH with a shared key (RFC 7296, section 2.15), in which IntAuth stands behind what is proved (RFC 9242, section 3.3.2).
func (h *byHand) auth(responder *Tunnel, request, response []byte) {
	t := h.b.t
	id := append([]byte{2, 0, 0, 0}, responder.RemoteID.Data...)
	intAuth := binary.BigEndian.AppendUint32(slices.Concat(h.intI, h.intR), 2) // the message ID of IKE_AUTH
	proof := func(first, nonce, id, p []byte) []byte {
		return prf384(prf384(responder.PSK, []byte("Key Pad for IKEv2")), first, nonce, prf384(p, id), intAuth)
	}
	next, inner, _, _ := h.sealed(35, 35, slices.Concat(payload(39, id), payload(33, []byte{2, 0, 0, 0}, proof(request, h.nr, id, h.pi)),
		saPayload(44, 3, []byte{0, 0, 0x47, 0x11}, encrGCM256, noESN), anyTS(45), anyTS(0)))
	got := h.walk(next, inner)
	if len(got[36]) != 1 || len(got[39]) != 1 || len(got[33]) != 1 {
		t.Fatalf("payloads %v\n%s", got, h.b.log)
	}
	if want := append([]byte{2, 0, 0, 0}, proof(response, h.ni, got[36][0], h.pr)...); !bytes.Equal(got[39][0], want) {
		t.Fatalf("AUTH %x, want %x", got[39][0], want)
	}
	// Without a key exchange of its own: KEYMAT = prf+(SK_d, Ni | Nr) (RFC 7296, section 2.17).
	h.installed(got[33][0], prfPlus(72, h.d, h.ni, h.nr), 0x4711)
}

// installed compares the pair that an SA payload has, whose SPI of ours is spi, with what is in the responder's dataplane.
func (h *byHand) installed(sa, keymat []byte, spi uint32) {
	t := h.b.t
	t.Helper()
	p := h.b.planes[1]
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.children[binary.BigEndian.Uint32(sa[8:])]
	if c == nil || c.SPIOut != spi || !bytes.Equal(c.KeyIn, keymat[:36]) || !bytes.Equal(c.KeyOut, keymat[36:]) {
		t.Fatalf("SA %x: the pair is %v, the keys should be %x", sa, c, keymat)
	}
}

// rekey replaces the pair, with x25519 and then ML-KEM-768 in IKE_FOLLOWUP_KE:
// KEYMAT = prf+(SK_d, SK(0) | Ni | Nr | SK(1)) (RFC 9370, section 2.2.4).
func (h *byHand) rekey() {
	t := h.b.t
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ni := newNonce()
	next, inner, _, _ := h.sealed(36, 41, slices.Concat(payload(33, []byte{3, 4, 0x40, 9}, []byte{0, 0, 0x47, 0x11}), // REKEY_SA is 16393
		saPayload(40, 3, []byte{0, 0, 0x08, 0x15}, encrGCM256, keX25519, moreAddKE, noESN), payload(34, ni),
		kePayload(44, 31, private.PublicKey().Bytes()), anyTS(45), anyTS(0)))
	got := h.walk(next, inner)
	link := notify(got, 16441) // ADDITIONAL_KEY_EXCHANGE
	if len(got[33]) != 1 || len(got[34]) != 1 || len(link) == 0 {
		t.Fatalf("payloads %v\n%s", got, h.b.log)
	}
	if pairs := h.b.planes[1].pairs(); len(pairs) != 1 {
		t.Fatalf("%d pairs before the last key exchange", len(pairs))
	}
	first, nr, sa := h.x25519(private, got[34][0][4:]), got[40][0], got[33][0]
	second := h.mlkem768(func(public []byte) []byte {
		next, inner, _, _ := h.sealed(44, 34, slices.Concat(kePayload(41, 36, public), payload(0, []byte{0, 0, 0x40, 0x39}, link)))
		return h.walk(next, inner)[34][0]
	})
	h.installed(sa, prfPlus(72, h.d, first, ni, nr, second), 0x0815)
}
