package message

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// TestMalformed has what RFC 7296, section 3, does not permit, and what we bound.
func TestMalformed(t *testing.T) {
	nonce := plain(make([]byte, 16))
	gcm := transform(true, 1, 20, 0x80, 14, 1, 0)
	edit := func(b []byte, at int, values ...byte) []byte {
		b = slices.Clone(b)
		copy(b[at:], values)
		return b
	}
	sa := func(body []byte) []byte { return chain(PayloadSA, plain(body)) }
	one := proposal(0, 1, 1, nil, 1, gcm)
	many := func(n int, b []byte) []byte { return bytes.Repeat(b, n) }
	for _, c := range []struct {
		name    string
		first   PayloadType
		b       []byte
		payload PayloadType
		says    string
	}{
		// section 3.2
		{"no header", PayloadNonce, nil, PayloadNonce, "cut off"},
		{"half a header", PayloadNonce, nonce[:3], PayloadNonce, "cut off"},
		{"length below the header's", PayloadNonce, edit(nonce, 2, 0, 3), PayloadNonce, "length of 3, in 20"},
		{"length 0", PayloadNonce, edit(nonce, 2, 0, 0), PayloadNonce, "length of 0"},
		{"length beyond the end", PayloadNonce, edit(nonce, 2, 0, 21), PayloadNonce, "length of 21, in 20"},
		{"a next payload that is not there", PayloadNonce, edit(nonce, 0, 33), PayloadSA, "cut off"},
		{"bytes behind the last", PayloadNonce, append(slices.Clone(nonce), 0), NoNextPayload, "followed by 1 bytes"},
		{"bytes behind none", NoNextPayload, []byte{0}, NoNextPayload, "followed by 1 bytes"},
		{"too many payloads", PayloadVendor, vendors(maxPayloads + 1), PayloadVendor, "behind 128 others"},
		{"SK among others", PayloadNonce, chain(PayloadNonce, nonce, PayloadSK, plain(nil)), PayloadSK, "beside or within"},
		{"SK within", PayloadSK, plain(make([]byte, 40)), PayloadSK, "beside or within"},
		{"SKF within", PayloadSKF, plain(make([]byte, 40)), PayloadSKF, "beside or within"},

		// section 3.3
		{"SA: empty", PayloadSA, sa(nil), PayloadSA, "proposal that is cut off"},
		{"SA: proposal cut off", PayloadSA, sa(one[:7]), PayloadSA, "proposal that is cut off"},
		{"SA: proposal shorter than its header", PayloadSA, sa(edit(one, 2, 0, 7)), PayloadSA, "proposal with a length of 7"},
		{"SA: proposal longer than the payload", PayloadSA, sa(edit(one, 2, 0, 21)), PayloadSA, "proposal with a length of 21, in 20"},
		{"SA: last is 1", PayloadSA, sa(edit(one, 0, 1)), PayloadSA, "proposal that is followed by"},
		{"SA: last is 3", PayloadSA, sa(edit(one, 0, 3)), PayloadSA, "proposal that is followed by"},
		{"SA: another one is announced", PayloadSA, sa(edit(one, 0, 2)), PayloadSA, "proposal that is cut off"},
		{"SA: bytes behind the last", PayloadSA, sa(append(slices.Clone(one), one...)), PayloadSA, "20 bytes behind its last proposal"},
		{"SA: too many proposals", PayloadSA, sa(proposals(maxProposals+1, one)), PayloadSA, "more than 32"},
		{"SA: SPI cut off", PayloadSA, sa(edit(one, 6, 13)), PayloadSA, "SPI is cut off"},
		{"SA: fewer transforms than it says", PayloadSA, sa(edit(one, 7, 2)), PayloadSA, "transform"},
		{"SA: more transforms than it says", PayloadSA, sa(edit(one, 7, 0)), PayloadSA, "12 bytes behind the 0 transforms"},
		{"SA: too many transforms", PayloadSA, sa(proposal(0, 1, 1, nil, maxTransforms+1, append(many(maxTransforms, edit(gcm, 0, 3)), gcm...))), PayloadSA, "128 are read"},
		{"SA: transform cut off", PayloadSA, sa(proposal(0, 1, 1, nil, 1, gcm[:7])), PayloadSA, "transform that is cut off"},
		{"SA: transform shorter than its header", PayloadSA, sa(proposal(0, 1, 1, nil, 1, edit(gcm, 2, 0, 7))), PayloadSA, "transform with a length of 7"},
		{"SA: transform longer than the proposal", PayloadSA, sa(proposal(0, 1, 1, nil, 1, edit(gcm, 2, 0, 13))), PayloadSA, "transform with a length of 13, in 12"},
		{"SA: last transform says more", PayloadSA, sa(proposal(0, 1, 1, nil, 1, edit(gcm, 0, 3))), PayloadSA, "followed by 3 where their number says 0"},
		{"SA: first transform says last", PayloadSA, sa(proposal(0, 1, 1, nil, 2, many(2, gcm))), PayloadSA, "followed by 0 where their number says 3"},
		{"SA: transform says 2", PayloadSA, sa(proposal(0, 1, 1, nil, 2, append(edit(gcm, 0, 2), gcm...))), PayloadSA, "followed by 2 where their number says 3"},
		{"SA: attribute cut off", PayloadSA, sa(proposal(0, 1, 1, nil, 1, transform(true, 1, 20, 0x80, 14, 1))), PayloadSA, "attribute that is cut off"},
		{"SA: variable attribute cut off", PayloadSA, sa(proposal(0, 1, 1, nil, 1, transform(true, 1, 20, 0, 14, 0, 2, 1))), PayloadSA, "attribute with a length of 2, in 1"},
		{"SA: two proposals of one number", PayloadSA, sa(append(edit(one, 0, 2), one...)), PayloadSA, "proposal 1 behind proposal 1"},
		{"SA: numbers that fall", PayloadSA, sa(append(edit(one, 0, 2, 0, 0, 20, 2), one...)), PayloadSA, "proposal 1 behind proposal 2"},
		{"SA: IKE with an SPI of 4 bytes", PayloadSA, sa(proposal(0, 1, 1, make([]byte, 4), 1, gcm)), PayloadSA, "for IKE with an SPI of 4"},
		{"SA: ESP without an SPI", PayloadSA, sa(proposal(0, 1, 3, nil, 1, gcm)), PayloadSA, "for ESP with an SPI of 0"},
		{"SA: ESP with an SPI of 8 bytes", PayloadSA, sa(proposal(0, 1, 3, make([]byte, 8), 1, gcm)), PayloadSA, "for ESP with an SPI of 8"},
		{"SA: AH with an SPI of 2 bytes", PayloadSA, sa(proposal(0, 1, 2, make([]byte, 2), 1, gcm)), PayloadSA, "for AH with an SPI of 2"},
		{"SA: twice", PayloadSA, chain(PayloadSA, plain(one), PayloadSA, plain(one)), PayloadSA, "twice"},

		// section 3.4
		{"KE: empty", PayloadKE, chain(PayloadKE, plain(nil)), PayloadKE, "is cut off"},
		{"KE: short", PayloadKE, chain(PayloadKE, plain(make([]byte, 3))), PayloadKE, "is cut off"},
		{"KE: twice", PayloadKE, chain(PayloadKE, plain(make([]byte, 36)), PayloadKE, plain(make([]byte, 36))), PayloadKE, "twice"},

		// sections 3.5 to 3.8
		{"IDi: short", PayloadIDi, plain(make([]byte, 3)), PayloadIDi, "is cut off"},
		{"IDr: short", PayloadIDr, plain(make([]byte, 3)), PayloadIDr, "is cut off"},
		{"IDi: twice", PayloadIDi, chain(PayloadIDi, plain(make([]byte, 4)), PayloadIDi, plain(make([]byte, 4))), PayloadIDi, "twice"},
		{"IDr: twice", PayloadIDr, chain(PayloadIDr, plain(make([]byte, 4)), PayloadIDr, plain(make([]byte, 4))), PayloadIDr, "twice"},
		{"IDi: IPv4 of 3 bytes", PayloadIDi, plain([]byte{1, 0, 0, 0, 1, 2, 3}), PayloadIDi, "IPv4 address of 3 bytes"},
		{"IDr: IPv4 of 16 bytes", PayloadIDr, plain(append([]byte{1, 0, 0, 0}, make([]byte, 16)...)), PayloadIDr, "IPv4 address of 16 bytes"},
		{"IDr: IPv6 of 4 bytes", PayloadIDr, plain(append([]byte{5, 0, 0, 0}, make([]byte, 4)...)), PayloadIDr, "IPv6 address of 4 bytes"},
		{"IDi: name with a NUL", PayloadIDi, plain([]byte("\x02\x00\x00\x00edge\x00")), PayloadIDi, "terminator"},
		{"IDi: name with a line break", PayloadIDi, plain([]byte("\x03\x00\x00\x00a@b\r\n")), PayloadIDi, "terminator"},
		{"CERTREQ: half a hash", PayloadCertReq, plain(append([]byte{4}, make([]byte, 30)...)), PayloadCertReq, "30 bytes of hashes"},
		{"CERT: empty", PayloadCert, plain(nil), PayloadCert, "is cut off"},
		{"CERTREQ: empty", PayloadCertReq, plain(nil), PayloadCertReq, "is cut off"},
		{"AUTH: short", PayloadAuth, plain(make([]byte, 3)), PayloadAuth, "is cut off"},
		{"AUTH: twice", PayloadAuth, chain(PayloadAuth, plain(make([]byte, 9)), PayloadAuth, plain(make([]byte, 9))), PayloadAuth, "twice"},

		// section 3.9
		{"Nonce: empty", PayloadNonce, plain(nil), PayloadNonce, "has 0 bytes: 16 to 256"},
		{"Nonce: 15 bytes", PayloadNonce, plain(make([]byte, 15)), PayloadNonce, "has 15 bytes: 16 to 256"},
		{"Nonce: 257 bytes", PayloadNonce, plain(make([]byte, 257)), PayloadNonce, "has 257 bytes: 16 to 256"},
		{"Nonce: twice", PayloadNonce, chain(PayloadNonce, nonce, PayloadNonce, nonce), PayloadNonce, "twice"},

		// sections 3.10 and 3.11
		{"N: short", PayloadNotify, plain([]byte{0, 0, 0x40}), PayloadNotify, "cut off"},
		{"N: SPI cut off", PayloadNotify, plain([]byte{3, 4, 0x40, 9, 1, 2, 3}), PayloadNotify, "cut off"},
		{"D: short", PayloadDelete, plain([]byte{1, 0, 0}), PayloadDelete, "cut off"},
		{"D: IKE with an SPI", PayloadDelete, plain([]byte{1, 8, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8}), PayloadDelete, "1 SPIs of 8 bytes for IKE"},
		{"D: IKE with SPIs of 4 bytes", PayloadDelete, plain([]byte{1, 4, 0, 1, 1, 2, 3, 4}), PayloadDelete, "1 SPIs of"},
		{"D: IKE with bytes behind", PayloadDelete, plain([]byte{1, 0, 0, 0, 1}), PayloadDelete, "in 1 bytes"},
		{"D: IKE with a count", PayloadDelete, plain([]byte{1, 0, 0, 1}), PayloadDelete, "1 SPIs of"},
		{"D: ESP with SPIs of 0 bytes", PayloadDelete, plain([]byte{3, 0, 255, 255}), PayloadDelete, "65535 SPIs of 0 bytes for ESP"},
		{"D: ESP with SPIs of 8 bytes", PayloadDelete, plain([]byte{3, 8, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8}), PayloadDelete, "1 SPIs of 8 bytes for ESP"},
		{"D: fewer than it says", PayloadDelete, plain([]byte{3, 4, 0, 2, 1, 2, 3, 4}), PayloadDelete, "2 SPIs of 4 bytes for ESP, in 4 bytes"},
		{"D: more than it says", PayloadDelete, plain([]byte{3, 4, 0, 0, 1, 2, 3, 4}), PayloadDelete, "0 SPIs of 4 bytes"},
		{"D: too many", PayloadDelete, plain(append([]byte{3, 4, 4, 1}, make([]byte, 4*(maxSPIs+1))...)), PayloadDelete, "1025 SPIs"},

		// section 3.13
		{"TSi: short", PayloadTSi, plain([]byte{1, 0, 0}), PayloadTSi, "cut off"},
		{"TSr: short", PayloadTSr, plain([]byte{1, 0, 0}), PayloadTSr, "cut off"},
		{"TSi: fewer than it says", PayloadTSi, plain(append([]byte{2, 0, 0, 0}, selector4()...)), PayloadTSi, "cut off"},
		{"TSi: more than it says", PayloadTSi, plain(append([]byte{0, 0, 0, 0}, selector4()...)), PayloadTSi, "16 bytes behind its 0 selectors"},
		{"TSi: selector cut off", PayloadTSi, plain(append([]byte{1, 0, 0, 0}, selector4()[:15]...)), PayloadTSi, "selector with a length of 16, in 15"},
		{"TSi: selector shorter than its header", PayloadTSi, plain(append([]byte{1, 0, 0, 0}, edit(selector4(), 2, 0, 3)...)), PayloadTSi, "selector with a length of 3"},
		{"TSi: IPv4 of the wrong length", PayloadTSi, plain(append([]byte{1, 0, 0, 0}, edit(selector4(), 2, 0, 15)...)), PayloadTSi, "selector with a length of 15 for"},
		{"TSi: IPv6 with IPv4 addresses", PayloadTSi, plain(append([]byte{1, 0, 0, 0}, edit(selector4(), 0, 8)...)), PayloadTSi, "selector with a length of 16 for"},
		{"TSi: addresses that fall", PayloadTSi, plain(append([]byte{1, 0, 0, 0}, edit(selector4(), 12, 192, 0, 1, 255)...)), PayloadTSi, "from 192.0.2.0 to 192.0.1.255"},
		{"TSi: ports that fall", PayloadTSi, plain(append([]byte{1, 0, 0, 0}, edit(selector4(), 4, 0, 2, 0, 1)...)), PayloadTSi, "not OPAQUE"},
		{"TSi: nearly OPAQUE", PayloadTSi, plain(append([]byte{1, 0, 0, 0}, edit(selector4(), 4, 255, 255, 0, 1)...)), PayloadTSi, "not OPAQUE"},
		{"TSi: twice", PayloadTSi, chain(PayloadTSi, plain([]byte{0, 0, 0, 0}), PayloadTSi, plain([]byte{0, 0, 0, 0})), PayloadTSi, "twice"},
		{"CP: twice", PayloadCP, chain(PayloadCP, plain(nil), PayloadCP, plain(nil)), PayloadCP, "twice"},
		{"EAP: twice", PayloadEAP, chain(PayloadEAP, plain(nil), PayloadEAP, plain(nil)), PayloadEAP, "twice"},
		{"TSr: twice", PayloadTSr, chain(PayloadTSr, plain([]byte{0, 0, 0, 0}), PayloadTSr, plain([]byte{0, 0, 0, 0})), PayloadTSr, "twice"},
	} {
		_, err := Parse(c.first, c.b)
		var syntax *SyntaxError
		if !errors.As(err, &syntax) || syntax.Payload != c.payload || !strings.Contains(syntax.Why, c.says) {
			t.Errorf("%s: %v, want %v: ...%s...", c.name, err, c.payload, c.says)
		}
	}
}

// proposals is a list of n that are like one.
func proposals(n int, one []byte) (b []byte) {
	for i := range n {
		at := len(b)
		b = append(b, one...)
		b[at+4] = byte(1 + i)
		if i < n-1 {
			b[at] = moreProposals
		}
	}
	return b
}

// vendors is a chain of n empty payloads.
func vendors(n int) (b []byte) {
	for i := range n {
		next := PayloadVendor
		if i == n-1 {
			next = NoNextPayload
		}
		b = append(b, byte(next), 0, 0, payloadHeader)
	}
	return b
}

// TestBounds: what is just within them is accepted.
func TestBounds(t *testing.T) {
	gcm := transform(true, 1, 20, 0x80, 14, 1, 0)
	more := slices.Clone(gcm)
	more[0] = 3
	last := proposal(0, 1, 99, make([]byte, 255), maxTransforms, append(bytes.Repeat(more, maxTransforms-1), gcm...)) // of a protocol to come
	for name, c := range map[string]struct {
		first PayloadType
		b     []byte
		count func(*Contents) int
		want  int
	}{
		"payloads":      {PayloadVendor, vendors(maxPayloads), func(c *Contents) int { return len(c.Vendors) }, maxPayloads},
		"proposals":     {PayloadSA, plain(proposals(maxProposals, last)), func(c *Contents) int { return len(c.SA) }, maxProposals},
		"transforms":    {PayloadSA, plain(last), func(c *Contents) int { return len(c.SA[0].Transforms) }, maxTransforms},
		"shortest":      {PayloadNonce, plain(make([]byte, 16)), func(c *Contents) int { return len(c.Nonce) }, 16},
		"longest":       {PayloadNonce, plain(make([]byte, 256)), func(c *Contents) int { return len(c.Nonce) }, 256},
		"SPIs":          {PayloadDelete, plain(append([]byte{3, 4, 4, 0}, make([]byte, 4*maxSPIs)...)), func(c *Contents) int { return len(c.Deletes[0].SPIs) }, maxSPIs},
		"selectors":     {PayloadTSi, plain(append([]byte{255, 0, 0, 0}, bytes.Repeat(selector4(), 255)...)), func(c *Contents) int { return len(c.TSi) }, 255},
		"SPI of N":      {PayloadNotify, plain(append([]byte{3, 255, 0, 1}, make([]byte, 255)...)), func(c *Contents) int { return len(c.Notifies[0].SPI) }, 255},
		"no transforms": {PayloadSA, plain(proposal(0, 1, 1, nil, 0, nil)), func(c *Contents) int { return len(c.SA) }, 1},
		"empty KE":      {PayloadKE, plain(make([]byte, 4)), func(c *Contents) int { return len(c.KE.Data) }, 0},
	} {
		got, err := Parse(c.first, c.b)
		if err != nil || c.count(got) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTruncated cuts a message with all payloads off everywhere: no part of it is a message.
func TestTruncated(t *testing.T) {
	first, b := full().Append(nil)
	for n := range b {
		if _, err := Parse(first, b[:n:n]); err == nil {
			t.Errorf("the first %d of %d bytes are a message", n, len(b))
		}
	}
}

// TestLengths puts extreme values into each 16-bit field of a message with all payloads: no panic, no read beyond.
func TestLengths(t *testing.T) {
	first, b := full().Append(nil)
	for at := range len(b) - 1 {
		for _, v := range []uint16{0, 1, 3, 4, 7, 8, uint16(len(b) - at), 0x7fff, 0x8000, 0xffff} {
			bad := slices.Clip(slices.Clone(b))
			binary.BigEndian.PutUint16(bad[at:], v)
			Parse(first, bad)
		}
	}
}

// TestAnnouncedAndNotSent: what is announced and not sent costs next to nothing.
func TestAnnouncedAndNotSent(t *testing.T) {
	const runs = 1000
	for first, b := range map[PayloadType][]byte{
		PayloadDelete: plain([]byte{3, 4, 255, 255, 1, 2, 3, 4}),
		PayloadSA:     plain(proposal(0, 1, 1, nil, 128, nil)),
		PayloadTSi:    plain([]byte{255, 0, 0, 0}),
		PayloadNonce:  {0, 0, 255, 255},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range runs {
			if _, err := Parse(first, b); err == nil {
				t.Fatal("accepted")
			}
		}
		runtime.ReadMemStats(&after)
		if size := (after.TotalAlloc - before.TotalAlloc) / runs; size > 2048 {
			t.Errorf("%v: %d bytes for a message of %d", first, size, len(b))
		}
	}
}
