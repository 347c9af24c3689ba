package aesgcm

import "encoding/binary"

// scratch is where crypto/cipher finds nonces and additional data.
type scratch struct {
	nonce [SaltSize + IVSize]byte
	aad   [MaxAAD]byte
}

// eachPortable calls f for each packet without a kernel.
func (b *Burst) eachPortable(f func(i int, aead *aeadKey, nonce, room, aad []byte)) {
	s := &b.portable
	for i := range b.n {
		if b.work.extents[i].size() != keyPortable {
			continue
		}
		p := &b.packets[i]
		aead := (*aeadKey)(p.key)
		copy(s.nonce[:SaltSize], aead.salt[:])
		copy(s.nonce[SaltSize:], p.iv[:])
		binary.LittleEndian.PutUint64(s.aad[0:], p.aad)
		binary.LittleEndian.PutUint64(s.aad[8:], p.restAAD)
		f(i, aead, s.nonce[:], b.room(i), s.aad[:b.work.extents[i].aad()])
	}
}

func (b *Burst) sealPortable() {
	b.eachPortable(func(_ int, aead *aeadKey, nonce, room, aad []byte) {
		aead.Seal(room[:0], nonce, room[:len(room)-TagSize], aad)
	})
}

func (b *Burst) openPortable() {
	b.eachPortable(func(i int, aead *aeadKey, nonce, room, aad []byte) {
		_, err := aead.Open(room[:0], nonce, room, aad)
		b.work.shapes[i].failed = err != nil
	})
}
