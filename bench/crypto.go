package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"time"

	"causeway/crypto/aesgcm"
)

// The crypto scenario seals and opens bursts of 64 packets, each with its own key, on one core. In the same rounds
// crypto/cipher does the same packet by packet. Beside them stand the limit, which is the time of the AES rounds and
// carry-less products alone, and intel-ipsec-mb where it is installed.
//
// A sample is a few bursts that are sealed or opened once, from the reset of the burst on; what was made of the texts is
// compared with crypto/cipher after each sample. Apart from that stands how long a burst takes whose packets are set
// already, as figures of other libraries and those in aesgcm.md are measured.

// A cryptoCase is one line of the result.
type cryptoCase struct {
	open    bool
	keyBits int
	size    int // bytes of text; 0: IMIX
	cold    bool
	times   float64 // goal: as fast as so many of crypto/cipher
	ofLimit float64 // goal: part of the limit
}

// imix is 7 small packets, 4 middle ones, 1 large one.
var imix = []int{64, 64, 64, 64, 64, 64, 64, 576, 576, 576, 576, 1400}

func (c cryptoCase) name() string {
	direction, size, cold := "seal", fmt.Sprintf("%dB", c.size), ""
	if c.open {
		direction = "open"
	}
	if c.size == 0 {
		size = "imix"
	}
	if c.cold {
		cold = "/4096keys"
	}
	return fmt.Sprintf("crypto/%s/aes%d/%s%s", direction, c.keyBits, size, cold)
}

// The goals on a machine like that of baselines.md, an AMD Zen 5: times crypto/cipher by size, for AES-128 sealing and
// opening, and AES-256 sealing.
var (
	goalsSeal128 = map[int]float64{64: 11, 224: 10, 512: 4.3, 1400: 5.8, 8192: 4.2, 0: 6.5}
	goalsOpen128 = map[int]float64{64: 8.5, 224: 8, 512: 4, 1400: 5.2, 8192: 4.2, 0: 5.5}
	goalsSeal256 = map[int]float64{64: 10, 512: 4, 1400: 5.5, 8192: 4}
	goalsOfLimit = map[int]float64{1400: 0.62, 8192: 0.68}
)

var cryptoSizes = []int{64, 96, 128, 224, 256, 512, 1024, 1400, 8192, 0}

func cryptoCases() []cryptoCase {
	var cs []cryptoCase
	for _, bits := range []int{128, 256} {
		for _, open := range []bool{false, true} {
			for _, size := range cryptoSizes {
				c := cryptoCase{open: open, keyBits: bits, size: size, times: 1}
				goals := goalsSeal128
				switch {
				case bits == 256 && !open:
					goals = goalsSeal256
				case bits == 256:
					goals = nil
				case open:
					goals = goalsOpen128
				}
				if g := goals[size]; g > 0 {
					c.times = g
				}
				if bits == 128 && !open {
					c.ofLimit = goalsOfLimit[size]
				}
				cs = append(cs, c)
			}
		}
	}
	for _, size := range []int{64, 1400} {
		cs = append(cs, cryptoCase{keyBits: 128, size: size, cold: true})
	}
	return cs
}

func cryptoScenario(o options, report func(Result)) error {
	if !aesgcm.Accelerated() {
		return fmt.Errorf("crypto: this CPU has no AVX-512 with VAES and VPCLMULQDQ: crypto/cipher would be compared with itself")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := pinThread(0); err != nil {
		return err
	}
	rival, err := newIPsecMB(o.quick)
	if err != nil {
		return err
	}
	defer rival.close()
	for _, c := range cryptoCases() {
		if !strings.Contains(c.name(), o.only) {
			continue
		}
		r, err := measureCrypto(c, o.quick)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name(), err)
		}
		if !c.cold {
			if err := rival.compare(c, &r); err != nil {
				return err
			}
		}
		report(r)
	}
	return nil
}

// A cryptoPacket is a packet with its key for both contenders, and what it must look like.
type cryptoPacket struct {
	key           aesgcm.Key
	aead          cipher.AEAD
	nonce         [aesgcm.SaltSize + aesgcm.IVSize]byte
	aad           [8]byte
	plain, sealed []byte
	text          []byte // worked on, with room for the tag
}

// cryptoSample makes the packets of a sample: some bursts with 64 keys, or one packet for each of 4,096 keys.
func cryptoSample(c cryptoCase, v *aesgcm.Vault) ([]cryptoPacket, error) {
	rng := rand.New(rand.NewPCG(1, 2))
	packets := aesgcm.MaxBurst * max(1, min(8, 2048/max(c.size, 256)))
	keys := aesgcm.MaxBurst
	if c.cold {
		packets, keys = 4096, 4096
	}
	out := make([]cryptoPacket, packets)
	for i := range out {
		p := &out[i]
		if i < keys {
			secret := random(rng, c.keyBits/8)
			block, err := aes.NewCipher(secret)
			if err != nil {
				return nil, err
			}
			if p.aead, err = cipher.NewGCM(block); err != nil {
				return nil, err
			}
			if p.key, err = v.Key(secret, [aesgcm.SaltSize]byte{}); err != nil {
				return nil, err
			}
		} else {
			p.key, p.aead = out[i%keys].key, out[i%keys].aead
		}
		size := c.size
		if size == 0 {
			size = imix[rng.IntN(len(imix))]
		}
		copy(p.nonce[aesgcm.SaltSize:], random(rng, aesgcm.IVSize))
		copy(p.aad[:], random(rng, len(p.aad)))
		p.plain = random(rng, size)
		p.sealed = p.aead.Seal(nil, p.nonce[:], p.plain, p.aad[:])
	}
	layOut(out)
	if c.cold {
		rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	}
	return out, nil
}

// layOut gives each packet a frame of 2 KiB, or as many as it needs, with its text where ESP has it behind an outer IPv4
// header and the usual headroom.
func layOut(packets []cryptoPacket) {
	const frame, before = 2048, 304 + 14 + 20 + 8 + 8
	total := 0
	room := func(p *cryptoPacket) int { return (before + len(p.sealed) + frame - 1) / frame * frame }
	for i := range packets {
		total += room(&packets[i])
	}
	memory := make([]byte, total)
	for i := range packets {
		p := &packets[i]
		p.text = memory[before:][:len(p.sealed)]
		memory = memory[room(p):]
	}
}

func random(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// measureCrypto alternates between the two contenders.
func measureCrypto(c cryptoCase, quick bool) (Result, error) {
	v := aesgcm.NewVault(aesgcm.Options{Unlocked: true})
	packets, err := cryptoSample(c, v)
	if err != nil {
		return Result{}, err
	}
	n, samples := 25, 40
	if quick {
		n, samples = 1, 1
	}
	burst := new(aesgcm.Burst)
	bytesRight := true
	contender := func(treat func([]cryptoPacket, bool) bool) func() float64 {
		return func() float64 {
			best := time.Hour
			for range samples {
				best = min(best, timeSample(packets, c.open, treat, &bytesRight))
			}
			return float64(best.Nanoseconds()) / float64(len(packets))
		}
	}
	m := rounds(n,
		contender(func(p []cryptoPacket, open bool) bool { return treatBursts(burst, p, open) }),
		contender(treatEach))
	ready := time.Hour
	bursts := make([]aesgcm.Burst, len(packets)/aesgcm.MaxBurst)
	for k := range bursts {
		setBurst(&bursts[k], packets[k*aesgcm.MaxBurst:])
	}
	for range n * samples {
		ready = min(ready, timeSample(packets, c.open, func(_ []cryptoPacket, open bool) bool { return treatReady(bursts, open) }, &bytesRight))
	}
	if !bytesRight {
		return Result{}, fmt.Errorf("what was timed differs from crypto/cipher")
	}
	if err := v.Close(); err != nil {
		return Result{}, err
	}
	bytesPer := 0
	for i := range packets {
		bytesPer += len(packets[i].plain)
	}
	r := Result{
		Name: c.name(), PPS: 1e9 / m.a, NS: m.a, BestNS: m.bestA, Spread: m.spread,
		Against: "crypto/cipher", AgainstNS: m.bestB, Ratio: m.bestA / m.bestB,
		ReadyNS: float64(ready.Nanoseconds()) / float64(len(packets)),
		GBs:     float64(bytesPer) / float64(len(packets)) / m.bestA, LimitNS: limit(c, packets, quick),
	}
	if c.times > 0 {
		r.GoalNS = m.bestB / c.times
	}
	if c.ofLimit > 0 {
		r.GoalNS = min(r.GoalNS, r.LimitNS/c.ofLimit)
	}
	return r, nil
}

// timeSample times one pass over the packets and compares what it made of them.
func timeSample(packets []cryptoPacket, open bool, treat func([]cryptoPacket, bool) bool, right *bool) time.Duration {
	for i := range packets {
		p := &packets[i]
		if open {
			copy(p.text, p.sealed)
		} else {
			copy(p.text, p.plain)
		}
	}
	start := time.Now()
	good := treat(packets, open)
	took := time.Since(start)
	for i := range packets {
		p := &packets[i]
		want := p.sealed
		if open {
			want = p.plain
		}
		good = good && bytes.Equal(p.text[:len(want)], want)
	}
	*right = *right && good
	return took
}

func treatBursts(b *aesgcm.Burst, packets []cryptoPacket, open bool) (good bool) {
	good = true
	for len(packets) > 0 {
		b.Reset()
		setBurst(b, packets)
		packets = packets[aesgcm.MaxBurst:]
		if open {
			good = b.Open() == 0 && good
		} else {
			b.Seal()
		}
	}
	return good
}

// setBurst sets the first MaxBurst packets.
func setBurst(b *aesgcm.Burst, packets []cryptoPacket) {
	for i := range packets[:aesgcm.MaxBurst] {
		p := &packets[i]
		b.Set(i, &p.key, p.text, binary.LittleEndian.Uint64(p.nonce[aesgcm.SaltSize:]),
			aesgcm.AAD{First: binary.LittleEndian.Uint64(p.aad[:]), Len: uint8(len(p.aad))})
	}
}

// treatReady seals or opens bursts whose packets are set.
func treatReady(bursts []aesgcm.Burst, open bool) (good bool) {
	good = true
	for k := range bursts {
		if open {
			good = bursts[k].Open() == 0 && good
		} else {
			bursts[k].Seal()
		}
	}
	return good
}

func treatEach(packets []cryptoPacket, open bool) (good bool) {
	good = true
	for i := range packets {
		p := &packets[i]
		if open {
			_, err := p.aead.Open(p.text[:0], p.nonce[:], p.text, p.aad[:])
			good = good && err == nil
		} else {
			p.aead.Seal(p.text[:0], p.nonce[:], p.text[:len(p.plain)], p.aad[:])
		}
	}
	return good
}

// limit is the shortest time per packet that AES and carry-less products of 512-bit registers permit here: ten or
// fourteen rounds and, with Karatsuba's method, three products for 64 bytes of text, additional data and lengths, and two
// products for the reduction of a packet.
func limit(c cryptoCase, packets []cryptoPacket, quick bool) float64 {
	f := aes10mul3
	if c.keyBits == 256 {
		f = aes14mul3
	}
	each, reduction := perCall(f, quick), perCall(mul2, quick)
	registers := 0
	for i := range packets {
		registers += (len(packets[i].plain) + 32 + 63) / 64
	}
	return each*float64(registers)/float64(len(packets)) + reduction
}

// perCall is the shortest time of one turn of f's loop.
func perCall(f func(int), quick bool) float64 {
	const turns = 20000
	n := 200
	if quick {
		n = 2
	}
	best := time.Hour
	for range n {
		start := time.Now()
		f(turns)
		best = min(best, time.Since(start))
	}
	return float64(best.Nanoseconds()) / turns
}
